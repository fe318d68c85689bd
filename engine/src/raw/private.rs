//! Pool memory that tasks and their callers get at by themselves.

use super::results::Bytes;
use crate::error::{Error, Result};
use crate::sys::CopyOnWrite;
use crate::worker::here;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

#[cold]
fn no_worker() -> Error {
    Error::invalid("only a worker of a pool has such memory, on the thread that runs its tasks")
}

/// In a worker: `len` bytes of the pool's [`Buffer`](super::Buffer)s, from this [offset](super::Buffer::offset) on.
///
/// An error if there cannot be so many, or on another thread than that which runs tasks.
///
/// # Safety
///
/// The bytes are used only as long as a task runs here that has the buffer as its input, or
/// [keeps](super::Input::Keeping) it. Nobody else makes sure that they stay what they are, or that they are there.
pub unsafe fn buffer_at<'a>(offset: u64, len: usize) -> Result<&'a [u8]> {
    let found = here().and_then(|home| {
        home.with_segment(|segment| {
            // SAFETY: by contract: the client writes no buffer of a task that runs.
            let bytes = unsafe { segment.payload(0, offset, len as u64) };
            // SAFETY: the same bytes; the worker keeps the memory mapped while it runs a task.
            bytes.map(|bytes| unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) })
        })
    });
    let bytes = found.ok_or_else(no_worker)?;
    bytes.ok_or_else(|| Error::invalid(format!("{len} bytes at {offset} are outside of the buffers")))
}

/// Pool memory mapped once more, privately: it can be written, and nobody else sees that.
///
/// The kernel copies each page when it is first written to, so bytes that are only read are never copied. Each of these
/// is a mapping of the process, of which it can have some 65,000; so it is for inputs and results of many pages.
///
/// A child that is forked by the C library's `fork` has the mapping, too, with what it held at that moment: the fork
/// copies all pages that were not copied yet. If there is no memory for that, the child does not get them.
pub struct Private {
    memory: CopyOnWrite,
    /// What keeps the pages as they are that are not copied.
    held: Mutex<Option<Arc<Bytes>>>,
}

impl Private {
    /// A part of a result, which is kept as long as this needs it. `None` if it is not
    /// [in shared memory](Bytes::is_shared), or has no bytes.
    pub fn of_result(bytes: &Arc<Bytes>, range: Range<usize>) -> Result<Option<Private>> {
        let Some(part) = bytes.get(range.clone()) else {
            let error = format!("a result of {} bytes has no bytes {range:?}", bytes.len());
            return Err(Error::invalid(error));
        };
        let Some(segment) = bytes.segment().filter(|_| !part.is_empty()) else { return Ok(None) };
        if !segment.is_here() {
            return Err(Error::invalid("a forked child has no part in the pool"));
        }
        let memory = segment.copy_on_write(part)?;
        Ok(Some(Private { memory, held: Mutex::new(Some(bytes.clone())) }))
    }

    /// In a worker: a part of the running task's input, or of a [buffer](buffer_at) to which it refers. An error if
    /// the bytes are not in shared memory, as an input of at most 32 bytes is not, or on another thread than that which
    /// runs tasks.
    ///
    /// # Safety
    ///
    /// Before the task ends it is either [owned](Self::own) or dropped: afterwards, pages that are not copied change.
    pub unsafe fn of_task(bytes: &[u8]) -> Result<Private> {
        let mapped = here().and_then(|home| home.with_segment(|segment| segment.copy_on_write(bytes)));
        Ok(Private { memory: mapped.ok_or_else(no_worker)??, held: Mutex::new(None) })
    }

    /// In a worker: how many bytes of its tasks' inputs have been written to so far, in whole pages, as far as these
    /// were dropped and not [owned](Self::own). Who finds that most are written does better to copy them at once.
    pub fn copied() -> u64 {
        here().and_then(|home| home.with_segment(|segment| segment.copied())).unwrap_or(0)
    }

    /// Where the bytes are. Valid until this is dropped.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.memory.ptr()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether there are none: never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies all pages that are not copied yet, so that the memory under them can be used anew; a result is not held
    /// any more. Threads may read and write meanwhile. The error says that there is no memory.
    pub fn own(&self) -> Result<()> {
        self.memory.own()?;
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(held); // when the lock is free
        Ok(())
    }
}

impl std::fmt::Debug for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Private").field("len", &self.len()).finish_non_exhaustive()
    }
}
