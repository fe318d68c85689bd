//! The slot's word, and the bytes that it hands from one process to the next.

use super::{check, check_large, mutants};
use crate::slot::{Owner, Reaped, SlotWord, State};
use crate::sync::AtomicU64;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

struct Task {
    word: AtomicU64,
    args: UnsafeCell<u32>,
    result: UnsafeCell<u32>,
}

// SAFETY: the cells are touched only under the ownership that the word grants, which loom checks.
unsafe impl Sync for Task {}
// SAFETY: as above.
unsafe impl Send for Task {}

impl Task {
    fn free() -> Arc<Self> {
        Arc::new(Task { word: AtomicU64::new(0), args: UnsafeCell::new(0), result: UnsafeCell::new(0) })
    }

    fn submitted(args: u32) -> Arc<Self> {
        let task = Task::free();
        task.submit(args, 7);
        task
    }

    fn word(&self) -> SlotWord<'_> {
        SlotWord(&self.word)
    }

    /// What a client does with a free slot.
    fn submit(&self, args: u32, generation: u32) {
        // SAFETY: the slot is free, so it is ours; loom would report another access at the same time.
        self.args.with_mut(|p| unsafe { *p = args });
        self.word().submit(generation);
    }

    /// What a worker does first with a hint to the task.
    fn start_as(&self, me: Owner) -> Option<crate::slot::Word> {
        self.word().claim(self.word().load(), me)
    }

    fn run_as(&self, me: Owner) -> bool {
        let Some(run) = self.start_as(me) else { return false };
        // SAFETY: we own the slot.
        let args = self.args.with(|p| unsafe { *p });
        // SAFETY: as above.
        self.result.with_mut(|p| unsafe { *p = args + 1 });
        let done = self.word().finish(run).expect("the task is ours");
        if done.has_waiter() {
            self.word().wake();
        }
        true
    }

    /// What a client does with a terminal slot.
    fn result(&self) -> u32 {
        assert_eq!(self.word().load().state(), Some(State::Done));
        // SAFETY: terminal, so the slot is the client's.
        self.result.with(|p| unsafe { *p })
    }
}

/// A worker that follows a hint early, late, or to the slot's next task finds the arguments; the client
/// that sees the task done finds the result, and the slot may be used again.
#[test]
fn arguments_and_results_change_hands() {
    check(|| {
        let task = Task::free();
        let worker = {
            let task = task.clone();
            thread::spawn(move || {
                let early = task.run_as(Owner::new(1, 0));
                early || task.run_as(Owner::new(1, 0))
            })
        };
        task.submit(41, 7);
        if task.word().load().is_terminal() {
            assert_eq!(task.result(), 42);
            assert_eq!(task.word().recycle(7), 8);
            task.submit(1, 8);
        }
        worker.join().expect("worker");
    });
}

/// Two workers follow hints to one slot while the client waits on its word: one runs it, the client
/// wakes and reads the result.
#[test]
fn slot_is_run_once_and_its_waiter_wakes() {
    check_large(|| {
        let task = Task::submitted(41);
        let workers: Vec<_> = (1..=2)
            .map(|index| {
                let task = task.clone();
                thread::spawn(move || task.run_as(Owner::new(index, 0)))
            })
            .collect();
        while let Some(seen) = task.word().announce_wait(7) {
            task.word().sleep(seen, None);
        }
        assert_eq!(task.result(), 42);
        let ran = workers.into_iter().map(|w| w.join().expect("worker"));
        assert_eq!(ran.filter(|&ran| ran).count(), 1);
        assert_eq!(task.word().recycle(7), 8);
    });
}

/// A worker claims and dies; a reaper that never read the arguments hands them to another worker.
#[test]
fn arguments_reach_a_second_worker_through_a_reaper() {
    check(|| {
        let task = Task::submitted(41);
        let dead = Owner::new(1, 3);
        let first = {
            let task = task.clone();
            thread::spawn(move || task.start_as(dead).is_some()) // and is never heard of again
        };
        let second = {
            let task = task.clone();
            thread::spawn(move || task.run_as(Owner::new(2, 0)))
        };
        let claimed = first.join().expect("first");
        let ran = second.join().expect("second");
        if claimed {
            assert!(!ran);
            assert_eq!(task.word().take_from_dead(dead, 2), Reaped::Retry);
            assert!(matches!(task.word().take_from_dead(dead, 2), Reaped::NotTheirs(_)), "idempotent");
            let third = {
                let task = task.clone();
                thread::spawn(move || task.run_as(Owner::new(2, 0)))
            };
            assert!(third.join().expect("third"));
            assert_eq!(task.word().load().attempt(), 1);
        }
        assert_eq!(task.result(), 42);
    });
}

/// The arguments come from a client that neither the reaper nor the second worker has ever met: only the
/// words carry them. What the dead had written of the result is before what the second writes.
#[test]
fn a_second_worker_overwrites_what_the_dead_has_left() {
    check(|| {
        let task = Task::submitted(41);
        let dead = Owner::new(1, 3);
        let reaper = {
            let task = task.clone();
            thread::spawn(move || {
                let first = {
                    let task = task.clone();
                    thread::spawn(move || {
                        if task.start_as(dead).is_some() {
                            // SAFETY: we own the slot.
                            task.result.with_mut(|p| unsafe { *p = 7 });
                        }
                    })
                };
                first.join().expect("first"); // the kernel confirms the death
                let _ = task.word().take_from_dead(dead, 2);
            })
        };
        let early = task.run_as(Owner::new(2, 0));
        reaper.join().expect("reaper");
        assert!(early || task.run_as(Owner::new(2, 0)));
        assert_eq!(task.result(), 42);
    });
}

/// The client cancels while a worker claims: exactly one of them wins, and may touch the arguments.
#[test]
fn cancel_and_claim_exclude_each_other() {
    check(|| {
        let task = Task::submitted(41);
        let worker = {
            let task = task.clone();
            thread::spawn(move || task.run_as(Owner::new(1, 0)))
        };
        let cancelled = task.word().cancel(7);
        if cancelled {
            assert_eq!(task.word().recycle(7), 8);
            task.submit(1, 8);
        }
        let ran = worker.join().expect("worker");
        assert!(ran || cancelled);
        if ran && !cancelled {
            assert_eq!(task.result(), 42);
        }
    });
}

mutants! {
    t1_relaxed = arguments_and_results_change_hands
        with "slot/word.rs" "submit" "store" Relaxed;
    t2_relaxed = arguments_and_results_change_hands
        with "slot/word.rs" "load" "load" Relaxed, "slot/word.rs" "claim" "match self.0.compare" Relaxed;
    t3_without_release = slot_is_run_once_and_its_waiter_wakes
        with "slot/word.rs" "finish" "compare_exchange" Acquire;
    done_seen_without_acquire = slot_is_run_once_and_its_waiter_wakes
        with "slot/word.rs" "load" "load" Relaxed;
    t7_without_release = a_second_worker_overwrites_what_the_dead_has_left
        with "slot/word.rs" "take_from_dead" "compare_exchange" Acquire;
}
