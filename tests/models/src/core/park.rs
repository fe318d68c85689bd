//! A worker that begins to search, or goes to sleep.

use super::worker::{OTHERS_HINTS, WorkerPc as Pc};
use super::{Core, Rule, SlotState, State};
use crate::bell::{ParkState, bit};

impl Core {
    /// `search` up to its look, and `park`.
    pub(super) fn parking(
        &self,
        state: &State,
        next: &mut State,
        worker: usize,
    ) -> Option<(&'static str, Pc)> {
        let incarnation = state.workers[worker].incarnation;
        let sleep_or_window = if self.keeps(Rule::Steal) { Pc::RecheckHint { at: 0 } } else { Pc::Sleep };
        Some(match state.workers[worker].pc {
            Pc::Search => {
                next.seats.set(worker, ParkState::Search, incarnation);
                let idle = state.seats.idle & bit(worker) != 0;
                ("Park::search", if idle { Pc::IdleOff } else { self.say_searching(next, worker) })
            }
            Pc::IdleOff => {
                next.seats.idle &= !bit(worker);
                ("set_idle(false)", self.say_searching(next, worker))
            }
            Pc::SearchingOn => {
                next.seats.searching |= bit(worker);
                ("set_searching(true)", next.look(worker))
            }
            Pc::Announce => {
                next.seats.set(worker, ParkState::Parked, incarnation);
                ("Park::announce", Pc::IdleOn)
            }
            Pc::IdleOn => {
                next.seats.idle |= bit(worker);
                let after = match self.keeps(Rule::ParkRecheck) {
                    true => Pc::RecheckRing { woken: false },
                    false => Pc::Sleep,
                };
                let searching = state.seats.searching & bit(worker) != 0;
                ("set_idle(true)", if searching { Pc::SearchingOff } else { after })
            }
            Pc::SearchingOff => {
                next.seats.searching &= !bit(worker);
                let recheck = self.keeps(Rule::ParkRecheck);
                let pc = if recheck { Pc::RecheckRing { woken: false } } else { Pc::Sleep };
                ("set_searching(false)", pc)
            }
            Pc::RecheckRing { woken } => {
                let work = state.tail != state.head;
                ("park: ring", if work { Pc::Search } else { Pc::RecheckAny { woken } })
            }
            Pc::RecheckAny { woken } => {
                let pc = match state.any {
                    true => Pc::Search,
                    false if woken => Pc::Sleep,
                    false => sleep_or_window,
                };
                ("park: requeue bits", pc)
            }
            Pc::RecheckHint { at: OTHERS_HINTS } => return self.sleep(next, worker),
            Pc::RecheckHint { at } => {
                let pc = match state.others_hint(worker, at) {
                    Some(slot) => Pc::RecheckSlot { at, slot },
                    None => Pc::RecheckHint { at: at + 1 },
                };
                ("others_have_work: hint", pc)
            }
            Pc::RecheckSlot { at, slot } => {
                let work = state.slots[slot as usize].state == SlotState::Ready;
                ("others_have_work: word", if work { Pc::Search } else { Pc::RecheckHint { at: at + 1 } })
            }
            Pc::Sleep => return self.sleep(next, worker),
            Pc::Asleep if state.seats.asleep & bit(worker) == 0 => {
                ("Park::sleep: woken", Pc::RecheckRing { woken: true })
            }
            _ => return None,
        })
    }

    fn sleep(&self, next: &mut State, worker: usize) -> Option<(&'static str, Pc)> {
        let sleeps = next.seats.sleep(worker, next.workers[worker].incarnation);
        Some(("Park::sleep", if sleeps { Pc::Asleep } else { Pc::Search }))
    }

    fn say_searching(&self, next: &mut State, worker: usize) -> Pc {
        match next.seats.searching & bit(worker) != 0 {
            true => next.look(worker),
            false => Pc::SearchingOn,
        }
    }
}
