//! The outputs of many calls.

use crate::arguments::{place, reference};
use crate::boundary::{boundary, free, quiet};
use crate::error::Failed;
use crate::status::rp_status;
use engine::raw::Results;
use std::ffi::c_void;
use std::sync::Arc;

/// Outputs of many calls, where they lie, each good or failed by itself. Good until rp_results_free(), also after the pool
/// has gone. Any number of threads may look at them.
pub struct rp_results(pub(crate) Arc<Results>);

impl rp_results {
    pub(crate) fn give(results: Arc<Results>) -> *mut rp_results {
        Box::into_raw(Box::new(rp_results(results)))
    }
}

fn outside(index: usize, count: usize) -> Failed {
    Failed::invalid(format!("there is no result {index} among {count}"))
}

/// How many there are; 0 if it is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_results_count(results: *const rp_results) -> usize {
    // SAFETY: a handle, as the header says.
    quiet(0, || unsafe { results.as_ref() }.map_or(0, |results| results.0.len()))
}

/// One output; or its failure, as the status that this returns, of which rp_last_error() says more. data and size may be
/// NULL for who wants to know that only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_results_get(
    results: *const rp_results,
    index: usize,
    data: *mut *const c_void,
    size: *mut usize,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let results = &unsafe { reference(results, "results") }?.0;
        let bytes = results.get(index).ok_or_else(|| outside(index, results.len()))?;
        let bytes = bytes.map_err(|error| error.clone())?;
        // SAFETY: the caller's places.
        unsafe {
            if let Ok(data) = place(data, "data") {
                data.put(bytes.as_ptr().cast());
            }
            if let Ok(size) = place(size, "size") {
                size.put(bytes.len());
            }
        }
        Ok(())
    })
}

/// The outputs from one on that are equally long and lie side by side: where they begin, how many they are, and the size of
/// each. Or the failure of the first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_results_run(
    results: *const rp_results,
    index: usize,
    data: *mut *const c_void,
    count: *mut usize,
    item_size: *mut usize,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let results = &unsafe { reference(results, "results") }?.0;
        let (data, count, item_size) =
            (place(data, "data")?, place(count, "count")?, place(item_size, "item_size")?);
        let run = results.run_at(index).ok_or_else(|| outside(index, results.len()))?;
        let (bytes, size) = run.map_err(|error| error.clone())?;
        // SAFETY: the caller's places.
        unsafe {
            data.put(bytes.as_ptr().cast());
            count.put(results.run_len(index));
            item_size.put(size);
        }
        Ok(())
    })
}

/// The tag with which the call was submitted to its queue. RP_INVALID for results that are not from a queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_results_tag(
    results: *const rp_results,
    index: usize,
    tag: *mut u64,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let results = &unsafe { reference(results, "results") }?.0;
        let place = place(tag, "tag")?;
        let tag = results.tag(index).ok_or_else(|| match index < results.len() {
            true => Failed::invalid("these results are not from a queue: they have no tags"),
            false => outside(index, results.len()),
        })?;
        // SAFETY: the caller's place.
        unsafe { place.put(tag) };
        Ok(())
    })
}

/// Gives the outputs back and makes the handle NULL. NULL, and a handle that is NULL, are ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_results_free(results: *mut *mut rp_results) {
    // SAFETY: a handle, as the header says.
    unsafe { free(results) }
}
