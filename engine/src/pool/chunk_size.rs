//! How many items of a map travel together.

use crate::error::{Error, Result};

/// Most bytes of items, or of results, of a chunk whose size nobody has chosen: what is made, worked on and copied
/// at the same time should stay in the caches meanwhile.
const BYTES: usize = 256 << 10;
/// The last chunks are no smaller than this part of the others.
const LEAST: usize = 8;
/// With so many chunks for each worker on their way it is workers that are waited for.
const MANY: usize = 4;

/// The sizes of a map's chunks, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ChunkSize {
    /// How many items a chunk has at most.
    pub most: usize,
    least: usize,
    workers: usize,
}

impl ChunkSize {
    /// So many items in each.
    pub(crate) fn fixed(size: usize) -> Result<Self> {
        let most = check_chunksize(size)?;
        Ok(ChunkSize { most, least: most, workers: 1 })
    }

    /// What `multiprocessing` does: four chunks for each worker.
    pub(crate) fn quarters(items: usize, workers: usize) -> Self {
        let most = items.div_ceil(workers.max(1).saturating_mul(4)).clamp(1, u32::MAX as usize);
        ChunkSize { most, least: most, workers: 1 }
    }

    /// The same for items and results of up to `size` bytes, or else chunks that the caches hold. If workers cannot
    /// keep up with more than four for each, the last get smaller, so that all come to their end at about the same time
    /// ("guided self-scheduling": Polychronopoulos and Kuck, IEEE Transactions on Computers 36, 1987).
    pub(crate) fn cached(items: usize, workers: usize, size: usize) -> Self {
        let quarters = Self::quarters(items, workers);
        let most = BYTES / size.clamp(1, BYTES);
        if quarters.most <= most {
            return quarters;
        }
        ChunkSize { most, least: most.div_ceil(LEAST), workers: workers.max(1) }
    }

    /// How many items the next chunk has, of so many that are left, while so many are on their way. Half of each
    /// worker's share of them, within the bounds; but as many as can be, if it is the caller who is waited for.
    pub(crate) fn next(self, left: usize, on_their_way: usize) -> usize {
        let half = if on_their_way / self.most < self.workers.saturating_mul(MANY) {
            self.most
        } else {
            left.div_ceil(self.workers.saturating_mul(2)).clamp(self.least, self.most)
        };
        half.min(left)
    }
}

/// Refuses a chunk size of nothing.
pub(crate) fn check_chunksize(chunksize: usize) -> Result<usize> {
    match chunksize {
        0 => Err(Error::invalid("the chunk size is 0; it must be at least 1")),
        _ => Ok(chunksize.min(u32::MAX as usize)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All sizes, while so many items are on their way.
    fn all_with(on_their_way: usize, sizes: ChunkSize, mut left: usize) -> Vec<usize> {
        let next = || {
            let next = sizes.next(left, on_their_way);
            left -= next;
            (next > 0).then_some(next)
        };
        std::iter::from_fn(next).collect()
    }

    fn all(sizes: ChunkSize, left: usize) -> Vec<usize> {
        assert_eq!(all_with(0, sizes, left), all_with(usize::MAX, sizes, left));
        all_with(0, sizes, left)
    }

    #[test]
    fn a_fixed_size_is_kept() {
        assert_eq!(all(ChunkSize::fixed(3).unwrap(), 7), [3, 3, 1]);
        assert_eq!(all(ChunkSize::fixed(usize::MAX).unwrap(), 7), [7]);
        assert!(ChunkSize::fixed(0).is_err());
    }

    #[test]
    fn there_are_four_chunks_for_each_worker() {
        assert_eq!(all(ChunkSize::quarters(16, 2), 16), [2; 8]);
        assert_eq!(all(ChunkSize::quarters(9, 2), 9), [2, 2, 2, 2, 1]);
        assert_eq!(all(ChunkSize::quarters(3, 2), 3), [1; 3]);
        assert_eq!(all(ChunkSize::quarters(0, 2), 0), []);
        assert_eq!(all(ChunkSize::quarters(5, usize::MAX), 5), [1; 5]);
        assert_eq!(ChunkSize::cached(1000, 2, 8), ChunkSize::quarters(1000, 2));
    }

    #[test]
    fn what_the_caches_hold_gets_smaller_at_the_end() {
        for workers in [1, 2, 8] {
            let size = ChunkSize::cached(10_000_000, workers, 8);
            assert!(all_with(0, size, 10_000_000)[..305].iter().all(|&size| size == 32 << 10));
            let sizes = all_with(4 * workers * (32 << 10), size, 10_000_000);
            assert_eq!(sizes.iter().sum::<usize>(), 10_000_000);
            assert_eq!(sizes[..100], [32 << 10; 100]);
            assert!(sizes.is_sorted_by(|before, after| before >= after), "{sizes:?}");
            // Whoever begins the last long one ends with the others.
            let last = sizes.iter().rposition(|&size| size == 32 << 10).unwrap();
            assert!(sizes[last + 1..].iter().sum::<usize>() >= (2 * workers - 1) * (32 << 10));
            assert!(sizes.len() < 310 + 16 * workers, "{} chunks", sizes.len());
        }
        assert_eq!(ChunkSize::cached(9, 1, usize::MAX).next(9, 0), 1);
    }
}
