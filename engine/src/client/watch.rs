//! The looks that a pool's supervisor takes at a busy pool, besides those of threads that wait for results.
//!
//! Nobody may be waiting for a task, or only ask now and then whether it is done: then a peer that was stopped in the
//! middle of a wake-up is noticed by nobody else. A pool at rest has nothing to be looked at, and no timer runs:
//! whoever submits to it starts the watch again, which costs that one a system call and wakes nobody.

use super::Client;
use crate::segment::LANES;
use crate::sync::back_stop;
use crate::sync::private::{Private, PrivateBool};
use crate::sys::Timer;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Duration;

/// The first look after a pool has become busy, and each as long as tasks come and go: the look that finds no task
/// comes no later than this after the last.
const FIRST: Duration = Duration::from_millis(8);
/// Twice as long each time that nothing has changed, until here.
const LAST: Duration = Duration::from_secs(1);

/// When to look, and whether to.
#[derive(Default)]
pub(super) struct Watch {
    /// `None` as long as nobody looks by it.
    timer: OnceLock<Timer>,
    /// No task is in flight, and the timer does not run. Set and taken down under the books' lock.
    off: PrivateBool,
    /// It runs for longer than [`FIRST`].
    slow: PrivateBool,
}

/// What a look found.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sight {
    tails: [u64; LANES],
    in_flight: usize,
    pause: Duration,
}

impl Watch {
    /// Whoever submits, under the books' lock, begins the watch.
    #[inline]
    pub(super) fn note_work(&self) {
        if self.off.load(Private::Relaxed) {
            self.begin();
        }
    }

    #[cold]
    fn begin(&self) {
        self.off.store(false, Private::Relaxed);
        self.set(FIRST);
    }

    fn set(&self, pause: Duration) {
        self.slow.store(pause > FIRST, Private::Relaxed);
        if let Some(timer) = self.timer.get() {
            timer.set(back_stop(pause));
        }
    }
}

impl Client {
    /// From now on `timer` tells when to [look around](Self::look_around).
    pub(crate) fn watch_by(&self, timer: Timer) {
        let _state = self.lock();
        if self.watch.timer.set(timer).is_ok() {
            self.watch.set(FIRST);
        }
    }

    /// Readable when it is time to [look around](Self::look_around); `None` if nobody has a timer.
    pub(crate) fn watch_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.timer.get().map(Timer::as_fd)
    }

    /// To be called when the timer says so: has it say so again as long as there are tasks. `last` is what was
    /// seen the last time; without tasks it is the default. The slots are not [looked at](Self::look_behind).
    pub(crate) fn look_around(&self, last: Sight) -> Sight {
        let state = self.lock();
        if state.in_flight == 0 {
            if let Some(timer) = self.watch.timer.get() {
                timer.stop();
            }
            self.watch.off.store(true, Private::Relaxed);
            return Sight::default();
        }
        let mut sight = Sight { tails: state.tail, in_flight: state.in_flight, pause: last.pause };
        sight.pause = if sight == last { (last.pause * 2).clamp(FIRST, LAST) } else { FIRST };
        self.watch.set(sight.pause);
        sight
    }

    /// A thread has slept until its results came: if they were the last, the watch ends soon.
    pub(super) fn end_watch_soon(&self) {
        if self.watch.slow.load(Private::Relaxed) {
            let state = self.lock();
            if state.in_flight == 0 {
                self.watch.set(FIRST);
            }
        }
    }
}
