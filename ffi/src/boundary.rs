//! What every exported function does at its ends.

use crate::error::{Failed, keep};
use crate::status::rp_status;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the body of an exported function; its failure is kept and becomes the status.
///
/// A panic becomes one, too. The engine's locks stand that; what the body itself was at is dropped.
#[inline]
pub(crate) fn boundary(body: impl FnOnce() -> Result<(), Failed>) -> rp_status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => rp_status::RP_OK,
        Ok(Err(failed)) => keep(&failed),
        Err(payload) => bug(payload),
    }
}

#[cold]
fn bug(payload: Box<dyn std::any::Any + Send>) -> rp_status {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text");
    let failed = Failed::Ours(rp_status::RP_BUG, format!("a bug in the library: {text}"));
    std::mem::forget(payload); // its drop might panic in turn
    keep(&failed)
}

/// The same for functions that return nothing, or a value that says all: on a panic, `otherwise`.
#[inline]
pub(crate) fn quiet<R>(otherwise: R, body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        bug(payload);
        otherwise
    })
}

/// Ends the object behind a handle and makes the handle NULL, so that it can be freed again.
///
/// # Safety
///
/// `handle` is NULL, or points to a pointer that is NULL or was given out by `Box::into_raw` of a `T`, and nobody uses
/// the object.
pub(crate) unsafe fn free<T>(handle: *mut *mut T) {
    // SAFETY: the caller's promise.
    let Some(handle) = (unsafe { handle.as_mut() }) else { return };
    let object = std::mem::replace(handle, std::ptr::null_mut());
    if !object.is_null() {
        // SAFETY: the caller's promise; this is the only time, as the handle is NULL now.
        quiet((), || drop(unsafe { Box::from_raw(object) }));
    }
}
