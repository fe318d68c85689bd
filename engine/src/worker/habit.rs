//! Where the payloads of the next task will lie, if it is like the last ones.
//!
//! Who calls one task after the other uses the same memory again for each. So its lines can be fetched together with
//! the slot, instead of after it.

use crate::sync::{prefetch_payload, prefetch_payload_to_write};
use std::ptr::NonNull;

/// So many times the same, before it is expected again.
const SURE: u32 = 2;

/// The arguments and the result of the last task that had some in blocks.
pub(super) struct Habit {
    args: Area,
    result: Area,
}

/// Memory that was used, and how often in a row.
#[derive(Clone, Copy)]
struct Area {
    start: *const u8,
    len: usize,
    times: u32,
}

impl Default for Habit {
    fn default() -> Self {
        let none = Area { start: std::ptr::null(), len: 0, times: 0 };
        Habit { args: none, result: none }
    }
}

impl Area {
    #[inline]
    fn note(&mut self, start: *const u8, len: usize) {
        self.times = if self.start == start { self.times.saturating_add(1) } else { 0 };
        (self.start, self.len) = (start, len);
    }

    #[inline]
    fn expected(&self) -> Option<(*const u8, usize)> {
        (self.times >= SURE).then_some((self.start, self.len))
    }
}

impl Habit {
    #[inline]
    pub(super) fn note_args(&mut self, args: &[u8]) {
        self.args.note(args.as_ptr(), args.len());
    }

    #[inline]
    pub(super) fn note_no_args(&mut self) {
        self.args.times = 0;
    }

    /// The block is ours no more; only its address is remembered.
    #[inline]
    pub(super) fn note_result(&mut self, result: Option<(NonNull<u8>, usize)>) {
        match result {
            Some((start, len)) => self.result.note(start.as_ptr(), len),
            None => self.result.times = 0,
        }
    }

    /// Begins to fetch what is expected.
    #[inline]
    pub(super) fn fetch(&self) {
        if let Some((start, len)) = self.args.expected() {
            prefetch_payload(start, len);
        }
        if let Some((start, len)) = self.result.expected() {
            prefetch_payload_to_write(start, len);
        }
    }
}
