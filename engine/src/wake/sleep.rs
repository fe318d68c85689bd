//! A word to sleep on until somebody publishes something, whatever it is.

use crate::sync::{AtomicU32, Ordering, fence, fence_behind_rmw, futex};
use std::time::Duration;

/// A futex whose lowest bit says that somebody sleeps, or is about to.
///
/// | who sleeps | where | until |
/// | --- | --- | --- |
/// | threads of the client | the client's `sleep` | a completion, or a reap |
/// | a process without payload memory | its `starved` | a block of its own is given back |
///
/// Sleepers announce, look once more, and sleep; publishers publish, then wake. Of the two fences one
/// comes first, so either the last look sees the news or the publisher sees the announcement. Whoever
/// takes the bit down owes the wake-up; if it dies before, the reap that follows wakes all.
#[derive(Clone, Copy)]
pub(crate) struct SleepWord<'a>(pub &'a AtomicU32);

impl SleepWord<'_> {
    const ASLEEP: u32 = 1;

    /// Announces a sleeper; the caller looks for news once more and then [sleeps](Self::sleep) on the
    /// value returned, or [withdraws](Self::withdraw). Where several may sleep, `epoch` differs each time,
    /// so that no later sleeper makes an earlier one sleep on. Its lowest bit is not used.
    #[must_use]
    pub(crate) fn announce(self, epoch: u32) -> u32 {
        let value = epoch | Self::ASLEEP;
        self.0.store(value, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the fences in the three functions that wake
        value
    }

    /// Sleeps while nobody has changed the word since it was announced; `false` if `limit` passed.
    pub(crate) fn sleep(self, announced: u32, limit: Duration) -> bool {
        futex::wait(self.0, announced, Some(limit))
    }

    /// Nobody sleeps any more. It is the last sleeper who says so.
    pub(crate) fn withdraw(self) {
        self.0.fetch_and(!Self::ASLEEP, Ordering::Relaxed);
    }

    /// Wakes all who sleep, if any do. The caller has published its news.
    #[inline]
    pub(crate) fn wake_sleepers(self) {
        fence(Ordering::SeqCst); // pairs with the fence in `announce`
        self.wake_announced();
    }

    /// The same behind a read-modify-write that followed the publishing, with no shared store in between.
    #[inline]
    pub(crate) fn wake_sleepers_behind_rmw(self) {
        fence_behind_rmw(); // pairs with the fence in `announce`
        self.wake_announced();
    }

    #[inline]
    fn wake_announced(self) {
        if self.0.load(Ordering::Relaxed) & Self::ASLEEP != 0
            && self.0.fetch_and(!Self::ASLEEP, Ordering::AcqRel) & Self::ASLEEP != 0
        {
            futex::wake(self.0, futex::ALL);
        }
    }

    /// Wakes all whatever the word says: whoever took the bit down may have died, or be stopped, before
    /// it woke anybody.
    pub(crate) fn wake_always(self) {
        fence(Ordering::SeqCst); // pairs with the fence in `announce`
        self.0.fetch_and(!Self::ASLEEP, Ordering::Release);
        futex::wake(self.0, futex::ALL);
    }
}
