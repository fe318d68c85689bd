//! The task slot: one word that says whose the task is, and the two cache lines around it.
//!
//! The word is the truth about a task. Rings, windows and masks only point to slots; whoever follows
//! such a hint tries one of the word's transitions, and a stale hint fails its CAS.

mod check;
mod word;

use crate::sync::{AtomicU32, AtomicU64, crash_point};
pub(crate) use check::{CHECKED_ARGS, Check};
use std::cell::UnsafeCell;
pub(crate) use word::{Owner, Reaped, SlotWord, State, Word};

/// Most bytes of arguments that travel inside a slot.
pub(crate) const INLINE_ARGS: usize = 32;
/// These bytes as words.
pub(crate) type ArgWords = [u64; INLINE_ARGS / 8];
/// Most bytes of a result that travel inside a slot's first line.
pub(crate) const TINY_RESULT: usize = 8;
/// Most bytes of a result that travel inside a slot.
pub(crate) const INLINE_RESULT: usize = 40;

/// Bytes that one process at a time may write, as the slot's word says.
#[repr(C, align(8))]
pub(crate) struct Bytes<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: access goes through raw pointers under the ownership that the slot's word grants.
unsafe impl<const N: usize> Sync for Bytes<N> {}

impl<const N: usize> Bytes<N> {
    pub(crate) fn get(&self) -> *mut u8 {
        self.0.get().cast()
    }

    /// A private copy, so that nobody can change what is read from it.
    #[inline]
    pub(crate) fn copy(&self) -> [u8; N] {
        let mut copy = [0; N];
        self.copy_to(&mut copy);
        copy
    }

    /// The same, to `copy`.
    #[inline]
    pub(crate) fn copy_to(&self, copy: &mut [u8; N]) {
        let (words, rest) = copy.as_chunks_mut::<8>();
        const { assert!(N.is_multiple_of(8)) };
        debug_assert!(rest.is_empty());
        for (at, word) in words.iter_mut().enumerate() {
            // SAFETY: in bounds, aligned as the type is; plain bytes. The caller owns the bytes by the slot's
            // word; a process that breaks that rule changes values, which every reader validates.
            *word = unsafe { self.0.get().cast::<u64>().add(at).read_volatile() }.to_ne_bytes();
        }
    }

    /// Writes the first bytes; the caller owns the area by the slot's word.
    #[inline]
    #[cfg_attr(feature = "crash", track_caller)]
    pub(crate) fn fill(&self, bytes: &[u8]) {
        assert!(bytes.len() <= N);
        // SAFETY: in bounds by the assertion; see `copy` for ownership.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.get(), bytes.len()) }
        crash_point();
    }
}

impl Bytes<INLINE_ARGS> {
    /// Writes all of it, word by word: they come from registers, and one wide load of what was just stored in
    /// pieces would have to wait for the stores. The caller owns the area by the slot's word.
    #[inline]
    #[cfg_attr(feature = "crash", track_caller)]
    pub(crate) fn fill_words(&self, words: &ArgWords) {
        for (at, &word) in words.iter().enumerate() {
            // SAFETY: in bounds, aligned as the type is; see `copy_to` for ownership.
            unsafe { self.0.get().cast::<u64>().add(at).write_volatile(word) }
        }
        crash_point();
    }
}

/// A task and its result: two cache lines.
///
/// The client writes the first line before T1 and never again until T4; the worker that owns the
/// slot writes `tiny`, `answer` and the second line before T3. So a second attempt finds the
/// arguments intact.
///
/// ```text
/// line 0   word 8 | func 8 | arguments or their handle 32 | tiny result 8 | meta 4 | answer 4
/// line 1   inline result 40 | handle 8 | length 8 | done 4 | progress 4
/// ```
///
/// The result of a call in a block of less than 64 KiB is described by the first line alone: its handle is in `tiny`, its
/// length in `answer`.
///
/// In a hardened pool the second line has both, and [checks](Check) lie where there is room: over the task in the last 8
/// bytes of the arguments, over a short result in `len`, over a result in a block in `tiny` (with a digest of its bytes
/// in `inline`), and over `done` in `progress`.
#[repr(C, align(128))]
pub(crate) struct Slot {
    /// See [`SlotWord`].
    pub word: AtomicU64,
    /// Which function: see [`FuncWord`](crate::worker::FuncWord).
    pub func: AtomicU64,
    /// Arguments of up to 32 bytes, or an [`ArgsHandle`].
    pub args: Bytes<INLINE_ARGS>,
    /// A result of up to 8 bytes, so that a small task moves in one line each way; or the block of one that is not large.
    pub tiny: AtomicU64,
    /// How to read the arguments: see [`Meta`].
    pub meta: AtomicU32,
    /// How to read the result: see [`Answer`].
    pub answer: AtomicU32,
    /// A result of up to 40 bytes.
    pub inline: Bytes<INLINE_RESULT>,
    /// Block of a large result, or of a chunk's: see [`BlockHandle`](crate::arena::BlockHandle).
    pub handle: AtomicU64,
    /// Length of such a result.
    pub len: AtomicU64,
    /// Items of a chunk that are finished.
    pub done: AtomicU32,
    /// In a hardened pool the check over what `done` was when the last item began; 0 before the first.
    pub progress: AtomicU32,
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Slot>() == 128);
    assert!(std::mem::offset_of!(Slot, args) == 16);
    assert!(std::mem::offset_of!(Slot, answer) == 60);
    assert!(std::mem::offset_of!(Slot, inline) == 64);
    assert!(std::mem::offset_of!(Slot, done) == 120);
};

impl Slot {
    pub(crate) fn word(&self) -> SlotWord<'_> {
        SlotWord(&self.word)
    }
}

/// How the arguments of a task are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Shape {
    /// One call; the arguments lie in the slot.
    Inline = 1,
    /// One call; the arguments lie in the client's region.
    Block = 2,
    /// A call for each of a range of items, in the client's region.
    Items = 3,
    /// The same, items being argument tuples.
    Tuples = 4,
}

/// The meta word of a slot: `[shape 8][max attempts 8][length of inline arguments, or padding of a chunk's, 16]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub shape: Shape,
    /// 1 to 15: how often the task may be started.
    pub max_attempts: u32,
    pub inline_len: usize,
}

impl Meta {
    pub(crate) fn pack(self) -> u32 {
        (self.shape as u32) << 24 | (self.max_attempts & 0xff) << 16 | self.inline_len as u32 & 0xffff
    }

    /// `None` if no client writes such a word.
    pub(crate) fn unpack(word: u32) -> Option<Self> {
        let shape = match word >> 24 {
            1 => Shape::Inline,
            2 => Shape::Block,
            3 => Shape::Items,
            4 => Shape::Tuples,
            _ => return None,
        };
        let inline_len = (word & 0xffff) as usize;
        (inline_len <= INLINE_ARGS).then_some(Meta { shape, max_attempts: word >> 16 & 0xff, inline_len })
    }

    /// Chunks are never retried as a whole: their client goes on with the items that are left.
    pub(crate) fn is_chunk(self) -> bool {
        matches!(self.shape, Shape::Items | Shape::Tuples)
    }
}

/// Where arguments lie that do not fit into the slot, and which items of them are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub(crate) struct ArgsHandle {
    /// Offset in the client's region.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// First item of a chunk.
    pub first: u32,
    /// One past the last item of a chunk.
    pub end: u32,
}

impl ArgsHandle {
    pub(crate) fn words(self) -> ArgWords {
        [self.offset, self.len, u64::from(self.first) | u64::from(self.end) << 32, 0]
    }

    pub(crate) fn from_bytes(bytes: &[u8; INLINE_ARGS]) -> Self {
        let [offset, len, items, _]: ArgWords = bytemuck::pod_read_unaligned(bytes);
        ArgsHandle { offset, len, first: items as u32, end: (items >> 32) as u32 }
    }
}

/// Where a result lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Place {
    /// In `tiny`.
    Tiny = 1,
    /// In `inline`.
    Inline = 2,
    /// In the block that `handle` names, `len` bytes long.
    Block = 3,
    /// In the block that `tiny` names; the answer word has its length.
    NearBlock = 4,
}

/// Most bytes of a result in a block whose length fits into the answer word.
pub(crate) const NEAR_RESULT: usize = 0xffff;

/// The answer word of a slot: `[status 8][place 8][length, if it is not in `len` 16]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    /// A [`Status`](crate::task::Status) as a number.
    pub status: u32,
    pub place: Place,
    pub short_len: usize,
}

impl Answer {
    pub(crate) fn pack(self) -> u32 {
        (self.status & 0xff) << 24 | (self.place as u32) << 16 | self.short_len as u32 & 0xffff
    }

    /// The length of a result that is in `tiny`, if the word says that there is one with this status.
    #[inline]
    pub(crate) fn tiny(word: u32, status: u32) -> Option<u8> {
        let len = word & 0xffff;
        (word >> 16 == status << 8 | Place::Tiny as u32 && len as usize <= TINY_RESULT).then_some(len as u8)
    }

    /// The length of a result in a block, if the word tells it and says that there is one with this status.
    #[inline]
    pub(crate) fn near(word: u32, status: u32) -> Option<usize> {
        (word >> 16 == status << 8 | Place::NearBlock as u32).then_some((word & 0xffff) as usize)
    }

    /// `None` if no worker writes such a word.
    pub(crate) fn unpack(word: u32) -> Option<Self> {
        let short_len = (word & 0xffff) as usize;
        let (place, most) = match word >> 16 & 0xff {
            1 => (Place::Tiny, TINY_RESULT),
            2 => (Place::Inline, INLINE_RESULT),
            3 => (Place::Block, 0xffff),
            4 => (Place::NearBlock, NEAR_RESULT),
            _ => return None,
        };
        (short_len <= most).then_some(Answer { status: word >> 24, place, short_len })
    }
}
