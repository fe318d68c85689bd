//! The word of a slot: whose the task is, and every way in which that changes.

use crate::sync::{AtomicU64, Ordering, fence, futex};
use std::time::Duration;

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

    /// The word as it would be if nobody slept on it.
    pub(crate) fn without_waiter(self) -> Word {
        Word(self.0 & !Self::W)
    }

    /// `Done`, `Lost` or `Cancelled`: only the client changes it from here.
    pub(crate) fn is_terminal(self) -> bool {
        matches!(self.state(), Some(State::Done | State::Lost | State::Cancelled))
    }

    /// `Done` in this generation.
    #[inline]
    pub(crate) fn is_done_in(self, generation: u32) -> bool {
        self.generation() == generation && self.0 & Self::STATE == 3
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
/// | | client | a word that cannot be right → `Free(g+1)`; the slot is kept from use | the same |
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
                self.0.compare_exchange(now.0, run.0, Ordering::AcqRel, Ordering::Relaxed).ok().map(|_| run)
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
    /// Returns the word to sleep on, or `None` if the task needs no waiting any more. The caller looks whether it
    /// is urged to take other results before it sleeps; for the task itself the word is enough.
    pub(crate) fn announce_wait(self, generation: u32) -> Option<Word> {
        let mut seen = self.load();
        let announced = loop {
            let pending = matches!(seen.state(), Some(State::Ready | State::Run));
            if !pending || seen.generation() != generation {
                return None;
            }
            if seen.has_waiter() {
                break seen;
            }
            let next = Word(seen.0 | Word::W);
            match self.0.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break next,
                Err(now) => seen = Word(now),
            }
        };
        fence(Ordering::SeqCst); // pairs with the one in `SleepWord::wake_always`, when the client is urged
        Some(announced)
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
