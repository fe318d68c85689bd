//! Inputs made in shared memory.

use crate::arguments::{place, reference};
use crate::boundary::{boundary, free};
use crate::error::Failed;
use crate::pool::{caller, rp_pool};
use crate::status::rp_status;
use engine::raw::Buffer;
use std::ffi::c_void;

/// Shared memory of a pool, to be filled in place and given to tasks without a copy.
///
/// It may be given to any number of tasks, one after the other or at the same time, and be freed at any time: what a task
/// was given stays there until it is done. But it must not be written as long as a task that was given it is not done.
/// While it is in use as items of one size, it cannot be mapped as items of another (RP_INVALID).
/// Later versions may append fields.
#[repr(C)]
pub struct rp_buffer {
    /// Where it begins: aligned to 128 bytes. What it holds at first is not specified.
    pub data: *mut c_void,
    /// How many bytes it has.
    pub size: usize,
}

/// An [`rp_buffer`], and what it is.
#[repr(C)]
struct Held {
    shown: rp_buffer,
    buffer: Buffer,
}

/// The buffer behind a handle.
///
/// # Safety
///
/// It is NULL or one.
pub(crate) unsafe fn buffer<'a>(handle: *const rp_buffer) -> Result<&'a Buffer, Failed> {
    // SAFETY: the caller's promise; all of them are the start of a `Held`.
    unsafe { reference(handle.cast::<Held>(), "buffer") }.map(|held| &held.buffer)
}

/// Makes a buffer of size bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_buffer_alloc(
    pool: *const rp_pool,
    size: usize,
    buffer: *mut *mut rp_buffer,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let caller = unsafe { caller(pool) }?;
        let place = place(buffer, "buffer")?;
        let buffer = caller.buffer(size)?;
        let shown = rp_buffer { data: buffer.as_ptr().as_ptr().cast(), size };
        // SAFETY: the caller's place.
        unsafe { place.put(Box::into_raw(Box::new(Held { shown, buffer })).cast()) };
        Ok(())
    })
}

/// Gives a buffer back and makes the handle NULL. NULL, and a handle that is NULL, are ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_buffer_free(buffer: *mut *mut rp_buffer) {
    // SAFETY: a buffer that `rp_buffer_alloc` made.
    unsafe { free(buffer.cast::<*mut Held>()) }
}
