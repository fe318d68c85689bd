//! Pool memory that tasks and their callers get at by themselves.

use crate::error::{Error, Result};
use crate::worker::here;

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
pub struct Private;
impl Private {
    pub fn of_result(_: &std::sync::Arc<super::Bytes>, _: std::ops::Range<usize>) -> Result<Option<Private>> { Ok(None) }
    pub unsafe fn of_task(_: &[u8]) -> Result<Private> { Err(no_worker()) }
    pub fn as_ptr(&self) -> std::ptr::NonNull<u8> { std::ptr::NonNull::dangling() }
    pub fn len(&self) -> usize { 0 }
    pub fn own(&self) -> Result<()> { Ok(()) }
}
