//! `recovery::reap` as far as blocks go.

use super::{
    BLOCKS, Blocks, Handle, IDLE, Owner, REAPER_NAMES, Reaper, ReaperPc, Rule, SlotState, State, WORKERS,
    Worker, WorkerPc,
};
use crate::explore::Steps;

impl Blocks {
    pub(super) fn reaper(&self, state: &State, reaper: usize, steps: &mut Steps<State>) {
        let name = REAPER_NAMES[reaper];
        let Reaper { pc, worker, incarnation } = state.reapers[reaper];
        if pc == ReaperPc::Idle {
            for dead in (0..WORKERS).filter(|&w| state.workers[w].unreaped) {
                let mut next = *state;
                let in_order = self.keeps(Rule::SlotsBeforeBlocks);
                let pc = if in_order { ReaperPc::Slot } else { ReaperPc::FreeBlock { at: 0 } };
                let incarnation = state.workers[dead].incarnation;
                next.reapers[reaper] = Reaper { pc, worker: dead as u8, incarnation };
                if !self.keeps(Rule::FreeLast) {
                    self.give_away(&mut next, dead, incarnation);
                }
                steps.add(name, "reap", next);
            }
            return;
        }
        let mut next = *state;
        let dead = self.owner(worker as usize, incarnation);
        let blocks = match self.keeps(Rule::SlotsBeforeBlocks) {
            true => ReaperPc::FreeBlock { at: 0 },
            false => ReaperPc::Free,
        };
        let (label, pc) = match pc {
            ReaperPc::Idle => unreachable!("it has begun"),
            ReaperPc::Slot => self.reap_slot(&mut next, dead, blocks),
            ReaperPc::Named { lost } => {
                let names = !lost || self.chunk && self.keeps(Rule::ReaperAdoptsLost);
                let handle = state.slot.handle.filter(|_| names);
                ("named_block", handle.map_or(blocks, |handle| ReaperPc::Adopt { handle }))
            }
            ReaperPc::Adopt { handle } => {
                let block = next.block(handle);
                if block.holder == dead {
                    block.holder = Owner::Client;
                }
                ("T11 adopt for the client", blocks)
            }
            ReaperPc::FreeBlock { at } => {
                let block = next.block(Handle { worker, block: at });
                if block.holder == dead {
                    block.holder = Owner::Nobody;
                }
                let pc = if (at as usize) + 1 < BLOCKS {
                    ReaperPc::FreeBlock { at: at + 1 }
                } else if self.keeps(Rule::SlotsBeforeBlocks) {
                    ReaperPc::Free
                } else {
                    ReaperPc::Slot
                };
                ("free_blocks: T12 release", pc)
            }
            ReaperPc::Free => {
                self.give_away(&mut next, worker as usize, incarnation);
                ("life: Free", ReaperPc::Idle)
            }
        };
        next.reapers[reaper] = if pc == ReaperPc::Idle { IDLE } else { Reaper { pc, worker, incarnation } };
        steps.add(name, label, next);
    }

    /// T7, or a look at what is there.
    fn reap_slot(&self, next: &mut State, dead: Owner, after: ReaperPc) -> (&'static str, ReaperPc) {
        let slot = &mut next.slot;
        let takes = slot.owner == dead || !self.keeps(Rule::TakeOnlyTheirs);
        let named = |lost: bool| match self.keeps(Rule::ReaperAdopts) {
            true => ReaperPc::Named { lost },
            false => after,
        };
        match slot.state {
            SlotState::Run if takes && slot.attempt + 1 < self.attempts() => {
                slot.state = SlotState::Ready;
                slot.owner = Owner::Nobody;
                slot.attempt += 1;
                ("T7 take_from_dead: Retry", after)
            }
            SlotState::Run if takes => {
                slot.state = SlotState::Lost; // keeps naming the dead
                ("T7 take_from_dead: Lost", named(true))
            }
            SlotState::Done if slot.owner == dead => ("T7 take_from_dead: Done", named(false)),
            SlotState::Lost if slot.owner == dead => ("T7 take_from_dead: is Lost", named(true)),
            _ => ("T7 take_from_dead: NotTheirs", after),
        }
    }

    /// life: `Dead` of this incarnation to `Free`; then a successor.
    fn give_away(&self, next: &mut State, worker: usize, incarnation: u8) {
        let place = &mut next.workers[worker];
        if place.unreaped && place.incarnation == incarnation {
            *place = Worker { pc: WorkerPc::Claim, incarnation: incarnation + 1, unreaped: false };
        }
    }
}
