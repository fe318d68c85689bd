//! What tasks usually do with large inputs.

use engine::raw::Private;
use std::cell::Cell;

/// Whether tasks write to most of what they are sent: then a copy of all of it is cheaper than one of each page.
#[derive(Default)]
pub(super) struct Habit {
    writes: Cell<bool>,
    /// So many buffers in a row were copied because of it.
    copies: Cell<u32>,
    /// Bytes that were mapped for the running call, and how many had been written to before.
    mapped: Cell<usize>,
    written: Cell<u64>,
}

impl Habit {
    /// Every so often it is found out anew.
    const TRUST: u32 = 32;
    /// From so many bytes on.
    const LEAST: usize = 1 << 20;

    /// Whether to copy a buffer.
    pub(super) fn copies(&self, len: usize) -> bool {
        if len < Self::LEAST || !self.writes.get() {
            return false;
        }
        let copies = self.copies.get() + 1;
        self.copies.set(copies % Self::TRUST);
        copies < Self::TRUST
    }

    pub(super) fn note_mapped(&self, len: usize) {
        if len >= Self::LEAST {
            if self.mapped.get() == 0 {
                self.written.set(Private::copied());
            }
            self.mapped.set(self.mapped.get() + len);
        }
    }

    /// All that was mapped for the call has been dropped.
    pub(super) fn learn(&self) {
        let mapped = self.mapped.take();
        if mapped > 0 {
            let written = Private::copied() - self.written.get();
            self.writes.set(written as usize >= mapped / 2);
        }
    }
}
