//! Taking results out of slots.

use super::books::Chunk;
use super::result_bytes::Tiny;
use super::{Books, Client, Death, InFlight, Outcome, Taken, Target, Ticket};
use crate::error::{Error, ErrorKind, Exit, Result};
use crate::slot::{Answer, Check, Owner, Slot, State as SlotState, Word};
use crate::sync::{Ordering, prefetch_to_write};
use crate::task::{Status, failure};

/// So many workers may die in a chunk before they start an item; the next death is the item's fault.
const IDLE_DEATHS: u32 = 3;
/// How many slots are fetched before they are looked at.
const AHEAD: u32 = 8;

impl Client {
    /// Takes every outcome that workers have announced.
    pub(super) fn poll(&self, state: &mut Books) {
        let mut everything = false;
        let mut taken = 0;
        for worker in 1..self.segment.places() {
            let ring = self.segment.completions(worker);
            let tail = ring.tail();
            let w = worker as usize;
            let waiting = tail.wrapping_sub(state.read[w]);
            if waiting > self.segment.layout.sizes.completions {
                state.read[w] = tail; // more than fits: corrupt, or we have been told so by `overflow`
                everything = true;
            }
            // Some slots ahead, and for writing: each is about to be recycled.
            let fetch = |position| {
                if let Some(slot) = self.segment.slots().get(ring.get(position) as usize) {
                    prefetch_to_write(&slot.word);
                }
            };
            let mut read = state.read[w];
            let mut fetched = read;
            while read != tail {
                while fetched != tail && fetched.wrapping_sub(read) < AHEAD {
                    fetch(fetched);
                    fetched = fetched.wrapping_add(1);
                }
                let hint = ring.get(read);
                read = read.wrapping_add(1);
                state.read[w] = read;
                taken += u32::from(self.consume(state, hint));
            }
            // A line that the worker reads: written only when half a ring is owed.
            if tail.wrapping_sub(state.told[w]) >= self.segment.layout.sizes.completions / 2 {
                ring.publish_head(tail);
                state.told[w] = tail;
            }
            everything |= ring.overflow().take();
        }
        everything |= self.segment.rescan().take();
        if everything {
            self.scan(state);
        } else if taken > 0 {
            self.wake_sleepers(state);
        }
    }

    /// Whether [`poll`](Self::poll) would find anything. The last look before sleeping.
    pub(super) fn has_news(&self, state: &Books) -> bool {
        self.segment.rescan().is_up()
            || (1..self.segment.places()).any(|worker| {
                let ring = self.segment.completions(worker);
                ring.tail() != state.read[worker as usize] || ring.overflow().is_up()
            })
    }

    /// Looks at every slot that is on its way, hint or not.
    pub(super) fn scan(&self, state: &mut Books) {
        let mut taken = 0;
        for number in 0..state.fresh {
            taken += u32::from(self.consume(state, number));
        }
        if taken > 0 {
            self.wake_sleepers(state);
        }
    }

    /// Threads of this process that sleep until any task completes: one of them may be who waits for it.
    pub(super) fn wake_sleepers(&self, state: &mut Books) {
        if state.sleepers > 0 {
            self.segment.sleep().wake_always();
        }
    }

    /// Takes the outcome of a slot, if it has one; `true` if it had.
    #[inline]
    pub(super) fn consume(&self, state: &mut Books, number: u32) -> bool {
        let Some(entry) = state.entries.get(number as usize) else { return false };
        let Some(task) = &entry.task else { return false }; // a stale hint
        let generation = entry.generation;
        let word = self.segment.slot(number).word().load();
        if let Some(value) = self.tiny_in(number, generation, word, task) {
            self.recycle(state, number);
            state.settle_tiny(number, value);
            return true;
        }
        if let Some(len) = self.near_in(state, number, generation, word, task) {
            return self.consume_near(state, number, word, len);
        }
        self.consume_any(state, number, generation, word)
    }

    /// What most tasks come to, in one line of the slot.
    #[inline]
    fn tiny_in(&self, number: u32, generation: u32, word: Word, task: &InFlight) -> Option<Tiny> {
        if !word.is_done_in(generation) || task.kept.is_some() || self.checked.is_some() {
            return None;
        }
        let slot = self.segment.slot(number);
        let len = Answer::tiny(slot.answer.load(Ordering::Relaxed), Status::Value as u32)?;
        Some(Tiny { word: slot.tiny.load(Ordering::Relaxed), len })
    }

    /// The length of a value in a block that is not large and was made by this program for a caller.
    #[inline]
    fn near_in(
        &self,
        state: &Books,
        number: u32,
        generation: u32,
        word: Word,
        task: &InFlight,
    ) -> Option<usize> {
        if !word.is_done_in(generation) || self.checked.is_some() || !matches!(task.to, Target::Caller) {
            return None;
        }
        let answer = self.segment.slot(number).answer.load(Ordering::Relaxed);
        let len = Answer::near(answer, Status::Value as u32)?;
        let guest = state.guests.get(word.owner().index as usize).copied().unwrap_or(true);
        (!guest && task.chunk().is_none()).then_some(len)
    }

    /// The value that [`near_in`](Self::near_in) tells of, put together where it stays.
    #[inline]
    fn take_near(&self, state: &mut Books, number: u32, word: Word, len: usize) -> Result<Box<Outcome>> {
        let found = self.adopt(self.segment.slot(number), word, Some(len as u64))?;
        let outcome = self.near(state, found)?;
        self.recycle(state, number);
        Ok(outcome)
    }

    #[inline(never)]
    fn consume_near(&self, state: &mut Books, number: u32, word: Word, len: usize) -> bool {
        match self.take_near(state, number, word, len) {
            Ok(outcome) => {
                if let Some(kept) = state.settle_caller(number, outcome) {
                    self.arena.give_back(kept, state.key());
                }
                true
            }
            Err(error) => self.corrupted(state, number, error),
        }
    }

    /// The value of a call whose caller waits for it, if it is there and not large: taken from its slot
    /// straight to the caller, whose ticket is void then.
    #[inline]
    pub(super) fn take_own(&self, state: &mut Books, ticket: Ticket) -> Option<Taken> {
        let Ticket { slot: number, generation, .. } = ticket;
        let entry = state.entries.get(number as usize)?;
        let task = entry.task.as_ref().filter(|_| entry.generation == generation)?;
        let word = self.segment.slot(number).word().load();
        if let Some(value) = self.tiny_in(number, generation, word, task) {
            self.recycle(state, number);
            state.settle_own(number);
            state.last_done = word;
            return Some(Taken::Tiny(value));
        }
        let len = self.near_in(state, number, generation, word, task)?;
        self.take_own_near(state, number, word, len).map(Taken::Outcome)
    }

    #[inline(never)]
    fn take_own_near(&self, state: &mut Books, number: u32, word: Word, len: usize) -> Option<Box<Outcome>> {
        match self.take_near(state, number, word, len) {
            Ok(outcome) => {
                state.last_done = word;
                if let Some(kept) = state.settle_own(number) {
                    self.arena.give_back(kept, state.key());
                }
                Some(outcome)
            }
            Err(error) => {
                self.corrupted(state, number, error);
                None // it waits in the caller's place
            }
        }
    }

    /// The same for all outcomes.
    #[inline(never)]
    fn consume_any(&self, state: &mut Books, number: u32, generation: u32, word: Word) -> bool {
        let slot = self.segment.slot(number);
        let wrong = || {
            Error::corrupted(format!("slot {number} is {word:?} ({:#x}) in generation {generation}", word.0))
        };
        if word.generation() != generation {
            return self.corrupted(state, number, wrong());
        }
        match word.state() {
            Some(SlotState::Ready | SlotState::Run) => false,
            Some(SlotState::Done) => {
                let guest = state.guests.get(word.owner().index as usize).copied().unwrap_or(true);
                let answer = self.answer(state, slot, number, word, guest);
                let task = state.entries[number as usize].task.as_ref();
                let (chunk, function) = task.map_or((None, 0), |task| (task.chunk(), task.function));
                match (answer, chunk) {
                    (Err(error), _) => self.corrupted(state, number, error),
                    (Ok(outcome), None) => {
                        let outcome = with_name(outcome, state, function).unwrap_or_else(Outcome::Failed);
                        self.settle(state, number, outcome)
                    }
                    (Ok(outcome), Some(chunk)) => {
                        let outcome = with_name(outcome, state, function);
                        self.settle_chunk(state, slot, number, chunk.items, outcome)
                    }
                }
            }
            Some(SlotState::Lost) if state.is_dead(word.owner()) => {
                self.lost(state, slot, number, word);
                true
            }
            // A task that we cancel is settled under the same lock.
            Some(SlotState::Free | SlotState::Lost | SlotState::Cancelled) | None => {
                self.corrupted(state, number, wrong())
            }
        }
    }

    fn settle(&self, state: &mut Books, number: u32, outcome: Outcome) -> bool {
        if let Some(task) = self.release_slot(state, number) {
            task.deliver(outcome, state);
            if let Some(kept) = task.kept {
                self.arena.give_back(kept, state.key());
            }
        }
        true
    }

    /// The outcomes of the items of a chunk that its worker has finished.
    fn settle_chunk(
        &self,
        state: &mut Books,
        slot: &Slot,
        number: u32,
        (first, end): (u32, u32),
        outcome: Result<Outcome>,
    ) -> bool {
        let done = slot.done.load(Ordering::Acquire).min(end - first);
        let Some(task) = self.release_slot(state, number) else { return true };
        let error = match outcome {
            Ok(Outcome::Answer { status, bytes }) if status == Status::Chunk as u32 => {
                if done > 0 {
                    task.deliver(Outcome::Items { first, done, bytes }, state);
                }
                if done < end - first {
                    let error = format!("a chunk ended after {done} of {} items", end - first);
                    let error = Error::corrupted(error);
                    task.deliver(Outcome::Range { first: first + done, end, error }, state);
                }
                return true;
            }
            Ok(Outcome::Answer { status, bytes }) => failure(status, bytes.as_slice()),
            Ok(_) => Error::corrupted("a chunk was answered as something else".to_owned()),
            Err(error) => error,
        };
        task.deliver(Outcome::Range { first, end, error }, state);
        true
    }

    /// A task whose worker died. A chunk keeps what is finished and goes on behind the item that failed.
    fn lost(&self, state: &mut Books, slot: &Slot, number: u32, word: Word) {
        let death = death_of(state, word.owner());
        let guest = state.guests.get(word.owner().index as usize).copied().unwrap_or(true);
        let chunk = state.entries[number as usize].task.as_ref().and_then(InFlight::chunk);
        let items = chunk.map(|chunk| chunk.items);
        let mut done = slot.done.load(Ordering::Acquire);
        let salvaged = match items {
            Some(_) => self.block(state, slot, word, None, guest, None),
            None => Err(ErrorKind::Closed.into()), // not looked at
        };
        if let Some((first, end)) = items {
            match self.believable(slot, number, word, done) {
                Some(items) if items <= end - first => done = items,
                _ => {
                    let error =
                        Error::corrupted(format!("a lost chunk counts {done} of {} items", end - first));
                    self.corrupted(state, number, error);
                    return;
                }
            }
        }
        let Some(mut task) = self.release_slot(state, number) else { return };
        let (_, name) = state.function(task.function);
        let failed = state.failed.clone();
        let died = |attempt| -> Error {
            if let Some(error) = &failed {
                return error.clone(); // it died because the pool ends
            }
            ErrorKind::WorkerDied {
                end: death.exit,
                pid: death.pid,
                worker: word.owner().index,
                function: name.to_owned(),
                attempt,
            }
            .into()
        };
        let Some(Chunk { items: (first, end), max_attempts, item_attempts, idle_deaths, shape }) = chunk
        else {
            task.deliver(Outcome::Failed(died(word.attempt() + 1)), state);
            return;
        };
        let mut next = first;
        let mut attempts = item_attempts;
        if done > 0 {
            next = first + done;
            attempts = 1;
            // Items that were finished do not run again, whatever became of their results.
            let outcome = match salvaged {
                Ok(bytes) => Outcome::Items { first, done, bytes },
                Err(error) => Outcome::Range { first, end: next, error },
            };
            task.deliver(outcome, state);
        }
        // The item that it was running is the one that failed; if it had none, nobody is to blame.
        let running = death.current >> 32 == u64::from(number + 1);
        // If workers keep dying between items, somebody has to be blamed all the same.
        let idle_deaths = if running || next > first { 0 } else { idle_deaths + 1 };
        // A function that takes a whole chunk says so; of what it was at, no item is finished by itself.
        let at_once = if running { (death.current as u32).clamp(1, (end - next).max(1)) } else { 1 };
        if (running || idle_deaths > IDLE_DEATHS) && next < end {
            if attempts >= max_attempts {
                let error = died(attempts);
                task.deliver(Outcome::Range { first: next, end: next + at_once, error }, state);
                next += at_once;
                attempts = 1;
            } else {
                attempts += 1;
            }
        }
        if next < end {
            if let Some(kept) = &mut task.kept {
                let (items, item_attempts) = ((next, end), attempts);
                kept.chunk = Some(Chunk { shape, items, max_attempts, item_attempts, idle_deaths });
            }
            self.resume(state, task);
        }
    }

    /// How many items of a lost chunk are finished, as its worker said; `None` if it cannot have said that.
    fn believable(&self, slot: &Slot, number: u32, word: Word, done: u32) -> Option<u32> {
        let Some(pool) = self.checked else { return Some(done) };
        let check = Check::begin(pool, number, word.generation());
        let progress = slot.progress.load(Ordering::Relaxed);
        // It is written when an item begins: the one that was finished last may not be in it yet.
        let begun = |done: u32| check.of_progress(done) == progress;
        match done {
            0 if progress == 0 => Some(0), // not even the first has begun
            _ if begun(done) => Some(done),
            0 => None,
            _ => begun(done - 1).then_some(done - 1),
        }
    }
}

/// Of a function that it does not know, a worker cannot tell the name; we can.
#[inline]
fn with_name(outcome: Outcome, state: &Books, function: u32) -> Result<Outcome> {
    match outcome {
        Outcome::Answer { status, bytes } if status == Status::UnknownFunction as u32 => {
            let (_, name) = state.function(function);
            Err(Error::function(format!("{name:?} cannot be called: {}", failure(status, bytes.as_slice()))))
        }
        known => Ok(known),
    }
}

fn death_of(state: &Books, who: Owner) -> Death {
    let unknown = Death { who, pid: 0, exit: Exit::Unknown, current: 0 };
    state.deaths.iter().rev().find(|death| death.who == who).copied().unwrap_or(unknown)
}
