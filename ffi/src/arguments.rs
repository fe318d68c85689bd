//! Reading what C passes.

use crate::error::Failed;
use std::ffi::{CStr, c_char, c_void};
use std::time::Duration;

/// Some bytes, wherever they are. Size 0 goes with any pointer.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rp_bytes {
    /// Where they begin.
    pub data: *const c_void,
    /// How many they are.
    pub size: usize,
}

/// Wait for ever: a timeout that never passes. Any negative number is as good.
#[allow(dead_code)] // for the header
pub const RP_FOREVER: f64 = -1.0;

/// A reference to what a handle stands for.
///
/// # Safety
///
/// `pointer` is NULL or good for as long as the reference is used.
#[inline]
pub(crate) unsafe fn reference<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failed> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failed::null(what))
}

/// A slice of `count` items.
///
/// # Safety
///
/// `data` is NULL or so many items are there, as long as the slice is used.
#[inline]
pub(crate) unsafe fn slice<'a, T>(data: *const T, count: usize, what: &str) -> Result<&'a [T], Failed> {
    check_size::<T>(count, what)?;
    if count == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Failed::null(what));
    }
    if !data.is_aligned() {
        return Err(Failed::invalid(format!("{what} is not aligned to {} bytes", align_of::<T>())));
    }
    // SAFETY: not NULL, aligned, no larger than an address space; the caller promises the rest.
    Ok(unsafe { std::slice::from_raw_parts(data, count) })
}

/// The same to be written.
///
/// # Safety
///
/// As [`slice`], and nobody else uses them meanwhile; they are initialized, or bytes, of which that is said to be so.
pub(crate) unsafe fn slice_mut<'a, T>(data: *mut T, count: usize, what: &str) -> Result<&'a mut [T], Failed> {
    check_size::<T>(count, what)?;
    if count == 0 {
        return Ok(&mut []);
    }
    if data.is_null() {
        return Err(Failed::null(what));
    }
    if !data.is_aligned() {
        return Err(Failed::invalid(format!("{what} is not aligned to {} bytes", align_of::<T>())));
    }
    // SAFETY: as in `slice`.
    Ok(unsafe { std::slice::from_raw_parts_mut(data, count) })
}

#[inline]
fn check_size<T>(count: usize, what: &str) -> Result<(), Failed> {
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Failed::invalid(format!(
            "{what}: {count} of {} bytes do not fit into memory",
            size_of::<T>()
        )));
    }
    Ok(())
}

/// The bytes of an input.
///
/// # Safety
///
/// As [`slice`].
#[inline]
pub(crate) unsafe fn bytes<'a>(data: *const c_void, size: usize, what: &str) -> Result<&'a [u8], Failed> {
    // SAFETY: the caller's promise.
    unsafe { slice(data.cast(), size, what) }
}

/// Where an output is to be written.
#[inline]
pub(crate) fn place<T>(out: *mut T, what: &str) -> Result<Place<T>, Failed> {
    if out.is_null() { Err(Failed::null(what)) } else { Ok(Place(out)) }
}

/// A place for an output, not NULL.
pub(crate) struct Place<T>(*mut T);

impl<T> Place<T> {
    /// Writes the output. What was there before is C's, and not dropped.
    ///
    /// # Safety
    ///
    /// The pointer that the place was made of may be written.
    #[inline]
    pub(crate) unsafe fn put(self, value: T) {
        // SAFETY: the caller's promise. C may have placed it anywhere.
        unsafe { self.0.write_unaligned(value) }
    }
}

/// Text that must be UTF-8.
///
/// # Safety
///
/// `text` is NULL or a string that ends with a zero, and does not change as long as it is used.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failed> {
    if text.is_null() {
        return Err(Failed::null(what));
    }
    // SAFETY: not NULL; the caller promises the rest.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failed::invalid(format!("{what} is no UTF-8: {}", text.to_string_lossy())))
}

/// How long a number of seconds is; `None` is for ever.
#[inline]
pub(crate) fn timeout(seconds: f64) -> Option<Duration> {
    if seconds >= 0.0 { Duration::try_from_secs_f64(seconds).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(timeout(0.0), Some(Duration::ZERO));
        assert_eq!(timeout(-0.0), Some(Duration::ZERO));
        assert_eq!(timeout(1.5), Some(Duration::from_millis(1500)));
        for forever in [RP_FOREVER, -1e-9, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert_eq!(timeout(forever), None, "{forever}");
        }
    }
}
