//! `recovery::reap`, and the launch of a successor.

use super::worker::Worker;
use super::{Core, Owner, REAPER, Rule, SLOTS, SlotState, State, WORKERS};
use crate::explore::Steps;

/// What the reaper keeps to itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Reaper {
    pub pc: ReaperPc,
    /// Whose death it repairs.
    dead: u8,
}

impl Reaper {
    pub(super) const IDLE: Reaper = Reaper { pc: ReaperPc::Idle, dead: 0 };
}

/// What the reaper does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(super) enum ReaperPc {
    /// Waits for a pidfd.
    Idle,
    /// `take_from_dead`.
    Slot { at: u8 },
    /// `reap_slot`: the word after a retry.
    Reload { at: u8 },
    /// `Requeue::announce`, the bit.
    Announce { at: u8 },
    /// `Requeue::announce`, `any`.
    AnnounceAny { at: u8 },
    /// `SlotWord::wake`.
    WakeSlot { at: u8 },
    /// `Park::take_from_dead`.
    Park,
    /// `wake_client`: `rescan`.
    Rescan,
    /// `wake_client`: the sleep bit.
    ClearSleep,
    /// `wake_client`: its futex.
    WakeClient,
    /// `broadcast`: `Park::notify`.
    Notify { at: u8 },
    /// `broadcast`: `Park::wake`.
    Wake { at: u8 },
    /// life: `Dead` to `Free`; perhaps a successor.
    Free,
}

use ReaperPc as Pc;

impl Core {
    pub(super) fn reaper(&self, state: &State, steps: &mut Steps<State>) {
        if state.reaper.pc == Pc::Idle {
            for dead in (0..WORKERS).filter(|&w| state.workers[w].unreaped) {
                let mut next = *state;
                next.reaper = Reaper { pc: Pc::Slot { at: 0 }, dead: dead as u8 };
                if !self.keeps(Rule::FreeLast) {
                    next.workers[dead].unreaped = false;
                }
                steps.add(REAPER, "reap", next);
            }
            return;
        }
        let mut next = *state;
        let (label, pc) = self.reaper_step(state, &mut next);
        next.reaper.pc = pc;
        if pc == Pc::Idle {
            next.reaper = Reaper::IDLE;
        }
        steps.add(REAPER, label, next);
    }

    fn reaper_step(&self, state: &State, next: &mut State) -> (&'static str, Pc) {
        let dead = state.reaper.dead as usize;
        let after = |at: u8| if at as usize + 1 < SLOTS { Pc::Slot { at: at + 1 } } else { Pc::Park };
        match state.reaper.pc {
            Pc::Idle => unreachable!("an idle reaper makes no step"),
            Pc::Slot { at } => self.reap_slot(state, next, at, after(at)),
            Pc::Reload { at } => {
                let word = state.slots[at as usize];
                let pc = match word.state {
                    SlotState::Ready => Pc::Announce { at },
                    SlotState::Done | SlotState::Lost if word.waiter => Pc::WakeSlot { at },
                    _ => after(at),
                };
                ("reap_slot: load word", pc)
            }
            Pc::Announce { at } => {
                self.announce_first(next, at);
                ("Requeue::announce", Pc::AnnounceAny { at })
            }
            Pc::AnnounceAny { at } => {
                self.announce_second(next, at);
                ("Requeue::announce: second half", after(at))
            }
            Pc::WakeSlot { at } => {
                next.wake_slot(at);
                ("SlotWord::wake", after(at))
            }
            Pc::Park => {
                next.seats.take_from_dead(dead, state.workers[dead].incarnation, true);
                ("Park::take_from_dead", Pc::Rescan)
            }
            Pc::Rescan => {
                next.rescan |= self.keeps(Rule::Rescan);
                let wakes = self.keeps(Rule::WakeClient);
                ("wake_client: rescan", if wakes { Pc::ClearSleep } else { Pc::Notify { at: 0 } })
            }
            Pc::ClearSleep => {
                next.sleep = false;
                ("wake_client: sleep bit off", Pc::WakeClient)
            }
            Pc::WakeClient => {
                next.wake_client();
                ("wake_client: futex::wake", Pc::Notify { at: 0 })
            }
            Pc::Notify { at } if at as usize == WORKERS || !self.keeps(Rule::Broadcast) => {
                ("broadcast: done", Pc::Free)
            }
            Pc::Notify { at } => {
                next.seats.notify(at as usize);
                ("broadcast: Park::notify", Pc::Wake { at })
            }
            Pc::Wake { at } => {
                next.seats.wake(at as usize);
                ("broadcast: Park::wake", Pc::Notify { at: at + 1 })
            }
            Pc::Free => {
                let incarnation = state.workers[dead].incarnation + 1;
                next.workers[dead].unreaped = false;
                next.workers[dead].incarnation = incarnation;
                if self.respawn {
                    next.workers[dead] = Worker::new(incarnation);
                }
                ("life: Free", Pc::Idle)
            }
        }
    }

    /// T7 and what the word then asks for.
    fn reap_slot(&self, state: &State, next: &mut State, at: u8, after: Pc) -> (&'static str, Pc) {
        let dead = state.reaper.dead as usize;
        let theirs = Owner::new(dead, state.workers[dead].incarnation);
        let word = &mut next.slots[at as usize];
        let takes = word.owner == theirs || !self.keeps(Rule::TakeOnlyTheirs);
        match word.state {
            SlotState::Run if takes => {
                word.waiter &= self.keeps(Rule::ReapKeepsWaiter);
                if word.attempt + 1 < self.attempts {
                    word.state = SlotState::Ready;
                    word.owner = Owner::NOBODY;
                    word.attempt += 1;
                    return ("T7 take_from_dead: Retry", Pc::Reload { at });
                }
                word.state = SlotState::Lost;
                ("T7 take_from_dead: Lost", if word.waiter { Pc::WakeSlot { at } } else { after })
            }
            SlotState::Ready if self.keeps(Rule::AnnounceAll) => {
                ("T7 take_from_dead: Ready", Pc::Announce { at })
            }
            state if state.is_terminal() && word.waiter && self.keeps(Rule::WakeAllTerminal) => {
                ("T7 take_from_dead: over, W", Pc::WakeSlot { at })
            }
            _ => ("T7 take_from_dead: NotTheirs", after),
        }
    }
}
