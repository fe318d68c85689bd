//! Checks over what lies in slots, for pools that do not trust everybody who can write there.

use super::{ArgsHandle, INLINE_ARGS};

/// Bytes of arguments that a slot of a hardened pool holds: the last ones of the area are their check.
pub(crate) const CHECKED_ARGS: usize = INLINE_ARGS - 8;

const _: () = assert!(size_of::<ArgsHandle>() <= CHECKED_ARGS);

/// A hash that is begun with the pool, the slot and the generation, so that nothing passes that was right
/// elsewhere or before.
///
/// It finds wild stores and bit flips. It is no seal: whoever can read the pool can compute it.
///
/// Not inlined: the paths of pools without checks stay as short as they would be without this.
#[derive(Clone, Copy)]
pub(crate) struct Check(u64);

/// Odd numbers without a pattern (the fraction of pi).
const K: [u64; 3] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7345, 0xa409_3822_299f_31d1];

/// Both halves of the product: every bit of the factors counts.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl Check {
    #[inline(never)]
    pub(crate) fn begin(pool: u64, slot: u32, generation: u32) -> Self {
        Check(fold(pool ^ K[0], (u64::from(slot) << 32 | u64::from(generation)) ^ K[1]))
    }

    #[must_use]
    pub(crate) fn word(self, word: u64) -> Self {
        Check(fold(self.0 ^ word, K[2]) ^ word.rotate_left(32))
    }

    #[must_use]
    #[inline(never)]
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let (pairs, rest) = bytes.as_chunks::<16>();
        let half = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let mut state = self.0;
        for pair in pairs {
            state = fold(state ^ half(&pair[..8]), half(&pair[8..]) ^ K[2]) ^ state.rotate_left(29);
        }
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        Check(state).word(half(&last[..8])).word(half(&last[8..])).word(bytes.len() as u64)
    }

    pub(crate) fn end(self) -> u64 {
        fold(self.0 ^ K[1], K[0])
    }

    /// What a task's words and the first bytes of its arguments must come to.
    #[inline(never)]
    pub(crate) fn of_task(self, func: u64, meta: u32, args: &[u8]) -> u64 {
        self.word(func).word(u64::from(meta)).bytes(args).end()
    }

    /// What a result that lies in the slot must come to.
    #[inline(never)]
    pub(crate) fn of_short(self, answer: u32, bytes: &[u8]) -> u64 {
        self.word(u64::from(answer)).bytes(bytes).end()
    }

    /// What the words that describe a result in a block must come to; `digest` is that of its bytes,
    /// `done` how many items it has, if it is a chunk's.
    #[inline(never)]
    pub(crate) fn of_block(self, answer: u32, handle: u64, len: u64, digest: u64, done: u32) -> u64 {
        self.word(u64::from(answer)).word(handle).word(len).word(digest).word(u64::from(done)).end()
    }

    /// What goes with the count of the finished items of a chunk.
    #[inline(never)]
    pub(crate) fn of_progress(self, done: u32) -> u32 {
        self.word(u64::from(done)).end() as u32
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let begin = Check::begin(7, 3, 9);
        let args = [0x5a; 41];
        let right = begin.of_task(0x1234, 0x0101_0018, &args);
        let mut seen = std::collections::HashSet::from([right]);
        for bit in 0..args.len() * 8 {
            let mut flipped = args;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(begin.of_task(0x1234, 0x0101_0018, &flipped)), "bit {bit}");
        }
        for bit in 0..64 {
            assert!(
                seen.insert(begin.of_task(0x1234 ^ 1 << bit, 0x0101_0018, &args)),
                "bit {bit} of the function"
            );
        }
        for other in [Check::begin(8, 3, 9), Check::begin(7, 2, 9), Check::begin(7, 3, 10)] {
            assert!(seen.insert(other.of_task(0x1234, 0x0101_0018, &args)));
        }
        assert!(seen.insert(begin.of_task(0x1234, 0x0101_0018, &args[..40])), "the length counts");
    }

    #[test]
    fn words_that_are_exchanged_are_noticed() {
        let begin = Check::begin(1, 1, 1);
        assert_ne!(begin.of_block(1, 2, 3, 4, 5), begin.of_block(1, 3, 2, 4, 5));
        assert_ne!(begin.of_block(1, 0, 0, 4, 5), begin.of_block(1, 0, 4, 0, 5));
        assert_ne!(begin.bytes(&[0; 32]).end(), begin.bytes(&[0; 48]).end());
        let (a, b) = ([1_u8; 16], [2_u8; 16]);
        assert_ne!(begin.bytes(&[a, b].concat()).end(), begin.bytes(&[b, a].concat()).end());
    }
}
