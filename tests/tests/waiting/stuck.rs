//! One worker never comes back from a task: all other work is done by the others.

use crate::{double, long_test, pool_of};
use libtest_mimic::Trial;
use ringpool_tests::proof::Extent;
use ringpool_tests::tally::{PATIENCE, Tally};
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for workers in [2, 4] {
        for (name, asleep) in [("asleep", true), ("awake", false)] {
            tests.push(long_test(format!("one_is_stuck::{name}::{workers}"), move || {
                one_is_stuck(workers, name, asleep);
            }));
        }
    }
    tests
}

fn never_return(asleep: bool) {
    loop {
        if asleep {
            std::thread::sleep(Duration::from_secs(600));
        }
        std::hint::spin_loop();
    }
}

fn one_is_stuck(workers: usize, name: &str, asleep: bool) {
    let tally = Tally::default();
    let rounds = Extent::now().pick(2, 10, 60);
    for round in 0..rounds {
        one_round(workers, asleep, &tally, round);
    }
    let mut proof = tally.proof(format!("waiting: one of {workers} is stuck, {name}"));
    proof.runs = rounds;
    proof.report();
}

/// The fatal task comes in the middle of others, so that the worker has hints in its window when it takes
/// it; more work of each kind comes when it is stuck for good.
fn one_round(workers: usize, asleep: bool, tally: &Tally, round: u64) {
    let pool = pool_of(workers);
    // Between none and many before it: the more wait, the more hints a worker takes at once.
    let before: Vec<_> =
        (0..round * 37 % 300).map(|i| pool.apply_async(double, (i,)).expect("a slot")).collect();
    let fatal = pool.apply_async(never_return, (asleep,)).expect("a slot");
    let after: Vec<_> = (0..300).map(|i| pool.apply_async(double, (i,)).expect("a slot")).collect();
    let mapped = pool.map_async(double, 0..1000, Some(7)).expect("a map");
    for results in [&before, &after] {
        for (i, result) in results.iter().enumerate() {
            tally.get(result, |&value| value == 2 * i as u64);
        }
    }
    if mapped.wait(Some(PATIENCE)) {
        for (i, result) in mapped.get_each().expect("the pool lives").into_iter().enumerate() {
            tally.outcome(result, |&value| value == 2 * i as u64);
        }
    } else {
        tally.hang(1);
    }
    let mut stream = pool.imap(double, 0..500, 3).expect("a stream");
    for i in 0..500 {
        match stream.next_timeout(PATIENCE) {
            Some(result) => tally.outcome(result, |&value| value == 2 * i),
            None => tally.lose(1, "the stream ended early"),
        }
    }
    for result in pool.imap_unordered(double, 0..500, 1).expect("a stream") {
        tally.outcome(result, |&value| value < 1000);
    }
    assert!(!fatal.ready(), "it is stuck");
    pool.terminate();
    assert!(fatal.get().expect_err("it was stuck").is_closed());
}
