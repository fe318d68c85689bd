//! Waiting in the kernel on words that other processes write (futexes without the private flag).

use super::{AtomicU32, AtomicU64};
#[cfg(not(loom))]
use kernel::{raw_wait, raw_wake};
use std::time::Duration;

/// How many sleepers a wake-up is meant for.
pub(crate) const ALL: u32 = i32::MAX as u32;

/// Sleeps while `word` holds `seen`, at most for `limit`.
///
/// Returns `false` only if the limit passed. Spurious returns are normal: the caller looks again.
#[cfg(not(loom))]
#[cfg_attr(feature = "crash", track_caller)]
pub(crate) fn wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) -> bool {
    raw_wait(word.raw(), seen, limit)
}

/// Wakes at most `count` sleepers of `word`; returns how many were asleep.
#[cfg(not(loom))]
#[cfg_attr(feature = "crash", track_caller)]
pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
    raw_wake(word.raw(), count)
}

/// [`wait`] on the low half of a 64-bit state word, which is never *accessed* as a half.
#[cfg(not(loom))]
#[cfg_attr(feature = "crash", track_caller)]
pub(crate) fn wait_low(word: &AtomicU64, seen: u64, limit: Option<Duration>) -> bool {
    raw_wait(kernel::low_half(word), seen as u32, limit)
}

/// [`wake`] for sleepers of [`wait_low`].
#[cfg(not(loom))]
#[cfg_attr(feature = "crash", track_caller)]
pub(crate) fn wake_low(word: &AtomicU64, count: u32) -> usize {
    raw_wake(kernel::low_half(word), count)
}

#[cfg(not(loom))]
mod kernel {
    #![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the one door to them")]

    use crate::sync::{AtomicU64, crash_point};
    use rustix::io::Errno;
    use rustix::thread::futex;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    pub(super) fn low_half(word: &AtomicU64) -> &AtomicU32 {
        const { assert!(cfg!(target_endian = "little"), "the low half comes first only on little-endian") };
        // SAFETY: inside the same live object, aligned for u32; only its address goes to the kernel,
        // no Rust access of this size is ever made.
        unsafe { &*std::ptr::from_ref(word.raw()).cast::<AtomicU32>() }
    }

    #[cfg_attr(feature = "crash", track_caller)]
    pub(super) fn raw_wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) -> bool {
        let limit = limit
            .map(|d| futex::Timespec { tv_sec: d.as_secs() as i64, tv_nsec: i64::from(d.subsec_nanos()) });
        let result = futex::wait(word, futex::Flags::empty(), seen, limit.as_ref());
        crash_point();
        !matches!(result, Err(Errno::TIMEDOUT))
    }

    #[cfg_attr(feature = "crash", track_caller)]
    pub(super) fn raw_wake(word: &AtomicU32, count: u32) -> usize {
        let woken = futex::wake(word, futex::Flags::empty(), count).unwrap_or(0);
        crash_point();
        woken
    }
}

// Under loom a sleeper polls: a lost wake-up shows as a loop that never ends, which loom reports. As in the
// kernel, the sleeper learns nothing about other words.
#[cfg(loom)]
pub(crate) fn wait(word: &AtomicU32, seen: u32, _limit: Option<Duration>) -> bool {
    while word.load(super::Ordering::Relaxed) == seen {
        super::spin_loop();
    }
    true
}

#[cfg(loom)]
pub(crate) fn wake(_word: &AtomicU32, _count: u32) -> usize {
    1
}

#[cfg(loom)]
pub(crate) fn wait_low(word: &AtomicU64, seen: u64, _limit: Option<Duration>) -> bool {
    while word.load(super::Ordering::Relaxed) as u32 == seen as u32 {
        super::spin_loop();
    }
    true
}

#[cfg(loom)]
pub(crate) fn wake_low(_word: &AtomicU64, _count: u32) -> usize {
    1
}
