//! Names of tasks, which C passes with each call.

use crate::arguments::text;
use crate::error::Failed;
use engine::raw::Name;
use std::cell::Cell;
use std::ffi::{CStr, c_char};

/// How many names each thread remembers.
const KNOWN: usize = 8;

thread_local! {
    /// By the addresses of their texts, which are mostly literals.
    static NAMES: [Cell<Option<Name>>; KNOWN] = const { [const { Cell::new(None) }; KNOWN] };
}

/// The name that a string says.
///
/// # Safety
///
/// `name` is NULL or a string that ends with a zero.
#[inline]
pub(crate) unsafe fn name(name: *const c_char) -> Result<Name, Failed> {
    if name.is_null() {
        return Err(Failed::null("name"));
    }
    let at = (name.addr() >> 2) % KNOWN;
    let known = NAMES.try_with(|names| names[at].get()).ok().flatten();
    // SAFETY: not NULL; the caller promises the rest.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    match known {
        // The same address may hold another text now.
        Some(known) if known.as_str().as_bytes() == bytes => Ok(known),
        // SAFETY: the caller's promise.
        _ => unsafe { look_up(name, at) },
    }
}

#[cold]
unsafe fn look_up(name: *const c_char, at: usize) -> Result<Name, Failed> {
    // SAFETY: the caller's promise.
    let name = Name::new(unsafe { text(name, "name") }?)?;
    let _ = NAMES.try_with(|names| names[at].set(Some(name)));
    Ok(name)
}
