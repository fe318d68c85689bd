//! Outputs that are made where they will lie, before the function knows that they are its output.

use crate::arena::Block;
use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::shared_slice::served;
use crate::worker::{Returned, here};
use std::ptr::NonNull;
use std::sync::Arc;

/// Memory of a worker, which a task can fill and make its [output](super::Output::adopt), without a copy.
///
/// It can be kept from one task to the next (an [audit](crate::audit) finds it then, as memory that no task uses), and be
/// dropped by any thread: by another than the worker's own it is given back when the worker next looks for memory. Nobody
/// else sees what it holds, and children that are forked do not have it.
pub struct Claimed {
    block: Block,
    len: usize,
    /// In which it is.
    segment: Arc<Segment>,
    returned: Arc<Returned>,
    /// It is an output now.
    adopted: bool,
}

/// In a worker: memory for `len` bytes of an output. An error if the worker has no more now, or on another thread than
/// that which runs tasks.
pub fn claim(len: usize) -> Result<Claimed> {
    if len > isize::MAX as usize - 1024 {
        return Err(Error::invalid(format!("{len} bytes are more than an address space")));
    }
    let home = here();
    let segment =
        home.as_ref().and_then(|home| home.with_segment(|segment| segment.pool_id())).and_then(served);
    let (Some(home), Some(segment)) = (home, segment) else {
        return Err(Error::invalid(
            "only a worker of a pool has memory for outputs, on the thread that runs its tasks",
        ));
    };
    let block = home.lend(len.max(1))?;
    Ok(Claimed { block, len, segment, returned: home.returned(), adopted: false })
}

impl Claimed {
    /// Where it begins: aligned to 128 bytes. What it holds at first is not specified.
    ///
    /// Valid until this is dropped, or is an output.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.block.ptr
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its bytes; `None` in a forked child.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        // SAFETY: a block of at least that length, mapped as long as we have the segment, initialized whatever it
        // holds. It is the worker's, who has lent it to us alone, until its process ends.
        self.segment
            .is_here()
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.block.ptr.as_ptr(), self.len) })
    }

    /// It is an output from now on.
    pub(super) fn note_adopted(mut self) {
        self.adopted = true;
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if self.adopted {
            return;
        }
        match here() {
            Some(home) if home.is_of(&self.returned) => home.give_back(self.block.ptr),
            _ => self.returned.add(self.block),
        }
    }
}

impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claimed").field("len", &self.len).finish_non_exhaustive()
    }
}
