//! Std's atomics behind types of our own: clippy can forbid the former, and a build for crash tests has
//! one place to die in.

#![expect(clippy::disallowed_types, reason = "what everybody else is to use instead is made of them")]

use super::crash_point;
pub(crate) use std::sync::atomic::Ordering;

/// Std's `fence`.
#[inline(always)]
#[cfg_attr(feature = "crash", track_caller)]
#[expect(clippy::disallowed_methods, reason = "see the types")]
pub(crate) fn fence(order: Ordering) {
    match order {
        #[cfg(target_arch = "x86_64")]
        Ordering::SeqCst => full_barrier(),
        order => std::sync::atomic::fence(order),
    }
    crash_point();
}

/// What `mfence` does for memory that is not device memory, in half the time: a locked instruction, before and after
/// which no load or store is moved (Intel's manual, volume 3A, section "Memory ordering"; AMD's, volume 2, "Read/Write
/// Barriers"). Kernels and compilers do the same.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn full_barrier() {
    // Not at the top of the stack: whoever loads what was stored there would wait for this.
    // SAFETY: it changes nothing: the word below the top of the stack, which is this thread's, stays what it is.
    unsafe { std::arch::asm!("lock or dword ptr [rsp - 64], 0", options(nostack)) };
}

macro_rules! shared_word {
    ($name:ident, $inner:path, $value:ty) => {
        /// A word of shared memory, with the operations of std's atomic of the same name.
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name($inner);

        #[allow(dead_code, reason = "each width has all operations")]
        impl $name {
            pub(crate) const fn new(value: $value) -> Self {
                Self(<$inner>::new(value))
            }

            #[inline(always)]
            #[cfg_attr(feature = "crash", track_caller)]
            pub(crate) fn load(&self, order: Ordering) -> $value {
                let value = self.0.load(order);
                crash_point();
                value
            }

            #[inline(always)]
            #[cfg_attr(feature = "crash", track_caller)]
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, order);
                crash_point();
            }

            #[inline(always)]
            #[cfg_attr(feature = "crash", track_caller)]
            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                let before = self.0.swap(value, order);
                crash_point();
                before
            }

            #[inline(always)]
            #[cfg_attr(feature = "crash", track_caller)]
            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let result = self.0.compare_exchange(current, new, success, failure);
                crash_point();
                result
            }

            #[inline(always)]
            #[cfg_attr(feature = "crash", track_caller)]
            pub(crate) fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                let before = self.0.fetch_or(value, order);
                crash_point();
                before
            }

            #[inline(always)]
            #[cfg_attr(feature = "crash", track_caller)]
            pub(crate) fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                let before = self.0.fetch_and(value, order);
                crash_point();
                before
            }

            #[inline(always)]
            #[cfg_attr(feature = "crash", track_caller)]
            pub(crate) fn fetch_max(&self, value: $value, order: Ordering) -> $value {
                let before = self.0.fetch_max(value, order);
                crash_point();
                before
            }

            /// For the kernel, which waits on the word's address.
            pub(super) fn raw(&self) -> &$inner {
                &self.0
            }
        }
    };
}

shared_word!(AtomicU32, std::sync::atomic::AtomicU32, u32);
shared_word!(AtomicU64, std::sync::atomic::AtomicU64, u64);
