//! Reapers killed or stopped at every access, and reaps that run twice at once.

use crate::work::{Tally, double, expect_repaired, reversed};
use crate::{SWEEP, Steps, blows, watched};
use libtest_mimic::Trial;
use ringpool::Pool;
use ringpool::crash::{self, Blow, Rehearsal};
use ringpool_tests::proof::{Extent, Proof};
use ringpool_tests::test_within;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    vec![
        test_within(SWEEP, "reaper_killed", || struck(Blow::Kill)),
        test_within(SWEEP, "reaper_stopped_and_late", || struck(Blow::Stop)),
        test_within(SWEEP, "two_reapers_at_once", two_at_once),
    ]
}

fn die() {
    // SAFETY: a signal to ourselves.
    unsafe { libc::raise(libc::SIGKILL) };
}

/// A pool whose reaper finds slots in all states: done and not fetched, with blocks, running, ready.
fn run(rehearsal: Rehearsal, retries: u32, proof: &mut Proof) {
    let pool = Pool::builder().processes(2).retries(retries).start().expect("a pool");
    crash::plan_reap(rehearsal);
    let words: Vec<u64> = (0..100).collect();
    let blocks = |count: usize| -> Vec<_> {
        (0..count).map(|_| pool.apply_async(reversed, (words.clone(),)).expect("a slot")).collect()
    };
    let before = blocks(5);
    let dying = pool.apply_async(die, ()).expect("a slot");
    let after = blocks(5);
    let mapped = pool.map_async(double, 0..8, Some(4)).expect("slots");
    std::thread::sleep(Duration::from_millis(2)); // results lie in the slots when the reap begins
    let mut tally = Tally::default();
    let backwards: Vec<u64> = words.iter().rev().copied().collect();
    for result in before.iter().chain(&after) {
        tally.add(result.get(), &backwards);
    }
    assert_eq!(tally.deaths, 0, "only one task died, and it is none of these");
    assert!(dying.get().is_err_and(|error| crate::work::died(&error)));
    assert_eq!(mapped.get().expect("a map"), (0..8).map(double).collect::<Vec<_>>());
    assert!(crash::finish_helpers(), "a helper failed");
    tally.add(pool.apply(double, (4,)), &8);
    drop((before, after, dying, mapped)); // with the blocks that they hold
    expect_repaired(&pool);
    pool.close();
    pool.join().expect("a pool that was closed");
    proof.delivered += tally.delivered + 9;
}

fn struck(blow: Blow) {
    crash::set_timers(false);
    let mut proof = Proof::of(format!("crash sweep: reaper, {blow:?}"));
    let mut steps = Steps::new(41, 7, 1);
    while let Some(at) = steps.next() {
        let before = blows();
        let retries = (at % 2) as u32;
        watched(&format!("reaper struck by {blow:?} at access {at}"), || {
            run(Rehearsal::First(at, blow), retries, &mut proof);
        });
        let hit = blows() - before;
        steps.hit(hit > 0);
        proof.runs += 1;
        proof.kills += hit;
    }
    crash::set_timers(true);
    proof.report();
}

fn two_at_once() {
    crash::set_timers(false);
    let mut proof = Proof::of("two reapers at once");
    for round in 0..Extent::now().pick(20, 200, 1000) {
        watched("two reapers", || run(Rehearsal::Beside, round % 2, &mut proof));
        proof.runs += 1;
        proof.kills += 1;
    }
    crash::set_timers(true);
    proof.report();
}
