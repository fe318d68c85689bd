//! Workers stopped at every access: the others finish what the stopped one does not hold, nobody takes it
//! for dead, and it goes on, or is killed, as if nothing had been.

use crate::work::{Batch, Tally, expect_repaired};
use crate::{SWEEP, Steps, watched};
use libtest_mimic::Trial;
use ringpool::crash::{self, Blow};
use ringpool::{Pool, Result};
use ringpool_tests::proof::Proof;
use ringpool_tests::{eventually, procs, test_within};
use rustix::process::Signal;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    vec![
        test_within(SWEEP, "worker_stopped::and_continued", || sweep(Signal::CONT)),
        test_within(SWEEP, "worker_stopped::and_killed", || sweep(Signal::KILL)),
    ]
}

fn sweep(end: Signal) {
    let mut proof = Proof::of(format!("stop sweep: worker, then {end:?}"));
    let mut steps = Steps::new(37, 7, 1);
    while let Some(at) = steps.next() {
        let hit =
            watched(&format!("worker stopped at access {at}, then {end:?}"), || run(at, end, &mut proof));
        steps.hit(hit);
        proof.runs += 1;
        proof.kills += u64::from(hit);
    }
    proof.report();
}

fn stopped_worker(pool: &Pool) -> Option<u32> {
    pool.worker_pids().into_iter().find(|&pid| procs::is_stopped(pid))
}

fn run(at: u64, end: Signal, proof: &mut Proof) -> bool {
    crash::plan_birth(1, 0, at, Blow::Stop);
    let pool = Pool::builder().processes(2).max_tasks_per_child(9).start().expect("a pool");
    let batches: Vec<Batch> = (0..2).map(|_| Batch::submit(&pool)).collect::<Result<_>>().expect("slots");
    crash::plan_birth(0, 0, 0, Blow::Kill);
    // One task, or one chunk of one map, is all that a single worker can hold.
    eventually("all is done but what the stopped worker holds", Duration::from_secs(20), || {
        let left: usize = batches.iter().map(Batch::outstanding).sum();
        left == 0 || (left == 1 && stopped_worker(&pool).is_some())
    });
    let stopped = stopped_worker(&pool);
    if let Some(pid) = stopped {
        std::thread::sleep(Duration::from_millis(2));
        assert!(pool.worker_pids().contains(&pid) && procs::is_stopped(pid), "taken for dead");
        assert!(procs::signal(pid, end));
    }
    let mut tally = Tally::default();
    for batch in batches {
        batch.collect(&mut tally);
    }
    let most = u64::from(end == Signal::KILL && stopped.is_some());
    assert!(tally.deaths <= most, "{} tasks died", tally.deaths);
    proof.delivered += tally.delivered;
    expect_repaired(&pool);
    pool.close();
    pool.join().expect("a pool that was closed");
    stopped.is_some()
}
