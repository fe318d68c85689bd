//! A word that says: look. Where to look, it does not say.

use crate::sync::{AtomicU32, Ordering};

/// Raised by whoever has left something to be found; taken down by the reader *before* it looks. So what
/// is left meanwhile is seen by that look, or raises the flag again.
#[derive(Clone, Copy)]
pub(crate) struct Flag<'a>(pub &'a AtomicU32);

impl Flag<'_> {
    /// Release: who takes the flag sees what was left before it was raised.
    #[inline]
    pub(crate) fn raise(self) {
        self.0.store(1, Ordering::Release); // pairs with `take`
    }

    #[inline]
    pub(crate) fn is_up(self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// Takes the flag down; `true` if it was up, and the caller then looks.
    #[inline]
    #[must_use]
    pub(crate) fn take(self) -> bool {
        self.is_up() && self.0.swap(0, Ordering::AcqRel) != 0 // pairs with `raise`
    }
}
