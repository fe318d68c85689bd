//! Many calls in, many outputs out.

use crate::arguments::{place, reference, rp_bytes, slice, timeout};
use crate::boundary::{boundary, free};
use crate::error::Failed;
use crate::map::inputs;
use crate::name::name;
use crate::pool::{caller, rp_pool};
use crate::results::rp_results;
use crate::status::rp_status;
use engine::raw::{Input, Queue};
use std::ffi::c_char;
use std::sync::Arc;

/// Calls that are submitted by many, and whose outputs are taken by many, as they come: for calls so short that submitting
/// and taking each by itself would cost more. Any number of threads may submit and take.
pub struct rp_queue(Queue);

/// Makes a queue of a pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_queue_new(pool: *const rp_pool, queue: *mut *mut rp_queue) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let caller = unsafe { caller(pool) }?;
        let place = place(queue, "queue")?;
        let queue = caller.queue()?;
        // SAFETY: the caller's place.
        unsafe { place.put(Box::into_raw(Box::new(rp_queue(queue)))) };
        Ok(())
    })
}

/// Submits a call of a task for each of count inputs. tags has a number for each, which comes back with its output; NULL: its
/// index. Waits while all slots are taken. submitted gets how many were submitted, also on failure; it may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_queue_submit(
    queue: *const rp_queue,
    task: *const c_char,
    items: *const rp_bytes,
    tags: *const u64,
    count: usize,
    submitted: *mut usize,
) -> rp_status {
    boundary(|| {
        if let Ok(place) = place(submitted, "submitted") {
            // SAFETY: the caller's place.
            unsafe { place.put(0) }; // whatever is wrong with the rest
        }
        // SAFETY: a handle, a string and inputs, as the header says.
        let (queue, name, items) =
            unsafe { (reference(queue, "queue")?, name(task)?, inputs(items, count)?) };
        let tags = if tags.is_null() {
            None
        } else {
            // SAFETY: so many are there, as the header says.
            Some(unsafe { slice(tags, count, "tags") }?)
        };
        let calls = items.iter().enumerate().map(|(index, item)| {
            let tag = tags.map_or(index as u64, |tags| tags[index]);
            (tag, Input::Bytes(item))
        });
        let (done, result) = queue.0.submit(name, calls);
        if let Ok(place) = place(submitted, "submitted") {
            // SAFETY: the caller's place.
            unsafe { place.put(done) };
        }
        Ok(result?)
    })
}

/// Takes up to most outputs that have come, with their tags (rp_results_tag()); waits until there is one, for timeout seconds
/// at most. RP_END if no call is outstanding.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_queue_take(
    queue: *const rp_queue,
    most: usize,
    timeout: f64,
    results: *mut *mut rp_results,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let queue = unsafe { reference(queue, "queue") }?;
        let place = place(results, "results")?;
        let taken = queue.0.take(most, self::timeout(timeout))?;
        if taken.is_empty() {
            return Err(Failed::Ours(rp_status::RP_END, "no call is outstanding".to_owned()));
        }
        // SAFETY: the caller's place.
        unsafe { place.put(rp_results::give(Arc::new(taken))) };
        Ok(())
    })
}

/// Ends a queue and makes the handle NULL. Calls that no worker has started are taken back, outputs that have not been taken
/// are forgotten. NULL, and a handle that is NULL, are ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_queue_free(queue: *mut *mut rp_queue) {
    // SAFETY: a handle, as the header says.
    unsafe { free(queue) }
}
