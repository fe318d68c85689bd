//! Storms: workers, whole pools, or both are killed at random moments, many times a second, while others
//! wait for results.

#[path = "storms/clients.rs"]
mod clients;
#[path = "storms/lives.rs"]
mod lives;
#[path = "storms/memory.rs"]
mod memory;
#[path = "storms/odd_tasks.rs"]
mod odd_tasks;
#[path = "storms/parents.rs"]
mod parents;
#[path = "storms/payloads.rs"]
mod payloads;
#[path = "storms/workers.rs"]
mod workers;

use libtest_mimic::Trial;
use ringpool::{Builder, Pool};
use ringpool_tests::leftovers::Before;
use ringpool_tests::tally::Tally;
use ringpool_tests::wind::{Wind, blow};
use ringpool_tests::{actor, expect_repaired, procs, test_within};
use std::time::Duration;

/// For conditions that come true within milliseconds, on a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(10);

/// What one storm may take in its long form.
const LIMIT: Duration = Duration::from_secs(300);

fn double(x: u64) -> u64 {
    2 * x
}

/// 4 KiB, with the argument all over.
fn block(x: u64) -> Vec<u64> {
    vec![x; 512]
}

/// Starts a pool, lets `storm` rage over it, and checks that all is well again and nothing is left. `storm`
/// counts outcomes and returns the number of kills.
fn weather(kind: &str, settings: Builder, storm: impl FnOnce(&Pool, &Tally) -> u64) {
    let before = Before::now();
    let tally = Tally::default();
    let pool = settings.start().expect("a pool");
    let kills = storm(&pool, &tally);
    expect_repaired(&pool);
    pool.close();
    pool.join().expect("a closed pool");
    drop(pool);
    let mut proof = tally.proof(format!("storms: {kind}"));
    proof.kills = kills;
    proof.leaked = before.left_over();
    proof.report();
}

/// A storm, as a test.
fn storm(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    test_within(LIMIT, name, body)
}

fn main() {
    procs::no_core_files();
    ringpool::init();
    actor::play(&[("client", clients::client), ("holder", parents::holder)]);
    let mut tests = workers::tests();
    tests.extend(payloads::tests());
    tests.extend(lives::tests());
    tests.extend(odd_tasks::tests());
    tests.extend(clients::tests());
    tests.extend(parents::tests());
    tests.extend(memory::tests());
    ringpool_tests::run(tests)
}
