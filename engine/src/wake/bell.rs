//! Who is asleep and who is looking: masks as hints, park words as truth.

use super::park::{Park, ParkState};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence, fence_behind_rmw};

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
    /// Both masks as they are now, idle first: for the auditor.
    pub(crate) fn words(&self) -> (Vec<u64>, Vec<u64>) {
        let load = |mask: &[AtomicU64]| mask.iter().map(|word| word.load(Ordering::Acquire)).collect();
        (load(&self.idle), load(&self.searching))
    }

    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Self {
        Masks {
            idle: std::array::from_fn(|_| AtomicU64::new(0)),
            searching: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn set(words: &[AtomicU64], index: u32, on: bool) {
        let bit = 1 << (index % 64);
        let word = &words[index as usize / 64];
        if on {
            word.fetch_or(bit, Ordering::AcqRel);
        } else {
            word.fetch_and(!bit, Ordering::AcqRel);
        }
    }

    pub(crate) fn set_idle(&self, index: u32, on: bool) {
        Self::set(&self.idle, index, on);
    }

    pub(super) fn set_searching(&self, index: u32, on: bool) {
        Self::set(&self.searching, index, on);
    }
}

/// A worker as its wakers see it.
#[derive(Clone, Copy)]
pub(crate) struct Seat<'a> {
    pub park: Park<'a>,
    /// A bit for each lane that it serves.
    pub lanes: &'a AtomicU32,
}

impl Seat<'_> {
    fn serves(self, lane: usize) -> bool {
        self.lanes.load(Ordering::Relaxed) >> lane & 1 == 1
    }
}

/// Wakes workers. `seat` gives the words of a process.
pub(crate) struct Bell<'a, P: Fn(u32) -> Seat<'a>> {
    masks: &'a Masks,
    words: usize,
    processes: u32,
    seat: P,
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

impl<'a, P: Fn(u32) -> Seat<'a>> Bell<'a, P> {
    pub(crate) fn new(masks: &'a Masks, processes: u32, seat: P) -> Self {
        Bell { masks, words: (processes as usize).div_ceil(64).min(MASK_WORDS), processes, seat }
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
            .filter(|&p| p != me && p < self.processes && (self.seat)(p).park.state() == ParkState::Search)
            .count()
    }

    fn members(&self, masks: &'a [AtomicU64]) -> impl Iterator<Item = u32> {
        let processes = self.processes;
        (0..self.words)
            .flat_map(move |word| bits(masks[word].load(Ordering::Relaxed), word))
            .filter(move |&p| p < processes)
    }

    /// Wakes one worker if work published in `lane` needs it. The caller has published with Release.
    ///
    /// Nobody is woken while somebody who serves the lane searches, or while a woken one is on its way:
    /// whoever stops searching looks at the backlog afterwards and passes the wake-up on.
    #[inline]
    pub(crate) fn notify(&self, lane: usize) {
        let _ = self.notify_seeing(lane);
    }

    /// The same; whether all workers were asleep, so that nobody begins before the kernel has woken one.
    #[inline]
    pub(crate) fn notify_seeing(&self, lane: usize) -> bool {
        fence(Ordering::SeqCst); // pairs with the fence in `Berth::announce`
        let searching = |p| {
            let seat = (self.seat)(p);
            seat.park.state() == ParkState::Search && seat.serves(lane)
        };
        if self.members(&self.masks.searching).any(searching) {
            return false;
        }
        if (0..self.words).all(|word| self.masks.idle[word].load(Ordering::Relaxed) == 0) {
            return false;
        }
        let all = self.members(&self.masks.idle).count() + 1 >= self.processes as usize;
        self.wake_one(lane);
        all
    }

    fn idle_for(&self, lane: usize) -> impl Iterator<Item = Park<'a>> {
        self.members(&self.masks.idle).map(|p| (self.seat)(p)).filter(move |s| s.serves(lane)).map(|s| s.park)
    }

    #[cold]
    fn wake_one(&self, lane: usize) {
        if self.idle_for(lane).any(|park| park.state() == ParkState::Notified) {
            return; // one wake-up in flight is enough
        }
        for park in self.idle_for(lane) {
            // A wake that reaches nobody (not yet asleep, or stopped) costs one more try.
            if park.notify() && park.wake() {
                return;
            }
        }
    }

    /// Wakes one worker more, searcher or not, for work that is enough for several. The caller has published with
    /// Release, and [notified](Self::notify): this is for speed.
    #[inline]
    pub(crate) fn notify_more(&self, lane: usize) {
        if (0..self.words).any(|word| self.masks.idle[word].load(Ordering::Relaxed) != 0) {
            self.wake_another(lane);
        }
    }

    #[cold]
    fn wake_another(&self, lane: usize) {
        for park in self.idle_for(lane) {
            if park.notify() {
                park.wake();
                return;
            }
        }
    }

    /// Worker `me` is about to get busy, or to leave: wakes others for the work that it leaves, for which
    /// somebody may have skipped a wake-up because `me` was searching, or on its way.
    ///
    /// `backlog` says whether there is work in a lane. It is asked after the fence: whatever was
    /// published before somebody saw `me` searching is seen then.
    #[inline]
    pub(crate) fn pass_on(
        &self,
        me: u32,
        lanes: impl Iterator<Item = usize>,
        backlog: impl FnMut(&usize) -> bool,
    ) {
        // Pairs with the fence in `notify`; and with the one in `Berth::announce`, for hints that `me` has
        // just moved to its window.
        fence(Ordering::SeqCst);
        self.pass_on_to_idle(me, lanes, backlog);
    }

    /// The same behind the claim of a task, with no shared store in between, by a worker that was neither searching
    /// nor on its way: nobody skipped a wake-up for its sake.
    #[inline]
    pub(crate) fn pass_on_behind_claim(
        &self,
        me: u32,
        lanes: impl Iterator<Item = usize>,
        backlog: impl FnMut(&usize) -> bool,
    ) {
        // Pairs with the fence in `Berth::announce`: see `pass_on`.
        fence_behind_rmw();
        self.pass_on_to_idle(me, lanes, backlog);
    }

    #[inline]
    fn pass_on_to_idle(
        &self,
        me: u32,
        lanes: impl Iterator<Item = usize>,
        backlog: impl FnMut(&usize) -> bool,
    ) {
        if self.anybody_idle(me) {
            lanes.filter(backlog).for_each(|lane| self.notify(lane));
        }
    }

    /// Wakes one worker whatever the words say: for peers that may be stopped in mid-protocol, and for
    /// masks that somebody has written over.
    pub(crate) fn notify_force(&self, lane: usize) {
        fence(Ordering::SeqCst); // pairs with the fence in `Berth::announce`
        for park in self.idle_for(lane) {
            let _ = park.notify();
            if park.wake() {
                return;
            }
        }
        self.broadcast();
    }

    /// Wakes everybody, masks or not, for news that concern all; this also repairs the wake-ups that a
    /// dead process owed. The caller has published the news with Release.
    pub(crate) fn broadcast(&self) {
        fence(Ordering::SeqCst); // pairs with the fence in `Berth::announce`
        for p in 0..self.processes {
            let park = (self.seat)(p).park;
            let _ = park.notify();
            park.wake();
        }
    }
}
