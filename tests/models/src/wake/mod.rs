//! Waking and sleeping: park words as truth, masks as hints.
//!
//! Up to three workers, one or two submitters, two reapers that help each other and of which one may be
//! late by any time. Tasks are abstract: a number for each lane of how many are announced. Taking one is
//! one step, as T2 makes it; what becomes of hints is the business of the [core](crate::core).
//!
//! | model | engine |
//! | --- | --- |
//! | `worker` | `worker/find.rs`: `find`, `search`, `pass_on`, `park`; `worker/mod.rs`: `withdraw` |
//! | [`Notify`](crate::bell::Notify) | `wake/bell.rs`: `notify`, `notify_force` |
//! | `others` | submitters: `client/submit.rs`, `look_behind`; reapers: `recovery/mod.rs`, `broadcast` |

mod others;
mod worker;

use crate::bell::{BellFaults, MOST_WORKERS, Seats, bit};
use crate::explore::{Model, Steps};
use others::{Reaper, Submitter};
use worker::Worker;

/// Tasks by address, which guests cannot run, and tasks by name.
pub(crate) const LANES: usize = 2;
/// Most submitters of a model.
const MOST_SUBMITTERS: usize = 2;
const REAPERS: usize = 2;

const WORKER_NAMES: [&str; MOST_WORKERS] = ["worker 0", "worker 1", "worker 2"];
const SUBMITTER_NAMES: [&str; MOST_SUBMITTERS] = ["client 0", "client 1"];
const REAPER_NAMES: [&str; REAPERS] = ["reaper 0", "reaper 1"];

/// A rule of the protocol, to be left out in a mutant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// Whoever takes a task and leaves work behind wakes another.
    PassOn,
    /// A searcher leaves `Search` before it looks whether to pass on.
    RunBeforePassOn,
    /// A worker looks once more before it sleeps.
    ParkRecheck,
    /// That look comes after the park word has left `Search`.
    AnnounceBeforeRecheck,
    /// That look comes after the idle bit is on.
    IdleBeforeRecheck,
    /// `notify` looks for sleepers.
    NotifyLooksAtIdle,
    /// `notify` believes the park word, not the searching bit.
    ParkIsTruth,
    /// `notify` tries another worker if one could not be woken.
    NotifyTriesOthers,
    /// A searcher counts only if it serves the lane.
    SearcherServesLane,
    /// A reap ends with a broadcast.
    Broadcast,
    /// The broadcast calls the kernel whatever the words say.
    BroadcastWakesAlways,
    /// T7 names the incarnation.
    TaggedTake,
    /// `Park::take_from_dead` names the incarnation.
    TaggedPark,
    /// `Park::sleep` lets the kernel compare the word.
    CompareBeforeSleep,
    /// A worker that leaves passes the wake-up on.
    Withdraw,
    /// A client that waits has a back-stop.
    Backstop,
    /// The back-stop wakes whatever the words say.
    BackstopForces,
}

/// A configuration of the model.
#[derive(Clone, Copy, Debug)]
pub struct Wake {
    /// Workers, 1 to 3.
    pub workers: usize,
    /// Threads or processes that submit, 1 or 2.
    pub submitters: usize,
    /// Tasks of each.
    pub tasks: u8,
    /// Which lane each submitter uses.
    pub lanes: [u8; MOST_SUBMITTERS],
    /// The last worker is a guest: it serves only the lane of names, 1.
    pub guest: bool,
    /// Worker 0 never ends a task; all others' tasks must end all the same.
    pub endless: bool,
    /// Worker 0 leaves after its first task.
    pub quota: bool,
    /// Whether a dead worker has a successor.
    pub respawn: bool,
    /// Deaths of workers.
    pub crashes: u8,
    /// Deaths of submitters.
    pub client_crashes: u8,
    /// Deaths of reapers.
    pub reaper_crashes: u8,
    /// How many reapers there are, 1 or 2.
    pub reapers: usize,
    /// Whether worker 0 is stopped at some point and never continued.
    pub stop: bool,
    /// The rules that a mutant breaks.
    pub without: &'static [Rule],
}

impl Wake {
    /// Two workers, one submitter with two tasks, no faults, all rules.
    pub const BASE: Wake = Wake {
        workers: 2,
        submitters: 1,
        tasks: 2,
        lanes: [0, 0],
        guest: false,
        endless: false,
        quota: false,
        respawn: true,
        crashes: 0,
        client_crashes: 0,
        reaper_crashes: 0,
        reapers: REAPERS,
        stop: false,
        without: &[],
    };

    fn keeps(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    fn bell_faults(&self) -> BellFaults {
        BellFaults {
            mask_is_truth: !self.keeps(Rule::ParkIsTruth),
            never_looks_at_idle: !self.keeps(Rule::NotifyLooksAtIdle),
            one_try: !self.keeps(Rule::NotifyTriesOthers),
        }
    }

    /// Whether a worker serves a lane.
    fn serves(&self, worker: usize, lane: usize) -> bool {
        lane == 1 || !(self.guest && worker + 1 == self.workers)
    }

    /// The workers that serve a lane.
    fn serving(&self, lane: usize) -> u8 {
        (0..self.workers)
            .filter(|&w| self.serves(w, lane) || !self.keeps(Rule::SearcherServesLane))
            .fold(0, |mask, w| mask | bit(w))
    }
}

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// Announced and not taken, for each lane.
    announced: [u8; LANES],
    /// Submitted and not done; whoever is killed gives back what it had.
    pending: u8,
    seats: Seats,
    workers: [Worker; MOST_WORKERS],
    submitters: [Submitter; MOST_SUBMITTERS],
    reapers: [Reaper; REAPERS],
    /// A reaper was killed, and its own death is not yet repaired.
    dead_reaper: bool,
    crashes: u8,
    client_crashes: u8,
    reaper_crashes: u8,
    stops: u8,
}

impl Model for Wake {
    type State = State;

    fn initial(&self) -> State {
        let mut submitters = [Submitter::new(0); MOST_SUBMITTERS];
        submitters[..self.submitters].fill(Submitter::new(self.tasks));
        State {
            announced: [0; LANES],
            pending: 0,
            seats: Seats::new(),
            workers: [Worker::new(0); MOST_WORKERS],
            submitters,
            reapers: [Reaper::IDLE; REAPERS],
            dead_reaper: false,
            crashes: self.crashes,
            client_crashes: self.client_crashes,
            reaper_crashes: self.reaper_crashes,
            stops: u8::from(self.stop),
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        for submitter in 0..self.submitters {
            self.submitter(state, submitter, steps);
        }
        for worker in 0..self.workers {
            self.worker(state, worker, steps);
        }
        for reaper in 0..self.reapers {
            self.reaper(state, reaper, steps);
        }
        self.faults(state, steps);
    }

    fn is_goal(&self, state: &State) -> bool {
        let kept = (0..self.workers)
            .filter(|&w| state.workers[w].stopped || self.endless && w == 0)
            .filter(|&w| state.workers[w].is_alive() && state.workers[w].holds())
            .count();
        state.submitters[..self.submitters].iter().all(|s| s.is_finished())
            && state.announced == [0; LANES]
            && state.pending as usize == kept
    }
}

impl Wake {
    fn faults(&self, state: &State, steps: &mut Steps<State>) {
        for (worker, name) in WORKER_NAMES.into_iter().enumerate().take(self.workers) {
            if !state.workers[worker].is_alive() {
                continue;
            }
            if state.crashes > 0 {
                let mut next = *state;
                next.crashes -= 1;
                next.workers[worker].die();
                next.seats.asleep &= !bit(worker);
                steps.fault(name, "KILLED", next);
            }
            if state.stops > 0 && worker == 0 {
                let mut next = *state;
                next.stops -= 1;
                next.workers[worker].stopped = true;
                next.seats.asleep &= !bit(worker); // a wake-up does not reach it
                steps.fault(name, "STOPPED", next);
            }
        }
        for (submitter, name) in SUBMITTER_NAMES.into_iter().enumerate().take(self.submitters) {
            if state.client_crashes > 0 && state.submitters[submitter].is_in_notify() {
                let mut next = *state;
                next.client_crashes -= 1;
                next.submitters[submitter].die();
                steps.fault(name, "KILLED", next);
            }
        }
        for (reaper, name) in REAPER_NAMES.into_iter().enumerate() {
            if state.reaper_crashes > 0 && state.reapers[reaper] != Reaper::IDLE {
                let mut next = *state;
                next.reaper_crashes -= 1;
                next.reapers[reaper] = Reaper::IDLE;
                next.dead_reaper = true;
                steps.fault(name, "KILLED", next);
            }
        }
    }

    /// The end of a task.
    fn finish(&self, state: &mut State, worker: usize, steps: &mut Steps<State>) {
        if !state.workers[worker].holds() {
            steps.fail("a worker ends a task that was taken from it");
        }
        match state.pending.checked_sub(1) {
            Some(pending) => state.pending = pending,
            None => steps.fail("more tasks ended than were submitted"),
        }
        state.workers[worker].held = None;
    }
}
