//! Size classes: four per doubling, so that at most a fifth of a block is lost.

/// Bytes of an extent.
pub(crate) const EXTENT: usize = 2 << 20;
/// Block words of an extent: one for each block of the smallest class.
pub(crate) const WORDS_PER_EXTENT: usize = EXTENT / SMALLEST;
/// Bytes of the smallest block.
pub(crate) const SMALLEST: usize = 512;
/// Bytes of the largest block that shares an extent.
pub(crate) const LARGEST: usize = 1 << 20;
/// How many classes of blocks share extents: 512, 640, 768, 896, 1024, ... 1 MiB.
pub(crate) const CLASSES: usize = 45;

/// What an extent is used for, as its class word says.
///
/// `0` never used; `1..=45` the class number plus one; [`RUN`](Self::RUN)` | n` the first of `n`
/// extents that form one block (or, if its word is free, are free).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    Unused,
    Small(usize),
    Run(usize),
}

impl Class {
    const RUN: u32 = 1 << 31;

    pub(crate) fn pack(self) -> u32 {
        match self {
            Class::Unused => 0,
            Class::Small(class) => class as u32 + 1,
            Class::Run(extents) => Self::RUN | extents as u32,
        }
    }

    /// `None` if no owner writes such a word.
    pub(crate) fn unpack(word: u32) -> Option<Self> {
        match word {
            0 => Some(Class::Unused),
            w if w & Self::RUN != 0 && w != Self::RUN => Some(Class::Run((w & !Self::RUN) as usize)),
            w if w as usize <= CLASSES => Some(Class::Small(w as usize - 1)),
            _ => None,
        }
    }

    /// The smallest class or run that holds `bytes`.
    pub(crate) fn fitting(bytes: usize) -> Self {
        if bytes > LARGEST {
            return Class::Run(bytes.div_ceil(EXTENT));
        }
        let units = bytes.max(SMALLEST).div_ceil(128); // 4 << 0 units are the smallest class
        let shift = (usize::BITS - 1 - units.leading_zeros()) as usize - 2;
        let quarter = units.div_ceil(1 << shift);
        // Rounding up may reach the next doubling, whose first class is the same size.
        Class::Small(if quarter == 8 { (shift + 1) * 4 } else { shift * 4 + quarter - 4 })
    }

    /// Bytes of the extents that a block of at least `bytes` needs if it is alone.
    pub(crate) fn footprint(bytes: usize) -> usize {
        match Class::fitting(bytes) {
            Class::Run(extents) => extents.saturating_mul(EXTENT),
            _ => EXTENT,
        }
    }

    /// Bytes of one block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Class::Unused => 0,
            Class::Small(class) => (4 + class % 4) << (7 + class / 4),
            Class::Run(extents) => extents * EXTENT,
        }
    }

    /// Blocks in the extent.
    pub(crate) fn blocks(self) -> usize {
        match self {
            Class::Unused => 0,
            Class::Small(_) => EXTENT / self.block_bytes(),
            Class::Run(_) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        let mut sizes: Vec<usize> = (0..CLASSES).map(|c| Class::Small(c).block_bytes()).collect();
        assert_eq!(sizes[0], SMALLEST);
        assert_eq!(*sizes.last().expect("not empty"), LARGEST);
        assert!(sizes.windows(2).all(|w| w[0] < w[1]));
        sizes.push(EXTENT);
        for bytes in (1..5000)
            .chain([LARGEST - 1, LARGEST])
            .chain((13..20).flat_map(|s| [(1 << s) - 1, 1 << s, (1 << s) + 1]))
        {
            let class = Class::fitting(bytes);
            let expected = sizes.iter().copied().find(|&s| s >= bytes).expect("fits");
            assert_eq!(class.block_bytes(), expected, "{bytes} -> {class:?}");
            assert_eq!(Class::unpack(class.pack()), Some(class));
        }
        assert_eq!(Class::fitting(LARGEST + 1), Class::Run(1));
        assert_eq!(Class::fitting(EXTENT + 1), Class::Run(2));
    }
}
