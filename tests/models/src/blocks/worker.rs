//! A worker: takes blocks, writes results into them, names them.

use super::{BLOCKS, Block, Blocks, Handle, NAMES, Owner, Rule, SlotState, State, WorkerPc};
use crate::explore::Steps;

impl Blocks {
    pub(super) fn worker(&self, state: &State, worker: usize, steps: &mut Steps<State>) {
        let mut next = *state;
        let me = self.owner(worker, state.workers[worker].incarnation);
        let handle = |block: u8| Handle { worker: worker as u8, block };
        let free = (0..BLOCKS as u8).find(|&b| state.blocks[worker][b as usize].holder == Owner::Nobody);
        let mut own = |next: &mut State, block: u8| {
            if next.block(handle(block)).holder != me {
                steps.fail("a worker's block was taken while it wrote it");
            }
        };
        let (label, pc) = match state.workers[worker].pc {
            WorkerPc::Dead => return,
            WorkerPc::Claim if state.slot.state == SlotState::Ready => {
                next.slot.state = SlotState::Run;
                next.slot.owner = me;
                ("T2 claim", WorkerPc::Take)
            }
            WorkerPc::Claim => return,
            WorkerPc::Take | WorkerPc::Grow { .. } => {
                let Some(block) = free else { return }; // waits for memory
                *next.block(handle(block)) = Block { holder: me, items: 0 };
                let pc = match state.workers[worker].pc {
                    WorkerPc::Grow { block: old } if self.keeps(Rule::CopyBeforeName) => {
                        WorkerPc::Copy { block, old }
                    }
                    WorkerPc::Grow { block: old } => WorkerPc::NameGrown { block, old },
                    _ if self.chunk => WorkerPc::Name { block },
                    _ => WorkerPc::Write { block },
                };
                ("T10 take", pc)
            }
            WorkerPc::Write { block } => {
                own(&mut next, block);
                next.block(handle(block)).items += 1;
                let pc = if self.chunk {
                    WorkerPc::FirstDone { block }
                } else if self.keeps(Rule::NameBeforeDone) {
                    WorkerPc::Name { block }
                } else {
                    WorkerPc::NameLate { block }
                };
                ("write the result", pc)
            }
            WorkerPc::Name { block } => {
                next.slot.handle = Some(handle(block));
                ("name block", if self.chunk { WorkerPc::Write { block } } else { WorkerPc::Finish })
            }
            WorkerPc::FirstDone { block } => {
                next.slot.done = 1;
                ("done", WorkerPc::Grow { block })
            }
            WorkerPc::Copy { block, old } => {
                own(&mut next, block);
                next.block(handle(block)).items = state.blocks[worker][old as usize].items;
                let named_next = self.keeps(Rule::CopyBeforeName) && self.keeps(Rule::NameBeforeFree);
                let pc = match named_next {
                    true => WorkerPc::NameGrown { block, old },
                    false => WorkerPc::FreeOld { block, old },
                };
                ("grow: copy", pc)
            }
            WorkerPc::NameGrown { block, old } => {
                next.slot.handle = Some(handle(block));
                let pc = if !self.keeps(Rule::CopyBeforeName) {
                    WorkerPc::Copy { block, old }
                } else if self.keeps(Rule::NameBeforeFree) {
                    WorkerPc::FreeOld { block, old }
                } else {
                    WorkerPc::WriteSecond { block }
                };
                ("grow: name block", pc)
            }
            WorkerPc::FreeOld { block, old } => {
                own(&mut next, old);
                next.block(handle(old)).holder = Owner::Nobody;
                let pc = match self.keeps(Rule::NameBeforeFree) {
                    true => WorkerPc::WriteSecond { block },
                    false => WorkerPc::NameGrown { block, old },
                };
                ("grow: T12 release", pc)
            }
            WorkerPc::WriteSecond { block } => {
                own(&mut next, block);
                next.block(handle(block)).items += 1;
                ("write the result", WorkerPc::SecondDone)
            }
            WorkerPc::SecondDone => {
                next.slot.done = 2;
                ("done", WorkerPc::Finish)
            }
            pc @ (WorkerPc::Finish | WorkerPc::NameLate { .. }) => {
                if pc != WorkerPc::Finish && state.slot.state != SlotState::Run {
                    let WorkerPc::NameLate { block } = pc else { return };
                    next.slot.handle = Some(handle(block));
                    next.workers[worker].pc = WorkerPc::Claim;
                    steps.add(NAMES[worker], "name block", next);
                    return;
                }
                if state.slot.state != SlotState::Run || state.slot.owner != me {
                    steps.fail("T3 of a task that is not the worker's");
                }
                next.slot.state = SlotState::Done;
                ("T3 finish", if pc == WorkerPc::Finish { WorkerPc::Claim } else { pc })
            }
        };
        next.workers[worker].pc = pc;
        steps.add(NAMES[worker], label, next);
    }
}
