//! The word of a block: who holds it.

use crate::slot::Owner;
use crate::sync::{AtomicU64, Ordering, prefetch_to_write};

/// Names a block, and which handing-out of it: a slot that names one that has changed hands since is not
/// believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockHandle {
    /// The process whose region it is in.
    pub owner: u32,
    /// Its number there, below 2^31.
    pub block: u32,
    /// The generation of its word, 23 bits.
    pub generation: u32,
}

impl BlockHandle {
    /// `[generation 23][owner 10][block 31]`. Never 0 for a worker's block.
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.generation & GENERATIONS) << 41 | u64::from(self.owner) << 31 | u64::from(self.block)
    }

    /// The reader checks the ranges.
    pub(crate) fn unpack(word: u64) -> Self {
        BlockHandle {
            owner: (word >> 31) as u32 & 0x3ff,
            block: word as u32 & 0x7fff_ffff,
            generation: (word >> 41) as u32,
        }
    }
}

/// The word of one block.
///
/// ```text
///  63 62         40 39       32 31        18 17        8 7      3  2  1     0
/// [0 ][generation 23][retain 8 ][owner inc 14][owner idx 10][unused][S][state 2]
/// ```
///
/// | # | who | transition | how |
/// | --- | --- | --- | --- |
/// | T10 | owner of the region | `Free` → `Held(me, g)`, `g` from its private counter | [`take`](Self::take), store: only it leaves `Free` |
/// | T11 | client, or a reaper for it | `Held(worker, g)` → `Held(client, g)` once the slot names the block and `g` | [`adopt`](Self::adopt), CAS |
/// | T12 | holder, or a reaper of the holder | `Held(holder, g)` → `Free` | [`release`](Self::release), CAS |
///
/// `retain` and `S` are for processes that keep a block beyond its task; nobody does yet. The death of
/// a holder leaves `Held(dead)`, which a reap frees after it has let clients adopt what is theirs.
///
/// The words of a *client's* region are there to be looked at only: nobody but the client frees its
/// blocks, and it goes by its private books.
#[derive(Clone, Copy)]
pub(crate) struct BlockWord<'a>(pub &'a AtomicU64);

const HELD: u64 = 1;
const STATE: u64 = 3;
const OWNER: u64 = 0xff_ffff << 8;
/// All generations: the highest, as a mask.
pub(super) const GENERATIONS: u32 = 0x7f_ffff;
const GENERATION_SHIFT: u32 = 40;

fn held(owner: Owner, generation: u32) -> u64 {
    u64::from(generation & GENERATIONS) << GENERATION_SHIFT | owner.bits() << 8 | HELD
}

/// What a word says about its holder, all else cut off.
const WHO: u64 = (GENERATIONS as u64) << GENERATION_SHIFT | OWNER | STATE;

/// What became of a try to adopt a block.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Adoption {
    /// It is the new holder's now (or was already).
    Held,
    /// Somebody else holds it, or nobody, or it was handed out anew: the handle is not to be believed.
    Refused,
}

impl BlockWord<'_> {
    /// Begins to fetch the word, which is about to be changed.
    #[inline]
    pub(crate) fn prefetch(self) {
        prefetch_to_write(self.0);
    }

    /// Whether the region's owner may hand the block out. Acquire: the last reader is done with it.
    #[inline]
    pub(crate) fn is_free(self) -> bool {
        self.0.load(Ordering::Acquire) & STATE == 0 // pairs with `release`
    }

    /// T10. The caller is the region's only allocator and has seen the block free. It never uses a
    /// generation twice within reach, so that a block which a corrupt word made it hand out twice is not
    /// mistaken for the first one.
    #[inline]
    pub(crate) fn take(self, me: Owner, generation: u32) {
        self.0.store(held(me, generation), Ordering::Relaxed);
    }

    /// T11. Moves the block from `from` to `to`; the slot that named this generation of it is terminal.
    pub(crate) fn adopt(self, from: Owner, to: Owner, generation: u32) -> Adoption {
        let seen = self.0.load(Ordering::Acquire);
        let theirs = held(to, generation);
        if seen & WHO == theirs {
            return Adoption::Held; // a reaper was faster
        }
        if seen & WHO != held(from, generation) {
            return Adoption::Refused;
        }
        let next = seen & !WHO | theirs;
        match self.0.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Adoption::Held,
            Err(now) if now & WHO == theirs => Adoption::Held,
            Err(_) => Adoption::Refused,
        }
    }

    /// T12. Gives the block back to its region; `false` if `holder` does not hold this generation of it.
    pub(crate) fn release(self, holder: Owner, generation: u32) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        seen & WHO == held(holder, generation) && self.free(seen)
    }

    /// T12 for whatever `holder` holds: of a dead one's blocks nobody knows the generations.
    pub(crate) fn release_any(self, holder: Owner) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        seen & (OWNER | STATE) == held(holder, 0) && self.free(seen)
    }

    fn free(self, seen: u64) -> bool {
        let generation = seen & u64::from(GENERATIONS) << GENERATION_SHIFT;
        // Release pairs with `is_free`: our reads of the block are over.
        self.0.compare_exchange(seen, generation, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Gives back a block that the caller holds by its private books, though its word does not say so:
    /// the word is corrupt. If the region's owner holds it by now, it has been handed out again.
    #[cold]
    pub(crate) fn release_corrupt(self, region: u32) {
        let seen = self.0.load(Ordering::Relaxed);
        let owner = Owner::from_bits((seen & OWNER) >> 8);
        if seen & STATE != 0 && !(seen & STATE == HELD && owner.index == region) {
            self.free(seen);
        }
    }

    /// The client is done with a block of its own region: see above why this needs no CAS.
    #[inline]
    pub(crate) fn put_back(self, generation: u32) {
        self.0.store(u64::from(generation & GENERATIONS) << GENERATION_SHIFT, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: Owner = Owner { index: 3, incarnation: 9 };
    const CLIENT: Owner = Owner { index: 0, incarnation: 0 };

    #[test]
    fn handles_survive_packing() {
        for handle in [
            BlockHandle { owner: 1023, block: 0x7fff_ffff, generation: GENERATIONS },
            BlockHandle { owner: 1, block: 0, generation: 0 },
            BlockHandle { owner: 512, block: 1 << 30, generation: 1 << 22 },
        ] {
            assert_eq!(BlockHandle::unpack(handle.pack()), handle);
            assert_ne!(handle.pack(), 0, "0 names no block");
        }
    }

    #[test]
    fn only_the_generation_that_was_named_changes_hands() {
        let word = AtomicU64::new(0);
        let block = BlockWord(&word);
        block.take(WORKER, 7);
        for wrong in [6, 8, 0, GENERATIONS] {
            assert_eq!(block.adopt(WORKER, CLIENT, wrong), Adoption::Refused);
            assert!(!block.release(WORKER, wrong));
        }
        assert_eq!(block.adopt(WORKER, CLIENT, 7), Adoption::Held);
        assert_eq!(block.adopt(WORKER, CLIENT, 7), Adoption::Held, "a second reaper");
        assert_eq!(block.adopt(WORKER, CLIENT, 8), Adoption::Refused);
        assert!(!block.release_any(WORKER), "it is not the worker's any more");
        assert!(!block.release(CLIENT, 8));
        assert!(block.release(CLIENT, 7));
        assert!(block.is_free());
    }

    #[test]
    fn a_corrupt_word_is_freed_unless_the_region_has_it_again() {
        let word = AtomicU64::new(!0);
        BlockWord(&word).release_corrupt(3);
        assert!(BlockWord(&word).is_free());
        BlockWord(&word).take(WORKER, 1);
        BlockWord(&word).release_corrupt(3);
        assert!(!BlockWord(&word).is_free(), "somebody writes there");
        BlockWord(&word).release_corrupt(4);
        assert!(BlockWord(&word).is_free());
    }
}
