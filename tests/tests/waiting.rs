//! Waiting made hard: at the edge of sleep, among many, for one that never comes back.

#[path = "waiting/crowd.rs"]
mod crowd;
#[path = "waiting/races.rs"]
mod races;
#[path = "waiting/stuck.rs"]
mod stuck;
#[path = "waiting/throughput.rs"]
mod throughput;

use libtest_mimic::Trial;
use ringpool::Pool;
use ringpool_tests::{procs, test_within};
use std::time::Duration;

/// What one test may take in its long form.
const LIMIT: Duration = Duration::from_secs(300);

fn double(x: u64) -> u64 {
    2 * x
}

fn pool_of(processes: usize) -> Pool {
    Pool::builder().processes(processes).start().expect("a pool")
}

fn long_test(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Trial {
    test_within(LIMIT, name, body)
}

fn main() {
    procs::no_core_files();
    ringpool::init();
    let mut tests = races::tests();
    // A build with crash points is for races without back-stops: see there.
    if !cfg!(feature = "crash") {
        tests.extend(crowd::tests());
        tests.extend(throughput::tests());
        tests.extend(stuck::tests());
    }
    ringpool_tests::run(tests)
}
