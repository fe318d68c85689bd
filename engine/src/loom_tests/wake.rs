//! Workers: one that goes to sleep while something is published is woken, and a wake-up that was skipped
//! for somebody's sake is passed on by it.

use super::{check, mutants};
use crate::ring::{Hint, ReadyControl, ReadyRing, Requeue, Window};
use crate::slot::{Owner, SlotWord, State};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::wake::{Bell, Berth, Freed, Masks, Park, ParkState, Seat};
use loom::sync::Arc;
use loom::thread;
use std::time::Duration;

const LANE: usize = 0;
const FREED: Option<Freed> = Some(Freed { index: 1, incarnation: 0 });

/// Up to two workers (places 1 and 2), and the words in which there may be work for them.
struct Office {
    masks: Masks,
    parks: [AtomicU32; 3],
    lanes: AtomicU32,
    ready: (ReadyControl, [AtomicU32; 2]),
    requeue: (AtomicU32, [AtomicU64; 1]),
    window: Window,
    state: AtomicU32,
}

impl Office {
    fn new() -> Arc<Self> {
        Arc::new(Office {
            masks: Masks::new(),
            parks: std::array::from_fn(|_| AtomicU32::new(0)),
            lanes: AtomicU32::new(1),
            ready: (ReadyControl::new(), std::array::from_fn(|_| AtomicU32::new(0))),
            requeue: (AtomicU32::new(0), [AtomicU64::new(0)]),
            window: Window::new(),
            state: AtomicU32::new(0),
        })
    }

    fn bell<'a>(&'a self) -> Bell<'a, impl Fn(u32) -> Seat<'a>> {
        Bell::new(&self.masks, 3, |p| Seat { park: self.park(p), lanes: &self.lanes })
    }

    fn park(&self, p: u32) -> Park<'_> {
        Park(&self.parks[p as usize])
    }

    fn berth(&self, p: u32) -> Berth<'_> {
        Berth::new(self.park(p), &self.masks, p, 0)
    }

    /// Worker `p` has announced that it sleeps, and sleeps.
    fn put_to_sleep(&self, p: u32) {
        let mut berth = self.berth(p);
        berth.search(); // or the bits would be taken for a predecessor's
        berth.announce();
    }

    /// Worker `p` sleeps, and somebody is waking it.
    fn wake_up(&self, p: u32) {
        self.put_to_sleep(p);
        assert!(self.park(p).notify());
    }

    /// Worker `p` looks for work, and all can see it.
    fn have_search(&self, p: u32) {
        let mut berth = self.berth(p);
        berth.search();
        berth.announce();
        berth.search();
        berth.stay_up();
    }

    /// Worker `p` has just ended a task, for which it had searched.
    fn free_up(&self, p: u32) {
        self.have_search(p);
        self.park(p).run(0);
    }

    fn ready(&self) -> ReadyRing<'_> {
        ReadyRing::new(&self.ready.0, &self.ready.1)
    }

    fn requeue(&self) -> Requeue<'_> {
        Requeue::new(&self.requeue.0, &self.requeue.1)
    }

    fn backlog(&self) -> bool {
        self.ready().backlog() > 0 || !self.requeue().is_empty()
    }

    /// What a worker does when it has taken a task, or leaves.
    fn pass_on(&self, me: u32, window: bool) {
        self.bell().pass_on(me, LANE..=LANE, |_| window || self.backlog());
    }

    fn is_woken(&self, p: u32) -> bool {
        self.park(p).state() == ParkState::Notified
    }
}

/// `Worker::park` while somebody publishes something: `look` must find it, or the worker be woken.
fn park_while(publish: fn(&Office), look: fn(&Office) -> bool) {
    check(move || {
        let office = Office::new();
        let sleeper = {
            let office = office.clone();
            thread::spawn(move || {
                let mut berth = office.berth(1);
                berth.search();
                berth.announce();
                if !look(&office) {
                    while berth.is_asleep() {
                        berth.sleep(None);
                    }
                }
            })
        };
        publish(&office);
        sleeper.join().expect("sleeper");
    });
}

/// Against `Client::submit`.
#[test]
fn a_parking_worker_hears_of_a_task() {
    let publish = |office: &Office| {
        office.ready().publish(1);
        office.bell().notify(LANE);
    };
    park_while(publish, Office::backlog);
}

/// Against the client's back-stop, which believes no word.
#[test]
fn a_parking_worker_hears_of_a_task_that_is_announced_again() {
    let publish = |office: &Office| {
        office.requeue().announce(1);
        office.bell().notify_force(LANE);
    };
    park_while(publish, Office::backlog);
}

/// Against the end of a reap.
#[test]
fn a_parking_worker_hears_of_a_dead_ones_task() {
    let publish = |office: &Office| {
        office.requeue().announce(1);
        office.bell().broadcast();
    };
    park_while(publish, Office::backlog);
}

/// Against `Segment::set_state`.
#[test]
fn a_parking_worker_hears_that_the_pool_ends() {
    let publish = |office: &Office| {
        office.state.store(1, Ordering::Release);
        office.bell().broadcast();
    };
    park_while(publish, |office| office.state.load(Ordering::Acquire) != 0);
}

/// Worker 2 sleeps. The client knows that worker 1 is awake, as `prepare` has made it, or about to be, and
/// publishes a task, while worker 1 does `act` on account of something else. Then worker 2 is woken.
fn skipped_wake_up(prepare: fn(&Office, u32), freed: Option<Freed>, act: fn(&mut Berth<'_>)) {
    check(move || {
        let office = Office::new();
        office.put_to_sleep(2);
        prepare(&office, 1);
        let worker = {
            let office = office.clone();
            thread::spawn(move || {
                act(&mut office.berth(1));
                office.pass_on(1, false);
            })
        };
        office.ready().publish(1);
        let _ = office.bell().notify_seeing(LANE, freed);
        worker.join().expect("worker");
        assert!(office.is_woken(2), "the task has nobody");
    });
}

/// The search for whose sake the wake-up was skipped ends with another task.
#[test]
fn a_searcher_passes_wake_ups_on() {
    skipped_wake_up(Office::have_search, None, |berth| berth.found());
}

/// So does the search of a worker that was on its way.
#[test]
fn a_woken_worker_passes_wake_ups_on() {
    skipped_wake_up(Office::wake_up, None, |berth| {
        berth.search();
        berth.found();
    });
}

/// A worker that was on its way leaves the pool.
#[test]
fn a_leaving_worker_passes_wake_ups_on() {
    skipped_wake_up(Office::wake_up, None, |berth| berth.leave());
}

/// A worker leaves the pool that had no task any more.
#[test]
fn a_freed_worker_that_leaves_passes_wake_ups_on() {
    skipped_wake_up(Office::free_up, FREED, |berth| berth.leave());
}

/// Worker 1, as `prepare` has made it, searches in vain and goes to sleep: it sees the task after all, or worker 1 or 2
/// is woken.
fn search_in_vain(prepare: fn(&Office, u32), freed: Option<Freed>) {
    check(move || {
        let office = Office::new();
        office.put_to_sleep(2);
        prepare(&office, 1);
        let worker = {
            let office = office.clone();
            thread::spawn(move || {
                let mut berth = office.berth(1);
                berth.search(); // makes the berth know what its bits are
                berth.announce();
                office.backlog()
            })
        };
        office.ready().publish(1);
        let _ = office.bell().notify_seeing(LANE, freed);
        let seen = worker.join().expect("worker");
        assert!(seen || office.is_woken(1) || office.is_woken(2), "the task has nobody");
    });
}

#[test]
fn a_searcher_that_gives_up_looks_again() {
    search_in_vain(Office::have_search, None);
}

/// Nobody was woken while it had not begun to search yet.
#[test]
fn a_freed_worker_looks_before_it_sleeps() {
    search_in_vain(Office::free_up, FREED);
}

/// A busy worker takes two requeued tasks into its window and begins with one, while worker 2 goes to
/// sleep: worker 2 sees the other one, or is woken for it. The word that says whether anything is
/// requeued is down *before* the window is filled, so it is the busy worker's fence that helps.
#[test]
fn a_busy_worker_passes_on_what_is_in_its_window() {
    check(|| {
        let office = Office::new();
        office.requeue().announce(0);
        office.requeue().announce(1);
        let busy = {
            let office = office.clone();
            thread::spawn(move || {
                let mut cursor = 0;
                let hint = |slot| Hint::new(0, slot);
                assert_eq!(office.requeue().claim(2, &mut cursor, &office.window, hint), 2);
                office.pass_on(1, true); // the window counts
            })
        };
        office.put_to_sleep(2);
        let seen = office.backlog() || office.window.get(1) != Hint::NONE;
        busy.join().expect("busy");
        assert!(seen || office.is_woken(2), "the second task has nobody");
    });
}

/// The same of a worker that claims the first task before it passes the other on.
#[test]
fn a_busy_worker_passes_on_behind_a_claim() {
    check(|| {
        let task = AtomicU64::new(0);
        SlotWord(&task).submit(7);
        let shared = Arc::new((task, Office::new()));
        shared.1.requeue().announce(0);
        shared.1.requeue().announce(1);
        let busy = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (task, office) = (SlotWord(&shared.0), &shared.1);
                let mut cursor = 0;
                let hint = |slot| Hint::new(0, slot);
                assert_eq!(office.requeue().claim(2, &mut cursor, &office.window, hint), 2);
                task.claim(task.load(), Owner::new(1, 0)).expect("nobody else does");
                office.bell().pass_on_behind_claim(1, LANE..=LANE, |_| true, &mut None); // the window counts
            })
        };
        let office = &shared.1;
        office.put_to_sleep(2);
        let seen = office.backlog() || office.window.get(1) != Hint::NONE;
        busy.join().expect("busy");
        assert!(seen || office.is_woken(2), "the second task has nobody");
    });
}

/// The same of one that knows who was searching: that one goes to sleep, and sees the second task or is woken.
#[test]
fn a_busy_worker_relies_on_a_searcher() {
    check(|| {
        let task = AtomicU64::new(0);
        SlotWord(&task).submit(7);
        let shared = Arc::new((task, Office::new()));
        shared.1.requeue().announce(0);
        shared.1.requeue().announce(1);
        shared.1.have_search(2);
        let busy = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (task, office) = (SlotWord(&shared.0), &shared.1);
                let mut cursor = 0;
                let hint = |slot| Hint::new(0, slot);
                assert_eq!(office.requeue().claim(2, &mut cursor, &office.window, hint), 2);
                task.claim(task.load(), Owner::new(1, 0)).expect("nobody else does");
                let mut cover = Some(2);
                office.bell().pass_on_behind_claim(1, LANE..=LANE, |_| true, &mut cover);
            })
        };
        let office = &shared.1;
        office.put_to_sleep(2);
        let seen = office.backlog() || office.window.get(1) != Hint::NONE;
        busy.join().expect("busy");
        assert!(seen || office.is_woken(2), "the second task has nobody");
    });
}

/// `Client::nobody_runs` against a worker that wakes, runs a task, counts it and parks: the back-stop
/// sees no contradiction, whenever it looks.
fn backstop_against_a_worker(counted_after: bool) {
    check(move || {
        let shared = Arc::new((AtomicU64::new(0), AtomicU32::new(0), Office::new()));
        SlotWord(&shared.0).submit(7);
        shared.2.put_to_sleep(1);
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (word, done, mut berth) = (SlotWord(&shared.0), &shared.1, shared.2.berth(1));
                berth.search();
                let run = word.claim(word.load(), Owner::new(1, 0)).expect("nobody else does");
                berth.found();
                if !counted_after {
                    done.store(1, Ordering::Release);
                }
                word.finish(run).expect("it is ours");
                if counted_after {
                    done.store(1, Ordering::Release);
                }
                berth.announce();
            })
        };
        let word = SlotWord(&shared.0);
        let first = word.load();
        if first.state() == Some(State::Run) {
            let tasks = shared.1.load(Ordering::Acquire);
            for _ in 0..2 {
                let more = shared.1.load(Ordering::Acquire) != tasks;
                let asleep = shared.2.park(1).is_asleep(0);
                assert!(word.load() != first || !(more || asleep), "an honest worker is accused");
            }
        }
        worker.join().expect("worker");
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

/// The models of this file.
pub(super) const MODELS: &[fn()] = &[
    a_parking_worker_hears_of_a_task,
    a_parking_worker_hears_of_a_task_that_is_announced_again,
    a_parking_worker_hears_of_a_dead_ones_task,
    a_parking_worker_hears_that_the_pool_ends,
    a_searcher_passes_wake_ups_on,
    a_woken_worker_passes_wake_ups_on,
    a_leaving_worker_passes_wake_ups_on,
    a_freed_worker_that_leaves_passes_wake_ups_on,
    a_searcher_that_gives_up_looks_again,
    a_freed_worker_looks_before_it_sleeps,
    a_busy_worker_passes_on_what_is_in_its_window,
    a_busy_worker_passes_on_behind_a_claim,
    a_busy_worker_relies_on_a_searcher,
];

mutants! {
    a_parking_worker_without_its_fence = a_parking_worker_hears_of_a_task
        with "wake/berth.rs" "announce" "fence" Relaxed;
    notify_without_its_fence = a_parking_worker_hears_of_a_task
        with "wake/bell.rs" "notify_seeing" "fence" Relaxed;
    a_forced_notify_without_its_fence = a_parking_worker_hears_of_a_task_that_is_announced_again
        with "wake/bell.rs" "notify_force" "fence" Relaxed;
    a_parking_worker_without_its_fence_before_a_forced_notify =
        a_parking_worker_hears_of_a_task_that_is_announced_again
        with "wake/berth.rs" "announce" "fence" Relaxed;
    a_reaps_broadcast_without_its_fence = a_parking_worker_hears_of_a_dead_ones_task
        with "wake/bell.rs" "broadcast" "fence" Relaxed;
    a_broadcast_without_its_fence = a_parking_worker_hears_that_the_pool_ends
        with "wake/bell.rs" "broadcast" "fence" Relaxed;
    a_parking_worker_without_its_fence_before_a_broadcast = a_parking_worker_hears_that_the_pool_ends
        with "wake/berth.rs" "announce" "fence" Relaxed;
    a_searcher_without_its_fence = a_searcher_passes_wake_ups_on
        with "wake/bell.rs" "pass_on" "fence" Relaxed;
    notify_without_its_fence_against_a_searcher = a_searcher_passes_wake_ups_on
        with "wake/bell.rs" "notify_seeing" "fence" Relaxed;
    a_woken_worker_without_its_fence = a_woken_worker_passes_wake_ups_on
        with "wake/bell.rs" "pass_on" "fence" Relaxed;
    a_leaving_worker_without_its_fence = a_leaving_worker_passes_wake_ups_on
        with "wake/bell.rs" "pass_on" "fence" Relaxed;
    a_searcher_that_gives_up_without_its_fence = a_searcher_that_gives_up_looks_again
        with "wake/berth.rs" "announce" "fence" Relaxed;
    a_freed_worker_that_sleeps_without_its_fence = a_freed_worker_looks_before_it_sleeps
        with "wake/berth.rs" "announce" "fence" Relaxed;
    notify_without_its_fence_against_a_freed_worker = a_freed_worker_looks_before_it_sleeps
        with "wake/bell.rs" "notify_seeing" "fence" Relaxed;
    a_freed_worker_that_leaves_without_its_fence = a_freed_worker_that_leaves_passes_wake_ups_on
        with "wake/bell.rs" "pass_on" "fence" Relaxed;
    notify_without_its_fence_against_one_that_leaves = a_freed_worker_that_leaves_passes_wake_ups_on
        with "wake/bell.rs" "notify_seeing" "fence" Relaxed;
    a_busy_worker_without_its_fence = a_busy_worker_passes_on_what_is_in_its_window
        with "wake/bell.rs" "pass_on" "fence" Relaxed;
    a_claim_without_its_fence = a_busy_worker_passes_on_behind_a_claim
        with "wake/bell.rs" "pass_on_behind_claim" "fence" Relaxed;
    a_claim_without_its_fence_beside_a_searcher = a_busy_worker_relies_on_a_searcher
        with "wake/bell.rs" "pass_on_behind_claim" "fence" Relaxed;
    a_searcher_that_parks_without_its_fence_beside_a_claim = a_busy_worker_relies_on_a_searcher
        with "wake/berth.rs" "announce" "fence" Relaxed;
    a_parking_worker_without_its_fence_beside_a_claim = a_busy_worker_passes_on_behind_a_claim
        with "wake/berth.rs" "announce" "fence" Relaxed;
    a_worker_that_parks_before_its_task_is_done = a_worker_that_keeps_to_the_protocol_is_not_accused
        with "wake/park.rs" "announce" "store" Relaxed;
    a_back_stop_that_does_not_acquire = a_worker_that_keeps_to_the_protocol_is_not_accused
        with "wake/park.rs" "is_asleep" "load" Relaxed;
    a_parking_worker_without_its_fence_beside_a_busy_one = a_busy_worker_passes_on_what_is_in_its_window
        with "wake/berth.rs" "announce" "fence" Relaxed;
}
