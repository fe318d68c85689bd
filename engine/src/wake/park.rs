//! The park word of a worker: the truth about whether it sleeps.

use crate::sync::{AtomicU32, Ordering, back_stop, futex};
use std::time::Duration;

/// What a worker does, as far as waking it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum ParkState {
    /// Busy, or not there. Needs no wake-up; looks for more work before it sleeps.
    Run = 0,
    /// Asleep, or about to be.
    Parked = 1,
    /// Somebody is waking it.
    Notified = 2,
    /// Awake and looking for work.
    Search = 3,
}

/// A park word: `[incarnation 29][nap 1][state 2]`, a futex shared by all processes.
///
/// The nap bit is set beside `Search` only: the worker does not look now, and will do so again by itself within a moment.
///
/// | from | to | who |
/// | --- | --- | --- |
/// | any | `Search`, `Run`, `Parked` | the worker itself |
/// | `Parked(i)` | `Notified(i)` | anybody, by CAS |
/// | any(i) | `Run(i)` | a reaper of incarnation `i`, by CAS |
/// | any | `Run(0)` | the supervisor, while the place is empty |
///
/// A worker that dies in `Search` suppresses wake-ups until it is reaped; one that dies while waking
/// another leaves `Notified`. Both end with the broadcast at the end of every reap.
#[derive(Clone, Copy)]
pub(crate) struct Park<'a>(pub &'a AtomicU32);

/// Beside `Search`.
const NAP: u32 = 1 << 2;

fn pack(state: ParkState, incarnation: u32) -> u32 {
    incarnation << 3 | state as u32
}

impl Park<'_> {
    /// The state now. Acquire, because decisions about sleeping workers follow.
    #[inline]
    pub(crate) fn state(self) -> ParkState {
        Self::state_of(self.0.load(Ordering::Acquire))
    }

    /// The state that a value of the word says.
    #[inline]
    pub(crate) fn state_of(word: u32) -> ParkState {
        match word & 3 {
            0 => ParkState::Run,
            1 => ParkState::Parked,
            2 => ParkState::Notified,
            _ => ParkState::Search,
        }
    }

    /// Whether this incarnation is awake: it looks for work before it sleeps.
    #[inline]
    pub(crate) fn is_awake(self, incarnation: u32) -> bool {
        let seen = self.0.load(Ordering::Acquire);
        Self::state_of(seen) == ParkState::Search || seen == pack(ParkState::Run, incarnation)
    }

    /// The incarnation that wrote a value of the word, as far as it goes in.
    #[inline]
    pub(crate) fn incarnation_of(word: u32) -> u32 {
        word >> 3
    }

    /// The same of an incarnation.
    #[inline]
    pub(crate) fn stored(incarnation: u32) -> u32 {
        incarnation & 0x1fff_ffff
    }

    /// Whether the worker searches and looks now and then only.
    #[inline]
    pub(crate) fn naps(self) -> bool {
        self.0.load(Ordering::Relaxed) & (NAP | 3) == NAP | ParkState::Search as u32
    }

    /// The worker looks for work.
    #[inline]
    pub(crate) fn search(self, incarnation: u32) {
        self.0.swap(pack(ParkState::Search, incarnation), Ordering::AcqRel);
    }

    /// The worker still searches, but is about to have a nap. Nothing is ordered by it: to all who have published
    /// something, it is a search like any other.
    pub(crate) fn begin_nap(self, incarnation: u32) {
        self.0.swap(pack(ParkState::Search, incarnation) | NAP, Ordering::Relaxed);
    }

    /// Sleeps for `limit` since [`begin_nap`](Self::begin_nap), or until somebody wakes the worker.
    pub(crate) fn nap(self, incarnation: u32, limit: Duration) {
        // Not a back-stop: it looks again because it is time.
        futex::wait(self.0, pack(ParkState::Search, incarnation) | NAP, Some(limit));
    }

    /// The worker has found work.
    #[inline]
    pub(crate) fn run(self, incarnation: u32) {
        self.0.store(pack(ParkState::Run, incarnation), Ordering::Release);
    }

    /// The worker announces that it will sleep. It looks for work once more before it does.
    pub(crate) fn announce(self, incarnation: u32) {
        self.0.store(pack(ParkState::Parked, incarnation), Ordering::Release);
    }

    /// Whether the word is as [`announce`](Self::announce) left it.
    pub(crate) fn is_parked(self, incarnation: u32) -> bool {
        self.0.load(Ordering::Acquire) == pack(ParkState::Parked, incarnation)
    }

    /// Whether this incarnation sleeps or is being woken: it has no task. Acquire, which pairs with
    /// [`announce`](Self::announce): all that it finished before is visible.
    pub(crate) fn is_asleep(self, incarnation: u32) -> bool {
        let seen = self.0.load(Ordering::Acquire);
        [ParkState::Parked, ParkState::Notified].iter().any(|&state| seen == pack(state, incarnation))
    }

    /// Sleeps unless somebody has notified since [`announce`](Self::announce); `false` if `limit` passed.
    pub(crate) fn sleep(self, incarnation: u32, limit: Option<Duration>) -> bool {
        futex::wait(self.0, pack(ParkState::Parked, incarnation), limit.map(back_stop))
    }

    /// Marks a sleeping worker as being woken; the caller then calls [`wake`](Self::wake).
    #[must_use]
    pub(crate) fn notify(self) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        seen & 3 == ParkState::Parked as u32
            && self
                .0
                .compare_exchange(
                    seen,
                    seen & !3 | ParkState::Notified as u32,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Wakes the worker if it is asleep; `false` if it is not (yet), or stopped.
    pub(crate) fn wake(self) -> bool {
        futex::wake(self.0, 1) > 0
    }

    /// Makes the word of an empty place harmless, whatever it is.
    pub(crate) fn vacate(self) {
        self.0.store(pack(ParkState::Run, 0), Ordering::Release);
    }

    /// Takes the word from a dead incarnation, so that its state misleads nobody.
    pub(crate) fn take_from_dead(self, incarnation: u32) {
        let mut seen = self.0.load(Ordering::Relaxed);
        while Self::incarnation_of(seen) == Self::stored(incarnation) {
            let next = pack(ParkState::Run, incarnation);
            match self.0.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_nap_is_a_search() {
        let word = AtomicU32::new(0);
        let park = Park(&word);
        park.search(7);
        assert!(!park.naps());
        park.begin_nap(7);
        assert!(park.naps());
        assert_eq!(park.state(), ParkState::Search);
        assert!(!park.notify(), "nobody is woken who searches");
        park.nap(7, Duration::from_micros(1));
        assert!(park.naps());
        park.take_from_dead(8);
        assert!(park.naps(), "another incarnation's");
        park.take_from_dead(7);
        assert_eq!(word.load(Ordering::Relaxed), pack(ParkState::Run, 7));
    }

    #[test]
    fn who_runs_is_awake_only_as_itself() {
        let word = AtomicU32::new(0);
        let park = Park(&word);
        park.run(7);
        assert!(park.is_awake(7));
        assert!(!park.is_awake(6) && !park.is_awake(8), "another one had the place");
        park.search(7);
        assert!(park.is_awake(7));
        park.begin_nap(7);
        assert!(park.is_awake(7));
        park.announce(7);
        assert!(!park.is_awake(7));
        assert!(park.notify());
        assert!(!park.is_awake(7), "it may not have woken yet");
        park.vacate();
        assert!(!park.is_awake(7));
    }

    #[test]
    fn incarnations_do_not_spill_into_states() {
        let word = AtomicU32::new(0);
        let park = Park(&word);
        for incarnation in [0, 1, u32::MAX >> 3, u32::MAX] {
            park.announce(incarnation);
            assert!(park.is_parked(incarnation) && !park.naps());
            assert!(park.notify());
            assert!(park.is_asleep(incarnation));
            let seen = word.load(Ordering::Relaxed);
            assert_eq!(Park::state_of(seen), ParkState::Notified);
            assert_eq!(Park::incarnation_of(seen), Park::stored(incarnation));
        }
    }
}
