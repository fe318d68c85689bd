//! Ready slots that no ring announces any more: one bit each, set by reapers and by clients' back-stop.

use super::{BATCH, Flag, Hint, Window};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// A bit map over a client's slots, with a word that says whether it is worth reading.
#[derive(Clone, Copy)]
pub(crate) struct Requeue<'a> {
    any: Flag<'a>,
    bits: &'a [AtomicU64],
}

impl<'a> Requeue<'a> {
    pub(crate) fn new(any: &'a AtomicU32, bits: &'a [AtomicU64]) -> Self {
        Requeue { any: Flag(any), bits }
    }

    /// Announces a ready slot.
    pub(crate) fn announce(&self, slot: u32) {
        self.bits[slot as usize / 64].fetch_or(1 << (slot % 64), Ordering::AcqRel);
        self.any.raise(); // after the bit
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.is_up()
    }

    /// Takes up to `most` announced slots into `window`; returns how many. Begins behind `cursor`, where the
    /// caller's last claim ended: slots that are announced again and again do not keep others waiting.
    ///
    /// `any` is lowered before the bits are read and raised again if bits are left, so a bit that is
    /// set meanwhile is seen here or raises `any` itself. A worker killed in between has its death
    /// followed by a reap, which announces every ready slot anew.
    pub(crate) fn claim(
        &self,
        most: usize,
        cursor: &mut u32,
        window: &Window,
        hint: impl Fn(u32) -> Hint,
    ) -> usize {
        if !self.any.take() {
            return 0;
        }
        let most = most.clamp(1, BATCH);
        let mut taken = 0;
        let words = self.bits.len();
        let first = *cursor as usize / 64 % words;
        let behind = !0 << (*cursor % 64);
        let mut late = 0;
        for step in 0..=words {
            let index = (first + step) % words;
            let word = &self.bits[index];
            // The first word is looked at twice: what is behind the cursor, and at last the rest.
            let part = if step == 0 {
                behind
            } else if step == words {
                !behind
            } else {
                !0
            };
            let mut seen = word.load(Ordering::Acquire) & part;
            while seen != 0 {
                if taken == most {
                    self.any.raise();
                    return taken;
                }
                let bit = seen.trailing_zeros();
                window.set(taken, hint(index as u32 * 64 + bit)); // before the bit goes
                let before = word.fetch_and(!(1 << bit), Ordering::AcqRel);
                taken += usize::from(before >> bit & 1 == 1);
                *cursor = index as u32 * 64 + bit + 1;
                seen &= before & !(1 << bit);
                late = before & !part;
            }
        }
        if late != 0 {
            self.any.raise(); // set behind our back, in a part we had done with
        }
        taken
    }
}
