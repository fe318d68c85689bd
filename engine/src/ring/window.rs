//! The hints that a worker has taken and not yet tried, open for all to see.

use crate::sync::{AtomicU64, Ordering};

/// How many hints a worker takes at once at most.
pub(crate) const BATCH: usize = if cfg!(loom) { 2 } else { 16 };

/// A hint to one slot: which client's, and which of its slots. Zero is no hint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hint(pub u64);

impl Hint {
    pub(crate) const NONE: Hint = Hint(0);

    pub(crate) fn new(client: u32, slot: u32) -> Self {
        Hint((client as u64 + 1) << 32 | slot as u64)
    }

    /// Client and slot; the reader checks their ranges.
    pub(crate) fn get(self) -> Option<(u32, u32)> {
        let client = (self.0 >> 32) as u32;
        (client != 0).then(|| (client - 1, self.0 as u32))
    }
}

/// One worker's window. Written by it alone, read by all.
///
/// Others use an entry only by claiming the slot that it names, so stale entries do no harm, and a
/// worker that is stopped or busy cannot keep what it has not started.
#[repr(C, align(128))]
pub(crate) struct Window {
    hints: [AtomicU64; BATCH],
}

impl Window {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Self {
        Window { hints: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    #[inline]
    pub(crate) fn set(&self, index: usize, hint: Hint) {
        self.hints[index].store(hint.0, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Hint {
        Hint(self.hints[index].load(Ordering::Relaxed))
    }
}
