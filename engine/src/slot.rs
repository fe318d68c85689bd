//! The task slot: one word that says whose the task is, and the two cache lines around it.
//!
//! The word is the truth about a task. Rings, windows and masks only point to slots; whoever follows
//! such a hint tries one of the transitions here, and a stale hint fails its CAS.

use crate::sync::{AtomicU32, AtomicU64, Ordering, futex};
use std::cell::UnsafeCell;
use std::time::Duration;

/// Most bytes of arguments that travel inside a slot.
pub(crate) const INLINE_ARGS: usize = 32;
/// Most bytes of a result that travel inside a slot's first line.
pub(crate) const TINY_RESULT: usize = 8;
/// Most bytes of a result that travel inside a slot.
pub(crate) const INLINE_RESULT: usize = 40;

/// A process in a word of shared memory: its place in the process table and the low bits of the
/// incarnation of that place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct Owner {
    /// Index in the process table, below 1024.
    pub index: u32,
    /// Incarnation of that index, 14 bits.
    pub incarnation: u32,
}

impl Owner {
    /// The owner field of slot and block words: `[incarnation 14][index 10]`.
    pub(crate) const fn bits(self) -> u64 {
        ((self.incarnation as u64 & 0x3fff) << 10) | (self.index as u64 & 0x3ff)
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Owner { index: (bits & 0x3ff) as u32, incarnation: (bits >> 10 & 0x3fff) as u32 }
    }

    pub(crate) const fn new(index: u32, incarnation: u32) -> Self {
        Owner { index, incarnation: incarnation & 0x3fff }
    }
}

/// What a slot word says about its task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// The client's own; nobody else touches the slot.
    Free,
    /// Waiting for a worker.
    Ready,
    /// One worker, named by the owner field, may execute it.
    Run,
    /// The result is written.
    Done,
    /// Its worker died and no attempt is left.
    Lost,
    /// Taken back by the client before it ran.
    Cancelled,
}

/// A value of the slot word.
///
/// ```text
///  63            36 35    32 31        18 17        8  7   6   5   4  3     0
/// [ generation 28 ][attempt 4][owner inc 14][owner idx 10][K ][O ][C ][W ][state 4]
/// ```
///
/// `W` somebody sleeps on the word's low half; `C` cancel requested; `O` the client is dead;
/// `K` kill requested. Flags survive every transition until the client recycles the slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(pub u64);

impl Word {
    const STATE: u64 = 0xf;
    const W: u64 = 1 << 4;
    const OWNER: u64 = 0xff_ffff << 8;
    const ATTEMPT_SHIFT: u32 = 32;
    const GENERATION_SHIFT: u32 = 36;

    /// The state, or `None` if the word holds a number that no process writes.
    pub(crate) fn state(self) -> Option<State> {
        Some(match self.0 & Self::STATE {
            0 => State::Free,
            1 => State::Ready,
            2 => State::Run,
            3 => State::Done,
            4 => State::Lost,
            5 => State::Cancelled,
            _ => return None,
        })
    }

    /// The owner of a `Run`, `Done` or `Lost` word.
    pub(crate) fn owner(self) -> Owner {
        Owner::from_bits(self.0 >> 8 & 0xff_ffff)
    }

    /// How often the task was started before and its worker died.
    pub(crate) fn attempt(self) -> u32 {
        (self.0 >> Self::ATTEMPT_SHIFT & 0xf) as u32
    }

    /// Which use of the slot this is, 28 bits.
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> Self::GENERATION_SHIFT) as u32
    }

    /// Somebody sleeps on this word.
    pub(crate) fn has_waiter(self) -> bool {
        self.0 & Self::W != 0
    }

    /// `Done`, `Lost` or `Cancelled`: only the client changes it from here.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self.state(), Some(State::Done | State::Lost | State::Cancelled))
    }

    fn with_state(self, state: u64) -> Word {
        Word(self.0 & !Self::STATE | state)
    }

    fn with_owner(self, owner: Option<Owner>) -> Word {
        Word(self.0 & !Self::OWNER | owner.map_or(0, Owner::bits) << 8)
    }

    fn free(generation: u32) -> Word {
        Word((generation as u64) << Self::GENERATION_SHIFT)
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} gen {} attempt {} owner {}.{}{}",
            self.state(),
            self.generation(),
            self.attempt(),
            self.owner().index,
            self.owner().incarnation,
            if self.has_waiter() { " W" } else { "" }
        )
    }
}

/// The word of one slot, with its transitions.
///
/// | # | who | transition | how |
/// | --- | --- | --- | --- |
/// | T1 | client | `Free(g)` → `Ready(g)`, arguments written before | [`submit`](Self::submit), store Release |
/// | T2 | worker | `Ready` → `Run(me)` | [`claim`](Self::claim), CAS |
/// | T3 | worker | `Run(me)` → `Done(me)`, result written before | [`finish`](Self::finish), CAS |
/// | T4 | client | terminal → `Free(g+1)`, result block adopted before | [`recycle`](Self::recycle), store Release |
/// | T5 | client | `Ready` → `Cancelled` | [`cancel`](Self::cancel), CAS |
/// | T6 | client | sets `W` in `Ready` or `Run` | [`announce_wait`](Self::announce_wait), CAS |
/// | T7 | reaper | `Run(dead)` → `Ready(attempt + 1)` or `Lost(dead)` | [`take_from_dead`](Self::take_from_dead), CAS |
///
/// A death in any state leaves a word that still names its owner: `Free` and `Ready` need nobody,
/// `Run` is repaired by T7, terminal words wait for the client. Every change after T1 is a
/// read-modify-write, so the release of T1 reaches a second worker through a reaper that never
/// read the arguments.
#[derive(Clone, Copy)]
pub(crate) struct SlotWord<'a>(pub &'a AtomicU64);

/// What became of a slot whose owner died.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaped {
    /// The dead process did not own it; this is the word.
    NotTheirs(Word),
    /// It is `Ready` again and needs a hint.
    Retry,
    /// It is `Lost`; this is the new word.
    Lost(Word),
}

impl<'a> SlotWord<'a> {
    /// The word now. Acquire: what its writer wrote before is visible.
    #[inline]
    pub(crate) fn load(self) -> Word {
        Word(self.0.load(Ordering::Acquire)) // pairs with T1, T3 and T7
    }

    /// T1. The caller owns the free slot and has written arguments and meta.
    #[inline]
    pub(crate) fn submit(self, generation: u32) {
        self.0.store(Word::free(generation).with_state(1).0, Ordering::Release); // pairs with `claim`
    }

    /// T2. Claims a ready task for `me`, if the word still is `seen`.
    #[inline]
    pub(crate) fn claim(self, seen: Word, me: Owner) -> Option<Word> {
        if seen.state() != Some(State::Ready) {
            return None;
        }
        let run = seen.with_state(2).with_owner(Some(me));
        // Acquire pairs with `submit` (through any reaper's RMW): the arguments are visible.
        match self.0.compare_exchange(seen.0, run.0, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Some(run),
            // Only a client's W or cancel can have come between; one more try settles which.
            Err(now) => {
                let now = Word(now);
                if now.state() != Some(State::Ready) || now.generation() != seen.generation() {
                    return None;
                }
                let run = now.with_state(2).with_owner(Some(me));
                self.0
                    .compare_exchange(now.0, run.0, Ordering::AcqRel, Ordering::Relaxed)
                    .ok()
                    .map(|_| run)
            }
        }
    }

    /// T3. Publishes the result of the task that `run` (from [`claim`](Self::claim)) names.
    ///
    /// Returns the new word, so that the caller sees whether somebody waits on it, or `None` if the
    /// task is no longer ours: only a corrupt word or a wrong reaper can cause that.
    #[inline]
    pub(crate) fn finish(self, run: Word) -> Option<Word> {
        let mut seen = run;
        loop {
            let done = seen.with_state(3);
            // Release pairs with the client's `load`: result bytes and handle are visible.
            match self.0.compare_exchange(seen.0, done.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(done),
                Err(now) => {
                    let now = Word(now);
                    let same = now.state() == Some(State::Run)
                        && now.owner() == run.owner()
                        && now.generation() == run.generation();
                    if !same {
                        return None;
                    }
                    seen = now;
                }
            }
        }
    }

    /// T4. Gives the slot back to its client's free list; returns the next generation.
    #[inline]
    pub(crate) fn recycle(self, generation: u32) -> u32 {
        let next = (generation + 1) & 0xfff_ffff;
        self.0.store(Word::free(next).0, Ordering::Release);
        next
    }

    /// T5. Takes a task back that no worker has claimed; `true` if it was still ready.
    pub(crate) fn cancel(self, generation: u32) -> bool {
        let mut seen = Word(self.0.load(Ordering::Relaxed));
        while seen.state() == Some(State::Ready) && seen.generation() == generation {
            let next = seen.with_state(5);
            match self.0.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = Word(now),
            }
        }
        false
    }

    /// T6. Sets `W`, so that whoever makes the word terminal wakes its sleepers.
    ///
    /// Returns the word to sleep on, or `None` if the task needs no waiting any more.
    pub(crate) fn announce_wait(self, generation: u32) -> Option<Word> {
        let mut seen = self.load();
        loop {
            let pending = matches!(seen.state(), Some(State::Ready | State::Run));
            if !pending || seen.generation() != generation {
                return None;
            }
            if seen.has_waiter() {
                return Some(seen);
            }
            let next = Word(seen.0 | Word::W);
            match self.0.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(next),
                Err(now) => seen = Word(now),
            }
        }
    }

    /// Sleeps while the word is `seen`; `false` if `limit` passed.
    pub(crate) fn sleep(self, seen: Word, limit: Option<Duration>) -> bool {
        futex::wait_low(self.0, seen.0, limit)
    }

    /// Wakes everybody who sleeps on the word.
    pub(crate) fn wake(self) {
        futex::wake_low(self.0, futex::ALL);
    }

    /// T7. Takes the task from `dead`, whose death the kernel has confirmed.
    ///
    /// With attempts left it becomes ready again, otherwise lost; `Lost` keeps naming the dead, so
    /// that the client can say who it was. Idempotent: a second reaper finds `NotTheirs`.
    pub(crate) fn take_from_dead(self, dead: Owner, max_attempts: u32) -> Reaped {
        let mut seen = self.load();
        loop {
            if seen.state() != Some(State::Run) || seen.owner() != dead {
                return Reaped::NotTheirs(seen);
            }
            let retry = seen.attempt() + 1 < max_attempts.min(16);
            let next = if retry {
                Word(seen.0 + (1 << Word::ATTEMPT_SHIFT)).with_state(1).with_owner(None)
            } else {
                seen.with_state(4)
            };
            match self.0.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if retry => return Reaped::Retry,
                Ok(_) => return Reaped::Lost(next),
                Err(now) => seen = Word(now),
            }
        }
    }
}

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
        // SAFETY: in bounds; the copy is of plain bytes. The caller owns the bytes by the slot's word;
        // a process that breaks that rule changes values, which every reader validates.
        unsafe { std::ptr::read_volatile(self.0.get()) }
    }

    /// Writes the first bytes; the caller owns the area by the slot's word.
    #[inline]
    pub(crate) fn fill(&self, bytes: &[u8]) {
        assert!(bytes.len() <= N);
        // SAFETY: in bounds by the assertion; see `copy` for ownership.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.get(), bytes.len()) }
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
/// line 1   inline result 40 | handle 8 | length 8 | done 4 | unused 4
/// ```
#[repr(C, align(128))]
pub(crate) struct Slot {
    /// See [`SlotWord`].
    pub word: AtomicU64,
    /// Which function: see [`FuncWord`](crate::worker::FuncWord).
    pub func: AtomicU64,
    /// Arguments of up to 32 bytes, or an [`ArgsHandle`].
    pub args: Bytes<INLINE_ARGS>,
    /// A result of up to 8 bytes, so that a small task moves in one line each way.
    pub tiny: AtomicU64,
    /// How to read the arguments: see [`Meta`].
    pub meta: AtomicU32,
    /// How to read the result: see [`Answer`].
    pub answer: AtomicU32,
    /// A result of up to 40 bytes.
    pub inline: Bytes<INLINE_RESULT>,
    /// Block of a larger result: see [`BlockHandle`](crate::arena::BlockHandle).
    pub handle: AtomicU64,
    /// Length of a result in a block.
    pub len: AtomicU64,
    /// Items of a chunk that are finished.
    pub done: AtomicU32,
    _unused: u32,
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

/// The meta word of a slot: `[shape 8][max attempts 8][length of inline arguments 16]`.
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
    pub(crate) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.len.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.first.to_ne_bytes());
        bytes[20..].copy_from_slice(&self.end.to_ne_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; INLINE_ARGS]) -> Self {
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        ArgsHandle { offset: word(0), len: word(8), first: half(16), end: half(20) }
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
}

/// The answer word of a slot: `[status 8][place 8][length if not in a block 16]`.
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

    /// `None` if no worker writes such a word.
    pub(crate) fn unpack(word: u32) -> Option<Self> {
        let short_len = (word & 0xffff) as usize;
        let (place, most) = match word >> 16 & 0xff {
            1 => (Place::Tiny, TINY_RESULT),
            2 => (Place::Inline, INLINE_RESULT),
            3 => (Place::Block, 0xffff),
            _ => return None,
        };
        (short_len <= most).then_some(Answer { status: word >> 24, place, short_len })
    }
}
