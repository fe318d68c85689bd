//! Submitters and reapers.

use super::worker::Worker;
use super::{REAPER_NAMES, Rule, SUBMITTER_NAMES, State, Wake};
use crate::bell::Notify;
use crate::explore::Steps;

/// A thread that submits tasks, or a client with one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Submitter {
    pc: SubmitterPc,
    left: u8,
}

/// What a submitter does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
enum SubmitterPc {
    /// Submits, or waits for the back-stop.
    Top,
    /// `Bell::notify` or `notify_force`.
    Notify(Notify),
    /// Killed; somebody must reap it.
    Dead,
    /// And has.
    Buried,
}

impl Submitter {
    pub(super) fn new(left: u8) -> Self {
        Submitter { pc: SubmitterPc::Top, left }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.pc == SubmitterPc::Buried || self.pc == SubmitterPc::Top && self.left == 0
    }

    pub(super) fn is_in_notify(&self) -> bool {
        matches!(self.pc, SubmitterPc::Notify(_))
    }

    pub(super) fn die(&mut self) {
        *self = Submitter { pc: SubmitterPc::Dead, left: 0 };
    }
}

/// Repairs one death. Two may repair the same one, and one of them may come late.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Reaper {
    pc: ReaperPc,
    dead: Dead,
}

/// Whose death.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
enum Dead {
    Worker { worker: u8, incarnation: u8 },
    Submitter(u8),
    Reaper,
}

/// What a reaper does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
enum ReaperPc {
    Idle,
    /// T7 and its announcement.
    Take,
    /// `Park::take_from_dead`.
    Park,
    /// `broadcast`: `Park::notify`.
    Notify {
        at: u8,
    },
    /// `broadcast`: `Park::wake`.
    Wake {
        at: u8,
        marked: bool,
    },
    /// life: `Dead` to `Free`; perhaps a successor.
    Free,
}

use ReaperPc as Pc;

impl Reaper {
    pub(super) const IDLE: Reaper = Reaper { pc: Pc::Idle, dead: Dead::Reaper };
}

impl Wake {
    pub(super) fn submitter(&self, state: &State, submitter: usize, steps: &mut Steps<State>) {
        let Submitter { pc, left } = state.submitters[submitter];
        let lane = self.lanes[submitter] as usize;
        let mut next = *state;
        let me = &mut next.submitters[submitter];
        let label = match pc {
            SubmitterPc::Top if left > 0 => {
                *me = Submitter { pc: SubmitterPc::Notify(Notify::START), left: left - 1 };
                next.announced[lane] += 1;
                next.pending += 1;
                "submit: T1, publish"
            }
            SubmitterPc::Top => {
                // The timer matters only if somebody is stopped: without it nothing else may depend on it.
                let stopped = self.stop && state.stops == 0 && self.keeps(Rule::Backstop);
                if !stopped || state.announced[lane] == 0 {
                    return;
                }
                let force = self.keeps(Rule::BackstopForces);
                me.pc = SubmitterPc::Notify(if force { Notify::FORCE } else { Notify::START });
                "look_behind"
            }
            SubmitterPc::Notify(notify) => {
                let after = notify.step(&mut next.seats, self.serving(lane), self.bell_faults());
                me.pc = after.map_or(SubmitterPc::Top, SubmitterPc::Notify);
                notify.label()
            }
            SubmitterPc::Dead | SubmitterPc::Buried => return,
        };
        steps.add(SUBMITTER_NAMES[submitter], label, next);
    }

    pub(super) fn reaper(&self, state: &State, reaper: usize, steps: &mut Steps<State>) {
        let name = REAPER_NAMES[reaper];
        let Reaper { pc, dead } = state.reapers[reaper];
        if pc == Pc::Idle {
            for (dead, pc) in self.deaths(state) {
                let mut next = *state;
                next.reapers[reaper] = Reaper { pc, dead };
                steps.add(name, "reap", next);
            }
            return;
        }
        let mut next = *state;
        let (label, pc) = self.reaper_step(state, &mut next, pc, dead);
        next.reapers[reaper] = if pc == Pc::Idle { Reaper::IDLE } else { Reaper { pc, dead } };
        steps.add(name, label, next);
    }

    /// Deaths that nobody has finished to repair, and where their repair begins.
    fn deaths(&self, state: &State) -> impl Iterator<Item = (Dead, Pc)> {
        let workers = (0..self.workers).filter(|&w| state.workers[w].unreaped).map(|w| {
            let incarnation = state.workers[w].incarnation;
            (Dead::Worker { worker: w as u8, incarnation }, Pc::Take)
        });
        let dead = |&s: &usize| state.submitters[s].pc == SubmitterPc::Dead;
        let broadcast = Pc::Notify { at: 0 };
        let submitters =
            (0..self.submitters).filter(dead).map(move |s| (Dead::Submitter(s as u8), broadcast));
        let reaper = state.dead_reaper.then_some((Dead::Reaper, broadcast));
        workers.chain(submitters).chain(reaper)
    }

    fn reaper_step(&self, state: &State, next: &mut State, pc: Pc, dead: Dead) -> (&'static str, Pc) {
        match (pc, dead) {
            (Pc::Take, Dead::Worker { worker, incarnation }) => {
                let w = worker as usize;
                let theirs = state.workers[w].incarnation == incarnation;
                if (theirs && !state.workers[w].is_alive() || !self.keeps(Rule::TaggedTake))
                    && let Some(lane) = next.workers[w].held.take()
                {
                    next.announced[lane as usize] += 1;
                }
                ("T7 take_from_dead, announce", Pc::Park)
            }
            (Pc::Park, Dead::Worker { worker, incarnation }) => {
                next.seats.take_from_dead(worker as usize, incarnation, self.keeps(Rule::TaggedPark));
                ("Park::take_from_dead", Pc::Notify { at: 0 })
            }
            (Pc::Notify { at }, _) if at as usize == self.workers || !self.keeps(Rule::Broadcast) => {
                ("broadcast: done", Pc::Free)
            }
            (Pc::Notify { at }, _) => {
                let marked = next.seats.notify(at as usize);
                ("broadcast: Park::notify", Pc::Wake { at, marked })
            }
            (Pc::Wake { at, marked }, _) => {
                if marked || self.keeps(Rule::BroadcastWakesAlways) {
                    next.seats.wake(at as usize);
                }
                ("broadcast: Park::wake", Pc::Notify { at: at + 1 })
            }
            (Pc::Free, Dead::Worker { worker, incarnation }) => {
                let place = &mut next.workers[worker as usize];
                if place.unreaped && place.incarnation == incarnation {
                    *place = match self.respawn {
                        true => Worker::new(incarnation + 1),
                        false => Worker { unreaped: false, held: None, ..*place },
                    };
                }
                ("life: Free", Pc::Idle)
            }
            (Pc::Free, Dead::Submitter(submitter)) => {
                next.submitters[submitter as usize].pc = SubmitterPc::Buried;
                ("life: Free", Pc::Idle)
            }
            (Pc::Free, Dead::Reaper) => {
                next.dead_reaper = false;
                ("life: Free", Pc::Idle)
            }
            (Pc::Idle | Pc::Take | Pc::Park, _) => unreachable!("only workers own tasks and park words"),
        }
    }
}
