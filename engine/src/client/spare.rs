//! The memory of arguments that was given back last, at hand for the next call.
//!
//! Who makes one call after the other takes and gives back the same block all the time: by this, without the
//! arena's lock.

use super::args::Kept;
use super::books::Key;
use crate::sync::private::{Private, PrivatePtr};
use std::ptr::null_mut;

/// Room for one box, whose block is [cleared](Kept).
///
/// Null as long as there is none. Who holds the books makes it something else, and anybody makes it null.
#[derive(Default)]
pub(super) struct Spare(PrivatePtr<Kept>);

impl Spare {
    /// Keeps a box, or hands it back if there is one.
    #[inline]
    pub(super) fn put(&self, kept: Box<Kept>, _books: &mut Key) -> Option<Box<Kept>> {
        if !self.0.load(Private::Relaxed).is_null() {
            return Some(kept);
        }
        // Nobody else can have put one there meanwhile. Release pairs with `take`.
        self.0.store(Box::into_raw(kept), Private::Release);
        None
    }

    /// The box, if there is one.
    #[inline]
    pub(super) fn take(&self) -> Option<Box<Kept>> {
        if self.0.load(Private::Relaxed).is_null() {
            return None;
        }
        let kept = self.0.swap(null_mut(), Private::Acquire); // pairs with `put`
        // SAFETY: all pointers there are boxes, and only one thread gets each.
        (!kept.is_null()).then(|| unsafe { Box::from_raw(kept) })
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        drop(self.take());
    }
}

// SAFETY: it owns a box that can be sent.
unsafe impl Send for Spare where Box<Kept>: Send {}
// SAFETY: as above; threads can only take and put it.
unsafe impl Sync for Spare where Box<Kept>: Send {}
