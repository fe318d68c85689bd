//! The completion ring: one worker tells one client which slots it has finished.

use super::Flag;
use crate::sync::{AtomicU32, Ordering};

/// The positions of a completion ring, each on lines of its own.
#[repr(C, align(128))]
pub(crate) struct CompletionControl {
    /// Where the worker writes next. Only the worker stores it.
    tail: AtomicU32,
    /// Set instead of a hint when the ring is full: the client must look at all its slots.
    overflow: AtomicU32,
    _tail_line: [u32; 30],
    /// What the client has read. Only the client stores it, seldom.
    head: AtomicU32,
    _head_line: [u32; 31],
}

impl CompletionControl {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Self {
        CompletionControl {
            tail: AtomicU32::new(0),
            overflow: AtomicU32::new(0),
            _tail_line: [0; 30],
            head: AtomicU32::new(0),
            _head_line: [0; 31],
        }
    }
}

/// A ring of slot numbers, single producer, single consumer.
///
/// A worker never waits for a client: a full ring costs the hint, not the task. A worker's successor
/// in the same place goes on at the shared tail.
#[derive(Clone, Copy)]
pub(crate) struct CompletionRing<'a> {
    control: &'a CompletionControl,
    cells: &'a [AtomicU32],
}

impl<'a> CompletionRing<'a> {
    /// `cells` has a power of two of entries.
    pub(crate) fn new(control: &'a CompletionControl, cells: &'a [AtomicU32]) -> Self {
        debug_assert!(cells.len().is_power_of_two());
        CompletionRing { control, cells }
    }

    /// Announces a finished slot, after T3. The worker only.
    #[inline]
    pub(crate) fn push(&self, slot: u32) {
        let tail = self.control.tail.load(Ordering::Relaxed);
        let head = self.control.head.load(Ordering::Acquire); // pairs with `publish_head`
        if tail.wrapping_sub(head) >= self.cells.len() as u32 {
            self.overflow().raise();
            return;
        }
        self.cells[tail as usize & (self.cells.len() - 1)].store(slot, Ordering::Relaxed);
        self.control.tail.store(tail.wrapping_add(1), Ordering::Release); // pairs with `tail`
    }

    /// Where the worker is. The client only.
    #[inline]
    pub(crate) fn tail(&self) -> u32 {
        self.control.tail.load(Ordering::Acquire) // pairs with `push`
    }

    /// Tail, head, tail again and the overflow mark, as they are loaded one after the other: for the auditor.
    pub(crate) fn positions(&self) -> (u32, u32, u32, u32) {
        let tail = || self.control.tail.load(Ordering::Acquire);
        let (first, head) = (tail(), self.control.head.load(Ordering::Acquire));
        (first, head, tail(), self.control.overflow.load(Ordering::Acquire))
    }

    /// The hint at `position`; the client checks its range.
    #[inline]
    pub(crate) fn get(&self, position: u32) -> u32 {
        self.cells[position as usize & (self.cells.len() - 1)].load(Ordering::Relaxed)
    }

    /// Tells the worker that everything before `head` is read. The client only.
    #[inline]
    pub(crate) fn publish_head(&self, head: u32) {
        self.control.head.store(head, Ordering::Release); // pairs with `push`
    }

    /// Up if a hint was lost; who takes it looks at all its slots.
    #[inline]
    pub(crate) fn overflow(&self) -> Flag<'a> {
        Flag(&self.control.overflow)
    }
}
