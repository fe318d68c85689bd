//! Where results are written: first into a few bytes on the stack, then into blocks of the own region.

use super::Home;
use crate::arena::Block;
use crate::error::{Error, Result};
use crate::payload::{Grow, Room, Span};
use crate::recovery::urge_client;
use crate::segment::Segment;
use crate::slot::{INLINE_RESULT, Slot};
use crate::sync::{AtomicU32, Ordering, back_stop};
use crate::task::registry::Code;
use crate::task::{Call, Return, Shape, Status};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

/// The first bytes of every result.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(super) struct Small([u8; INLINE_RESULT]);

impl Small {
    pub(super) fn new() -> Self {
        Small([0; INLINE_RESULT])
    }

    pub(super) fn span(&mut self) -> Span {
        Span { ptr: NonNull::from(&mut self.0).cast(), cap: INLINE_RESULT }
    }

    /// The first eight.
    #[inline]
    pub(super) fn word(&self) -> u64 {
        let (words, _) = self.0.as_chunks::<8>();
        u64::from_ne_bytes(words[0])
    }

    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        &self.0[..len]
    }
}

/// Memory for one result, taken from the own region when the first bytes do not hold it.
pub(super) struct TaskMemory<'w> {
    segment: &'w Segment,
    region: &'w Home,
    /// How long to wait for memory; nothing once that was in vain, or a chunk would wait for every item.
    patience: Duration,
    /// The block that holds the result now.
    pub(super) block: Option<Block>,
    /// For a chunk: where each new block is named at once, so that finished items survive this process.
    announce: Option<&'w Slot>,
}

impl<'w> TaskMemory<'w> {
    pub(super) fn new(
        segment: &'w Segment,
        region: &'w Home,
        patience: Duration,
        announce: Option<&'w Slot>,
    ) -> Self {
        TaskMemory { segment, region, patience, block: None, announce }
    }

    /// Takes a block of at least `bytes`; waits a while if others hold too many.
    pub(super) fn take(&mut self, bytes: usize) -> Result<Block> {
        let held = self.block.map(|block| block.len);
        match self.region.allocate_beside(self.segment, bytes, held) {
            Err(error) if error.is_arena_full() => self.take_patiently(bytes, error),
            other => other,
        }
    }

    #[cold]
    fn take_patiently(&mut self, bytes: usize, mut error: Error) -> Result<Block> {
        if error.is_beyond_quota() {
            return Err(error); // waiting cannot help
        }
        let held = self.block.map(|block| block.len);
        self.region.check_beside(bytes, held)?; // only the task itself could give back what it was lent
        let starved = self.segment.starved(self.segment.index);
        let deadline = Instant::now() + self.patience;
        loop {
            let announced = starved.announce(0); // against `ResultBlock::drop`
            match self.region.allocate_beside(self.segment, bytes, held) {
                Err(full) if full.is_arena_full() => error = full,
                other => {
                    starved.withdraw();
                    return other;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.segment.state() == crate::segment::PoolState::Stopping {
                starved.withdraw();
                self.patience = Duration::ZERO;
                return Err(error);
            }
            // It may be asleep until one task is done, perhaps this one, with other results lying in its slots.
            urge_client(self.segment);
            starved.sleep(announced, left.min(back_stop(Duration::from_millis(100))));
        }
    }
}

impl Grow for TaskMemory<'_> {
    fn grow(&mut self, old: Span, used: usize, needed: usize) -> Result<Span> {
        let block = self.take(needed)?;
        // SAFETY: `used` bytes are written at `old`; the new block has at least `needed >= used` bytes and
        // does not overlap it, being a block of its own.
        unsafe { std::ptr::copy_nonoverlapping(old.ptr.as_ptr(), block.ptr.as_ptr(), used) };
        if let Some(slot) = self.announce {
            slot.handle.store(block.handle.pack(), Ordering::Release); // before the old block goes
        }
        if let Some(old) = self.block.replace(block) {
            self.region.free(self.segment, old.handle);
        }
        Ok(Span { ptr: block.ptr, cap: block.len })
    }

    fn adopt(&mut self, start: NonNull<u8>) -> Option<Span> {
        let block = self.region.claim(start)?;
        if let Some(old) = self.block.replace(block) {
            self.region.free(self.segment, old.handle);
        }
        Some(Span { ptr: block.ptr, cap: block.len })
    }
}

/// Memory for results that stay in this process.
#[derive(Default)]
pub(super) struct Scratch {
    heap: Vec<u64>,
}

impl Scratch {
    /// Calls a function: what came of it, and the bytes that it left.
    pub(super) fn call(&mut self, code: Code, args: &[u8]) -> (Status, &[u8]) {
        self.heap.resize(32, 0);
        let room = Room::new(self.span(), self);
        let done = AtomicU32::new(0);
        let Return { status, used } = code.call(&mut Call {
            args,
            shape: Shape::One,
            padding: 0,
            room,
            on_begin: &|_| {},
            on_item: None,
            done: &done,
        });
        (status, &bytemuck::cast_slice(&self.heap)[..used])
    }

    fn span(&mut self) -> Span {
        Span {
            ptr: NonNull::new(self.heap.as_mut_ptr()).expect("a vector's pointer").cast(),
            cap: self.heap.len() * 8,
        }
    }
}

impl Grow for Scratch {
    fn grow(&mut self, _old: Span, _used: usize, needed: usize) -> Result<Span> {
        self.heap.resize(needed.div_ceil(8), 0); // keeps what is there
        Ok(self.span())
    }
}
