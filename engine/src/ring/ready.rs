//! The ready ring: one client announces slots, many workers claim ranges of them.

use super::{Hint, Window};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// How many of the newest cells stand beside the tail, too.
const NEWEST: usize = if cfg!(loom) { 1 } else { 4 };

/// The positions of a ready ring, each on lines of its own.
#[repr(C, align(128))]
pub(crate) struct ReadyControl {
    /// Where the client writes next. Only the client stores it.
    tail: AtomicU64,
    /// The cells before the tail once more, each with its position: `[position 32][slot 32]`. A worker that
    /// waits for one task gets its hint with the tail's line, and needs no line of cells.
    newest: [AtomicU64; NEWEST],
    _tail_line: [u64; 15 - NEWEST],
    /// Where workers claim next. Moves only by CAS, and a range is used only if the CAS succeeded.
    head: AtomicU64,
    _head_line: [u64; 15],
}

impl ReadyControl {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Self {
        ReadyControl {
            tail: AtomicU64::new(0),
            newest: std::array::from_fn(|_| AtomicU64::new(0)),
            _tail_line: [0; 15 - NEWEST],
            head: AtomicU64::new(0),
            _head_line: [0; 15],
        }
    }
}

/// A ring of slot numbers, single producer, many consumers.
///
/// A consumer that dies after its CAS leaves hints in its window, where others find them; one that
/// dies before leaves nothing. No position is ever owned, so nobody waits for anybody.
#[derive(Clone, Copy)]
pub(crate) struct ReadyRing<'a> {
    control: &'a ReadyControl,
    cells: &'a [AtomicU32],
}

impl<'a> ReadyRing<'a> {
    /// `cells` has a power of two of entries.
    pub(crate) fn new(control: &'a ReadyControl, cells: &'a [AtomicU32]) -> Self {
        debug_assert!(cells.len().is_power_of_two());
        ReadyRing { control, cells }
    }

    fn cell(&self, position: u64) -> &'a AtomicU32 {
        &self.cells[(position as usize) & (self.cells.len() - 1)]
    }

    /// Whether there is room for one more at `tail`, the producer's private position.
    #[inline]
    pub(crate) fn has_room(&self, tail: u64, known_head: &mut u64) -> bool {
        if tail.wrapping_sub(*known_head) < self.cells.len() as u64 {
            return true;
        }
        // Acquire pairs with the consumers' CAS: their loads of the cells are over.
        *known_head = self.control.head.load(Ordering::Acquire);
        tail.wrapping_sub(*known_head) < self.cells.len() as u64
    }

    /// Writes a slot number at `tail`; invisible until [`publish`](Self::publish). The producer only.
    #[inline]
    pub(crate) fn write(&self, tail: u64, slot: u32) {
        self.cell(tail).store(slot, Ordering::Relaxed);
        let newest = (tail & 0xffff_ffff) << 32 | u64::from(slot);
        self.control.newest[tail as usize % NEWEST].store(newest, Ordering::Relaxed);
    }

    /// What [`write`](Self::write) wrote at `position`, which is below the tail.
    #[inline]
    fn read(&self, position: u64) -> u32 {
        let newest = self.control.newest[position as usize % NEWEST].load(Ordering::Relaxed);
        // A newer cell may have taken the place; then the older one is only in the ring.
        if newest >> 32 == position & 0xffff_ffff {
            newest as u32
        } else {
            self.cell(position).load(Ordering::Relaxed)
        }
    }

    /// Shows all cells below `tail` to the workers. The producer only.
    #[inline]
    pub(crate) fn publish(&self, tail: u64) {
        self.control.tail.store(tail, Ordering::Release); // pairs with `claim`
    }

    /// Tail, head and tail again, as they are loaded one after the other: for the auditor.
    pub(crate) fn positions(&self) -> (u64, u64, u64) {
        let tail = || self.control.tail.load(Ordering::Acquire);
        (tail(), self.control.head.load(Ordering::Acquire), tail())
    }

    /// Makes the positions possible again if they are not: the ring is then empty, and what it named has
    /// to be announced elsewhere. `tail` is the producer's private position; the producer only.
    #[cold]
    pub(crate) fn repair(&self, tail: u64) {
        if self.control.tail.load(Ordering::Relaxed) != tail {
            self.publish(tail);
        }
        let head = self.control.head.load(Ordering::Relaxed);
        if tail.wrapping_sub(head) > self.cells.len() as u64 {
            // By CAS like every move of it; if it fails, the next look repairs it.
            let _ = self.control.head.compare_exchange(head, tail, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// How many hints have been taken since the ring was made; it wraps around.
    #[inline]
    pub(crate) fn taken(&self) -> u64 {
        self.control.head.load(Ordering::Relaxed)
    }

    /// How many hints wait. May be out of date at once.
    #[inline]
    pub(crate) fn backlog(&self) -> u64 {
        let head = self.control.head.load(Ordering::Acquire);
        let tail = self.control.tail.load(Ordering::Acquire);
        let waiting = tail.wrapping_sub(head);
        if waiting <= self.cells.len() as u64 { waiting } else { 0 }
    }

    /// Moves up to `most` hints into `window`; returns how many. `fetch` is told of each as soon as it is known.
    ///
    /// The window is filled *before* the head moves, so that at every instant each hint is in the
    /// ring or in a window, where an idle worker or a reaper can find it.
    #[inline]
    pub(crate) fn claim(
        &self,
        most: impl FnOnce(u64) -> u64,
        window: &Window,
        hint: impl Fn(u32) -> Hint,
        fetch: impl Fn(Hint),
    ) -> usize {
        let head = self.control.head.load(Ordering::Acquire);
        let tail = self.control.tail.load(Ordering::Acquire); // pairs with `publish`
        let waiting = tail.wrapping_sub(head);
        // Positions that only corruption explains are treated as empty: see `repair`.
        if waiting == 0 || waiting > self.cells.len() as u64 {
            return 0;
        }
        let count = most(waiting).clamp(1, waiting).min(super::BATCH as u64);
        for i in 0..count {
            let hint = hint(self.read(head.wrapping_add(i)));
            window.set(i as usize, hint);
            fetch(hint);
        }
        // Release: the loads of the cells above happen before the producer overwrites them.
        match self.control.head.compare_exchange(
            head,
            head.wrapping_add(count),
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            Ok(_) => count as usize,
            Err(_) => 0,
        }
    }
}
