//! Putting tasks into slots and announcing them.

use super::books::Entry;
use super::{Args, Books, Chunk, Client, InFlight, Kept, Sink, Target, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::slot::{ArgWords, CHECKED_ARGS, Check, Meta, Shape};
use crate::sync::Ordering;
use crate::worker::FuncWord;
use std::collections::VecDeque;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

/// A task as a client describes it.
pub(crate) struct TaskSpec {
    pub func: FuncWord,
    /// For messages.
    pub name: &'static str,
    pub args: Args,
    pub shape: Shape,
}

/// Clocks have an end; nobody is patient for longer.
pub(crate) const PATIENCE_MOST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Most retries of a task: a slot's word counts attempts in four bits.
pub(crate) const RETRIES_MOST: u32 = 14;

/// On which terms a task is submitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long its submitter waits for a slot, or for memory.
    pub patience: Duration,
    /// How often it may be started; of a chunk, each item. 1 to 15.
    pub max_attempts: u32,
}

/// A call that is to be submitted to a stream.
///
/// All words of one size: where there are none of others between them, they are not copied in pieces, which the
/// processor cannot forward to a wider load.
pub(crate) struct Call {
    pub tag: u64,
    words: ArgWords,
    /// How many bytes of the words are the arguments.
    len: u64,
    /// The arguments, if they are not in the words, or not alone.
    kept: Option<Box<Kept>>,
}

impl Call {
    /// Arguments that are in the first `len` bytes of these words.
    #[inline]
    pub(crate) fn short(tag: u64, words: ArgWords, len: usize) -> Self {
        Call { tag, words, len: len as u64, kept: None }
    }

    pub(crate) fn new(tag: u64, args: Args) -> Self {
        match args {
            Args::Inline { words, len } => Self::short(tag, words, usize::from(len)),
            Args::Kept(kept) => Call { tag, words: ArgWords::default(), len: 0, kept: Some(kept) },
        }
    }

    pub(crate) fn into_args(self) -> Args {
        match self.kept {
            Some(kept) => Args::Kept(kept),
            None => Args::of_words(self.words, self.len as usize),
        }
    }
}

impl Client {
    /// Hands a task to the workers. `items` is the range of a chunk. Waits while all slots are taken.
    pub(crate) fn submit(
        &self,
        spec: TaskSpec,
        items: Option<(u32, u32)>,
        to: Target,
        tag: u64,
    ) -> Result<Ticket> {
        self.submit_on(&self.terms, spec, items, to, tag)
    }

    /// The same on these terms.
    pub(crate) fn submit_on(
        &self,
        terms: &Terms,
        spec: TaskSpec,
        items: Option<(u32, u32)>,
        to: Target,
        tag: u64,
    ) -> Result<Ticket> {
        let mut state = self.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let number = match self.take_slot(&mut state) {
            Some(number) => number,
            None => {
                let waited;
                (state, waited) = self.wait_for_slot(state, terms.patience)?;
                waited
            }
        };
        let lane = spec.func.lane();
        let bytes = spec.args.bytes_to_read();
        let freed = state.freed();
        let mut ticket = self.place(&mut state, number, spec, terms.max_attempts, items, to, tag);
        self.publish(&state, lane);
        drop(state);
        ticket.bytes = bytes;
        ticket.set_asleep(self.segment.bell().notify_seeing(lane, freed));
        Ok(ticket)
    }

    /// Submits calls of one function to a stream, from the front, as long as there are slots; the rest stays. Each
    /// may be started so often, and has its tag.
    pub(crate) fn submit_calls(
        &self,
        max_attempts: u32,
        func: FuncWord,
        name: &'static str,
        stream: u32,
        calls: &mut VecDeque<Call>,
    ) -> Result<()> {
        let mut state = self.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        if state.free.len() < calls.len() && state.fresh == self.segment.layout.sizes.slots {
            self.poll(&mut state);
        }
        let function = state.number_of(func, name);
        let mut placed = 0;
        for Call { tag, words, len, kept } in calls.iter_mut() {
            let Some(number) = self.take_slot(&mut state) else { break };
            match kept.take() {
                None => {
                    self.put(&mut state, number, func, Shape::Inline, max_attempts, words, *len as u8, false);
                    state.enter(number, Target::Stream(stream), *tag, function, None);
                }
                Some(kept) => {
                    let (words, len) = kept.words(None);
                    self.put(&mut state, number, func, kept.shape(), max_attempts, &words, len, false);
                    state.enter(number, Target::Stream(stream), *tag, function, Some(kept));
                }
            }
            placed += 1;
        }
        calls.drain(..placed);
        if placed > 0 {
            let lane = func.lane();
            self.publish(&state, lane);
            drop(state);
            self.segment.bell().notify(lane); // once for all of them
        }
        Ok(())
    }

    /// [`submit`](Self::submit) of a call whose arguments are in these words, `len` bytes of them.
    #[inline]
    pub(crate) fn submit_short(
        &self,
        terms: &Terms,
        func: FuncWord,
        name: &'static str,
        words: &ArgWords,
        len: usize,
        to: Target,
    ) -> Result<Ticket> {
        let Some((state, number)) = self.used_slot() else {
            let args = Args::of_words(*words, len);
            return self.submit_on(terms, TaskSpec { func, name, args, shape: Shape::Inline }, None, to, 0);
        };
        let call = (words, len as u8, None);
        Ok(self.submit_into(state, number, terms, func, name, Shape::Inline, call, to))
    }

    /// [`submit`](Self::submit) of a call.
    #[inline]
    pub(crate) fn submit_call(
        &self,
        terms: &Terms,
        func: FuncWord,
        name: &'static str,
        args: Args,
        to: Target,
    ) -> Result<Ticket> {
        match args {
            Args::Inline { words, len } => self.submit_short(terms, func, name, &words, usize::from(len), to),
            Args::Kept(kept) => self.submit_kept(terms, func, name, kept, to),
        }
    }

    /// The same, if it keeps something.
    pub(crate) fn submit_kept(
        &self,
        terms: &Terms,
        func: FuncWord,
        name: &'static str,
        kept: Box<Kept>,
        to: Target,
    ) -> Result<Ticket> {
        let (shape, bytes) = (kept.shape(), kept.bytes_to_read());
        let Some((state, number)) = self.used_slot() else {
            let args = Args::Kept(kept);
            return self.submit_on(terms, TaskSpec { func, name, args, shape }, None, to, 0);
        };
        let (words, len) = kept.words(None);
        let mut ticket =
            self.submit_into(state, number, terms, func, name, shape, (&words, len, Some(kept)), to);
        ticket.bytes = bytes;
        Ok(ticket)
    }

    /// A slot that is free and has been used before, in a pool that has not failed; with the books locked.
    #[inline]
    fn used_slot(&self) -> Option<(MutexGuard<'_, Books>, u32)> {
        let mut state = self.lock();
        let number = if state.failed.is_none() { state.free.pop() } else { None };
        number.map(|number| (state, number))
    }

    /// Puts a call into this slot and announces it: its words, how many bytes of them are the arguments, and what
    /// it keeps.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "all of them stay in registers")]
    fn submit_into(
        &self,
        mut state: MutexGuard<'_, Books>,
        number: u32,
        terms: &Terms,
        func: FuncWord,
        name: &'static str,
        shape: Shape,
        (words, len, kept): (&ArgWords, u8, Option<Box<Kept>>),
        to: Target,
    ) -> Ticket {
        let freed = state.freed();
        let function = state.number_of(func, name);
        let tag = if let Target::Caller = to { state.next_caller() } else { 0 };
        let generation = self.put(&mut state, number, func, shape, terms.max_attempts, words, len, false);
        state.enter(number, to, tag, function, kept);
        let mut ticket = Ticket::new(number, generation, tag);
        let lane = func.lane();
        self.publish(&state, lane);
        drop(state);
        ticket.set_asleep(self.segment.bell().notify_seeing(lane, freed));
        ticket
    }

    /// Lets workers see what has been placed in a lane.
    fn publish(&self, state: &Books, lane: usize) {
        self.segment.ready(lane).publish(state.tail[lane]);
        self.watch.note_work();
    }

    /// Wakes one worker more for the next of many tasks that take longer than a wake-up, if there is a CPU for each
    /// of so many workers.
    pub(crate) fn rouse(&self, func: FuncWord, workers: usize) {
        if workers <= self.cpus as usize {
            self.segment.bell().notify_more(func.lane());
        }
    }

    /// A stream for `sink`: see [`Target::Stream`].
    pub(crate) fn open_stream(&self, sink: Arc<dyn Sink>) -> u32 {
        self.lock().open_stream(sink)
    }

    /// Takes back those of a stream's tasks that no worker has started, and forgets the results of the others.
    pub(crate) fn close_stream(&self, stream: u32) {
        let mut state = self.lock();
        self.take_back(&mut state, |to| matches!(to, Target::Stream(to) if *to == stream), None);
        state.close_stream(stream);
    }

    /// Takes back those of the sink's tasks that no worker has started.
    pub(crate) fn cancel(&self, sink: &Arc<dyn Sink>) {
        let theirs = |to: &Target| matches!(to, Target::Sink(to) if Arc::ptr_eq(to, sink));
        self.take_back(&mut self.lock(), theirs, None);
    }

    /// The same, and the sink is told that these have failed with `error`. Whether there was one.
    pub(crate) fn recall(&self, sink: &Arc<dyn Sink>, error: &Error) -> bool {
        let theirs = |to: &Target| matches!(to, Target::Sink(to) if Arc::ptr_eq(to, sink));
        self.take_back(&mut self.lock(), theirs, Some(error))
    }

    fn take_back(&self, state: &mut Books, theirs: impl Fn(&Target) -> bool, tell: Option<&Error>) -> bool {
        let mut taken = false;
        for number in 0..state.fresh {
            let entry = &state.entries[number as usize];
            let theirs = entry.task.as_ref().is_some_and(|task| theirs(&task.to));
            if theirs && self.segment.slot(number).word().cancel(entry.generation) {
                let task = self.release_slot(state, number);
                if let (Some(task), Some(error)) = (task, tell) {
                    task.fail(error.clone(), state);
                }
                taken = true;
            }
        }
        if taken {
            self.wake_sleepers(state); // somebody may wait for a slot
        }
        taken
    }

    pub(super) fn take_slot(&self, state: &mut Books) -> Option<u32> {
        if let Some(number) = state.free.pop() {
            return Some(number);
        }
        let slots = self.segment.layout.sizes.slots;
        (state.fresh < slots).then(|| {
            let number = state.fresh;
            state.fresh += 1;
            state.entries.push(Entry::default());
            // Before the slot is used, so that a reap looks at it.
            self.segment.client().slots_used.store(state.fresh, Ordering::Release);
            number
        })
    }

    /// Back-pressure: waits until a slot is free.
    #[cold]
    fn wait_for_slot<'s>(
        &'s self,
        mut state: MutexGuard<'s, Books>,
        patience: Duration,
    ) -> Result<(MutexGuard<'s, Books>, u32)> {
        let start = Instant::now();
        loop {
            self.poll(&mut state);
            if let Some(number) = self.take_slot(&mut state) {
                return Ok((state, number));
            }
            drop(state);
            let slots = self.segment.layout.sizes.slots;
            if patience.is_zero() {
                return Err(ErrorKind::Full { slots, waited: patience }.into());
            }
            let free = || {
                let state = self.lock();
                !state.free.is_empty() || state.failed.is_some()
            };
            if !self.wait_any(&free, Some(start + patience)) {
                return Err(ErrorKind::Full { slots, waited: start.elapsed() }.into());
            }
            state = self.lock();
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
        }
    }

    /// T1 and its hint, which workers see once it is [published](Self::publish). The slot is ours and free.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "all of a task")]
    fn place(
        &self,
        state: &mut Books,
        number: u32,
        TaskSpec { func, name, args, shape }: TaskSpec,
        max_attempts: u32,
        items: Option<(u32, u32)>,
        to: Target,
        tag: u64,
    ) -> Ticket {
        let function = state.number_of(func, name);
        let tag = if let Target::Caller = to { state.next_caller() } else { tag };
        let ((words, len), kept) = match args {
            Args::Inline { words, len } => ((words, len), None),
            Args::Kept(mut kept) => {
                kept.chunk =
                    items.map(|items| Chunk { shape, items, max_attempts, item_attempts: 1, idle_deaths: 0 });
                (kept.words(items), Some(kept))
            }
        };
        let generation = self.put(state, number, func, shape, max_attempts, &words, len, items.is_some());
        state.enter(number, to, tag, function, kept);
        Ticket::new(number, generation, tag)
    }

    /// The same for the slot alone, given the words of the arguments and how many bytes of them are the arguments
    /// themselves. The task is [entered](Books::enter) into the books before these are unlocked. Gives the
    /// slot's generation.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "all of them stay in registers")]
    fn put(
        &self,
        state: &mut Books,
        number: u32,
        func: FuncWord,
        shape: Shape,
        max_attempts: u32,
        words: &ArgWords,
        len: u8,
        is_chunk: bool,
    ) -> u32 {
        let slot = self.segment.slot(number);
        let generation = state.entries[number as usize].generation;
        let meta = Meta { shape, max_attempts, inline_len: usize::from(len) };
        match self.checked {
            None => slot.args.fill_words(words),
            Some(pool) => {
                let check = Check::begin(pool, number, generation);
                let mut words = *words;
                words[CHECKED_ARGS / 8] =
                    check.of_task(func.0, meta.pack(), &bytemuck::bytes_of(&words)[..CHECKED_ARGS]);
                slot.args.fill_words(&words);
            }
        }
        if is_chunk {
            slot.handle.store(0, Ordering::Relaxed);
            slot.done.store(0, Ordering::Relaxed);
            slot.progress.store(0, Ordering::Relaxed);
        }
        slot.meta.store(meta.pack(), Ordering::Relaxed);
        slot.func.store(func.0, Ordering::Relaxed);
        slot.word().submit(generation);

        let lane = func.lane();
        let ring = self.segment.ready(lane);
        let tail = state.tail[lane];
        if ring.has_room(tail, &mut state.known_head[lane]) {
            ring.write(tail, number);
            state.tail[lane] = tail.wrapping_add(1);
        } else {
            // Twice as many cells as slots, all full: stale hints that nobody has taken yet. Or its
            // positions are corrupt; the back-stop repairs them.
            self.segment.requeue(lane).announce(number);
        }
        generation
    }

    /// Submits what is left of a chunk.
    pub(super) fn resume(&self, state: &mut Books, task: InFlight) {
        if let Some(error) = &state.failed {
            let error = error.clone();
            return task.fail(error, state);
        }
        let (Some(kept), Some(next)) = (&task.kept, self.take_slot(state)) else {
            return task.fail(Error::corrupted("the slot of the lost part is not free"), state);
        };
        let Some(chunk) = kept.chunk else { return };
        let (words, len) = kept.words(Some(chunk.items));
        let (func, _) = state.function(task.function);
        self.put(state, next, func, chunk.shape, chunk.max_attempts, &words, len, true);
        let InFlight { to, tag, function, kept } = task;
        state.enter(next, to, tag, function, kept);
        self.publish(state, func.lane());
        self.segment.bell().notify(func.lane());
    }

    /// Archives the arguments and retries while the client's region is full of tasks on their way.
    pub(crate) fn with_memory<R>(&self, archive: impl FnMut() -> Result<R>) -> Result<R> {
        self.with_memory_on(&self.terms, archive)
    }

    /// The same on these terms.
    pub(crate) fn with_memory_on<R>(
        &self,
        terms: &Terms,
        mut archive: impl FnMut() -> Result<R>,
    ) -> Result<R> {
        match archive() {
            Err(error) if error.is_arena_full() => self.wait_for_memory(terms.patience, archive, error),
            other => other,
        }
    }

    /// The same without waiting.
    pub(crate) fn with_memory_now<R>(&self, mut archive: impl FnMut() -> Result<R>) -> Result<R> {
        match archive() {
            Err(error) if error.is_arena_full() => {
                self.collect(); // frees the arguments of tasks that are done
                archive()
            }
            other => other,
        }
    }

    /// Whether a task could be submitted without waiting.
    pub(crate) fn has_slot(&self) -> bool {
        let free = |state: &Books| !state.free.is_empty() || state.fresh < self.segment.layout.sizes.slots;
        let mut state = self.lock();
        if !free(&state) {
            self.poll(&mut state);
        }
        free(&state)
    }

    #[cold]
    fn wait_for_memory<R>(
        &self,
        patience: Duration,
        mut archive: impl FnMut() -> Result<R>,
        mut error: Error,
    ) -> Result<R> {
        let deadline = Instant::now() + patience;
        if error.is_beyond_quota() {
            return Err(error); // waiting cannot help
        }
        loop {
            self.collect();
            match archive() {
                Err(full) if full.is_arena_full() => error = full,
                other => return other,
            }
            // Without tasks on their way, only the caller itself can free memory.
            if self.in_flight() == 0 || Instant::now() >= deadline {
                return Err(error);
            }
            // A task that ends wakes us; memory that another thread gives up does not.
            let before = self.in_flight();
            let look_again = Instant::now() + Duration::from_millis(10);
            self.wait_any(&|| self.in_flight() < before, Some(deadline.min(look_again)));
        }
    }

    /// T4: the slot of a terminal task goes back to the free list, and the task is taken out of the books.
    pub(super) fn release_slot(&self, state: &mut Books, number: u32) -> Option<InFlight> {
        let task = state.leave(number);
        self.recycle(state, number);
        task
    }

    /// T4.
    #[inline]
    pub(super) fn recycle(&self, state: &mut Books, number: u32) {
        let entry = &mut state.entries[number as usize];
        entry.generation = self.segment.slot(number).word().recycle(entry.generation);
        if entry.waiters == 0 {
            state.free.push(number);
        } else {
            self.segment.slot(number).word().wake();
        }
    }
}
