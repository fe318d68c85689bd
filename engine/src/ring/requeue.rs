//! Ready slots that no ring announces any more: one bit each, set by reapers and by clients' back-stop.

use super::{Hint, Window};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A bit map over a client's slots, with a word that says whether it is worth reading.
#[derive(Clone, Copy)]
pub(crate) struct Requeue<'a> {
    any: &'a AtomicU32,
    bits: &'a [AtomicU64],
}

impl<'a> Requeue<'a> {
    pub(crate) fn new(any: &'a AtomicU32, bits: &'a [AtomicU64]) -> Self {
        Requeue { any, bits }
    }

    /// Announces a ready slot.
    pub(crate) fn announce(&self, slot: u32) {
        self.bits[slot as usize / 64].fetch_or(1 << (slot % 64), Ordering::AcqRel);
        self.any.store(1, Ordering::Release); // after the bit: see `claim`
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.any.load(Ordering::Acquire) == 0
    }

    /// Takes one announced slot into the first entry of `window`; `true` if there was one.
    ///
    /// `any` is lowered before the bits are read and raised again if bits are left, so a bit that is
    /// set meanwhile is seen here or raises `any` itself. A worker killed in between has its death
    /// followed by a reap, which announces every ready slot anew.
    pub(crate) fn claim(&self, window: &Window, hint: impl Fn(u32) -> Hint) -> bool {
        if self.is_empty() || self.any.swap(0, Ordering::AcqRel) == 0 {
            return false;
        }
        let mut taken = false;
        for (index, word) in self.bits.iter().enumerate() {
            let mut seen = word.load(Ordering::Acquire);
            while seen != 0 {
                if taken {
                    self.any.store(1, Ordering::Release);
                    return true;
                }
                let bit = seen.trailing_zeros();
                window.set(0, hint(index as u32 * 64 + bit)); // before the bit goes
                let before = word.fetch_and(!(1 << bit), Ordering::AcqRel);
                taken = before >> bit & 1 == 1;
                seen = before & !(1 << bit);
            }
        }
        taken
    }
}
