//! Maps.

use crate::arguments::{bytes, place, rp_bytes, slice, slice_mut};
use crate::asynchronous::{rp_async, rp_callbacks};
use crate::boundary::boundary;
use crate::buffer::{buffer, rp_buffer};
use crate::error::Failed;
use crate::name::name;
use crate::pool::{caller, rp_pool};
use crate::results::rp_results;
use crate::status::rp_status;
use engine::raw::Array;
use std::ffi::{c_char, c_void};

/// 0 lets the pool choose.
fn chosen(chunksize: usize) -> Option<usize> {
    (chunksize > 0).then_some(chunksize)
}

/// The bytes of each item.
///
/// # Safety
///
/// `items` is NULL or so many items are there, each as it says.
pub(crate) unsafe fn inputs<'a>(items: *const rp_bytes, count: usize) -> Result<Vec<&'a [u8]>, Failed> {
    // SAFETY: the caller's promise.
    let items = unsafe { slice(items, count, "items") }?;
    // SAFETY: the caller's promise.
    items.iter().map(|item| unsafe { bytes(item.data, item.size, "an item") }).collect()
}

/// The bytes of an array.
unsafe fn array<'a>(items: *const c_void, count: usize, item_size: usize) -> Result<Array<'a>, Failed> {
    if item_size == 0 {
        return Err(Failed::invalid("item_size is 0"));
    }
    let size = count.checked_mul(item_size);
    let size = size.ok_or_else(|| {
        Failed::invalid(format!("{count} items of {item_size} bytes do not fit into memory"))
    })?;
    // SAFETY: the caller's promise.
    Ok(Array { items: unsafe { bytes(items, size, "items") }?, item_size })
}

/// Runs a task for each of count items, and waits for all outputs, which are in the order of the items. If items fail, the
/// status is that of the first that failed, and there are no results; all others are run. rp_map_async() gives what
/// succeeded beside what failed.
///
/// chunksize items travel together and are run by one worker, one after the other; 0 makes four chunks for each worker. A
/// starmap is a map whose items have all arguments in them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_map(
    pool: *const rp_pool,
    task: *const c_char,
    items: *const rp_bytes,
    count: usize,
    chunksize: usize,
    results: *mut *mut rp_results,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, a string and items, as the header says.
        let (caller, name, items) = unsafe { (caller(pool)?, name(task)?, inputs(items, count)?) };
        let place = place(results, "results")?;
        let results = caller.map(name, &items, chosen(chunksize))?.get(None)?;
        if let Some(error) = results.first_error() {
            return Err(error.clone().into());
        }
        // SAFETY: the caller's place.
        unsafe { place.put(rp_results::give(results)) };
        Ok(())
    })
}

/// rp_map() that does not wait: see rp_async_results(). The items are copied before it returns. callbacks and pending may be
/// NULL, as for rp_apply_async(); for no items at all, no callback is called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_map_async(
    pool: *const rp_pool,
    task: *const c_char,
    items: *const rp_bytes,
    count: usize,
    chunksize: usize,
    callbacks: *const rp_callbacks,
    pending: *mut *mut rp_async,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, a string and items, as the header says.
        let (caller, name, items) = unsafe { (caller(pool)?, name(task)?, inputs(items, count)?) };
        // SAFETY: callbacks, as the header says.
        let callbacks = unsafe { rp_callbacks::read(callbacks) }?;
        let later = caller.map(name, &items, chosen(chunksize))?;
        // SAFETY: NULL or the caller's place.
        unsafe { rp_async::many(later, callbacks, pending) };
        Ok(())
    })
}

/// Runs a task for each of count items of item_size bytes that lie side by side, and writes the outputs, result_size bytes
/// each, side by side to results. Outputs of another size are RP_BAD_PAYLOAD. If items fail, the status is that of the first
/// that failed, and what results holds is not specified. Items and results must not overlap.
///
/// Costs one submission for each chunk and, with a task of rp_register_array(), one call for each chunk. chunksize 0 chooses
/// chunks of a quarter of each worker's share, and at most 256 KiB; the last may be smaller.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_map_array(
    pool: *const rp_pool,
    task: *const c_char,
    items: *const c_void,
    count: usize,
    item_size: usize,
    chunksize: usize,
    results: *mut c_void,
    result_size: usize,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, a string and items, as the header says.
        let (caller, name, array) = unsafe { (caller(pool)?, name(task)?, array(items, count, item_size)?) };
        let size = count.checked_mul(result_size);
        let size = size.ok_or_else(|| {
            Failed::invalid(format!("{count} results of {result_size} bytes do not fit into memory"))
        })?;
        let (from, to) = (items.addr(), results.addr());
        if size > 0
            && count > 0
            && from < to.saturating_add(size)
            && to < from.saturating_add(count * item_size)
        {
            return Err(Failed::invalid(
                "items and results overlap: results come while items are still to be read",
            ));
        }
        // SAFETY: memory of the caller, as the header says. It is written only.
        let results = unsafe { slice_mut(results.cast::<u8>(), size, "results") }?;
        caller.map_into(name, array, result_size, results, chosen(chunksize))?;
        Ok(())
    })
}

/// The same without waiting: see rp_async_results(), and rp_results_run() for results where they lie, side by side. The
/// items are copied before it returns. callbacks and pending may be NULL, as for rp_apply_async().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_map_array_async(
    pool: *const rp_pool,
    task: *const c_char,
    items: *const c_void,
    count: usize,
    item_size: usize,
    chunksize: usize,
    callbacks: *const rp_callbacks,
    pending: *mut *mut rp_async,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, a string and items, as the header says.
        let (caller, name, array) = unsafe { (caller(pool)?, name(task)?, array(items, count, item_size)?) };
        // SAFETY: callbacks, as the header says.
        let callbacks = unsafe { rp_callbacks::read(callbacks) }?;
        let later = caller.map_array(name, array, chosen(chunksize))?;
        // SAFETY: NULL or the caller's place.
        unsafe { rp_async::many(later, callbacks, pending) };
        Ok(())
    })
}

/// The same for all items of a buffer, which are not copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_map_buffer_async(
    pool: *const rp_pool,
    task: *const c_char,
    items: *const rp_buffer,
    item_size: usize,
    chunksize: usize,
    callbacks: *const rp_callbacks,
    pending: *mut *mut rp_async,
) -> rp_status {
    boundary(|| {
        // SAFETY: handles and a string, as the header says.
        let (caller, name, items) = unsafe { (caller(pool)?, name(task)?, buffer(items)?) };
        // SAFETY: callbacks, as the header says.
        let callbacks = unsafe { rp_callbacks::read(callbacks) }?;
        let later = caller.map_buffer(name, items, item_size, chosen(chunksize))?;
        // SAFETY: NULL or the caller's place.
        unsafe { rp_async::many(later, callbacks, pending) };
        Ok(())
    })
}
