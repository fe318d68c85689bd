//! The one door to shared words: atomics, fences and futexes.
//!
//! Everything in this crate that several processes write goes through these types, so that a
//! build with `--cfg loom` replaces them by loom's and checks every interleaving.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Tells the core that this is a spin loop (and loom that another thread must run).
#[inline(always)]
pub(crate) fn spin_loop() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}

/// Waiting in the kernel on words that other processes write (futexes without the private flag).
pub(crate) mod futex {
    use super::{AtomicU32, AtomicU64};
    use std::time::Duration;

    /// How many sleepers a wake-up is meant for.
    pub(crate) const ALL: u32 = i32::MAX as u32;

    /// Sleeps while `word` holds `seen`, at most for `limit`.
    ///
    /// Returns `false` only if the limit passed. Spurious returns are normal: the caller looks again.
    #[cfg(not(loom))]
    pub(crate) fn wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) -> bool {
        raw_wait(word, seen, limit)
    }

    /// Wakes at most `count` sleepers of `word`; returns how many were asleep.
    #[cfg(not(loom))]
    pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
        raw_wake(word, count)
    }

    /// [`wait`] on the low half of a 64-bit state word, which is never *accessed* as a half.
    #[cfg(not(loom))]
    pub(crate) fn wait_low(word: &AtomicU64, seen: u64, limit: Option<Duration>) -> bool {
        raw_wait(low_half(word), seen as u32, limit)
    }

    /// [`wake`] for sleepers of [`wait_low`].
    #[cfg(not(loom))]
    pub(crate) fn wake_low(word: &AtomicU64, count: u32) -> usize {
        raw_wake(low_half(word), count)
    }

    #[cfg(not(loom))]
    fn low_half(word: &AtomicU64) -> &AtomicU32 {
        const { assert!(cfg!(target_endian = "little"), "the low half comes first only on little-endian") };
        // SAFETY: inside the same live object, aligned for u32; only its address goes to the kernel,
        // no Rust access of this size is ever made.
        unsafe { &*std::ptr::from_ref(word).cast::<AtomicU32>() }
    }

    #[cfg(not(loom))]
    fn raw_wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) -> bool {
        use rustix::io::Errno;
        use rustix::thread::futex;
        let limit = limit
            .map(|d| futex::Timespec { tv_sec: d.as_secs() as i64, tv_nsec: i64::from(d.subsec_nanos()) });
        !matches!(futex::wait(word, futex::Flags::empty(), seen, limit.as_ref()), Err(Errno::TIMEDOUT))
    }

    #[cfg(not(loom))]
    fn raw_wake(word: &AtomicU32, count: u32) -> usize {
        rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), count).unwrap_or(0)
    }

    // Under loom a sleeper polls: a lost wake-up shows as a loop that never ends, which loom reports.
    #[cfg(loom)]
    pub(crate) fn wait(word: &AtomicU32, seen: u32, _limit: Option<Duration>) -> bool {
        while word.load(super::Ordering::Acquire) == seen {
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
        while word.load(super::Ordering::Acquire) as u32 == seen as u32 {
            super::spin_loop();
        }
        true
    }

    #[cfg(loom)]
    pub(crate) fn wake_low(_word: &AtomicU64, _count: u32) -> usize {
        1
    }
}
