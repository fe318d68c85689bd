//! The bytes of a result, wherever they are, for as long as somebody looks at them.

use crate::arena::BlockHandle;
use crate::recovery::{CLIENT, block_word};
use crate::segment::Segment;
use crate::slot::INLINE_RESULT;
use crate::sync::{Ordering, fence, futex};
use std::sync::Arc;

/// A short result, aligned for every archive.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Short(pub [u8; INLINE_RESULT]);

/// A result block that this client holds; dropping it gives the block back to its worker (T12).
pub(crate) struct ResultBlock {
    segment: Arc<Segment>,
    handle: BlockHandle,
}

impl ResultBlock {
    /// The caller has adopted the block.
    pub(crate) fn new(segment: Arc<Segment>, handle: BlockHandle) -> Self {
        ResultBlock { segment, handle }
    }
}

impl Drop for ResultBlock {
    fn drop(&mut self) {
        if !self.segment.is_here() {
            return; // a forked child's copy: the block is the parent's
        }
        let Some(block) = block_word(&self.segment, self.handle) else { return };
        block.release(CLIENT);
        fence(Ordering::SeqCst); // pairs with the fence in `TaskMemory::take_patiently`
        let starved = &self.segment.process(self.handle.owner).starved;
        if starved.load(Ordering::Relaxed) == 1 && starved.swap(0, Ordering::AcqRel) == 1 {
            futex::wake(starved, futex::ALL);
        }
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
    /// A private copy of what another program wrote.
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
