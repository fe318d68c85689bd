//! Single calls.

use crate::arguments::{bytes, place};
use crate::asynchronous::{rp_async, rp_callbacks};
use crate::boundary::boundary;
use crate::buffer::{buffer, rp_buffer};
use crate::error::Failed;
use crate::name::name;
use crate::pool::{caller, rp_pool};
use crate::result::rp_result;
use crate::status::rp_status;
use engine::raw::Input;
use std::ffi::{c_char, c_void};

/// Runs a task in a worker and waits for its output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_apply(
    pool: *const rp_pool,
    task: *const c_char,
    input: *const c_void,
    size: usize,
    result: *mut *mut rp_result,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, a string and memory, as the header says.
        let (caller, name, input) = unsafe { (caller(pool)?, name(task)?, bytes(input, size, "input")?) };
        let place = place(result, "result")?;
        let output = caller.apply(name, input)?;
        // SAFETY: the caller's place.
        unsafe { place.put(rp_result::give(output)) };
        Ok(())
    })
}

/// rp_apply(), with the output copied to the caller's memory of capacity bytes: nothing is to be freed. written gets the
/// size of the output. If that is more than the capacity, the status is RP_TOO_SMALL, and all that is known of the output is
/// its size, from rp_last_error().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_apply_into(
    pool: *const rp_pool,
    task: *const c_char,
    input: *const c_void,
    size: usize,
    output: *mut c_void,
    capacity: usize,
    written: *mut usize,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, a string and memory, as the header says.
        let (caller, name, input) = unsafe { (caller(pool)?, name(task)?, bytes(input, size, "input")?) };
        let place = place(written, "written")?;
        if output.is_null() && capacity > 0 {
            return Err(Failed::null("output"));
        }
        let bytes = caller.apply(name, input)?;
        if bytes.len() > capacity {
            let text = format!("the output has {} bytes, the memory for it {capacity}", bytes.len());
            return Err(Failed::Ours(rp_status::RP_TOO_SMALL, text));
        }
        if !bytes.is_empty() {
            // SAFETY: memory of at least so many bytes, as the caller says, which is not the pool's.
            unsafe { output.cast::<u8>().copy_from(bytes.as_ptr(), bytes.len()) };
        }
        // SAFETY: the caller's place.
        unsafe { place.put(bytes.len()) };
        Ok(())
    })
}

/// Runs a task in a worker; the output can be fetched later. Waits for a slot if all are taken, and for shared memory if
/// inputs have it all, at most for the pool's patience; and for nothing else.
///
/// callbacks may be NULL. pending may be NULL for who has callbacks, or does not care.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_apply_async(
    pool: *const rp_pool,
    task: *const c_char,
    input: *const c_void,
    size: usize,
    callbacks: *const rp_callbacks,
    pending: *mut *mut rp_async,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, a string and memory, as the header says.
        let (caller, name, input) = unsafe { (caller(pool)?, name(task)?, bytes(input, size, "input")?) };
        // SAFETY: callbacks, as the header says.
        let callbacks = unsafe { rp_callbacks::read(callbacks) }?;
        let later = caller.apply_async(name, input)?;
        // SAFETY: NULL or the caller's place.
        unsafe { rp_async::one(later, callbacks, pending) };
        Ok(())
    })
}

/// rp_apply_async() with the first size bytes of a buffer as input, which are not copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_apply_buffer_async(
    pool: *const rp_pool,
    task: *const c_char,
    input: *const rp_buffer,
    size: usize,
    callbacks: *const rp_callbacks,
    pending: *mut *mut rp_async,
) -> rp_status {
    boundary(|| {
        // SAFETY: handles and a string, as the header says.
        let (caller, name, input) = unsafe { (caller(pool)?, name(task)?, buffer(input)?) };
        // SAFETY: callbacks, as the header says.
        let callbacks = unsafe { rp_callbacks::read(callbacks) }?;
        let later = caller.apply_async(name, Input::Buffer(input, size))?;
        // SAFETY: NULL or the caller's place.
        unsafe { rp_async::one(later, callbacks, pending) };
        Ok(())
    })
}
