//! Sleep words: whoever sleeps until something is published is woken by it.

use super::{check, check_large, mutants};
use crate::arena::BlockWord;
use crate::ring::{CompletionControl, CompletionRing, Flag};
use crate::slot::{Owner, SlotWord};
use crate::sync::{AtomicU32, AtomicU64};
use crate::wake::SleepWord;
use loom::sync::Arc;
use loom::thread;
use std::time::Duration;

const LIMIT: Duration = Duration::MAX; // loom's sleepers wait for ever

/// The end of `Worker::run` against `Client::wait_any`.
#[test]
fn a_sleeping_client_hears_of_completions() {
    check(|| {
        let shared = Arc::new((CompletionControl::new(), [AtomicU32::new(0)], AtomicU32::new(0)));
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || {
                CompletionRing::new(&shared.0, &shared.1).push(5);
                SleepWord(&shared.2).wake_sleepers();
            })
        };
        let ring = CompletionRing::new(&shared.0, &shared.1);
        let sleep = SleepWord(&shared.2);
        let announced = sleep.announce(2);
        if ring.tail() == 0 {
            sleep.sleep(announced, LIMIT);
        }
        sleep.withdraw();
        worker.join().expect("worker");
        assert_eq!(ring.get(0), 5);
    });
}

/// The same of a worker that goes on to its next task before it looks who sleeps.
#[test]
fn a_sleeping_client_hears_of_completions_behind_a_claim() {
    check(|| {
        let next = AtomicU64::new(0);
        SlotWord(&next).submit(7);
        let shared = Arc::new((CompletionControl::new(), [AtomicU32::new(0)], AtomicU32::new(0), next));
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || {
                CompletionRing::new(&shared.0, &shared.1).push(5);
                let next = SlotWord(&shared.3);
                next.claim(next.load(), Owner::new(1, 0)).expect("nobody else does");
                SleepWord(&shared.2).wake_sleepers_behind_rmw();
            })
        };
        let ring = CompletionRing::new(&shared.0, &shared.1);
        let sleep = SleepWord(&shared.2);
        let announced = sleep.announce(2);
        if ring.tail() == 0 {
            sleep.sleep(announced, LIMIT);
        }
        sleep.withdraw();
        worker.join().expect("worker");
        assert_eq!(ring.get(0), 5);
    });
}

/// Two workers finish at once: the first to take the announcement down wakes the client for both, and
/// the client does not miss the second by sleeping again.
#[test]
fn a_client_hears_of_every_completion() {
    check_large(|| {
        let worker = || (CompletionControl::new(), [AtomicU32::new(0)]);
        let shared = Arc::new(([worker(), worker()], AtomicU32::new(0)));
        let workers: Vec<_> = (0..2)
            .map(|k| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (control, cells) = &shared.0[k];
                    CompletionRing::new(control, cells).push(5);
                    SleepWord(&shared.1).wake_sleepers();
                })
            })
            .collect();
        let sleep = SleepWord(&shared.1);
        let finished =
            || shared.0.iter().filter(|(c, cells)| CompletionRing::new(c, cells).tail() == 1).count();
        let mut epoch = 0;
        let mut known = finished();
        while known < 2 {
            epoch += 2;
            let announced = sleep.announce(epoch);
            if finished() == known {
                sleep.sleep(announced, LIMIT);
            }
            known = finished();
        }
        workers.into_iter().for_each(|w| w.join().expect("worker"));
    });
}

/// The end of a reap against `Client::wait_any`.
#[test]
fn a_sleeping_client_hears_of_a_death() {
    check(|| {
        let shared = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
        let reaper = {
            let shared = shared.clone();
            thread::spawn(move || {
                Flag(&shared.0).raise();
                SleepWord(&shared.1).wake_always();
            })
        };
        let (rescan, sleep) = (Flag(&shared.0), SleepWord(&shared.1));
        let announced = sleep.announce(2);
        if !rescan.is_up() {
            sleep.sleep(announced, LIMIT);
        }
        reaper.join().expect("reaper");
        assert!(rescan.take());
    });
}

/// `ResultBlock::drop` against `TaskMemory::take_patiently`.
#[test]
fn a_starved_worker_hears_of_a_free_block() {
    check(|| {
        let (client, me) = (Owner::new(0, 0), Owner::new(1, 3));
        let block = AtomicU64::new(0);
        BlockWord(&block).take(client, 1);
        let shared = Arc::new((block, AtomicU32::new(0)));
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || {
                assert!(BlockWord(&shared.0).release(client, 1));
                SleepWord(&shared.1).wake_sleepers_behind_rmw();
            })
        };
        let (block, starved) = (BlockWord(&shared.0), SleepWord(&shared.1));
        let announced = starved.announce(0);
        if !block.is_free() {
            starved.sleep(announced, LIMIT);
        }
        starved.withdraw();
        reader.join().expect("reader");
        assert!(block.is_free());
        block.take(me, 2);
    });
}

/// `urge_client` by a worker without memory, against `Client::wait_for`: the client takes what is done
/// before it sleeps, or is woken for it.
#[test]
fn a_client_that_waits_for_one_task_is_urged() {
    check(|| {
        let shared = Arc::new((AtomicU64::new(0), AtomicU32::new(0), AtomicU32::new(0)));
        SlotWord(&shared.0).submit(7);
        let starved = {
            let shared = shared.clone();
            thread::spawn(move || {
                Flag(&shared.1).raise();
                SleepWord(&shared.2).wake_always();
                SlotWord(&shared.0).load().has_waiter() // then it wakes whoever sleeps there
            })
        };
        assert!(SlotWord(&shared.0).announce_wait(7).is_some());
        let urged = Flag(&shared.1).is_up();
        assert!(starved.join().expect("starved") || urged, "the client sleeps, and nobody wakes it");
    });
}

/// The models of this file that are not large.
pub(super) const MODELS: &[fn()] = &[
    a_sleeping_client_hears_of_completions,
    a_sleeping_client_hears_of_completions_behind_a_claim,
    a_sleeping_client_hears_of_a_death,
    a_starved_worker_hears_of_a_free_block,
    a_client_that_waits_for_one_task_is_urged,
];

mutants! {
    a_client_without_its_fence = a_sleeping_client_hears_of_completions
        with "wake/sleep.rs" "announce" "fence" Relaxed;
    a_worker_without_its_fence = a_sleeping_client_hears_of_completions
        with "wake/sleep.rs" "wake_sleepers" "fence" Relaxed;
    a_client_without_its_fence_before_a_claim = a_sleeping_client_hears_of_completions_behind_a_claim
        with "wake/sleep.rs" "announce" "fence" Relaxed;
    a_claim_without_its_fence = a_sleeping_client_hears_of_completions_behind_a_claim
        with "wake/sleep.rs" "wake_sleepers_behind_rmw" "fence" Relaxed;
    a_reaper_without_its_fence = a_sleeping_client_hears_of_a_death
        with "wake/sleep.rs" "wake_always" "fence" Relaxed;
    a_client_without_its_fence_before_a_death = a_sleeping_client_hears_of_a_death
        with "wake/sleep.rs" "announce" "fence" Relaxed;
    a_starved_worker_without_its_fence = a_starved_worker_hears_of_a_free_block
        with "wake/sleep.rs" "announce" "fence" Relaxed;
    a_waiter_without_its_fence = a_client_that_waits_for_one_task_is_urged
        with "slot/word.rs" "announce_wait" "fence" Relaxed;
    a_starved_worker_that_urges_without_its_fence = a_client_that_waits_for_one_task_is_urged
        with "wake/sleep.rs" "wake_always" "fence" Relaxed;
    a_reader_without_its_fence = a_starved_worker_hears_of_a_free_block
        with "wake/sleep.rs" "wake_sleepers_behind_rmw" "fence" Relaxed;
}
