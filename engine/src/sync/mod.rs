//! The one door to words that processes share: atomics, fences and futexes.
//!
//! | build | words are | after every access |
//! | --- | --- | --- |
//! | plain | std's atomics, wrapped | nothing: the wrappers vanish |
//! | feature `crash` | the same | the process may kill or stop itself, as a test has told it: see `crash.rs` |
//! | `--cfg loom` | loom's, wrapped | loom runs every interleaving and reordering; a test may weaken an access: see `weak.rs` |
//!
//! Nothing else in this crate names std's atomics (clippy sees to that): words of one process alone
//! are in [`private`].

#[cfg(feature = "crash")]
pub mod crash;
pub(crate) mod futex;
pub(crate) mod private;
#[cfg(loom)]
pub(crate) mod weak;
#[cfg(not(loom))]
mod words;

#[cfg(loom)]
pub(crate) use weak::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use words::{AtomicU32, AtomicU64, Ordering, fence};

/// A place where a process may die, behind an access that is no atomic one.
#[inline(always)]
#[cfg_attr(feature = "crash", track_caller)]
pub(crate) fn crash_point() {
    #[cfg(feature = "crash")]
    crash::point();
}

/// How long to sleep where only a stopped peer can make a timer necessary: without one, tests show that
/// nothing else relies on it.
#[inline(always)]
pub(crate) fn back_stop(limit: std::time::Duration) -> std::time::Duration {
    #[cfg(feature = "crash")]
    if crash::timers_are_off() {
        return std::time::Duration::from_secs(1 << 20);
    }
    limit
}

/// Whether workers look into each other's windows. Old hints there often name a slot that is used again, and hide that
/// nobody was woken for it: without them, tests show that wake-ups alone are enough.
#[inline(always)]
pub(crate) fn may_steal() -> bool {
    #[cfg(feature = "crash")]
    if crash::stealing_is_off() {
        return false;
    }
    true
}

/// Tells the core that this is a spin loop (and loom that another thread must run).
#[inline(always)]
pub(crate) fn spin_loop() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}

/// A `fence(SeqCst)` behind a read-modify-write of the same thread, with no store to shared memory in between.
///
/// On x86 every such instruction is a full barrier itself (Intel's manual, volume 3A, section "Memory ordering": loads
/// and stores are not reordered with locked instructions), so that only the compiler has to be told.
#[inline(always)]
#[cfg_attr(any(feature = "crash", loom), track_caller)]
pub(crate) fn fence_behind_rmw() {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    fence(Ordering::SeqCst);
}

/// Begins to fetch the line of `word`, to be written: what a worker will change is not fetched for reading first.
#[inline(always)]
pub(crate) fn prefetch_to_write(word: &AtomicU64) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    // SAFETY: a hint, which changes nothing and faults nowhere.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) std::ptr::from_ref(word), options(nostack, preserves_flags, readonly))
    };
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    let _ = word;
}

/// Begins to fetch memory that a payload will be written to.
#[inline(always)]
pub(crate) fn prefetch_payload_to_write(start: *const u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    for at in (0..len.min(FETCHED)).step_by(64) {
        // SAFETY: a hint, which changes nothing and faults nowhere.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) start.wrapping_add(at), options(nostack, preserves_flags, readonly))
        };
    }
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    let _ = (start, len);
}

/// Bytes of a payload that [`prefetch_payload`] fetches at most; processors have some ten or twenty lines on their way
/// at a time.
const FETCHED: usize = 2048;

/// Begins to fetch a payload, to be read: its end, where the root of an archive lies, and what comes first, where the
/// root points to. Otherwise the second would wait for the first.
#[inline(always)]
pub(crate) fn prefetch_payload(start: *const u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let fetch = |at: usize| {
            // SAFETY: a hint, which changes nothing and faults nowhere.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(at).cast()) }
        };
        fetch(len.saturating_sub(1));
        (0..len.min(FETCHED)).step_by(64).for_each(fetch);
    }
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    let _ = (start, len);
}
