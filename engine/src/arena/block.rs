//! The word of a block: who holds it.

use crate::slot::Owner;
use crate::sync::{AtomicU64, Ordering};

/// Names a block: the process whose region it is in, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockHandle {
    pub owner: u32,
    pub block: u32,
}

impl BlockHandle {
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.owner) << 32 | u64::from(self.block)
    }

    /// The reader checks the ranges.
    pub(crate) fn unpack(word: u64) -> Self {
        BlockHandle { owner: (word >> 32) as u32, block: word as u32 }
    }
}

/// The word of one block.
///
/// ```text
///  63         40 39       32 31        18 17        8 7      3  2  1     0
/// [generation 24][retain 8 ][owner inc 14][owner idx 10][unused][S][state 2]
/// ```
///
/// | # | who | transition | how |
/// | --- | --- | --- | --- |
/// | T10 | owner of the region | `Free` → `Held(me)` | [`take`](Self::take), store: only it leaves `Free` |
/// | T11 | client, or a reaper for it | `Held(worker)` → `Held(client)` once the slot names the block | [`adopt`](Self::adopt), CAS |
/// | T12 | holder, or a reaper of the holder | `Held(holder)` → `Free(g+1)` | [`release`](Self::release), CAS |
///
/// `retain` and `S` are for processes that keep a block beyond its task; nobody does yet. The death of
/// a holder leaves `Held(dead)`, which a reap frees after it has let clients adopt what is theirs.
#[derive(Clone, Copy)]
pub(crate) struct BlockWord<'a>(pub &'a AtomicU64);

const HELD: u64 = 1;
const STATE: u64 = 3;
const OWNER: u64 = 0xff_ffff << 8;

fn held(owner: Owner) -> u64 {
    HELD | owner.bits() << 8
}

/// What became of a try to adopt a block.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Adoption {
    /// It is the new holder's now (or was already).
    Held,
    /// Somebody else holds it, or nobody: the handle is not to be believed.
    Refused,
}

impl BlockWord<'_> {
    /// Whether the region's owner may hand the block out. Acquire: the last reader is done with it.
    #[inline]
    pub(crate) fn is_free(self) -> bool {
        self.0.load(Ordering::Acquire) & STATE == 0 // pairs with `release`
    }

    /// T10. The caller is the region's only allocator and has seen the block free.
    #[inline]
    pub(crate) fn take(self, me: Owner) {
        let generation = self.0.load(Ordering::Relaxed) & !0xff_ffff_ffff;
        self.0.store(generation | held(me), Ordering::Relaxed);
    }

    /// T11. Moves the block from `from` to `to`; the slot that named it is terminal.
    pub(crate) fn adopt(self, from: Owner, to: Owner) -> Adoption {
        let seen = self.0.load(Ordering::Acquire);
        let who = seen & (OWNER | STATE);
        if who == held(to) {
            return Adoption::Held; // a reaper was faster
        }
        if who != held(from) {
            return Adoption::Refused;
        }
        let next = seen & !(OWNER | STATE) | held(to);
        match self.0.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Adoption::Held,
            Err(now) if now & (OWNER | STATE) == held(to) => Adoption::Held,
            Err(_) => Adoption::Refused,
        }
    }

    /// T12. Gives the block back to its region; `false` if `holder` does not hold it.
    pub(crate) fn release(self, holder: Owner) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        if seen & (OWNER | STATE) != held(holder) {
            return false;
        }
        let generation = (seen >> 40).wrapping_add(1) & 0xff_ffff;
        // Release pairs with `is_free`: our reads of the block are over.
        self.0.compare_exchange(seen, generation << 40, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}
