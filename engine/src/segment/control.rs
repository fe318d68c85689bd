//! Typed access to the words of control memory.

use super::{
    ClientControl, FunctionEntry, Header, Layout, MAX_FUNCTIONS, PoolState, ProcessEntry, file_len, refuse,
};
use crate::error::Result;
use crate::ring::{CompletionControl, CompletionRing, Flag, ReadyRing, Requeue, Window};
use crate::slot::Slot;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::sys::Mapping;
use crate::wake::{Bell, Berth, Masks, Park, Seat, SleepWord};
use std::os::fd::BorrowedFd;

/// A mapping of control memory, with typed access to its words.
pub(crate) struct ControlMemory {
    pub(crate) layout: Layout,
    pub(super) map: Mapping,
}

impl ControlMemory {
    /// Maps control memory of whatever origin with `map`, after checking that it is a pool's.
    pub(crate) fn open(
        fd: BorrowedFd<'_>,
        map: impl Fn(BorrowedFd<'_>, u64, usize) -> Result<Mapping>,
    ) -> Result<Self> {
        let len = file_len(fd, "stat of the control memory")?;
        if len < size_of::<Header>() as u64 {
            return Err(refuse(format!("its control memory is {len} bytes long, too short for a header")));
        }
        let map = map(fd, 0, len as usize)?;
        // SAFETY: the mapping is at least that long, page-aligned, and made of atomics only.
        let header = unsafe { map.ptr().cast::<Header>().as_ref() };
        let layout = Layout::new(header.sizes().map_err(refuse)?);
        if layout.control_len as u64 != len {
            return Err(refuse(format!(
                "its control memory is {len} bytes long, not {}",
                layout.control_len
            )));
        }
        Ok(ControlMemory { layout, map })
    }

    /// Whether what lies in slots carries checks.
    pub(crate) fn hardened(&self) -> bool {
        self.header().hardened.load(Ordering::Relaxed) != 0
    }

    /// Tells pools apart.
    pub(crate) fn pool_id(&self) -> u64 {
        self.header().pool_id.load(Ordering::Relaxed)
    }

    /// A structure of the control memory.
    ///
    /// # Safety
    ///
    /// `offset` is that of a `T` in `layout`.
    #[inline(always)]
    unsafe fn at<T>(&self, offset: usize) -> &T {
        debug_assert!(offset + size_of::<T>() <= self.map.len() && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: the mapping is as long as `layout` says (`open` compares them), and so the offset of
        // anything in it is inside, and aligned as the layout aligns it. Every `T` used here is made of
        // atomics and unused words only, for which all bit patterns are valid.
        unsafe { self.map.ptr().byte_add(offset).cast::<T>().as_ref() }
    }

    /// `len` structures of the control memory, side by side.
    ///
    /// # Safety
    ///
    /// `offset` is that of so many `T` in `layout`.
    #[inline(always)]
    unsafe fn some<T>(&self, offset: usize, len: usize) -> &[T] {
        debug_assert!(offset + len * size_of::<T>() <= self.map.len());
        // SAFETY: as in `at`.
        unsafe { std::slice::from_raw_parts(self.map.ptr().byte_add(offset).cast::<T>().as_ptr(), len) }
    }

    /// Any word, for tests that spoil it.
    #[cfg(test)]
    pub(crate) fn word_at(&self, offset: usize) -> &AtomicU64 {
        &self.array(offset, 1)[0]
    }

    /// Structures at any offset, which is checked.
    pub(super) fn array<T>(&self, offset: usize, len: usize) -> &[T] {
        assert!(offset + len * size_of::<T>() <= self.map.len() && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: inside the mapping and aligned by the assertion; for `T` see `at`.
        unsafe { self.some(offset, len) }
    }

    /// Words of the control memory, whatever they are there for.
    #[cfg(test)]
    pub(crate) fn control_words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        self.array(offset, count)
    }

    #[inline]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the header is the first thing in every layout.
        unsafe { self.at(0) }
    }

    pub(crate) fn functions(&self) -> &[FunctionEntry] {
        self.array(self.layout.functions, MAX_FUNCTIONS)
    }

    #[inline]
    pub(crate) fn process(&self, index: u32) -> &ProcessEntry {
        assert!(index < self.layout.sizes.processes);
        // SAFETY: the layout has that many entries there.
        unsafe { self.at(self.layout.processes + index as usize * size_of::<ProcessEntry>()) }
    }

    /// How many entries the process table has.
    pub(crate) fn processes(&self) -> u32 {
        self.layout.sizes.processes
    }

    /// Places that have ever been used, the client's included. Everybody else's words are zero.
    #[inline]
    pub(crate) fn places(&self) -> u32 {
        (self.header().places.load(Ordering::Acquire) as u32).min(self.processes())
    }

    pub(crate) fn window(&self, index: u32) -> &Window {
        &self.process(index).window
    }

    pub(crate) fn park(&self, index: u32) -> Park<'_> {
        Park(&self.process(index).park)
    }

    /// Up if the client must look at all its slots.
    #[inline]
    pub(crate) fn rescan(&self) -> Flag<'_> {
        Flag(&self.client().rescan)
    }

    /// Where threads of the client sleep until any task completes.
    #[inline]
    pub(crate) fn sleep(&self) -> SleepWord<'_> {
        SleepWord(&self.client().sleep)
    }

    /// Where process `index` sleeps when its payload memory is full.
    pub(crate) fn starved(&self, index: u32) -> SleepWord<'_> {
        SleepWord(&self.process(index).starved)
    }

    #[inline]
    pub(crate) fn masks(&self) -> &Masks {
        // SAFETY: this is where the layout has them.
        unsafe { self.at(self.layout.masks) }
    }

    /// The place where worker `index` sleeps, for that worker.
    pub(crate) fn berth(&self, index: u32, incarnation: u32) -> Berth<'_> {
        Berth::new(self.park(index), self.masks(), index, incarnation)
    }

    /// The bell that wakes workers.
    pub(crate) fn bell<'a>(&'a self) -> Bell<'a, impl Fn(u32) -> Seat<'a>> {
        Bell::new(self.masks(), self.places(), |index| {
            let entry = self.process(index);
            Seat { park: Park(&entry.park), lanes: &entry.lanes }
        })
    }

    #[inline]
    pub(crate) fn client(&self) -> &ClientControl {
        // SAFETY: this is where the layout has it.
        unsafe { self.at(self.layout.client) }
    }

    #[inline]
    pub(crate) fn ready(&self, lane: usize) -> ReadyRing<'_> {
        let capacity = Layout::ready_capacity(self.layout.sizes.slots as usize);
        let control = &self.client().ready[lane]; // `lane` is one of the layout's
        // SAFETY: the layout has as many cells for each lane.
        let cells = unsafe { self.some(self.layout.ready_cells + lane * 4 * capacity, capacity) };
        ReadyRing::new(control, cells)
    }

    #[inline]
    pub(crate) fn requeue(&self, lane: usize) -> Requeue<'_> {
        let words = Layout::requeue_words(self.layout.sizes.slots as usize);
        let any = &self.client().requeue_any[lane]; // `lane` is one of the layout's
        // SAFETY: the layout has as many words for each lane.
        let bits = unsafe { self.some(self.layout.requeue_bits + lane * 8 * words, words) };
        Requeue::new(any, bits)
    }

    #[inline]
    pub(crate) fn slots(&self) -> &[Slot] {
        // SAFETY: the layout has as many slots there.
        unsafe { self.some(self.layout.slots, self.layout.sizes.slots as usize) }
    }

    #[inline]
    pub(crate) fn slot(&self, index: u32) -> &Slot {
        &self.slots()[index as usize]
    }

    #[inline]
    pub(crate) fn completions(&self, worker: u32) -> CompletionRing<'_> {
        assert!(worker < self.processes());
        let start = self.layout.completions + worker as usize * self.layout.completion_stride;
        let cells = start + size_of::<CompletionControl>();
        // SAFETY: the layout has a ring for every process, its cells behind its positions.
        unsafe {
            CompletionRing::new(self.at(start), self.some(cells, self.layout.sizes.completions as usize))
        }
    }

    /// The class words of a process's extents.
    pub(crate) fn classes(&self, owner: u32) -> &[AtomicU32] {
        assert!(owner < self.processes());
        self.array(
            self.layout.classes + owner as usize * self.layout.class_stride,
            self.layout.sizes.extents(),
        )
    }

    /// The block words of a process's region.
    pub(crate) fn words(&self, owner: u32) -> &[AtomicU64] {
        assert!(owner < self.processes());
        let count = self.layout.word_stride / 8;
        self.array(self.layout.words + owner as usize * self.layout.word_stride, count)
    }

    pub(crate) fn state(&self) -> PoolState {
        match self.header().state.load(Ordering::Acquire) {
            0 => PoolState::Running,
            1 => PoolState::Draining,
            _ => PoolState::Stopping,
        }
    }

    /// Tells all workers; they notice at once, asleep or not.
    pub(crate) fn set_state(&self, state: PoolState) {
        self.header().state.store(state as u32, Ordering::Release);
        self.bell().broadcast();
    }
}
