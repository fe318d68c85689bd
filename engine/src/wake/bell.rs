//! Who is asleep and who is looking: masks as hints, park words as truth.

use super::park::{Park, ParkState};
use crate::sync::{AtomicU64, Ordering, fence};

/// Enough for every place of the process table; few under loom, which keeps a history of each word.
const MASK_WORDS: usize = if cfg!(loom) { 1 } else { 16 };

/// A bit for each process that may be asleep, and for each that may be searching.
///
/// A set bit may be stale, for a searching one usually is: the park word decides. An idle bit is
/// never missing while its worker sleeps. Bits, not counts: a killed worker leaves at most a stale
/// bit, never a number that is off by one for ever. Bit `p` is written by process `p` only.
#[repr(C, align(128))]
pub(crate) struct Masks {
    idle: [AtomicU64; MASK_WORDS],
    searching: [AtomicU64; MASK_WORDS],
}

impl Masks {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Self {
        Masks {
            idle: std::array::from_fn(|_| AtomicU64::new(0)),
            searching: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// Wakes workers. `park` gives the park word of a process.
pub(crate) struct Bell<'a, P: Fn(u32) -> Park<'a>> {
    masks: &'a Masks,
    words: usize,
    processes: u32,
    park: P,
}

fn bits(mask: u64, word: usize) -> impl Iterator<Item = u32> {
    let mut left = mask;
    std::iter::from_fn(move || {
        (left != 0).then(|| {
            let bit = left.trailing_zeros();
            left &= left - 1;
            word as u32 * 64 + bit
        })
    })
}

impl<'a, P: Fn(u32) -> Park<'a>> Bell<'a, P> {
    pub(crate) fn new(masks: &'a Masks, processes: u32, park: P) -> Self {
        Bell { masks, words: (processes as usize).div_ceil(64).min(MASK_WORDS), processes, park }
    }

    fn set(masks: &[AtomicU64], index: u32, on: bool) {
        let bit = 1 << (index % 64);
        let word = &masks[index as usize / 64];
        if on {
            word.fetch_or(bit, Ordering::AcqRel);
        } else {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    pub(crate) fn set_idle(&self, index: u32, on: bool) {
        Self::set(&self.masks.idle, index, on);
    }

    pub(crate) fn set_searching(&self, index: u32, on: bool) {
        Self::set(&self.masks.searching, index, on);
    }

    /// Whether anybody but `me` may be asleep.
    #[inline]
    pub(crate) fn anybody_idle(&self, me: u32) -> bool {
        (0..self.words).any(|word| {
            let others = if me as usize / 64 == word { !(1 << (me % 64)) } else { !0 };
            self.masks.idle[word].load(Ordering::Relaxed) & others != 0
        })
    }

    /// How many workers but `me` are searching now.
    pub(crate) fn searchers(&self, me: u32) -> usize {
        (0..self.words)
            .flat_map(|word| bits(self.masks.searching[word].load(Ordering::Relaxed), word))
            .filter(|&p| p != me && p < self.processes && (self.park)(p).state() == ParkState::Search)
            .count()
    }

    fn members(&self, masks: &'a [AtomicU64]) -> impl Iterator<Item = u32> {
        let processes = self.processes;
        (0..self.words)
            .flat_map(move |word| bits(masks[word].load(Ordering::Relaxed), word))
            .filter(move |&p| p < processes)
    }

    /// Wakes one worker if published work needs it. The caller has published with Release.
    ///
    /// Nobody is woken while somebody searches, or while a woken worker is on its way: whoever
    /// stops searching looks at the backlog afterwards and passes the wake-up on.
    #[inline]
    pub(crate) fn notify(&self) {
        fence(Ordering::SeqCst); // pairs with the fence before the last look in `Worker::park`
        if self.members(&self.masks.searching).any(|p| (self.park)(p).state() == ParkState::Search) {
            return;
        }
        if (0..self.words).all(|word| self.masks.idle[word].load(Ordering::Relaxed) == 0) {
            return;
        }
        self.wake_one();
    }

    #[cold]
    fn wake_one(&self) {
        if self.members(&self.masks.idle).any(|p| (self.park)(p).state() == ParkState::Notified) {
            return; // one wake-up in flight is enough
        }
        for p in self.members(&self.masks.idle) {
            let park = (self.park)(p);
            // A wake that reaches nobody (not yet asleep, or stopped) costs one more try.
            if park.notify() && park.wake() {
                return;
            }
        }
    }

    /// Wakes one worker whatever the words say: for peers that may be stopped in mid-protocol.
    pub(crate) fn notify_force(&self) {
        fence(Ordering::SeqCst);
        for p in self.members(&self.masks.idle) {
            let park = (self.park)(p);
            let _ = park.notify();
            if park.wake() {
                return;
            }
        }
    }

    /// Wakes everybody, masks or not: repairs the wake-ups that a dead process owed.
    pub(crate) fn broadcast(&self) {
        for p in 0..self.processes {
            let park = (self.park)(p);
            let _ = park.notify();
            park.wake();
        }
    }
}
