//! The output of one call.

use crate::boundary::free;
use engine::raw::Bytes;
use std::ffi::c_void;

/// The output of a call, where it lies: nothing is copied. Good until rp_result_free(), also after its pool has gone.
///
/// Later versions may append fields.
#[repr(C)]
pub struct rp_result {
    /// Where it begins; not NULL. Not to be written. Aligned to 16 bytes if it is longer than 8, else to 8; but within
    /// a chunk of several items to the items' size only.
    pub data: *const c_void,
    /// How many bytes it has.
    pub size: usize,
}

/// An [`rp_result`], and what keeps its bytes.
#[repr(C)]
struct Held {
    shown: rp_result,
    bytes: Bytes,
}

impl rp_result {
    /// What C frees.
    #[inline]
    pub(crate) fn give(bytes: Bytes) -> *mut rp_result {
        let shown = rp_result { data: std::ptr::null(), size: 0 };
        let mut held = Box::new(Held { shown, bytes });
        // Short ones lie in the box.
        let seen: &[u8] = &held.bytes;
        let (data, size) = (seen.as_ptr().cast(), seen.len());
        held.shown = rp_result { data, size };
        Box::into_raw(held).cast()
    }
}

/// Gives an output back and makes the handle NULL. NULL, and a handle that is NULL, are ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_result_free(result: *mut *mut rp_result) {
    // SAFETY: a result that `give` made: the start of a `Held`.
    unsafe { free(result.cast::<*mut Held>()) }
}
