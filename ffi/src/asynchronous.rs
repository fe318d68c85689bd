//! Outputs that come later.

use crate::arguments::{place, reference, timeout};
use crate::boundary::{boundary, free, quiet};
use crate::error::{Failed, Kept, rp_error};
use crate::result::rp_result;
use crate::results::rp_results;
use crate::status::rp_status;
use engine::Error;
use engine::raw::{MapPending, Pending};
use std::ffi::c_void;

/// What is called when an output has come. All of a pool's callbacks run on one thread of their own, which does nothing else,
/// one after the other; rp_pool_join() waits for them. They may use the pool, but not join or free it. C++ exceptions must
/// not leave them: the program would abort.
///
/// Later versions append fields; size says which of them the program knows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rp_callbacks {
    /// sizeof(rp_callbacks).
    pub size: usize,
    /// Passed to each of them.
    pub userdata: *mut c_void,
    /// The output of a call, which is good during the call back only. May be NULL.
    pub result: Option<unsafe extern "C-unwind" fn(userdata: *mut c_void, data: *const c_void, size: usize)>,
    /// The outputs of a map, once, if no item failed; good during the call back only. May be NULL.
    pub results: Option<unsafe extern "C-unwind" fn(userdata: *mut c_void, results: *const rp_results)>,
    /// The failure of a call, or of the first item of a map that failed; good during the call back only. May be NULL.
    pub error: Option<unsafe extern "C-unwind" fn(userdata: *mut c_void, error: *const rp_error)>,
}

// SAFETY: whoever sets callbacks is told that they run on another thread.
unsafe impl Send for rp_callbacks {}

impl rp_callbacks {
    /// Those at a pointer, if there are any.
    ///
    /// # Safety
    ///
    /// NULL, or as many bytes as the first word says.
    pub(crate) unsafe fn read(callbacks: *const rp_callbacks) -> Result<Option<Self>, Failed> {
        if callbacks.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's promise.
        let size = unsafe { callbacks.cast::<usize>().read_unaligned() };
        // Fields that are not known here would never be called.
        if size != size_of::<Self>() {
            return Err(Failed::invalid(format!(
                "the callbacks say that they have {size} bytes, not sizeof(rp_callbacks): {}",
                size_of::<Self>()
            )));
        }
        // SAFETY: so many bytes are there; functions are those of C, or NULL.
        Ok(Some(unsafe { callbacks.read_unaligned() }))
    }

    fn fail(&self, error: &Error) {
        if let Some(call) = self.error {
            let kept = Kept::of(error);
            // SAFETY: C's function, with what it is to get.
            unsafe { call(self.userdata, kept.shown()) };
        }
    }
}

/// The output of a call, or the outputs of a map, now or later. Any number of threads may ask for it.
pub struct rp_async(Later);

enum Later {
    One(Pending),
    Many(MapPending),
}

impl rp_async {
    /// Has callbacks called, and gives C what it can wait for.
    ///
    /// # Safety
    ///
    /// `place` is NULL or may be written.
    pub(crate) unsafe fn one(pending: Pending, callbacks: Option<rp_callbacks>, place: *mut *mut rp_async) {
        let pending = match callbacks {
            None => pending,
            Some(callbacks) => pending.then(move |output| {
                let callbacks = callbacks; // whole, so that it is `Send`
                match output {
                    Ok(bytes) => {
                        if let Some(call) = callbacks.result {
                            // SAFETY: C's function, with what it is to get.
                            unsafe { call(callbacks.userdata, bytes.as_ptr().cast(), bytes.len()) };
                        }
                    }
                    Err(error) => callbacks.fail(&error),
                }
            }),
        };
        // SAFETY: the caller's promise.
        unsafe { Self::give(Later::One(pending), place) };
    }

    /// The same for a map.
    ///
    /// # Safety
    ///
    /// As above.
    pub(crate) unsafe fn many(
        pending: MapPending,
        callbacks: Option<rp_callbacks>,
        place: *mut *mut rp_async,
    ) {
        let pending = match callbacks {
            None => pending,
            Some(callbacks) => pending.then(move |results| {
                let callbacks = callbacks;
                match results.first_error() {
                    None => {
                        if let Some(call) = callbacks.results {
                            // SAFETY: C's function, with what it is to get.
                            unsafe { call(callbacks.userdata, &rp_results(results)) };
                        }
                    }
                    Some(error) => callbacks.fail(error),
                }
            }),
        };
        // SAFETY: the caller's promise.
        unsafe { Self::give(Later::Many(pending), place) };
    }

    fn check_process(&self) -> Result<(), Failed> {
        match &self.0 {
            Later::One(pending) => pending.check_process()?,
            Later::Many(pending) => pending.check_process()?,
        }
        Ok(())
    }

    unsafe fn give(later: Later, out: *mut *mut rp_async) {
        if let Ok(place) = place(out, "pending") {
            // SAFETY: the caller's promise.
            unsafe { place.put(Box::into_raw(Box::new(rp_async(later)))) };
        }
    }
}

/// Waits until all that was asked for is done, well or badly; RP_TIMEOUT if that takes more than timeout seconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_async_wait(pending: *const rp_async, timeout: f64) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let later = unsafe { reference(pending, "pending") }?;
        later.check_process()?;
        let limit = self::timeout(timeout);
        let done = match &later.0 {
            Later::One(pending) => pending.wait(limit),
            Later::Many(pending) => pending.wait(limit),
        };
        if done {
            return Ok(());
        }
        Err(Failed::Ours(rp_status::RP_TIMEOUT, format!("it is not done within {timeout} seconds")))
    })
}

/// Waits for the output of a call, for timeout seconds at most: the status of the call. Ask as often as you like.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_async_get(
    pending: *const rp_async,
    timeout: f64,
    result: *mut *mut rp_result,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let later = unsafe { reference(pending, "pending") }?;
        let place = place(result, "result")?;
        let Later::One(pending) = &later.0 else {
            return Err(Failed::invalid("a map has many results: use rp_async_results"));
        };
        let bytes = pending.get(self::timeout(timeout))?;
        // SAFETY: the caller's place.
        unsafe { place.put(rp_result::give(bytes)) };
        Ok(())
    })
}

/// Waits for all outputs of a map, for timeout seconds at most. RP_OK means that they are there, each good or failed by
/// itself. Ask as often as you like.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_async_results(
    pending: *const rp_async,
    timeout: f64,
    results: *mut *mut rp_results,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let later = unsafe { reference(pending, "pending") }?;
        let place = place(results, "results")?;
        let Later::Many(pending) = &later.0 else {
            return Err(Failed::invalid("a single call has one result: use rp_async_get"));
        };
        let results = pending.get(self::timeout(timeout))?;
        // SAFETY: the caller's place.
        unsafe { place.put(rp_results::give(results)) };
        Ok(())
    })
}

/// Whether all that was asked for is done, well or badly. Not NULL's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_async_ready(pending: *const rp_async) -> bool {
    quiet(false, || {
        // SAFETY: a handle, as the header says.
        let later = unsafe { pending.as_ref() };
        later.is_some_and(|later| match &later.0 {
            Later::One(pending) => pending.ready(),
            Later::Many(pending) => pending.ready(),
        })
    })
}

/// Whether the call, or all items of the map, succeeded. RP_NOT_READY if it is not done.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_async_successful(pending: *const rp_async, successful: *mut bool) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let later = unsafe { reference(pending, "pending") }?;
        let place = place(successful, "successful")?;
        later.check_process()?;
        let known = match &later.0 {
            Later::One(pending) => pending.successful(),
            Later::Many(pending) => pending.successful(),
        };
        let known =
            known.ok_or_else(|| Failed::Ours(rp_status::RP_NOT_READY, "it is not done".to_owned()))?;
        // SAFETY: the caller's place.
        unsafe { place.put(known) };
        Ok(())
    })
}

/// Takes back what no worker has started: the call, or some chunks of the map, which then fail with RP_CANCELLED. cancelled
/// says whether there was any; it may be NULL. A task that runs goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_async_cancel(pending: *const rp_async, cancelled: *mut bool) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let later = unsafe { reference(pending, "pending") }?;
        later.check_process()?;
        let any = match &later.0 {
            Later::One(pending) => pending.cancel(),
            Later::Many(pending) => pending.cancel(),
        };
        if let Ok(place) = place(cancelled, "cancelled") {
            // SAFETY: the caller's place.
            unsafe { place.put(any) };
        }
        Ok(())
    })
}

/// Forgets the output and makes the handle NULL. The task is run all the same, and callbacks are called. NULL, and a handle
/// that is NULL, are ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_async_free(pending: *mut *mut rp_async) {
    // SAFETY: a handle, as the header says.
    unsafe { free(pending) }
}
