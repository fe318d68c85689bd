//! Putting tasks into slots and announcing them.

use super::{Args, ArgsBytes, Client, Entry, InFlight, Sink, State, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::slot::{ArgsHandle, CHECKED_ARGS, Check, INLINE_ARGS, Meta, Shape};
use crate::sync::Ordering;
use crate::worker::FuncWord;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

/// A task as a client describes it.
#[derive(Clone)]
pub(crate) struct TaskSpec {
    pub func: FuncWord,
    /// For messages.
    pub name: &'static str,
    pub args: Args,
    pub shape: Shape,
    /// 1 to 15: how often it may be started.
    pub max_attempts: u32,
}

impl Client {
    /// Hands a task to the workers. `items` is the range of a chunk. Waits while all slots are taken.
    pub(crate) fn submit(
        &self,
        spec: TaskSpec,
        items: Option<(u32, u32)>,
        sink: Arc<dyn Sink>,
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
                (state, waited) = self.wait_for_slot(state)?;
                waited
            }
        };
        let task = InFlight { sink, tag, spec, items, item_attempts: 1, idle_deaths: 0 };
        let lane = task.spec.func.lane();
        let ticket = self.place(&mut state, number, task);
        drop(state);
        self.segment.bell().notify(lane);
        Ok(ticket)
    }

    pub(super) fn take_slot(&self, state: &mut State) -> Option<u32> {
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
    fn wait_for_slot<'s>(&'s self, mut state: MutexGuard<'s, State>) -> Result<(MutexGuard<'s, State>, u32)> {
        let start = Instant::now();
        loop {
            self.poll(&mut state);
            if let Some(number) = self.take_slot(&mut state) {
                return Ok((state, number));
            }
            drop(state);
            let free = || {
                let state = self.lock();
                !state.free.is_empty() || state.failed.is_some()
            };
            if !self.wait_any(&free, Some(start + self.patience)) {
                let slots = self.segment.layout.sizes.slots;
                return Err(ErrorKind::Full { slots, waited: start.elapsed() }.into());
            }
            state = self.lock();
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
        }
    }

    /// T1 and its hint. The slot is ours and free.
    pub(super) fn place(&self, state: &mut State, number: u32, task: InFlight) -> Ticket {
        let slot = self.segment.slot(number);
        let spec = &task.spec;
        let handle;
        let args = match &spec.args.bytes {
            ArgsBytes::Inline { bytes, len } => &bytes[..usize::from(*len)],
            ArgsBytes::Block(block) => {
                let (first, end) = task.items.unwrap_or((0, 0));
                handle =
                    ArgsHandle { offset: block.offset(), len: block.len() as u64, first, end }.to_bytes();
                &handle
            }
        };
        let inline_len = if spec.shape == Shape::Inline { args.len() } else { 0 };
        slot.args.fill(args);
        if task.items.is_some() {
            slot.handle.store(0, Ordering::Relaxed);
            slot.done.store(0, Ordering::Relaxed);
            slot.progress.store(0, Ordering::Relaxed);
        }
        let meta = Meta { shape: spec.shape, max_attempts: spec.max_attempts, inline_len };
        slot.meta.store(meta.pack(), Ordering::Relaxed);
        slot.func.store(spec.func.0, Ordering::Relaxed);
        if let Some(pool) = self.checked {
            let generation = state.entries[number as usize].generation;
            let check = Check::begin(pool, number, generation);
            let mut bytes = [0; INLINE_ARGS];
            bytes[..args.len()].copy_from_slice(args);
            let sum = check.of_task(spec.func.0, meta.pack(), &bytes[..CHECKED_ARGS]);
            bytes[CHECKED_ARGS..].copy_from_slice(&sum.to_ne_bytes());
            slot.args.fill(&bytes);
        }
        let lane = spec.func.lane();
        let entry = &mut state.entries[number as usize];
        let generation = entry.generation;
        entry.task = Some(task);
        entry.suspicion = None;
        state.in_flight += 1;
        state.worked = true;
        slot.word().submit(generation);

        let ring = self.segment.ready(lane);
        let tail = state.tail[lane];
        if ring.has_room(tail, &mut state.known_head[lane]) {
            ring.write(tail, number);
            state.tail[lane] = tail.wrapping_add(1);
            ring.publish(state.tail[lane]);
        } else {
            // Twice as many cells as slots, all full: stale hints that nobody has taken yet. Or its
            // positions are corrupt; the back-stop repairs them.
            self.segment.requeue(lane).announce(number);
        }
        Ticket { slot: number, generation }
    }

    /// Archives the arguments and retries while the client's region is full of tasks on their way.
    pub(crate) fn with_memory<R>(&self, mut archive: impl FnMut() -> Result<R>) -> Result<R> {
        match archive() {
            Err(error) if error.is_arena_full() => self.wait_for_memory(archive, error),
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
        let free = |state: &State| !state.free.is_empty() || state.fresh < self.segment.layout.sizes.slots;
        let mut state = self.lock();
        if !free(&state) {
            self.poll(&mut state);
        }
        free(&state)
    }

    #[cold]
    fn wait_for_memory<R>(&self, mut archive: impl FnMut() -> Result<R>, mut error: Error) -> Result<R> {
        let deadline = Instant::now() + self.patience;
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

    /// Takes back those of the sink's tasks that no worker has started.
    pub(crate) fn cancel(&self, sink: &Arc<dyn Sink>) {
        let mut state = self.lock();
        let mut taken = false;
        for number in 0..state.fresh {
            let entry = &mut state.entries[number as usize];
            let theirs = entry.task.as_ref().is_some_and(|task| Arc::ptr_eq(&task.sink, sink));
            if theirs && self.segment.slot(number).word().cancel(entry.generation) {
                self.release_slot(&mut state, number);
                taken = true;
            }
        }
        if taken {
            self.wake_sleepers(&mut state); // somebody may wait for a slot
        }
    }

    /// T4: the slot of a terminal task goes back to the free list.
    pub(super) fn release_slot(&self, state: &mut State, number: u32) -> Option<InFlight> {
        let entry = &mut state.entries[number as usize];
        let task = entry.task.take();
        entry.generation = self.segment.slot(number).word().recycle(entry.generation);
        if entry.waiters == 0 {
            state.free.push(number);
        } else {
            self.segment.slot(number).word().wake();
        }
        state.in_flight -= 1;
        task
    }
}
