//! Result blocks: how they pass from a worker to the client, whoever dies.
//!
//! One slot, two workers with two blocks each, two reapers at once of which one may be late, and a client
//! that uses each result before it gives the block back. Plain tasks take one block; a chunk outgrows its first
//! block and names each at once, so that its finished items survive.
//!
//! | step | engine |
//! | --- | --- |
//! | T1 to T4, T7 | `slot/word.rs` |
//! | T10 take, T11 adopt, T12 release | `arena/block.rs` |
//! | name block | `worker/run.rs` (plain), `TaskMemory::grow` (chunk) |
//! | named_block | `recovery/mod.rs`, by reapers and by the client |
//! | free_blocks | `recovery/mod.rs` |
//! | done | the `done` word of a chunk's slot |

mod reaper;
mod worker;

use crate::explore::{Model, Steps};

const WORKERS: usize = 2;
const BLOCKS: usize = 2;
const REAPERS: usize = 2;
const NAMES: [&str; WORKERS] = ["worker 0", "worker 1"];
const REAPER_NAMES: [&str; REAPERS] = ["reaper 0", "reaper 1"];
const CLIENT: &str = "client";

/// A rule of the protocol, to be left out in a mutant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// The client adopts the block before it recycles the slot.
    AdoptBeforeRecycle,
    /// A reap frees blocks after it has looked at all slots.
    SlotsBeforeBlocks,
    /// A reap adopts for the client what a terminal slot of the dead names.
    ReaperAdopts,
    /// Also for a lost chunk.
    ReaperAdoptsLost,
    /// `adopt` accepts a block that is the client's already.
    AdoptTwice,
    /// Owners name the incarnation.
    Incarnations,
    /// A block is named before T3.
    NameBeforeDone,
    /// A chunk's new block is named after what is finished was copied into it.
    CopyBeforeName,
    /// A chunk's old block goes after the new one is named.
    NameBeforeFree,
    /// T1 of a chunk clears the handle.
    ClearHandle,
    /// The place is given away last.
    FreeLast,
    /// T7 takes only from the dead.
    TakeOnlyTheirs,
}

/// A configuration of the model.
#[derive(Clone, Copy, Debug)]
pub struct Blocks {
    /// Tasks, one after the other.
    pub tasks: u8,
    /// Whether they are chunks of two items.
    pub chunk: bool,
    /// How often a plain task may be started; chunks are never started again.
    pub attempts: u8,
    /// Deaths of workers, each followed by a successor.
    pub crashes: u8,
    /// Deaths of reapers.
    pub reaper_crashes: u8,
    /// The rules that a mutant breaks.
    pub without: &'static [Rule],
}

impl Blocks {
    /// Two plain tasks, no faults, all rules.
    pub const BASE: Blocks =
        Blocks { tasks: 2, chunk: false, attempts: 3, crashes: 0, reaper_crashes: 0, without: &[] };

    fn keeps(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }

    fn attempts(&self) -> u8 {
        if self.chunk { 1 } else { self.attempts }
    }
}

/// Who owns a slot or holds a block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
enum Owner {
    Nobody,
    Client,
    Worker { index: u8, incarnation: u8 },
}

/// As the engine's `BlockHandle`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Handle {
    worker: u8,
    block: u8,
}

/// A block: its word, and how many finished items its bytes contain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Block {
    holder: Owner,
    items: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
enum SlotState {
    Free,
    Ready,
    Run,
    Done,
    Lost,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Slot {
    state: SlotState,
    owner: Owner,
    attempt: u8,
    handle: Option<Handle>,
    done: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
enum ClientPc {
    Submit,
    /// Until the slot is terminal.
    Wait,
    Adopt {
        handle: Handle,
        from: Owner,
        needed: u8,
    },
    Recycle {
        handle: Option<Handle>,
    },
    /// In a mutant: adopts after T4.
    AdoptLate {
        handle: Handle,
        from: Owner,
    },
    Use {
        handle: Handle,
        needed: u8,
    },
    Release {
        handle: Handle,
    },
    End,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
enum WorkerPc {
    Claim,
    Take,
    Write {
        block: u8,
    },
    Name {
        block: u8,
    },
    /// A chunk: `done` after its first item.
    FirstDone {
        block: u8,
    },
    Grow {
        block: u8,
    },
    Copy {
        block: u8,
        old: u8,
    },
    NameGrown {
        block: u8,
        old: u8,
    },
    FreeOld {
        block: u8,
        old: u8,
    },
    WriteSecond {
        block: u8,
    },
    SecondDone,
    Finish,
    /// In a mutant: names after T3.
    NameLate {
        block: u8,
    },
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Worker {
    pc: WorkerPc,
    incarnation: u8,
    unreaped: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
enum ReaperPc {
    Idle,
    Slot,
    /// `named_block` of the word that was seen.
    Named {
        lost: bool,
    },
    Adopt {
        handle: Handle,
    },
    FreeBlock {
        at: u8,
    },
    Free,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Reaper {
    pc: ReaperPc,
    worker: u8,
    incarnation: u8,
}

const IDLE: Reaper = Reaper { pc: ReaperPc::Idle, worker: 0, incarnation: 0 };

/// Everything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    slot: Slot,
    blocks: [[Block; BLOCKS]; WORKERS],
    client: ClientPc,
    submitted: u8,
    workers: [Worker; WORKERS],
    reapers: [Reaper; REAPERS],
    crashes: u8,
    reaper_crashes: u8,
}

impl State {
    fn block(&mut self, handle: Handle) -> &mut Block {
        &mut self.blocks[handle.worker as usize][handle.block as usize]
    }
}

impl Model for Blocks {
    type State = State;

    fn initial(&self) -> State {
        let block = Block { holder: Owner::Nobody, items: 0 };
        let worker = Worker { pc: WorkerPc::Claim, incarnation: 0, unreaped: false };
        State {
            slot: Slot { state: SlotState::Free, owner: Owner::Nobody, attempt: 0, handle: None, done: 0 },
            blocks: [[block; BLOCKS]; WORKERS],
            client: ClientPc::Submit,
            submitted: 0,
            workers: [worker; WORKERS],
            reapers: [IDLE; REAPERS],
            crashes: self.crashes,
            reaper_crashes: self.reaper_crashes,
        }
    }

    fn steps(&self, state: &State, steps: &mut Steps<State>) {
        self.client(state, steps);
        for (worker, name) in NAMES.into_iter().enumerate() {
            self.worker(state, worker, steps);
            if state.crashes > 0 && state.workers[worker].pc != WorkerPc::Dead {
                let mut next = *state;
                next.crashes -= 1;
                next.workers[worker].pc = WorkerPc::Dead;
                next.workers[worker].unreaped = true;
                steps.fault(name, "KILLED", next);
            }
        }
        for (reaper, name) in REAPER_NAMES.into_iter().enumerate() {
            self.reaper(state, reaper, steps);
            if state.reaper_crashes > 0 && state.reapers[reaper] != IDLE {
                let mut next = *state;
                next.reaper_crashes -= 1;
                next.reapers[reaper] = IDLE;
                steps.fault(name, "KILLED", next);
            }
        }
    }

    /// All results were used, and nothing is left over: a leak keeps the goal out of reach.
    fn is_goal(&self, state: &State) -> bool {
        let free = state.blocks.as_flattened().iter().all(|block| block.holder == Owner::Nobody);
        free && state.client == ClientPc::End && state.workers.iter().all(|w| !w.unreaped)
    }
}

impl Blocks {
    /// How a worker signs words.
    fn owner(&self, worker: usize, incarnation: u8) -> Owner {
        let incarnation = if self.keeps(Rule::Incarnations) { incarnation } else { 0 };
        Owner::Worker { index: worker as u8, incarnation }
    }

    fn client(&self, state: &State, steps: &mut Steps<State>) {
        let mut next = *state;
        let (label, pc) = match state.client {
            ClientPc::Submit if state.submitted == self.tasks => ("all done", ClientPc::End),
            ClientPc::Submit => {
                next.submitted += 1;
                let clears = self.chunk && self.keeps(Rule::ClearHandle);
                let handle = if clears { None } else { state.slot.handle };
                next.slot =
                    Slot { state: SlotState::Ready, owner: Owner::Nobody, attempt: 0, handle, done: 0 };
                ("T1 submit", ClientPc::Wait)
            }
            ClientPc::Wait => match (state.slot.state, state.slot.handle) {
                (SlotState::Done, None) => {
                    steps.fail("Done without a result block");
                    return;
                }
                (SlotState::Done, Some(handle)) => self.seen(state, handle, if self.chunk { 2 } else { 1 }),
                (SlotState::Lost, Some(handle)) if self.chunk => self.seen(state, handle, state.slot.done),
                (SlotState::Lost, _) => ("named_block: none", ClientPc::Recycle { handle: None }),
                (SlotState::Free | SlotState::Ready | SlotState::Run, _) => return,
            },
            ClientPc::Adopt { handle, from, needed } => {
                self.adopt(&mut next, handle, from, steps);
                if next.block(handle).items < needed {
                    steps.fail("the block that a slot names lacks finished items");
                }
                ("T11 adopt", ClientPc::Recycle { handle: Some(handle) })
            }
            ClientPc::Recycle { handle } => {
                next.slot.state = SlotState::Free;
                next.slot.attempt = 0;
                let from = state.slot.owner;
                next.slot.owner = Owner::Nobody;
                let pc = match handle {
                    None => ClientPc::Submit,
                    Some(handle) if !self.keeps(Rule::AdoptBeforeRecycle) => {
                        ClientPc::AdoptLate { handle, from }
                    }
                    Some(handle) => ClientPc::Use { handle, needed: next.block(handle).items },
                };
                ("T4 recycle", pc)
            }
            ClientPc::AdoptLate { handle, from } => {
                self.adopt(&mut next, handle, from, steps);
                ("T11 adopt", ClientPc::Use { handle, needed: next.block(handle).items })
            }
            ClientPc::Use { handle, needed } => {
                let block = next.block(handle);
                if block.holder != Owner::Client || block.items != needed {
                    steps.fail("a result changed while the client used it");
                }
                ("use the result", ClientPc::Release { handle })
            }
            ClientPc::Release { handle } => {
                let block = next.block(handle);
                if block.holder != Owner::Client {
                    steps.fail("the client gives a block back that it does not hold");
                }
                block.holder = Owner::Nobody;
                ("T12 release", ClientPc::Submit)
            }
            ClientPc::End => return,
        };
        next.client = pc;
        steps.add(CLIENT, label, next);
    }

    fn seen(&self, state: &State, handle: Handle, needed: u8) -> (&'static str, ClientPc) {
        let from = state.slot.owner;
        match self.keeps(Rule::AdoptBeforeRecycle) {
            true => ("named_block", ClientPc::Adopt { handle, from, needed }),
            false => ("named_block", ClientPc::Recycle { handle: Some(handle) }),
        }
    }

    /// T11 by the client: it must succeed.
    fn adopt(&self, next: &mut State, handle: Handle, from: Owner, steps: &mut Steps<State>) {
        let block = next.block(handle);
        let already = block.holder == Owner::Client && self.keeps(Rule::AdoptTwice);
        if block.holder != from && !already {
            steps.fail("the client cannot adopt the block that its slot names");
        }
        block.holder = Owner::Client;
    }
}
