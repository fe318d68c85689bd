//! A worker: finds a task, passes wake-ups on, runs it, publishes the result, sleeps.

use super::{BATCH, Core, NAMES, NO_HINT, Rule, SLOTS, SlotState, State, WORKERS};
use crate::bell::{Notify, ParkState, bit};
use crate::explore::Steps;

/// All workers serve the one lane of the model.
pub(super) const ALL: u8 = (1 << WORKERS) - 1;
/// Entries in the windows of the other workers.
pub(super) const OTHERS_HINTS: u8 = ((WORKERS - 1) * BATCH) as u8;

/// What a worker keeps to itself. Whether it searches, and its mask bits, are in words that it alone
/// writes while it is awake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Worker {
    pub pc: WorkerPc,
    pub incarnation: u8,
    /// Hints of the own window not tried yet: `[next, claimed)`; both 0 if none.
    next: u8,
    claimed: u8,
    /// Where the last claim of requeued slots ended.
    cursor: u8,
    /// A completion is announced, and whether the client sleeps is not looked at yet.
    untold: bool,
    pub stopped: bool,
    /// Dead, and nobody has finished the reap.
    pub unreaped: bool,
}

/// What a worker does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(super) enum WorkerPc {
    /// `Worker::new`: empties the window that its predecessor left.
    Start,
    /// `ReadyRing::claim`: head, tail, cells into the window.
    LoadRing,
    /// `ReadyRing::claim`: the CAS on `head`.
    MoveHead { head: u8, count: u8 },
    /// In mutants: the window filled too late, with cells that were loaded in time or not.
    FillWindow { head: u8, count: u8, loaded: Option<[u8; BATCH]> },
    /// `Requeue::claim`: lowers `any`.
    LowerAny,
    /// `Requeue::claim`: loads the bits behind the cursor (`part` 0), or the rest (1); the next one into
    /// the window.
    LoadBits { part: u8, cursor: u8, taken: u8, late: bool },
    /// `Requeue::claim`: takes the lowest of the bits seen.
    TakeBit { part: u8, cursor: u8, taken: u8, seen: u8, late: bool },
    /// `Requeue::claim`: raises `any` again.
    RaiseAny { taken: u8 },
    /// `runnable`: loads the word that a hint names.
    LoadWord { slot: u8, from: Source },
    /// T2.
    Claim { slot: u8, generation: u8, from: Source },
    /// `steal`: loads a hint of another worker.
    Steal { at: u8 },

    /// `search`: its park word.
    Search,
    /// `set_idle(false)`.
    IdleOff,
    /// `set_searching(true)`, unless too many search.
    SearchingOn,
    /// `search` has found a task.
    Run { slot: u8 },
    /// `pass_on`, `notify_for_backlog`: the ring's backlog. `sure` after `anybody_idle`.
    BacklogRing { slot: u8, sure: bool },
    /// The same: `Requeue::is_empty`.
    BacklogAny { slot: u8, sure: bool },
    /// `anybody_idle`.
    AnybodyIdle { slot: u8 },
    /// `Bell::notify`.
    Notify { slot: u8, notify: Notify },

    /// Runs the task; then T3.
    Execute { slot: u8 },
    /// `SlotWord::wake`.
    WakeSlot { slot: u8 },
    /// `CompletionRing::push`.
    Push { slot: u8 },
    /// Lowers the client's sleep bit: behind the next claim, or when there is nothing to claim.
    ClearSleep { then: Then },
    /// `futex::wake` on it.
    WakeClient { then: Then },

    /// `park`: its park word.
    Announce,
    /// `set_idle(true)`.
    IdleOn,
    /// `set_searching(false)`.
    SearchingOff,
    /// `backlog`, the last look: the ring. `woken` when it is the look after a sleep.
    RecheckRing { woken: bool },
    /// The last look: requeue bits.
    RecheckAny { woken: bool },
    /// The last look: `others_have_work`, a hint.
    RecheckHint { at: u8 },
    /// The last look: the slot that it names.
    RecheckSlot { at: u8, slot: u8 },
    /// `Park::sleep`.
    Sleep,
    /// In the kernel, or on the way out.
    Asleep,
    /// Killed.
    Dead,
}

/// What follows when the client has been told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(super) enum Then {
    /// `pass_on`, and this task.
    PassOn(u8),
    Search,
    /// In the mutant that announces first: T3.
    Finish(u8),
}

/// Where a hint came from, and so where to go on if it is stale.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub(super) enum Source {
    /// The own window.
    Window,
    /// Another's window; its next entry is this one.
    Stolen(u8),
}

use WorkerPc as Pc;

impl Worker {
    pub(super) fn new(incarnation: u8) -> Self {
        let pc = if incarnation == 0 { Pc::LoadRing } else { Pc::Start };
        Worker {
            pc,
            incarnation,
            next: 0,
            claimed: 0,
            cursor: 0,
            untold: false,
            stopped: false,
            unreaped: false,
        }
    }

    /// A place that nobody ever takes.
    pub(super) fn absent() -> Self {
        Worker { pc: Pc::Dead, ..Worker::new(0) }
    }

    /// Where the client is told, if there is something to tell.
    fn tell(&mut self, then: Then) -> Option<Pc> {
        std::mem::take(&mut self.untold).then_some(Pc::ClearSleep { then })
    }

    pub(super) fn is_alive(&self) -> bool {
        self.pc != Pc::Dead
    }

    pub(super) fn die(&mut self) {
        *self = Worker { pc: Pc::Dead, unreaped: true, ..Worker::new(self.incarnation) };
    }
}

impl State {
    /// A hint in the window of another worker.
    pub(super) fn others_hint(&self, worker: usize, at: u8) -> Option<u8> {
        let other = (worker + 1 + at as usize / BATCH) % WORKERS;
        let hint = self.windows[other][at as usize % BATCH];
        (hint != NO_HINT).then_some(hint)
    }

    fn is_searching(&self, worker: usize) -> bool {
        self.seats.park[worker].state == ParkState::Search
    }

    /// The loop of `look`: the next hint of the own window, or else a new range.
    pub(super) fn look(&mut self, worker: usize) -> Pc {
        let me = &mut self.workers[worker];
        if me.next == me.claimed {
            (me.next, me.claimed) = (0, 0);
            return Pc::LoadRing;
        }
        me.next += 1;
        let slot = self.windows[worker][me.next as usize - 1];
        Pc::LoadWord { slot, from: Source::Window }
    }

    /// Where to go on when a hint turned out stale.
    fn after_stale(&mut self, worker: usize, from: Source) -> Pc {
        match from {
            Source::Window => self.look(worker),
            Source::Stolen(at) => Pc::Steal { at },
        }
    }

    /// A range of requeued slots is in the window, or there was none.
    fn requeued(&mut self, worker: usize, taken: u8, steals: bool) -> Pc {
        if taken > 0 {
            let me = &mut self.workers[worker];
            (me.next, me.claimed) = (0, taken);
            return self.look(worker);
        }
        match self.is_searching(worker) {
            true if steals => Pc::Steal { at: 0 },
            true => Pc::Announce,
            false => self.workers[worker].tell(Then::Search).unwrap_or(Pc::Search),
        }
    }
}

impl Core {
    pub(super) fn worker(&self, state: &State, worker: usize, steps: &mut Steps<State>) {
        if state.workers[worker].stopped {
            return;
        }
        let mut next = *state;
        let step = self
            .looking(state, &mut next, worker)
            .or_else(|| self.passing_on(state, &mut next, worker))
            .or_else(|| self.running(state, &mut next, worker, steps))
            .or_else(|| self.parking(state, &mut next, worker));
        if let Some((label, pc)) = step {
            next.workers[worker].pc = pc;
            if let Pc::Execute { slot } = pc {
                self.check_execution(&next, worker, slot, steps);
            }
            steps.add(NAMES[worker], label, next);
        }
        // Whether so many search already that this one does not say so is a guess at all times.
        if state.workers[worker].pc == Pc::SearchingOn {
            let mut next = *state;
            next.workers[worker].pc = next.look(worker);
            steps.add(NAMES[worker], "search: crowded", next);
        }
        // A search has many rounds; `Announce` comes after any of them.
        if state.workers[worker].pc == Pc::Announce {
            let mut next = *state;
            next.workers[worker].pc = next.look(worker);
            steps.add(NAMES[worker], "search: next round", next);
        }
    }

    /// `look`, `take_range`, `claim`, `steal`.
    fn looking(&self, state: &State, next: &mut State, worker: usize) -> Option<(&'static str, Pc)> {
        let steals = self.keeps(Rule::Steal);
        Some(match state.workers[worker].pc {
            Pc::Start => {
                next.windows[worker] = [NO_HINT; BATCH];
                ("Worker::new", Pc::LoadRing)
            }
            Pc::LoadRing => {
                let count = (state.tail - state.head).min(self.batch);
                if count == 0 {
                    return Some(("ReadyRing::claim: empty", Pc::LowerAny));
                }
                if self.fills_in_time() {
                    let hints = self.hints(state, state.head);
                    self.fill_window(next, worker, hints, count);
                }
                ("ReadyRing::claim: fill window", Pc::MoveHead { head: state.head, count })
            }
            Pc::MoveHead { head, count } => {
                if state.head != head {
                    return Some(("ReadyRing::claim: CAS failed", Pc::LowerAny));
                }
                next.head += count;
                (next.workers[worker].next, next.workers[worker].claimed) = (0, count);
                let loaded = self.keeps(Rule::CellsBeforeHead).then(|| self.hints(state, head));
                let pc = match self.fills_in_time() {
                    true => next.look(worker),
                    false => Pc::FillWindow { head, count, loaded },
                };
                ("ReadyRing::claim: CAS head", pc)
            }
            Pc::FillWindow { head, count, loaded } => {
                let hints = loaded.unwrap_or_else(|| self.hints(state, head));
                self.fill_window(next, worker, hints, count);
                ("ReadyRing::claim: fill window", next.look(worker))
            }
            Pc::LowerAny => {
                next.any = false;
                let cursor = state.workers[worker].cursor;
                let pc = match state.any {
                    true => Pc::LoadBits { part: 0, cursor, taken: 0, late: false },
                    false => next.requeued(worker, 0, steals),
                };
                ("Requeue::claim: lower any", pc)
            }
            Pc::LoadBits { part, cursor, taken, late } => {
                let seen = state.requeue & part_of(part, cursor);
                let pc = self.next_bit(next, worker, part, cursor, taken, seen, late);
                ("Requeue::claim: load bits", pc)
            }
            Pc::TakeBit { part, cursor, taken, seen, .. } => {
                let slot = seen.trailing_zeros() as u8;
                let before = state.requeue;
                next.requeue &= !(1 << slot);
                let had = before >> slot & 1;
                let taken = taken + had;
                if had == 1 && !self.keeps(Rule::WindowBeforeRequeue) {
                    next.windows[worker][taken as usize - 1] = slot;
                }
                next.workers[worker].cursor = slot + 1;
                let late = before & !part_of(part, cursor) != 0;
                let seen = seen & before & !(1 << slot);
                let pc = self.next_bit(next, worker, part, cursor, taken, seen, late);
                ("Requeue::claim: take bit", pc)
            }
            Pc::RaiseAny { taken } => {
                next.any = true;
                ("Requeue::claim: raise any", next.requeued(worker, taken, steals))
            }
            Pc::LoadWord { slot, from } => {
                let word = state.slots[slot as usize];
                if word.state != SlotState::Ready {
                    return Some(("runnable: stale hint", next.after_stale(worker, from)));
                }
                ("runnable", Pc::Claim { slot, generation: word.generation, from })
            }
            Pc::Claim { slot, generation, from } => {
                let me = state.owner(worker);
                let word = &mut next.slots[slot as usize];
                if word.state != SlotState::Ready || word.generation != generation {
                    return Some(("T2 claim: too late", next.after_stale(worker, from)));
                }
                word.state = SlotState::Run;
                word.owner = me;
                word.waiter &= self.keeps(Rule::ClaimKeepsWaiter);
                let pc = match next.is_searching(worker) {
                    true => Pc::Run { slot },
                    false => next.workers[worker]
                        .tell(Then::PassOn(slot))
                        .unwrap_or_else(|| self.pass_on(next, worker, slot)),
                };
                ("T2 claim", pc)
            }
            Pc::Steal { at: OTHERS_HINTS } => ("steal: nothing", Pc::Announce),
            Pc::Steal { at } => {
                let pc = match state.others_hint(worker, at) {
                    Some(slot) => Pc::LoadWord { slot, from: Source::Stolen(at + 1) },
                    None => Pc::Steal { at: at + 1 },
                };
                ("steal: load hint", pc)
            }
            _ => return None,
        })
    }

    fn fills_in_time(&self) -> bool {
        self.keeps(Rule::WindowBeforeHead) && self.keeps(Rule::CellsBeforeHead)
    }

    /// The cells from `head` on.
    fn hints(&self, state: &State, head: u8) -> [u8; BATCH] {
        [0, 1].map(|i| state.cells[(head + i) as usize % self.cells as usize])
    }

    fn fill_window(&self, next: &mut State, worker: usize, hints: [u8; BATCH], count: u8) {
        next.windows[worker][..count as usize].copy_from_slice(&hints[..count as usize]);
    }

    /// The inner loop of `Requeue::claim`: the next of the bits `seen`, or the next part, or the end.
    #[allow(clippy::too_many_arguments, reason = "the locals of one loop")]
    fn next_bit(
        &self,
        next: &mut State,
        worker: usize,
        part: u8,
        cursor: u8,
        taken: u8,
        seen: u8,
        late: bool,
    ) -> Pc {
        let steals = self.keeps(Rule::Steal);
        if seen != 0 && taken == self.batch {
            return match self.keeps(Rule::AnyRaisedAgain) {
                true => Pc::RaiseAny { taken },
                false => next.requeued(worker, taken, steals),
            };
        }
        if seen != 0 {
            if self.keeps(Rule::WindowBeforeRequeue) {
                next.windows[worker][taken as usize] = seen.trailing_zeros() as u8;
            }
            return Pc::TakeBit { part, cursor, taken, seen, late };
        }
        match part {
            0 => Pc::LoadBits { part: 1, cursor, taken, late },
            _ if late && self.keeps(Rule::LateBits) => Pc::RaiseAny { taken },
            _ => next.requeued(worker, taken, steals),
        }
    }

    /// `pass_on`, begun without a search: the own window counts as backlog.
    fn pass_on(&self, next: &State, worker: usize, slot: u8) -> Pc {
        if !self.keeps(Rule::PassOn) {
            return Pc::Execute { slot };
        }
        match next.workers[worker].next < next.workers[worker].claimed {
            true => Pc::AnybodyIdle { slot },
            false => Pc::BacklogRing { slot, sure: false },
        }
    }

    /// From the claim to the execution.
    fn passing_on(&self, state: &State, next: &mut State, worker: usize) -> Option<(&'static str, Pc)> {
        let me = state.workers[worker];
        let found = |slot: u8, sure: bool| match sure {
            false => Pc::AnybodyIdle { slot },
            true => Pc::Notify { slot, notify: Notify::START },
        };
        Some(match me.pc {
            Pc::Run { slot } => {
                next.seats.set(worker, ParkState::Run, me.incarnation);
                let pc =
                    if self.keeps(Rule::PassOn) { Pc::AnybodyIdle { slot } } else { Pc::Execute { slot } };
                ("Park::run", pc)
            }
            Pc::BacklogRing { slot, sure } => {
                let backlog = state.tail != state.head;
                (
                    "ReadyRing::backlog",
                    if backlog { found(slot, sure) } else { Pc::BacklogAny { slot, sure } },
                )
            }
            Pc::BacklogAny { slot, sure } => {
                ("Requeue::is_empty", if state.any { found(slot, sure) } else { Pc::Execute { slot } })
            }
            Pc::AnybodyIdle { slot } => {
                let pc = if state.seats.idle & !bit(worker) == 0 {
                    Pc::Execute { slot }
                } else if me.next < me.claimed {
                    found(slot, true)
                } else {
                    Pc::BacklogRing { slot, sure: true }
                };
                ("anybody_idle", pc)
            }
            Pc::Notify { slot, notify } => {
                // Its own word says Run, and its own idle bit is off.
                let after = notify.step(&mut next.seats, ALL & !bit(worker), self.bell_faults());
                (notify.label(), after.map_or(Pc::Execute { slot }, |notify| Pc::Notify { slot, notify }))
            }
            _ => return None,
        })
    }

    /// `run`.
    fn running(
        &self,
        state: &State,
        next: &mut State,
        worker: usize,
        steps: &mut Steps<State>,
    ) -> Option<(&'static str, Pc)> {
        let in_order = self.keeps(Rule::HintAfterDone);
        Some(match state.workers[worker].pc {
            Pc::Execute { slot } if !in_order && !self.told(state, worker, slot) => {
                return self.push(state, next, worker, slot);
            }
            Pc::Execute { slot } => {
                self.finish(next, worker, slot, steps);
                let waits = state.slots[slot as usize].waiter && self.keeps(Rule::WakeAfterDone);
                let pc = match waits {
                    true => Pc::WakeSlot { slot },
                    false if in_order => Pc::Push { slot },
                    false => next.look(worker),
                };
                ("T3 finish", pc)
            }
            Pc::WakeSlot { slot } => {
                next.wake_slot(slot);
                ("SlotWord::wake", if in_order { Pc::Push { slot } } else { next.look(worker) })
            }
            Pc::Push { slot } => return self.push(state, next, worker, slot),
            Pc::ClearSleep { then } => {
                next.sleep = false;
                let pc =
                    if state.sleep { Pc::WakeClient { then } } else { self.told_all(next, worker, then) };
                ("tell_client: sleep bit off", pc)
            }
            Pc::WakeClient { then } => {
                next.wake_client();
                ("futex::wake(sleep)", self.told_all(next, worker, then))
            }
            _ => return None,
        })
    }

    /// In the mutant that announces first: whether it has announced.
    fn told(&self, state: &State, worker: usize, slot: u8) -> bool {
        let ring = state.completions[worker];
        ring.tail > 0 && ring.cells[(ring.tail - 1) as usize % self.completions as usize] == slot
    }

    fn told_all(&self, next: &State, worker: usize, then: Then) -> Pc {
        match then {
            Then::PassOn(slot) => self.pass_on(next, worker, slot),
            Then::Search => Pc::Search,
            Then::Finish(slot) => Pc::Execute { slot },
        }
    }

    /// After `push`: the next task; the client is told later.
    fn pushed(&self, next: &mut State, worker: usize, slot: u8) -> Pc {
        if !self.keeps(Rule::HintAfterDone) {
            return Pc::ClearSleep { then: Then::Finish(slot) };
        }
        next.workers[worker].untold = self.keeps(Rule::TellClient);
        next.look(worker)
    }

    fn push(&self, state: &State, next: &mut State, worker: usize, slot: u8) -> Option<(&'static str, Pc)> {
        let ring = &mut next.completions[worker];
        if state.completions[worker].tail - state.completions[worker].head >= self.completions {
            ring.overflow |= self.keeps(Rule::Overflow);
            return Some(("CompletionRing::push: full", self.pushed(next, worker, slot)));
        }
        ring.cells[(ring.tail % self.completions) as usize] = slot;
        ring.tail += 1;
        Some(("CompletionRing::push", self.pushed(next, worker, slot)))
    }
}

/// The bits that `Requeue::claim` looks at: behind the cursor, or the rest.
fn part_of(part: u8, cursor: u8) -> u8 {
    let all = (1 << SLOTS) - 1;
    let behind = all << cursor & all;
    if part == 0 { behind } else { all & !behind }
}
