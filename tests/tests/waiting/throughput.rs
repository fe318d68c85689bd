//! Four times as many workers as CPUs do at least half of what as many as CPUs do.

use crate::{double, long_test, pool_of};
use libtest_mimic::Trial;
use ringpool::Pool;
use ringpool_tests::expect_repaired;
use ringpool_tests::proof::{Extent, Proof};
use ringpool_tests::random::busy_wait;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Trial> {
    let of = |name: &'static str, work: fn(&Pool, u64)| {
        long_test(format!("oversubscribed::{name}"), move || compare(name, work))
    };
    vec![of("tiny_stream", tiny_stream), of("tiny_batches", tiny_batches), of("twenty_microseconds", twenty)]
}

fn tiny_stream(pool: &Pool, tasks: u64) {
    let sum: u64 =
        pool.imap_unordered(double, 0..tasks, 1).expect("a stream").map(|r| r.expect("a value")).sum();
    assert_eq!(sum, tasks * (tasks - 1));
}

fn tiny_batches(pool: &Pool, tasks: u64) {
    for start in (0..tasks).step_by(500) {
        let results: Vec<_> =
            (start..start + 500).map(|i| pool.apply_async(double, (i,)).expect("a slot")).collect();
        for (i, result) in results.iter().enumerate() {
            assert_eq!(result.get().expect("a value"), 2 * (start + i as u64));
        }
    }
}

fn take_twenty(x: u64) -> u64 {
    busy_wait(Duration::from_micros(20));
    x
}

fn twenty(pool: &Pool, tasks: u64) {
    let tasks = tasks / 10;
    let sum: u64 =
        pool.imap_unordered(take_twenty, 0..tasks, 1).expect("a stream").map(|r| r.expect("a value")).sum();
    assert_eq!(sum, tasks * (tasks - 1) / 2);
}

/// Rounds of both in turn, so that what else the machine does hits both; medians, so that it hardly counts.
fn compare(name: &str, work: fn(&Pool, u64)) {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let pools = [pool_of(cpus), pool_of(4 * cpus)];
    let extent = Extent::now();
    let (rounds, tasks) = (extent.pick(3, 11, 15), extent.pick(5_000, 50_000, 100_000));
    let mut times = [Vec::new(), Vec::new()];
    for pool in &pools {
        work(pool, tasks / 10 / 500 * 500 + 500); // warm
    }
    for _ in 0..rounds {
        for (pool, times) in pools.iter().zip(&mut times) {
            let start = Instant::now();
            work(pool, tasks);
            times.push(start.elapsed());
        }
    }
    let [few, many] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    let share = few.as_secs_f64() / many.as_secs_f64();
    let workers = 4 * cpus;
    println!("{name}: {workers} workers on {cpus} CPUs do {share:.2} of what {cpus} do ({many:?}, {few:?})");
    for pool in &pools {
        expect_repaired(pool);
    }
    let mut proof = Proof::of(format!("waiting: oversubscribed, {name}"));
    proof.runs = 2 * rounds as u64;
    proof.delivered = 2 * rounds as u64 * tasks;
    proof.report();
    // A check that everybody runs must not fail because the machine was busy.
    if extent != Extent::Short {
        assert!(share >= 0.5, "{name}: {share:.2} of the throughput");
    }
}
