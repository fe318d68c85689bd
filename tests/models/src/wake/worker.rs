//! A worker: finds tasks, passes wake-ups on, sleeps.

use super::{LANES, Rule, State, WORKER_NAMES, Wake};
use crate::bell::{Notify, ParkState, bit};
use crate::explore::Steps;

/// What a worker keeps to itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Worker {
    pub pc: WorkerPc,
    pub incarnation: u8,
    /// The lane of the task that its slot word says it runs. Outlives the worker, until T7.
    pub held: Option<u8>,
    pub stopped: bool,
    /// Dead, and nobody has finished the reap.
    pub unreaped: bool,
}

/// What a worker does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(super) enum WorkerPc {
    /// `find`: looks while nobody knows.
    Find,
    /// `pass_on`: its first look at the backlog.
    Backlog,
    /// `anybody_idle`.
    AnybodyIdle,
    /// `notify_for_backlog`: is something left in the lane?
    BacklogIn { lane: u8 },
    /// `Bell::notify` for a lane.
    Notify { lane: u8, notify: Notify },
    /// The task itself.
    Execute,

    /// `search`: its park word.
    Search,
    /// `set_idle(false)`.
    IdleOff,
    /// `set_searching(true)`, unless too many search.
    SearchingOn,
    /// `search`: looks.
    Look,
    /// `search` has found something.
    Run,

    /// `park`: its park word.
    Announce,
    /// `set_idle(true)`.
    IdleOn,
    /// `set_searching(false)`.
    SearchingOff,
    /// The last look.
    Recheck,
    /// `Park::sleep`.
    Sleep,
    /// In the kernel, or on the way out.
    Asleep,

    /// `withdraw`: its park word.
    WithdrawPark,
    /// `withdraw`: its bits.
    WithdrawBits,
    /// Killed, or ended.
    Dead,
}

use WorkerPc as Pc;

impl Worker {
    pub(super) fn new(incarnation: u8) -> Self {
        Worker { pc: Pc::Find, incarnation, held: None, stopped: false, unreaped: false }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.pc != Pc::Dead
    }

    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }

    pub(super) fn die(&mut self) {
        *self = Worker { pc: Pc::Dead, unreaped: true, held: self.held, ..Worker::new(self.incarnation) };
    }
}

impl Wake {
    /// Whether something is announced that `worker` can do.
    fn backlog(&self, state: &State, worker: usize) -> bool {
        (0..LANES).any(|lane| self.serves(worker, lane) && state.announced[lane] > 0)
    }

    pub(super) fn worker(&self, state: &State, worker: usize, steps: &mut Steps<State>) {
        let me = state.workers[worker];
        if me.stopped {
            return;
        }
        if matches!(me.pc, Pc::Find | Pc::Look) {
            self.look(state, worker, steps);
            return;
        }
        let mut next = *state;
        if let Some((label, pc)) = self.worker_step(state, &mut next, worker, steps) {
            next.workers[worker].pc = pc;
            if me.pc == Pc::Execute && self.quota && worker == 0 {
                next.workers[worker].pc = Pc::WithdrawPark;
            }
            if pc == Pc::Dead {
                next.workers[worker].die();
            }
            steps.add(WORKER_NAMES[worker], label, next);
        }
        if me.pc == Pc::SearchingOn {
            let mut next = *state;
            next.workers[worker].pc = Pc::Look;
            steps.add(WORKER_NAMES[worker], "search: crowded", next);
        }
    }

    /// Takes what is there, from any lane that it serves, or goes on without.
    fn look(&self, state: &State, worker: usize, steps: &mut Steps<State>) {
        let searching = state.workers[worker].pc == Pc::Look;
        for lane in (0..LANES).filter(|&lane| self.serves(worker, lane) && state.announced[lane] > 0) {
            let mut next = *state;
            next.announced[lane] -= 1;
            next.workers[worker].held = Some(lane as u8);
            next.workers[worker].pc = match searching {
                true if self.keeps(Rule::RunBeforePassOn) => Pc::Run,
                true => Pc::AnybodyIdle,
                false => self.if_passing_on(Pc::Backlog),
            };
            steps.add(WORKER_NAMES[worker], "look: T2 claim", next);
        }
        if !self.backlog(state, worker) {
            let mut next = *state;
            next.workers[worker].pc = match searching {
                true if self.keeps(Rule::AnnounceBeforeRecheck) => Pc::Announce,
                true => Pc::Recheck,
                false => Pc::Search,
            };
            steps.add(WORKER_NAMES[worker], "look: nothing", next);
        }
    }

    fn if_passing_on(&self, pc: Pc) -> Pc {
        if self.keeps(Rule::PassOn) { pc } else { Pc::Execute }
    }

    /// Where passing on ends: at the task, or at the end.
    fn passed_on(&self, state: &State, worker: usize) -> Pc {
        match state.workers[worker].holds() {
            true if state.seats.park[worker].state == ParkState::Search => Pc::Run, // a mutant
            true => Pc::Execute,
            false => Pc::Dead,
        }
    }

    fn backlog_in(&self, state: &State, worker: usize, lane: usize) -> Pc {
        match (lane..LANES).find(|&lane| self.serves(worker, lane)) {
            Some(lane) => Pc::BacklogIn { lane: lane as u8 },
            None => self.passed_on(state, worker),
        }
    }

    fn worker_step(
        &self,
        state: &State,
        next: &mut State,
        worker: usize,
        steps: &mut Steps<State>,
    ) -> Option<(&'static str, Pc)> {
        let me = state.workers[worker];
        Some(match me.pc {
            Pc::Backlog => {
                let more = self.backlog(state, worker);
                ("pass_on: backlog", if more { Pc::AnybodyIdle } else { Pc::Execute })
            }
            Pc::AnybodyIdle => {
                let idle = state.seats.idle & !bit(worker) != 0;
                let pc = match idle {
                    true => self.backlog_in(state, worker, 0),
                    false => self.passed_on(state, worker),
                };
                ("anybody_idle", pc)
            }
            Pc::BacklogIn { lane } => {
                let pc = match state.announced[lane as usize] {
                    0 => self.backlog_in(state, worker, lane as usize + 1),
                    _ => Pc::Notify { lane, notify: Notify::START },
                };
                ("notify_for_backlog", pc)
            }
            Pc::Notify { lane, notify } => {
                let serving = self.serving(lane as usize);
                let pc = match notify.step(&mut next.seats, serving, self.bell_faults()) {
                    Some(notify) => Pc::Notify { lane, notify },
                    None => self.backlog_in(state, worker, lane as usize + 1),
                };
                (notify.label(), pc)
            }
            Pc::Execute if self.endless && worker == 0 => return None,
            Pc::Execute => {
                self.finish(next, worker, steps);
                ("T3 finish", Pc::Find)
            }

            Pc::Search => {
                next.seats.set(worker, ParkState::Search, me.incarnation);
                ("Park::search", Pc::IdleOff)
            }
            Pc::IdleOff => {
                next.seats.idle &= !bit(worker);
                let searching = state.seats.searching & bit(worker) != 0;
                ("set_idle(false)", if searching { Pc::Look } else { Pc::SearchingOn })
            }
            Pc::SearchingOn => {
                next.seats.searching |= bit(worker);
                ("set_searching(true)", Pc::Look)
            }
            Pc::Run => {
                next.seats.set(worker, ParkState::Run, me.incarnation);
                let passes = self.keeps(Rule::RunBeforePassOn);
                ("Park::run", if passes { self.if_passing_on(Pc::AnybodyIdle) } else { Pc::Execute })
            }

            Pc::Announce => {
                next.seats.set(worker, ParkState::Parked, me.incarnation);
                let bit_first = self.keeps(Rule::IdleBeforeRecheck);
                ("Park::announce", if bit_first { Pc::IdleOn } else { Pc::SearchingOff })
            }
            Pc::IdleOn => {
                next.seats.idle |= bit(worker);
                let checked = !self.keeps(Rule::IdleBeforeRecheck);
                ("set_idle(true)", if checked { Pc::Sleep } else { Pc::SearchingOff })
            }
            Pc::SearchingOff => {
                next.seats.searching &= !bit(worker);
                let pc = match self.keeps(Rule::ParkRecheck) && self.keeps(Rule::AnnounceBeforeRecheck) {
                    true => Pc::Recheck,
                    false => Pc::Sleep,
                };
                ("set_searching(false)", pc)
            }
            Pc::Recheck => {
                let pc = if self.backlog(state, worker) {
                    Pc::Search
                } else if !self.keeps(Rule::AnnounceBeforeRecheck) {
                    Pc::Announce
                } else if !self.keeps(Rule::IdleBeforeRecheck) {
                    Pc::IdleOn
                } else {
                    Pc::Sleep
                };
                ("park: backlog", pc)
            }
            Pc::Sleep => {
                if !self.keeps(Rule::CompareBeforeSleep) {
                    next.seats.asleep |= bit(worker);
                    return Some(("Park::sleep", Pc::Asleep));
                }
                let sleeps = next.seats.sleep(worker, me.incarnation);
                ("Park::sleep", if sleeps { Pc::Asleep } else { Pc::Search })
            }
            Pc::Asleep if state.seats.asleep & bit(worker) == 0 => {
                let more = self.backlog(state, worker);
                ("park: woken", if more { Pc::Search } else { Pc::Sleep })
            }

            Pc::WithdrawPark => {
                next.seats.set(worker, ParkState::Run, me.incarnation);
                ("withdraw: Park::run", Pc::WithdrawBits)
            }
            Pc::WithdrawBits => {
                next.seats.idle &= !bit(worker);
                next.seats.searching &= !bit(worker);
                let passes = self.keeps(Rule::Withdraw);
                ("withdraw: bits off", if passes { self.backlog_in(state, worker, 0) } else { Pc::Dead })
            }
            Pc::Asleep | Pc::Dead | Pc::Find | Pc::Look => return None,
        })
    }
}
