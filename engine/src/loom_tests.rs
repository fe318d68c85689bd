//! The hand-overs between processes under every interleaving and every reordering that the memory
//! model allows, with threads for processes and tiny sizes.
//!
//! Where a protocol needs a fence that lives in code too large for loom, the test repeats the few
//! lines around it, and a second test without the fence must fail.

use crate::ring::{BATCH, CompletionControl, CompletionRing, Hint, ReadyControl, ReadyRing, Requeue, Window};
use crate::slot::{Owner, Reaped, SlotWord, State};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence, futex};
use crate::wake::{Bell, Masks, Park, ParkState, Seat};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

fn claim_all(ring: &ReadyRing<'_>, most: u64) -> Vec<u32> {
    let window = Window::new();
    let count = ring.claim(|_| most, &window, |slot| Hint::new(0, slot));
    (0..count).map(|i| window.get(i).get().expect("a hint").1).collect()
}

/// Two workers and a client: every hint is claimed once, none twice, in a ring that wraps.
#[test]
fn ready_ring_hands_out_each_hint_once() {
    loom::model(|| {
        let ring = Arc::new((ReadyControl::new(), [AtomicU32::new(99), AtomicU32::new(99)]));
        let workers: Vec<_> = (0..2)
            .map(|k| {
                let ring = ring.clone();
                thread::spawn(move || {
                    let ring = ReadyRing::new(&ring.0, &ring.1);
                    let mut got = claim_all(&ring, BATCH as u64);
                    if k == 0 {
                        got.extend(claim_all(&ring, 1));
                    }
                    got
                })
            })
            .collect();
        let view = ReadyRing::new(&ring.0, &ring.1);
        let (mut tail, mut head) = (0, 0);
        let mut sent = Vec::new();
        for slot in 1..=3 {
            if view.has_room(tail, &mut head) {
                view.write(tail, slot);
                tail += 1;
                view.publish(tail);
                sent.push(slot);
            }
        }
        let mut got: Vec<u32> = workers.into_iter().flat_map(|w| w.join().expect("worker")).collect();
        while view.backlog() > 0 {
            got.extend(claim_all(&view, 1));
        }
        got.sort_unstable();
        assert_eq!(got, sent);
    });
}

/// A reaper announces while a worker takes: nothing stays behind with `any` down.
#[test]
fn requeue_loses_no_bit() {
    loom::model(|| {
        let shared = Arc::new((AtomicU32::new(0), [AtomicU64::new(0)]));
        let reaper = {
            let shared = shared.clone();
            thread::spawn(move || {
                let requeue = Requeue::new(&shared.0, &shared.1);
                requeue.announce(1);
                requeue.announce(5);
            })
        };
        let requeue = Requeue::new(&shared.0, &shared.1);
        let window = Window::new();
        let mut taken = Vec::new();
        let mut cursor = 3;
        let mut take = || {
            let count = requeue.claim(1, &mut cursor, &window, |slot| Hint::new(0, slot));
            taken.extend((0..count).map(|i| window.get(i).get().expect("a hint").1));
        };
        take();
        reaper.join().expect("reaper");
        while !requeue.is_empty() {
            take();
        }
        taken.sort_unstable();
        assert_eq!(taken, [1, 5]);
    });
}

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
    fn submitted(args: u32) -> Self {
        let task = Task { word: AtomicU64::new(0), args: UnsafeCell::new(args), result: UnsafeCell::new(0) };
        SlotWord(&task.word).submit(7);
        task
    }

    /// What a worker does with a hint to the task.
    fn run_as(&self, me: Owner) -> bool {
        let word = SlotWord(&self.word);
        let Some(run) = word.claim(word.load(), me) else { return false };
        // SAFETY: we own the slot; loom would report another access at the same time.
        let args = self.args.with(|p| unsafe { *p });
        // SAFETY: as above.
        self.result.with_mut(|p| unsafe { *p = args + 1 });
        let done = word.finish(run).expect("the task is ours");
        if done.has_waiter() {
            word.wake();
        }
        true
    }
}

/// Two workers follow hints to one slot while the client waits on its word: one runs it, the client
/// wakes and reads the result.
#[test]
fn slot_is_run_once_and_its_waiter_wakes() {
    loom::model(|| {
        let task = Arc::new(Task::submitted(41));
        let workers: Vec<_> = (1..=2)
            .map(|index| {
                let task = task.clone();
                thread::spawn(move || task.run_as(Owner::new(index, 0)))
            })
            .collect();
        let word = SlotWord(&task.word);
        while let Some(seen) = word.announce_wait(7) {
            word.sleep(seen, None);
        }
        assert_eq!(word.load().state(), Some(State::Done));
        // SAFETY: terminal, so the slot is the client's.
        assert_eq!(task.result.with(|p| unsafe { *p }), 42);
        let ran = workers.into_iter().map(|w| w.join().expect("worker"));
        assert_eq!(ran.filter(|&ran| ran).count(), 1);
        assert_eq!(word.recycle(7), 8);
    });
}

/// A worker claims and dies; a reaper that never read the arguments hands them to another worker.
#[test]
fn arguments_reach_a_second_worker_through_a_reaper() {
    loom::model(|| {
        let task = Arc::new(Task::submitted(41));
        let dead = Owner::new(1, 3);
        let first = {
            let task = task.clone();
            thread::spawn(move || {
                let word = SlotWord(&task.word);
                word.claim(word.load(), dead).is_some() // and is never heard of again
            })
        };
        let second = {
            let task = task.clone();
            thread::spawn(move || task.run_as(Owner::new(2, 0)))
        };
        let claimed = first.join().expect("first");
        let ran = second.join().expect("second");
        let word = SlotWord(&task.word);
        if claimed {
            assert!(!ran);
            assert_eq!(word.take_from_dead(dead, 2), Reaped::Retry);
            assert!(matches!(word.take_from_dead(dead, 2), Reaped::NotTheirs(_)), "idempotent");
            let third = {
                let task = task.clone();
                thread::spawn(move || task.run_as(Owner::new(2, 0)))
            };
            assert!(third.join().expect("third"));
            assert_eq!(word.load().attempt(), 1);
        }
        assert_eq!(word.load().state(), Some(State::Done));
        // SAFETY: terminal, so the slot is the client's.
        assert_eq!(task.result.with(|p| unsafe { *p }), 42);
    });
}

/// The client cancels while a worker claims: exactly one of them wins.
#[test]
fn cancel_and_claim_exclude_each_other() {
    loom::model(|| {
        let task = Arc::new(Task::submitted(41));
        let worker = {
            let task = task.clone();
            thread::spawn(move || task.run_as(Owner::new(1, 0)))
        };
        let cancelled = SlotWord(&task.word).cancel(7);
        assert_ne!(worker.join().expect("worker"), cancelled);
    });
}

/// A bell with up to three workers, and a counter for the work there is.
struct Office {
    masks: Masks,
    parks: [AtomicU32; 3],
    lanes: AtomicU32,
    work: AtomicU64,
}

impl Office {
    fn new(work: u64) -> Arc<Self> {
        Arc::new(Office {
            masks: Masks::new(),
            parks: std::array::from_fn(|_| AtomicU32::new(0)),
            lanes: AtomicU32::new(1),
            work: AtomicU64::new(work),
        })
    }

    fn bell<'a>(&'a self) -> Bell<'a, impl Fn(u32) -> Seat<'a>> {
        Bell::new(&self.masks, 3, |p| Seat { park: self.park(p), lanes: &self.lanes })
    }

    fn park(&self, p: u32) -> Park<'_> {
        Park(&self.parks[p as usize])
    }
}

/// `Worker::park` against `Bell::notify`: a worker that goes to sleep while work is published is woken.
fn park_against_notify(fenced: bool) {
    loom::model(move || {
        let office = Office::new(0);
        let sleeper = {
            let office = office.clone();
            thread::spawn(move || {
                let park = office.park(1);
                park.announce(0);
                office.bell().set_idle(1, true);
                if fenced {
                    fence(Ordering::SeqCst);
                }
                if office.work.load(Ordering::Acquire) == 0 {
                    futex::wait(park.0, ParkState::Parked as u32, None);
                }
            })
        };
        office.work.store(1, Ordering::Release);
        office.bell().notify(0);
        sleeper.join().expect("sleeper");
    });
}

#[test]
fn a_parking_worker_is_woken() {
    park_against_notify(true);
}

#[test]
#[should_panic]
fn a_parking_worker_without_its_fence_sleeps_on() {
    park_against_notify(false);
}

/// A searcher that suppresses a wake-up finds the work itself, or passes the wake-up on: it looks at the
/// backlog after it has left the searching state.
fn suppressed_wake_up(fenced: bool) {
    loom::model(move || {
        let office = Office::new(1);
        // Worker 2 sleeps already; worker 1 searches already, and takes the one task that is there.
        office.park(2).announce(0);
        office.bell().set_idle(2, true);
        office.park(1).search(0);
        office.bell().set_searching(1, true);
        let searcher = {
            let office = office.clone();
            thread::spawn(move || {
                office.work.fetch_sub(1, Ordering::AcqRel);
                office.park(1).run(0);
                if fenced {
                    fence(Ordering::SeqCst);
                }
                if office.work.load(Ordering::Acquire) > 0 {
                    office.bell().notify(0);
                }
            })
        };
        office.work.fetch_add(1, Ordering::AcqRel);
        office.bell().notify(0);
        searcher.join().expect("searcher");
        assert_eq!(office.park(2).state(), ParkState::Notified, "the second task has nobody");
    });
}

#[test]
fn a_suppressed_wake_up_is_passed_on() {
    suppressed_wake_up(true);
}

#[test]
#[should_panic(expected = "has nobody")]
fn a_searcher_without_its_fence_passes_nothing_on() {
    suppressed_wake_up(false);
}

/// The end of `Worker::run` against the client's last look before it sleeps.
fn completion_against_sleep(worker_fence: bool, client_fence: bool) {
    loom::model(move || {
        let shared =
            Arc::new((CompletionControl::new(), [AtomicU32::new(0), AtomicU32::new(0)], AtomicU32::new(0)));
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || {
                CompletionRing::new(&shared.0, &shared.1).push(5);
                if worker_fence {
                    fence(Ordering::SeqCst);
                }
                let sleep = &shared.2;
                if sleep.load(Ordering::Relaxed) & 1 == 1 && sleep.fetch_and(!1, Ordering::AcqRel) & 1 == 1 {
                    futex::wake(sleep, futex::ALL);
                }
            })
        };
        let ring = CompletionRing::new(&shared.0, &shared.1);
        let seen = 2 | 1;
        shared.2.store(seen, Ordering::Relaxed);
        if client_fence {
            fence(Ordering::SeqCst);
        }
        if ring.tail() == 0 {
            futex::wait(&shared.2, seen, None);
        }
        worker.join().expect("worker");
        assert_eq!(ring.tail(), 1);
        assert_eq!(ring.get(0), 5);
    });
}

#[test]
fn a_sleeping_client_hears_of_completions() {
    completion_against_sleep(true, true);
}

#[test]
#[should_panic]
fn without_the_workers_fence_the_client_sleeps_on() {
    completion_against_sleep(false, true);
}

#[test]
#[should_panic]
fn without_the_clients_fence_the_client_sleeps_on() {
    completion_against_sleep(true, false);
}

/// `Client::nobody_runs` against a worker that wakes, runs a task, counts it and parks: the back-stop
/// sees no contradiction, whenever it looks.
fn backstop_against_a_worker(counted_after: bool) {
    loom::model(move || {
        let office = Office::new(0);
        let task = Arc::new(Task::submitted(41));
        office.park(1).announce(0);
        let client = {
            let (office, task) = (office.clone(), task.clone());
            thread::spawn(move || {
                let word = SlotWord(&task.word);
                let first = word.load();
                if first.state() != Some(State::Run) {
                    return false;
                }
                let tasks = office.work.load(Ordering::Acquire);
                (0..2).any(|_| {
                    let more = office.work.load(Ordering::Acquire) != tasks;
                    let asleep = office.park(1).is_asleep(0);
                    (more || asleep) && word.load() == first
                })
            })
        };
        office.park(1).search(0);
        let word = SlotWord(&task.word);
        let run = word.claim(word.load(), Owner::new(1, 0)).expect("nobody else does");
        office.park(1).run(0);
        if !counted_after {
            office.work.fetch_add(1, Ordering::Release);
        }
        word.finish(run).expect("it is ours");
        if counted_after {
            office.work.fetch_add(1, Ordering::Release);
        }
        office.park(1).announce(0);
        assert!(!client.join().expect("client"), "an honest worker is accused");
    });
}

#[test]
fn a_worker_that_keeps_to_the_protocol_is_not_accused() {
    backstop_against_a_worker(true);
}

#[test]
#[should_panic(expected = "is accused")]
fn a_worker_that_counts_too_early_would_be() {
    backstop_against_a_worker(false);
}

/// A full completion ring costs the hint, not the news: the client sees the overflow mark.
#[test]
fn a_full_completion_ring_says_so() {
    loom::model(|| {
        let shared = Arc::new((CompletionControl::new(), [AtomicU32::new(0)]));
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || {
                let ring = CompletionRing::new(&shared.0, &shared.1);
                ring.push(1);
                ring.push(2);
            })
        };
        let ring = CompletionRing::new(&shared.0, &shared.1);
        let early = ring.tail();
        ring.publish_head(early);
        worker.join().expect("worker");
        assert!(ring.tail() == 2 || ring.take_overflow());
    });
}
