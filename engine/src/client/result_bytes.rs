//! The bytes of a result, wherever they are, for as long as somebody looks at them.

use crate::arena::BlockHandle;
use crate::recovery::{CLIENT, block_word};
use crate::segment::Segment;
use crate::slot::INLINE_RESULT;
use crate::sync::Ordering;
use crate::sync::private::{Private, PrivateUsize};
use std::sync::Arc;

/// A short result, aligned for every archive.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Short(pub [u8; INLINE_RESULT]);

/// How much of each worker's memory this client's results take up.
///
/// Results that nobody has fetched must not starve the workers that are to make the next ones: beyond
/// half of a worker's quota they are copied out.
pub(crate) struct Holdings {
    segment: Arc<Segment>,
    bytes: Box<[PrivateUsize]>,
    most: usize,
}

impl Holdings {
    pub(crate) fn new(segment: Arc<Segment>) -> Self {
        let bytes = (0..segment.processes()).map(|_| PrivateUsize::new(0)).collect();
        let most = segment.header().quota.load(Ordering::Relaxed) as usize / 2;
        Holdings { segment, bytes, most }
    }

    /// Whether no block of this worker is held.
    pub(crate) fn are_none(&self, worker: u32) -> bool {
        self.bytes[worker as usize].load(Private::Acquire) == 0
    }

    /// Whether a block of `capacity` bytes more of this worker may be kept.
    pub(crate) fn have_room(&self, worker: u32, capacity: usize) -> bool {
        self.bytes[worker as usize].load(Private::Relaxed).saturating_add(capacity) <= self.most
    }
}

/// A result block that this client holds; dropping it gives the block back to its worker (T12).
pub(crate) struct ResultBlock {
    holdings: Arc<Holdings>,
    handle: BlockHandle,
    capacity: usize,
}

impl ResultBlock {
    /// The caller has adopted the block.
    pub(crate) fn new(holdings: Arc<Holdings>, handle: BlockHandle, capacity: usize) -> Self {
        holdings.bytes[handle.owner as usize].fetch_add(capacity, Private::Relaxed);
        ResultBlock { holdings, handle, capacity }
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
        // Release pairs with `are_none`: our reads and the change of the word are over.
        self.holdings.bytes[self.handle.owner as usize].fetch_sub(self.capacity, Private::Release);
        segment.starved(self.handle.owner).wake_sleepers();
    }
}

/// The bytes of a result.
pub(crate) enum ResultBytes {
    Short {
        bytes: Short,
        len: u8,
    },
    /// `len` bytes at `start` of shared memory, held for us.
    Block {
        _held: ResultBlock,
        start: *const u8,
        len: usize,
    },
    /// A private copy: of what another program wrote, of what took up too much of a worker's memory, or of
    /// any result in a hardened pool.
    Copied(rkyv::util::AlignedVec<16>),
}

// SAFETY: the pointer is into the read-only mapping that `_held` keeps alive; nobody writes a held block.
unsafe impl Send for ResultBytes {}
// SAFETY: as above.
unsafe impl Sync for ResultBytes {}

impl ResultBytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            ResultBytes::Short { bytes, len } => &bytes.0[..usize::from(*len)],
            // SAFETY: bounds were checked when the result was taken; the block is held while `self` lives,
            // so no process of the pool writes it.
            ResultBytes::Block { start, len, .. } => unsafe { std::slice::from_raw_parts(*start, *len) },
            ResultBytes::Copied(bytes) => bytes,
        }
    }
}
