//! The bytes of a result, wherever they are, for as long as somebody looks at them.

use crate::arena::{BlockHandle, EXTENT, WORDS_PER_EXTENT};
use crate::recovery::{CLIENT, block_word};
use crate::segment::Segment;
use crate::slot::INLINE_RESULT;
use crate::sync::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
pub(crate) struct Holdings {
    segment: Arc<Segment>,
    workers: Box<[Mutex<Held>]>,
    /// Extents of one worker that may be held.
    most: usize,
}

#[derive(Default)]
struct Held {
    /// How many blocks are held of those that begin in each extent, as far as any ever were.
    blocks: Vec<u32>,
    /// How many these are together.
    all: usize,
    extents: usize,
}

impl Holdings {
    pub(crate) fn new(segment: Arc<Segment>) -> Self {
        let workers = (0..segment.processes()).map(|_| Mutex::default()).collect();
        let most = segment.header().quota.load(Ordering::Relaxed) as usize / EXTENT / 2;
        Holdings { segment, workers, most }
    }

    fn of(&self, worker: u32) -> MutexGuard<'_, Held> {
        self.workers[worker as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no block of this worker is held.
    pub(crate) fn are_none(&self, worker: u32) -> bool {
        self.of(worker).all == 0
    }

    /// Whether one more block may be kept, which takes up so many extents.
    pub(crate) fn have_room(&self, handle: BlockHandle, extents: usize) -> bool {
        let held = self.of(handle.owner);
        let shares = held.blocks.get(extent_of(handle)).is_some_and(|&blocks| blocks > 0);
        shares || held.extents + extents <= self.most
    }
}

fn extent_of(handle: BlockHandle) -> usize {
    handle.block as usize / WORDS_PER_EXTENT
}

/// A result block that this client holds; dropping it gives the block back to its worker (T12).
pub(crate) struct ResultBlock {
    holdings: Arc<Holdings>,
    handle: BlockHandle,
    /// That it takes up.
    extents: usize,
}

impl ResultBlock {
    /// The caller has adopted the block, which is one that the region can have.
    pub(crate) fn new(holdings: Arc<Holdings>, handle: BlockHandle, extents: usize) -> Self {
        let mut held = holdings.of(handle.owner);
        let extent = extent_of(handle);
        if extent >= held.blocks.len() {
            held.blocks.resize(extent + 1, 0);
        }
        held.blocks[extent] += 1;
        held.all += 1;
        if held.blocks[extent] == 1 {
            held.extents += extents;
        }
        drop(held);
        ResultBlock { holdings, handle, extents }
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
        // After our reads and the change of the word: `are_none` promises that they are over.
        let mut held = self.holdings.of(self.handle.owner);
        let extent = extent_of(self.handle);
        held.blocks[extent] -= 1;
        held.all -= 1;
        if held.blocks[extent] == 0 {
            held.extents = held.extents.saturating_sub(self.extents);
        }
        drop(held);
        segment.starved(self.handle.owner).wake_sleepers();
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
