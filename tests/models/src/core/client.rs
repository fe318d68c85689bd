//! The client: submits, waits, takes results.

use super::{CLIENT, Core, Owner, Rule, SLOTS, Slot, SlotState, State, WORKERS, Waiting};
use crate::bell::Notify;
use crate::explore::Steps;

/// What the client keeps to itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Client {
    pub pc: ClientPc,
    /// The next task to submit.
    next_task: u8,
    /// Slots with tasks on their way.
    in_flight: u8,
    /// What has been read of each completion ring.
    read: [u8; WORKERS],
    /// Something came since the client began to wait.
    ready: bool,
    /// `poll` is to look at all slots.
    everything: bool,
}

impl Client {
    pub(super) fn new() -> Self {
        let pc = ClientPc::Top;
        Client { pc, next_task: 0, in_flight: 0, read: [0; WORKERS], ready: false, everything: false }
    }
}

/// What the client does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(super) enum ClientPc {
    /// Submit another task, or wait.
    Top,
    /// `place`, after T1: the hint.
    Publish {
        slot: u8,
    },
    /// `Requeue::announce` because the ring is full.
    AnnounceAny {
        slot: u8,
    },
    /// `Bell::notify` after a submission.
    Notify(Notify),
    /// `poll`: tail of a completion ring.
    PollTail {
        worker: u8,
    },
    /// `poll`: the hint at `read`, and `consume`.
    PollHint {
        worker: u8,
        tail: u8,
    },
    /// `CompletionRing::publish_head`.
    PublishHead {
        worker: u8,
        tail: u8,
    },
    /// `CompletionRing::take_overflow`.
    TakeOverflow {
        worker: u8,
    },
    /// `poll`: swap of `rescan`.
    TakeRescan,
    /// `scan`.
    Scan {
        slot: u8,
    },
    /// `wait_any`: raises the sleep bit.
    RaiseSleep,
    /// `has_news`.
    NewsRescan,
    NewsTail {
        worker: u8,
    },
    NewsOverflow {
        worker: u8,
    },
    /// `futex::wait` on the sleep word.
    Sleep,
    /// In the kernel.
    Asleep,
    /// `leave_sleepers`.
    LeaveSleepers {
        timed_out: bool,
    },
    /// `wait_for`: is it over? Then `consume`.
    WaitOne,
    /// T6.
    AnnounceWait,
    /// `SlotWord::sleep` while the word's low half is what was seen.
    SleepOnSlot {
        slot: u8,
        state: SlotState,
        owner: Owner,
    },
    /// In the kernel.
    AsleepOnSlot {
        slot: u8,
    },
    /// `look_behind`: its scan.
    BehindScan {
        slot: u8,
    },
    /// `look_behind`: is the slot ready?
    BehindLoad {
        slot: u8,
        announced: bool,
    },
    /// `look_behind`: its requeue bit.
    BehindAnnounce {
        slot: u8,
    },
    /// `look_behind`: and `any`.
    BehindAny {
        slot: u8,
    },
    /// `look_behind`: `notify_force`.
    BehindNotify(Notify),
    /// Everything has come.
    End,
}

impl Core {
    pub(super) fn client(&self, state: &State, steps: &mut Steps<State>) {
        let mut next = *state;
        if let Some((label, pc)) = self.client_step(state, &mut next, steps) {
            next.client.pc = pc;
            steps.add(CLIENT, label, next);
        }
        // The back-stop's timer runs while the client sleeps.
        if self.stop && self.keeps(Rule::Backstop) {
            let pc = match state.client.pc {
                ClientPc::Asleep => ClientPc::LeaveSleepers { timed_out: true },
                ClientPc::AsleepOnSlot { .. } => ClientPc::BehindScan { slot: 0 },
                _ => return,
            };
            let mut next = *state;
            next.client.pc = pc;
            steps.add(CLIENT, "sleep: timed out", next);
        }
    }

    fn client_step(
        &self,
        state: &State,
        next: &mut State,
        steps: &mut Steps<State>,
    ) -> Option<(&'static str, ClientPc)> {
        let workers = WORKERS as u8;
        Some(match state.client.pc {
            ClientPc::Top => self.top(state, next),
            ClientPc::Publish { slot } if state.tail - state.head < self.cells => {
                next.cells[state.tail as usize % self.cells as usize] = slot;
                next.tail += 1;
                ("ReadyRing::publish", ClientPc::Notify(Notify::START))
            }
            ClientPc::Publish { slot } => {
                self.announce_first(next, slot);
                ("Requeue::announce", ClientPc::AnnounceAny { slot })
            }
            ClientPc::AnnounceAny { slot } => {
                self.announce_second(next, slot);
                ("Requeue::announce: second half", ClientPc::Notify(Notify::START))
            }
            ClientPc::Notify(notify) => {
                let after = notify.step(&mut next.seats, super::worker::ALL, self.bell_faults());
                (notify.label(), after.map_or(ClientPc::Top, ClientPc::Notify))
            }

            ClientPc::PollTail { worker } => {
                let tail = state.completions[worker as usize].tail;
                let read = state.client.read[worker as usize];
                if tail - read > self.completions {
                    steps.fail("a completion ring holds more than it can");
                }
                let pc = if tail == read {
                    ClientPc::TakeOverflow { worker }
                } else {
                    ClientPc::PollHint { worker, tail }
                };
                ("CompletionRing::tail", pc)
            }
            ClientPc::PollHint { worker, tail } => {
                let w = worker as usize;
                let read = state.client.read[w];
                let hint = state.completions[w].cells[(read % self.completions) as usize];
                next.client.read[w] += 1;
                let label = self.consume(next, hint, steps);
                let pc = if read + 1 != tail {
                    ClientPc::PollHint { worker, tail }
                } else if tail - state.completions[w].head >= self.completions / 2 {
                    ClientPc::PublishHead { worker, tail }
                } else {
                    ClientPc::TakeOverflow { worker }
                };
                (label, pc)
            }
            ClientPc::PublishHead { worker, tail } => {
                next.completions[worker as usize].head = tail;
                ("CompletionRing::publish_head", ClientPc::TakeOverflow { worker })
            }
            ClientPc::TakeOverflow { worker } => {
                next.client.everything |= state.completions[worker as usize].overflow;
                next.completions[worker as usize].overflow = false;
                let pc = if worker + 1 == workers {
                    ClientPc::TakeRescan
                } else {
                    ClientPc::PollTail { worker: worker + 1 }
                };
                ("CompletionRing::take_overflow", pc)
            }
            ClientPc::TakeRescan => {
                next.rescan = false;
                next.client.everything = false;
                let everything = state.client.everything || state.rescan;
                ("poll: rescan", if everything { ClientPc::Scan { slot: 0 } } else { self.polled(next) })
            }
            ClientPc::Scan { slot } => {
                let label = self.consume(next, slot, steps);
                let more = slot as usize + 1 < SLOTS;
                (label, if more { ClientPc::Scan { slot: slot + 1 } } else { self.polled(next) })
            }

            ClientPc::RaiseSleep => {
                next.sleep = true;
                let recheck = self.keeps(Rule::ClientRecheck);
                ("wait_any: sleep bit on", if recheck { ClientPc::NewsRescan } else { ClientPc::Sleep })
            }
            ClientPc::NewsRescan if state.rescan => ("has_news: rescan", NEWS),
            ClientPc::NewsRescan => ("has_news: rescan", ClientPc::NewsTail { worker: 0 }),
            ClientPc::NewsTail { worker } => {
                let w = worker as usize;
                let news = state.completions[w].tail != state.client.read[w];
                ("has_news: tail", if news { NEWS } else { ClientPc::NewsOverflow { worker } })
            }
            ClientPc::NewsOverflow { worker } => {
                let pc = if state.completions[worker as usize].overflow {
                    NEWS
                } else if worker + 1 == workers {
                    ClientPc::Sleep
                } else {
                    ClientPc::NewsTail { worker: worker + 1 }
                };
                ("has_news: overflow", pc)
            }
            ClientPc::Sleep => ("futex::wait(sleep)", if state.sleep { ClientPc::Asleep } else { NEWS }),
            ClientPc::LeaveSleepers { timed_out } => {
                next.sleep = false;
                let pc = if timed_out { ClientPc::BehindScan { slot: 0 } } else { POLL };
                ("leave_sleepers", pc)
            }

            ClientPc::WaitOne => {
                let slot = state.client.in_flight.trailing_zeros() as u8;
                if !state.slots[slot as usize].state.is_terminal() {
                    return Some(("wait_for: over?", ClientPc::AnnounceWait));
                }
                (self.consume(next, slot, steps), self.leave_wait(next))
            }
            ClientPc::AnnounceWait => {
                let slot = state.client.in_flight.trailing_zeros() as u8;
                let Slot { state: word, owner, .. } = state.slots[slot as usize];
                if word.is_terminal() {
                    return Some(("T6 announce_wait: over", ClientPc::WaitOne));
                }
                next.slots[slot as usize].waiter = true;
                ("T6 announce_wait", ClientPc::SleepOnSlot { slot, state: word, owner })
            }
            ClientPc::SleepOnSlot { slot, state: seen, owner } => {
                let now = state.slots[slot as usize];
                let same = now.state == seen && now.owner == owner && now.waiter;
                let sleeps = same || !self.keeps(Rule::CompareBeforeSleep);
                let pc = if sleeps { ClientPc::AsleepOnSlot { slot } } else { ClientPc::WaitOne };
                ("SlotWord::sleep", pc)
            }

            ClientPc::BehindScan { slot } => {
                let label = match self.keeps(Rule::BackstopScans) {
                    true => self.consume(next, slot, steps),
                    false => "look_behind: no scan",
                };
                let more = slot as usize + 1 < SLOTS;
                let load = ClientPc::BehindLoad { slot: 0, announced: false };
                (label, if more { ClientPc::BehindScan { slot: slot + 1 } } else { load })
            }
            ClientPc::BehindLoad { slot, announced } if slot as usize == SLOTS => {
                let force = self.keeps(Rule::BackstopForces);
                let notify = if force { Notify::FORCE } else { Notify::START };
                let pc = if announced { ClientPc::BehindNotify(notify) } else { self.looked_behind(next) };
                ("look_behind: any ready?", pc)
            }
            ClientPc::BehindLoad { slot, announced } => {
                let ready = state.client.in_flight & 1 << slot != 0
                    && state.slots[slot as usize].state == SlotState::Ready;
                let pc = match ready {
                    true if self.keeps(Rule::BackstopAnnounces) => ClientPc::BehindAnnounce { slot },
                    true => ClientPc::BehindLoad { slot: slot + 1, announced: true },
                    false => ClientPc::BehindLoad { slot: slot + 1, announced },
                };
                ("look_behind: load word", pc)
            }
            ClientPc::BehindAnnounce { slot } => {
                self.announce_first(next, slot);
                ("Requeue::announce", ClientPc::BehindAny { slot })
            }
            ClientPc::BehindAny { slot } => {
                self.announce_second(next, slot);
                let pc = ClientPc::BehindLoad { slot: slot + 1, announced: true };
                ("Requeue::announce: second half", pc)
            }
            ClientPc::BehindNotify(notify) => {
                let after = notify.step(&mut next.seats, super::worker::ALL, self.bell_faults());
                let pc = after.map(ClientPc::BehindNotify).unwrap_or_else(|| self.looked_behind(next));
                (notify.label(), pc)
            }
            ClientPc::Asleep | ClientPc::AsleepOnSlot { .. } | ClientPc::End => return None,
        })
    }

    /// Submits while tasks and slots are left, then waits for what is on its way.
    fn top(&self, state: &State, next: &mut State) -> (&'static str, ClientPc) {
        let free = (0..SLOTS as u8).find(|slot| state.client.in_flight & 1 << slot == 0);
        if let Some(slot) = free
            && state.client.next_task < self.tasks
        {
            let word = &mut next.slots[slot as usize];
            *word = Slot {
                state: SlotState::Ready,
                generation: word.generation,
                attempt: 0,
                owner: Owner::NOBODY,
                waiter: false,
                task: state.client.next_task,
            };
            next.client.next_task += 1;
            next.client.in_flight |= 1 << slot;
            return ("T1 submit", ClientPc::Publish { slot });
        }
        next.client.ready = false;
        if state.client.in_flight == 0 {
            return ("everything has come", ClientPc::End);
        }
        match self.waiting {
            Waiting::Any => ("wait_any", POLL),
            Waiting::One => ("wait_for", ClientPc::WaitOne),
        }
    }

    /// After `poll`: go on, or sleep.
    fn polled(&self, next: &mut State) -> ClientPc {
        match next.client.ready {
            true => self.leave_wait(next),
            false => ClientPc::RaiseSleep,
        }
    }

    fn looked_behind(&self, next: &mut State) -> ClientPc {
        match self.waiting {
            Waiting::Any => POLL,
            Waiting::One if next.client.ready => self.leave_wait(next),
            Waiting::One => ClientPc::WaitOne,
        }
    }

    fn leave_wait(&self, next: &mut State) -> ClientPc {
        next.client.ready = false;
        ClientPc::Top
    }

    /// `consume` and T4; what it is called.
    fn consume(&self, next: &mut State, slot: u8, steps: &mut Steps<State>) -> &'static str {
        let word = &mut next.slots[slot as usize];
        if next.client.in_flight & 1 << slot == 0 {
            return "consume: stale hint";
        }
        let outcome = match word.state {
            SlotState::Free => {
                steps.fail("a slot in flight is free");
                return "consume";
            }
            SlotState::Ready | SlotState::Run => return "consume: not over",
            SlotState::Done => &mut next.delivered,
            SlotState::Lost => &mut next.lost,
        };
        let task = 1 << word.task;
        if *outcome & task != 0 {
            steps.fail("the outcome of a task came twice");
        }
        *outcome |= task;
        if word.state == SlotState::Lost && self.crashes < self.attempts {
            steps.fail("a task is lost though an attempt was left");
        }
        *word = Slot {
            state: SlotState::Free,
            generation: (word.generation + 1) % 4,
            attempt: 0,
            owner: Owner::NOBODY,
            waiter: false,
            task: 0,
        };
        next.client.in_flight &= !(1 << slot);
        next.client.ready = true;
        "consume, T4 recycle"
    }

    /// The first store of `Requeue::announce`.
    pub(super) fn announce_first(&self, next: &mut State, slot: u8) {
        match self.keeps(Rule::AnyAfterBit) {
            true => next.requeue |= 1 << slot,
            false => next.any = true,
        }
    }

    /// The second store of `Requeue::announce`.
    pub(super) fn announce_second(&self, next: &mut State, slot: u8) {
        match self.keeps(Rule::AnyAfterBit) {
            true => next.any = true,
            false => next.requeue |= 1 << slot,
        }
    }
}

const POLL: ClientPc = ClientPc::PollTail { worker: 0 };
const NEWS: ClientPc = ClientPc::LeaveSleepers { timed_out: false };
