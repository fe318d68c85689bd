//! The core: slots, ready ring, windows, requeue bits, completion rings, parking and waking, the reaper.
//!
//! Two workers and one client that holds two slots, each shared access a step of its own. The client either takes
//! whatever is done ([`Waiting::Any`], the engine's `wait_any`) or waits for its oldest task
//! ([`Waiting::One`], `wait_for`).
//!
//! | model | engine |
//! | --- | --- |
//! | `client` | `client/submit.rs`, `wait.rs`, `consume.rs` |
//! | `worker`, `park` | `worker/find.rs`, `run.rs`, `ring/*.rs` |
//! | `reaper` | `recovery/mod.rs`, then the launch of a successor |
//! | [`Notify`](crate::bell::Notify) | `wake/bell.rs` |
//!
//! Accesses are put into one step only where nobody can tell: a load and the compare-exchange loop that
//! follows it, a cell and the tail that publishes it, a terminal slot's word and its T4.

mod client;
mod park;
mod reaper;
mod worker;

use crate::bell::{BellFaults, Seats, bit};
use crate::explore::{Model, Steps};
use client::{Client, ClientPc};
use reaper::{Reaper, ReaperPc};
use worker::{Worker, WorkerPc};

/// Workers of the model.
pub(crate) const WORKERS: usize = 2;
/// Slots of its client.
pub(crate) const SLOTS: usize = 2;
/// Cells of the ready ring, as many as twice the slots.
const CELLS: usize = 4;
/// Hints that a window holds.
const BATCH: usize = 2;
/// An entry of a window that names no slot.
const NO_HINT: u8 = 9;

const NAMES: [&str; WORKERS] = ["worker 0", "worker 1"];
const CLIENT: &str = "client";
const REAPER: &str = "reaper";

/// A rule of the protocol, to be left out in a mutant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// A worker looks everywhere once more between announcing its sleep and sleeping.
    ParkRecheck,
    /// A client looks for news once more between raising its sleep bit and sleeping.
    ClientRecheck,
    /// A completion is announced after T3.
    HintAfterDone,
    /// A worker that has announced completions looks whether the client sleeps before it runs or searches.
    TellClient,
    /// A full completion ring raises `overflow`.
    Overflow,
    /// The kernel compares the slot's word with the one that was seen, `W` included.
    CompareBeforeSleep,
    /// T2 keeps `W`.
    ClaimKeepsWaiter,
    /// T7 keeps `W`.
    ReapKeepsWaiter,
    /// T3 is followed by a wake if the word has `W`.
    WakeAfterDone,
    /// The window is filled before `head` moves.
    WindowBeforeHead,
    /// The cells, at least, are loaded before.
    CellsBeforeHead,
    /// The window is filled before the requeue bit goes.
    WindowBeforeRequeue,
    /// Idle workers look into the windows of others.
    Steal,
    /// T7 takes only what the dead process owns.
    TakeOnlyTheirs,
    /// A reap announces all ready slots, not only those that it took from the dead.
    AnnounceAll,
    /// A reap wakes the sleepers of all terminal slots, not only of those that it made terminal.
    WakeAllTerminal,
    /// A reap raises `rescan`.
    Rescan,
    /// A reap wakes the client, asleep or not.
    WakeClient,
    /// A reap ends with a broadcast.
    Broadcast,
    /// The place is given away last.
    FreeLast,
    /// `any` goes up after the bit.
    AnyAfterBit,
    /// `any` goes up again if bits are left.
    AnyRaisedAgain,
    /// `any` goes up again for bits that came in a part that was done with.
    LateBits,
    /// A sleeping client has a back-stop.
    Backstop,
    /// The back-stop looks at all slots, hint or not.
    BackstopScans,
    /// The back-stop announces ready slots.
    BackstopAnnounces,
    /// The back-stop wakes whatever the words say.
    BackstopForces,
    /// Whoever leaves work behind passes the wake-up on.
    PassOn,
    /// `notify` believes the park word, not the searching bit.
    ParkIsTruth,
}

/// How the client waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// For any result, on the sleep word.
    Any,
    /// For its oldest task, on the slot's word.
    One,
}

/// A configuration of the model.
#[derive(Clone, Copy, Debug)]
pub struct Core {
    /// Workers, 1 or 2.
    pub workers: usize,
    /// Tasks that the client submits, at most two at a time.
    pub tasks: u8,
    /// How it waits for them.
    pub waiting: Waiting,
    /// How often a task may be started.
    pub attempts: u8,
    /// Whether a dead worker has a successor.
    pub respawn: bool,
    /// Deaths of workers.
    pub crashes: u8,
    /// Deaths of the reaper; each is followed by a new one, which starts again.
    pub reaper_crashes: u8,
    /// Whether the last worker is stopped at some point and never continued.
    pub stop: bool,
    /// Cells of the ready ring, up to 4.
    pub cells: u8,
    /// Hints that are claimed at once, up to 2.
    pub batch: u8,
    /// Cells of a completion ring, 1 or 2.
    pub completions: u8,
    /// The rules that a mutant breaks.
    pub without: &'static [Rule],
}

impl Core {
    /// Two workers, one task, no faults, all rules.
    pub const BASE: Core = Core {
        workers: WORKERS,
        tasks: 1,
        waiting: Waiting::Any,
        attempts: 3,
        respawn: false,
        crashes: 0,
        reaper_crashes: 0,
        stop: false,
        cells: CELLS as u8,
        batch: BATCH as u8,
        completions: 2,
        without: &[],
    };

    fn keeps(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    fn bell_faults(&self) -> BellFaults {
        BellFaults { mask_is_truth: !self.keeps(Rule::ParkIsTruth), ..BellFaults::default() }
    }
}

/// As the engine's `slot::State`; nobody cancels here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
enum SlotState {
    Free,
    Ready,
    Run,
    Done,
    Lost,
}

impl SlotState {
    fn is_terminal(self) -> bool {
        matches!(self, SlotState::Done | SlotState::Lost)
    }
}

/// A worker and its incarnation, or nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Owner(u8);

impl Owner {
    const NOBODY: Owner = Owner(0);

    fn new(worker: usize, incarnation: u8) -> Self {
        Owner(1 + worker as u8 + WORKERS as u8 * incarnation)
    }
}

/// A slot: its word, and which task is in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Slot {
    state: SlotState,
    generation: u8,
    attempt: u8,
    owner: Owner,
    waiter: bool,
    task: u8,
}

/// A completion ring. `head` is also what the client has told the worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Completions {
    cells: [u8; 2],
    tail: u8,
    head: u8,
    overflow: bool,
}

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    slots: [Slot; SLOTS],
    cells: [u8; CELLS],
    head: u8,
    tail: u8,
    requeue: u8,
    any: bool,
    windows: [[u8; BATCH]; WORKERS],
    completions: [Completions; WORKERS],
    seats: Seats,
    sleep: bool,
    rescan: bool,
    client: Client,
    workers: [Worker; WORKERS],
    reaper: Reaper,
    crashes: u8,
    reaper_crashes: u8,
    stops: u8,
    delivered: u8,
    lost: u8,
}

impl State {
    /// `SlotWord::wake`.
    fn wake_slot(&mut self, slot: u8) {
        if self.client.pc == (ClientPc::AsleepOnSlot { slot }) {
            self.client.pc = ClientPc::WaitOne;
        }
    }

    /// `futex::wake` on the client's sleep word.
    fn wake_client(&mut self) {
        if self.client.pc == ClientPc::Asleep {
            self.client.pc = ClientPc::LeaveSleepers { timed_out: false };
        }
    }

    fn owner(&self, worker: usize) -> Owner {
        Owner::new(worker, self.workers[worker].incarnation)
    }

    /// Whether nobody can finish the task: a stopped worker has it, or there is no other worker.
    fn is_out_of_hands(&self, task: u8) -> bool {
        let nobody = self.workers.iter().all(|worker| worker.stopped || !worker.is_alive());
        self.slots.iter().filter(|slot| slot.task == task).any(|slot| match slot.state {
            SlotState::Ready => nobody,
            SlotState::Run => (0..WORKERS).any(|w| self.workers[w].stopped && slot.owner == self.owner(w)),
            SlotState::Free | SlotState::Done | SlotState::Lost => false,
        })
    }
}

impl Model for Core {
    type State = State;

    fn initial(&self) -> State {
        let slot = Slot {
            state: SlotState::Free,
            generation: 0,
            attempt: 0,
            owner: Owner::NOBODY,
            waiter: false,
            task: 0,
        };
        let completions = Completions { cells: [0; 2], tail: 0, head: 0, overflow: false };
        let mut workers = [Worker::absent(); WORKERS];
        workers[..self.workers].fill(Worker::new(0));
        State {
            slots: [slot; SLOTS],
            cells: [0; CELLS],
            head: 0,
            tail: 0,
            requeue: 0,
            any: false,
            windows: [[NO_HINT; BATCH]; WORKERS],
            completions: [completions; WORKERS],
            seats: Seats::new(),
            sleep: false,
            rescan: false,
            client: Client::new(),
            workers,
            reaper: Reaper::IDLE,
            crashes: self.crashes,
            reaper_crashes: self.reaper_crashes,
            stops: u8::from(self.stop),
            delivered: 0,
            lost: 0,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        self.client(state, steps);
        for worker in 0..WORKERS {
            self.worker(state, worker, steps);
        }
        self.reaper(state, steps);
        if state.client.pc != ClientPc::End {
            self.faults(state, steps);
        }
    }

    fn is_goal(&self, state: &State) -> bool {
        let settled = |task: u8| {
            (state.delivered | state.lost) & 1 << task != 0
                || state.stops < u8::from(self.stop) && state.is_out_of_hands(task)
        };
        let all = (0..self.tasks).all(settled);
        // A client that waits for what a stopped worker has waits for ever, and rightly.
        let stopped = state.stops < u8::from(self.stop);
        all && (stopped || state.client.pc == ClientPc::End)
    }
}

impl Core {
    fn faults(&self, state: &State, steps: &mut Steps<State>) {
        for (worker, name) in NAMES.into_iter().enumerate() {
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
            if state.stops > 0 && worker + 1 == self.workers {
                let mut next = *state;
                next.stops -= 1;
                next.workers[worker].stopped = true;
                next.seats.asleep &= !bit(worker); // a wake-up does not reach it
                steps.fault(name, "STOPPED", next);
            }
        }
        if state.reaper_crashes > 0 && state.reaper.pc != ReaperPc::Idle {
            let mut next = *state;
            next.reaper_crashes -= 1;
            next.reaper = Reaper::IDLE;
            steps.fault(REAPER, "KILLED", next);
        }
    }

    /// T3 by `worker`, with everything that must hold then.
    fn finish(&self, state: &mut State, worker: usize, slot: u8, steps: &mut Steps<State>) {
        let me = state.owner(worker);
        let word = &mut state.slots[slot as usize];
        if word.state != SlotState::Run || word.owner != me {
            steps.fail("T3 of a task that is not the worker's");
        }
        word.state = SlotState::Done;
    }

    /// What must hold while `worker` executes the task of a slot.
    fn check_execution(&self, state: &State, worker: usize, slot: u8, steps: &mut Steps<State>) {
        let word = state.slots[slot as usize];
        if word.state != SlotState::Run || word.owner != state.owner(worker) {
            steps.fail("a worker executes a task that is not its own");
        }
        if state.delivered & 1 << word.task != 0 {
            steps.fail("a task is executed after its result was delivered");
        }
        let twice = (0..WORKERS).any(|w| w != worker && state.workers[w].pc == (WorkerPc::Execute { slot }));
        if twice {
            steps.fail("two workers execute one task");
        }
    }
}
