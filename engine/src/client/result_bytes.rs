//! The bytes of a result, wherever they are, for as long as somebody looks at them.

use crate::arena::{BlockHandle, EXTENT, WORDS_PER_EXTENT};
use crate::recovery::{CLIENT, block_word};
use crate::segment::Segment;
use crate::slot::INLINE_RESULT;
use crate::sync::Ordering;
use crate::sync::private::{Private, PrivateU32};
use std::sync::{Arc, OnceLock};

/// A short result, aligned for every archive.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Short(pub [u8; INLINE_RESULT]);

/// A result of up to eight bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tiny {
    pub word: u64,
    /// At most 8.
    pub len: u8,
}

impl Tiny {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &bytemuck::bytes_of(&self.word)[..usize::from(self.len)]
    }
}

/// How much of each worker's memory this client's results take up.
///
/// Results that nobody has fetched must not starve the workers that are to make the next ones: beyond half of a
/// worker's quota they are copied out. What counts is extents: a block keeps all of its extent for its class,
/// however small it is.
///
/// Blocks are taken under the books' lock, which has its own half of the count, and given back by anybody: one
/// addition, and no lock.
pub(crate) struct Holdings {
    segment: Arc<Segment>,
    /// How many blocks have been given back of those that begin in each extent of each worker: the extents by
    /// [`GROUP`]s, each made once there is a block.
    given_back: Box<[OnceLock<Box<[Group]>>]>,
    /// Extents of one worker that may be held.
    most: usize,
}

/// So many extents of a worker, 128 MiB, are counted in one piece of memory, which is far from a page.
const GROUP: usize = 64;
type Group = OnceLock<Box<[PrivateU32; GROUP]>>;

impl Holdings {
    pub(crate) fn new(segment: Arc<Segment>) -> Self {
        let given_back = (0..segment.processes()).map(|_| OnceLock::new()).collect();
        let most = segment.header().quota.load(Ordering::Relaxed) as usize / EXTENT / 2;
        Holdings { segment, given_back, most }
    }

    /// How many blocks have been given back of those that begin in this extent.
    #[inline]
    fn given_back(&self, worker: u32, extent: usize) -> &PrivateU32 {
        let groups = || {
            let groups = self.segment.classes(worker).len().div_ceil(GROUP);
            (0..groups).map(|_| Group::new()).collect()
        };
        let group = &self.given_back[worker as usize].get_or_init(groups)[extent / GROUP];
        &group.get_or_init(|| Box::new([const { PrivateU32::new(0) }; GROUP]))[extent % GROUP]
    }
}

/// Of one worker's memory, what has been taken: the books' half of [`Holdings`].
#[derive(Default)]
pub(super) struct Held {
    extents: Vec<HeldExtent>,
    /// Extents that are held, at most: one that was given up in the meantime still counts until there seem to be
    /// too many.
    most: usize,
}

#[derive(Clone, Copy, Default)]
struct HeldExtent {
    /// Blocks taken of those that begin here.
    taken: u32,
    /// How many extents the last of them took up.
    extents: usize,
}

impl HeldExtent {
    /// Whether a block is held that begins in extent `index`.
    #[inline]
    fn is_held(self, all: &Holdings, worker: u32, index: usize) -> bool {
        // Pairs with `ResultBlock::drop`: what is given back is not read any more.
        self.taken != all.given_back(worker, index).load(Private::Acquire)
    }
}

impl Held {
    /// Whether no block of this worker is held.
    pub(super) fn is_none(&self, all: &Holdings, worker: u32) -> bool {
        self.held(all, worker).next().is_none()
    }

    /// The extents that are held.
    fn held<'a>(&'a self, all: &'a Holdings, worker: u32) -> impl Iterator<Item = &'a HeldExtent> {
        let extents = self.extents.iter().enumerate();
        extents.filter(move |(index, extent)| extent.is_held(all, worker, *index)).map(|(_, extent)| extent)
    }

    /// Notes a block, which takes up so many extents; whether it may be kept.
    pub(super) fn take(&mut self, all: &Holdings, handle: BlockHandle, extents: usize) -> bool {
        let index = extent_of(handle);
        if index >= self.extents.len() {
            self.extents.resize(index + 1, HeldExtent::default());
        }
        let shares = self.extents[index].is_held(all, handle.owner, index);
        let keep = shares || self.has_room(all, handle.owner, extents);
        let extent = &mut self.extents[index];
        *extent = HeldExtent { taken: extent.taken.wrapping_add(1), extents };
        if !shares {
            self.most += extents;
        }
        keep
    }

    #[inline]
    fn has_room(&mut self, all: &Holdings, worker: u32, extents: usize) -> bool {
        self.most + extents <= all.most || {
            self.count(all, worker);
            self.most + extents <= all.most
        }
    }

    #[cold]
    fn count(&mut self, all: &Holdings, worker: u32) {
        self.most = self.held(all, worker).map(|extent| extent.extents).sum();
    }
}

fn extent_of(handle: BlockHandle) -> usize {
    handle.block as usize / WORDS_PER_EXTENT
}

/// A result block that this client holds; dropping it gives the block back to its worker (T12).
pub(crate) struct ResultBlock {
    holdings: Arc<Holdings>,
    handle: BlockHandle,
}

impl ResultBlock {
    /// The caller has adopted the block, which is one that the region can have, and has [noted](Held::take) it.
    pub(super) fn new(holdings: Arc<Holdings>, handle: BlockHandle) -> Self {
        ResultBlock { holdings, handle }
    }
}

impl Drop for ResultBlock {
    fn drop(&mut self) {
        let segment = &self.holdings.segment;
        if !segment.is_here() {
            return; // a forked child's copy: the block is the parent's
        }
        let Some(block) = block_word(segment, self.handle) else { return };
        if !block.release(CLIENT, self.handle.generation) {
            block.release_corrupt(self.handle.owner);
        }
        // Release pairs with `HeldExtent::is_held`: after our reads and the change of the word.
        let given_back = self.holdings.given_back(self.handle.owner, extent_of(self.handle));
        given_back.fetch_add(1, Private::Release);
        segment.starved(self.handle.owner).wake_sleepers_behind_rmw();
    }
}

/// The bytes of a result.
pub(crate) enum ResultBytes {
    Tiny(Tiny),
    Short {
        bytes: Short,
        len: u8,
    },
    /// `len` bytes at `start` of shared memory, held for us.
    Block {
        held: ResultBlock,
        start: *const u8,
        len: usize,
    },
    /// A private copy: of what another program wrote, of what took up too much of a worker's memory, or of
    /// any result in a hardened pool.
    Copied(rkyv::util::AlignedVec<16>),
}

// SAFETY: the pointer is into the read-only mapping that `held` keeps alive; nobody writes a held block.
unsafe impl Send for ResultBytes {}
// SAFETY: as above.
unsafe impl Sync for ResultBytes {}

impl ResultBytes {
    /// The memory in which they are, if it is shared.
    pub(crate) fn segment(&self) -> Option<&Segment> {
        match self {
            ResultBytes::Block { held, .. } => Some(&held.holdings.segment),
            ResultBytes::Tiny(_) | ResultBytes::Short { .. } | ResultBytes::Copied(_) => None,
        }
    }

    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            ResultBytes::Tiny(tiny) => tiny.as_slice(),
            ResultBytes::Short { bytes, len } => &bytes.0[..usize::from(*len)],
            // SAFETY: bounds were checked when the result was taken; the block is held while `self` lives,
            // so no process of the pool writes it.
            ResultBytes::Block { start, len, .. } => unsafe { std::slice::from_raw_parts(*start, *len) },
            ResultBytes::Copied(bytes) => bytes,
        }
    }
}
