//! Hashing of states: many small fields, millions of times, no adversary.

use std::hash::{Hash, Hasher};

/// An odd constant with well mixed bits: 2^64 divided by the golden ratio.
const PHI: u64 = 0x9e37_79b9_7f4a_7c15;

/// Gathers bytes into words and mixes those by multiplication.
///
/// States consist of bytes, so one multiplication for each of them would cost more than the step that
/// made the state.
#[derive(Default)]
struct StateHasher {
    mixed: u64,
    pending: u64,
    bytes: u32,
}

impl StateHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.mixed.rotate_left(23) ^ word ^ PHI) * u128::from(PHI);
        self.mixed = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for StateHasher {
    fn write_u8(&mut self, byte: u8) {
        self.pending = self.pending << 8 | u64::from(byte);
        self.bytes += 1;
        if self.bytes == 8 {
            self.mix(self.pending);
            (self.pending, self.bytes) = (0, 0);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u8(byte);
        }
    }

    /// Discriminants and lengths, all of them small.
    fn write_isize(&mut self, number: isize) {
        self.write_u8(number as u8);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u8(number as u8);
    }

    fn finish(&self) -> u64 {
        let mut last = StateHasher { mixed: self.mixed, ..StateHasher::default() };
        last.mix(self.pending);
        last.mix(u64::from(self.bytes));
        last.mixed
    }
}

/// The fingerprint of a state; never 0, which marks empty places of tables.
pub(crate) fn fingerprint<S: Hash>(state: &S) -> u64 {
    let mut hasher = StateHasher::default();
    state.hash(&mut hasher);
    hasher.finish().max(1)
}
