//! Control memory for those who may only look: every word comes out as a plain value.
//!
//! The words behind a [`View`] may be mapped read-only, where anything but a load is SIGSEGV. So no
//! atomic is handed out here, and nothing in here does more than load.

use super::{ControlMemory, LANES, Layout};
use crate::ring::{BATCH, Hint};
use crate::slot::INLINE_ARGS;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use rustix::fs::SeekFrom;
use std::ops::Range;
use std::os::fd::BorrowedFd;

/// The words of a process entry.
#[derive(Clone, Copy)]
pub(crate) struct ProcessWords {
    pub life: u64,
    pub pid: u32,
    pub role: u32,
    pub start_time: u64,
    pub park: u32,
    pub lanes: u32,
    pub window: [Hint; BATCH],
    pub current: u64,
    pub tasks: u64,
    pub extents: u32,
    pub starved: u32,
}

/// The words of a slot, but for its state.
#[derive(Clone, Copy)]
pub(crate) struct SlotWords {
    pub func: u64,
    pub meta: u32,
    pub answer: u32,
    pub tiny: u64,
    pub handle: u64,
    pub len: u64,
    pub done: u32,
}

/// The positions of a ring: the tail as it was before and after the head was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Positions<T> {
    pub tail_before: T,
    pub head: T,
    pub tail: T,
}

/// The words of a pool's header that an auditor compares with others.
#[derive(Clone, Copy)]
pub(crate) struct HeaderWords {
    pub state: u32,
    pub quota: u64,
    pub creator_pid: u64,
    pub creator_start: u64,
    pub init_func: u64,
    pub init_offset: u64,
    pub init_len: u64,
    pub places: u64,
    pub functions: u64,
}

/// One look at a pool's control memory.
pub(crate) struct View<'a> {
    memory: &'a ControlMemory,
    /// The parts of the file that have memory. The rest reads as zero; asking the mapping for it would make
    /// the kernel find memory for it. `None` if the file cannot be asked: then everything is loaded.
    backed: Option<Vec<Range<usize>>>,
}

impl<'a> View<'a> {
    /// Looks at `memory`, which maps `file`.
    pub(crate) fn new(memory: &'a ControlMemory, file: BorrowedFd<'_>) -> Self {
        View { backed: backed(file, memory.layout.control_len as u64), memory }
    }

    pub(crate) fn layout(&self) -> &'a Layout {
        &self.memory.layout
    }

    pub(crate) fn pool_id(&self) -> u64 {
        self.memory.pool_id()
    }

    /// Whether the word has memory; if not, it is zero.
    fn is_backed<T>(&self, word: &T) -> bool {
        let at = std::ptr::from_ref(word).addr() - self.memory.map.ptr().addr().get();
        self.backed.as_ref().is_none_or(|parts| {
            let next = parts.partition_point(|part| part.end <= at);
            parts.get(next).is_some_and(|part| part.start <= at)
        })
    }

    fn load32(&self, word: &AtomicU32) -> u32 {
        if self.is_backed(word) { word.load(Ordering::Acquire) } else { 0 }
    }

    fn load64(&self, word: &AtomicU64) -> u64 {
        if self.is_backed(word) { word.load(Ordering::Acquire) } else { 0 }
    }

    /// The numbers of the elements of an array that may differ from zero.
    fn touched<T>(&self, array: &'a [T]) -> impl Iterator<Item = usize> + use<'a, T> {
        let start = array.as_ptr().addr() - self.memory.map.ptr().addr().get();
        let len = array.len();
        let all = 0..start + size_of_val(array);
        let parts = self.backed.clone().unwrap_or_else(|| vec![all]);
        parts.into_iter().filter(move |part| part.end > start).flat_map(move |part| {
            let first = part.start.saturating_sub(start) / size_of::<T>();
            first.min(len)..(part.end - start).div_ceil(size_of::<T>()).min(len)
        })
    }

    pub(crate) fn header(&self) -> HeaderWords {
        let header = self.memory.header();
        let get = |word: &AtomicU64| word.load(Ordering::Acquire);
        HeaderWords {
            state: header.state.load(Ordering::Acquire),
            quota: get(&header.quota),
            creator_pid: get(&header.creator_pid),
            creator_start: get(&header.creator_start),
            init_func: get(&header.init_func),
            init_offset: get(&header.init_offset),
            init_len: get(&header.init_len),
            places: get(&header.places),
            functions: get(&header.functions),
        }
    }

    /// Places that have ever been used, as far as that is possible.
    pub(crate) fn places(&self) -> u32 {
        self.memory.places()
    }

    pub(crate) fn process(&self, index: u32) -> ProcessWords {
        let entry = self.memory.process(index);
        ProcessWords {
            life: self.load64(&entry.life),
            pid: self.load32(&entry.pid),
            role: self.load32(&entry.role),
            start_time: self.load64(&entry.start_time),
            park: self.load32(&entry.park),
            lanes: self.load32(&entry.lanes),
            window: std::array::from_fn(
                |i| {
                    if self.is_backed(entry) { entry.window.get(i) } else { Hint::NONE }
                },
            ),
            current: self.load64(&entry.current),
            tasks: self.load64(&entry.tasks),
            extents: self.load32(&entry.extents),
            starved: self.load32(&entry.starved),
        }
    }

    pub(crate) fn life(&self, index: u32) -> u64 {
        self.load64(&self.memory.process(index).life)
    }

    /// Extents that the region of a process has ever used, as far as that is possible.
    pub(crate) fn extents(&self, index: u32) -> usize {
        (self.load32(&self.memory.process(index).extents) as usize).min(self.layout().sizes.extents())
    }

    /// The client's rescan word, whether requeued slots are announced in each lane, and the slots used.
    pub(crate) fn rescan(&self) -> u32 {
        self.load32(&self.memory.client().rescan)
    }

    pub(crate) fn requeue_any(&self, lane: usize) -> u32 {
        self.load32(&self.memory.client().requeue_any[lane])
    }

    pub(crate) fn slots_used(&self) -> u32 {
        self.load32(&self.memory.client().slots_used)
    }

    /// Words of a lane's requeue bits that are not zero, with their numbers.
    pub(crate) fn requeued(&self, lane: usize) -> impl Iterator<Item = (usize, u64)> {
        let words = Layout::requeue_words(self.layout().sizes.slots as usize);
        let bits: &[AtomicU64] = self.memory.array(self.layout().requeue_bits + lane * 8 * words, words);
        self.touched(bits).map(move |i| (i, self.load64(&bits[i]))).filter(|&(_, word)| word != 0)
    }

    /// Words of the masks of idle and of searching processes.
    pub(crate) fn masks(&self) -> (Vec<u64>, Vec<u64>) {
        self.memory.masks().words()
    }

    pub(crate) fn ready(&self, lane: usize) -> Positions<u64> {
        assert!(lane < LANES);
        let (tail_before, head, tail) = self.memory.ready(lane).positions();
        Positions { tail_before, head, tail }
    }

    /// What the cell for `position` of a lane's ready ring holds.
    pub(crate) fn ready_cell(&self, lane: usize, position: u64) -> u32 {
        let cells = self.ready_cells(lane);
        self.load32(&cells[position as usize & (cells.len() - 1)])
    }

    fn ready_cells(&self, lane: usize) -> &'a [AtomicU32] {
        let capacity = Layout::ready_capacity(self.layout().sizes.slots as usize);
        self.memory.array(self.layout().ready_cells + lane * 4 * capacity, capacity)
    }

    /// Cells of a lane's ready ring that have ever been written, with their numbers.
    pub(crate) fn ready_written(&self, lane: usize) -> impl Iterator<Item = (usize, u32)> {
        let cells = self.ready_cells(lane);
        self.touched(cells).map(move |i| (i, self.load32(&cells[i])))
    }

    pub(crate) fn completions(&self, worker: u32) -> (Positions<u32>, u32) {
        let (tail_before, head, tail, overflow) = self.memory.completions(worker).positions();
        (Positions { tail_before, head, tail }, overflow)
    }

    pub(crate) fn completion_cell(&self, worker: u32, position: u32) -> u32 {
        self.memory.completions(worker).get(position)
    }

    pub(crate) fn slot_word(&self, number: u32) -> u64 {
        self.load64(&self.memory.slot(number).word)
    }

    pub(crate) fn slot(&self, number: u32) -> SlotWords {
        let slot = self.memory.slot(number);
        SlotWords {
            func: self.load64(&slot.func),
            meta: self.load32(&slot.meta),
            answer: self.load32(&slot.answer),
            tiny: self.load64(&slot.tiny),
            handle: self.load64(&slot.handle),
            len: self.load64(&slot.len),
            done: self.load32(&slot.done),
        }
    }

    /// The bytes of a slot's arguments: torn, if the client is writing them just now.
    pub(crate) fn slot_args(&self, number: u32) -> [u8; INLINE_ARGS] {
        let slot = self.memory.slot(number);
        if self.is_backed(slot) { slot.args.copy() } else { [0; INLINE_ARGS] }
    }

    /// Slots whose memory has ever been touched. The others are all zero.
    pub(crate) fn slots_touched(&self) -> impl Iterator<Item = u32> {
        self.touched(self.memory.slots()).map(|number| number as u32)
    }

    pub(crate) fn class(&self, owner: u32, extent: usize) -> u32 {
        self.load32(&self.memory.classes(owner)[extent])
    }

    /// Class words of a region that are not zero, with their extents.
    pub(crate) fn classes_written(&self, owner: u32) -> impl Iterator<Item = (usize, u32)> {
        let classes = self.memory.classes(owner);
        self.touched(classes).map(move |i| (i, self.load32(&classes[i]))).filter(|&(_, word)| word != 0)
    }

    /// The word of a block; zero if there is no such block.
    pub(crate) fn block(&self, owner: u32, block: usize) -> u64 {
        self.memory.words(owner).get(block).map_or(0, |word| self.load64(word))
    }

    /// Block words of a region that are not zero, with their numbers.
    pub(crate) fn blocks_written(&self, owner: u32) -> impl Iterator<Item = (usize, u64)> {
        let words = self.memory.words(owner);
        self.touched(words).map(move |i| (i, self.load64(&words[i]))).filter(|&(_, word)| word != 0)
    }
}

/// The parts of a file of `len` bytes that have memory.
fn backed(file: BorrowedFd<'_>, len: u64) -> Option<Vec<Range<usize>>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < len {
        // Moves the offset of the descriptor, which nobody reads by.
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break, // only holes follow
            Err(_) => return None,
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start)).ok()?;
        if end <= start {
            return None; // no file does this
        }
        parts.push(start as usize..end as usize);
        at = end;
    }
    Some(parts)
}
