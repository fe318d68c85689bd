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

/// A worker that has no task, and was alive when the one was submitted that somebody is to be woken for.
///
/// As long as its searching bit is on it looks for work before it sleeps, and passes wake-ups on if it leaves, so it
/// needs no wake-up even while it is still `Run`, and nobody else needs one. If it dies, its reap ends with a broadcast.
#[derive(Clone, Copy)]
pub(crate) struct Freed {
    pub index: u32,
    pub incarnation: u32,
}

/// What came of a notification.
struct Rung {
    /// Who looks for work, or has been woken to.
    cover: Option<u32>,
    /// All workers were asleep.
    all_slept: bool,
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

    /// How many workers but `me` are looking for work now; who has a nap is not.
    pub(crate) fn searchers(&self, me: u32) -> usize {
        self.others_searching(me).filter(|park| !park.naps()).count()
    }

    /// How many workers but `me` have a nap.
    pub(crate) fn nappers(&self, me: u32) -> usize {
        self.others_searching(me).filter(|park| park.naps()).count()
    }

    /// How many workers but `me`, who is awake, neither sleep nor have a nap. Places without a worker count as well.
    pub(crate) fn awake(&self, me: u32) -> usize {
        let idle: u32 =
            self.masks.idle[..self.words].iter().map(|w| w.load(Ordering::Relaxed).count_ones()).sum();
        (self.processes as usize).saturating_sub(2 + idle as usize + self.nappers(me))
    }

    /// Has whoever has a nap look now. The caller has published with Release, and waits for what comes of it: this is
    /// for speed.
    pub(crate) fn end_naps(&self) {
        let napping =
            self.members(&self.masks.searching).map(|p| (self.seat)(p).park).filter(|park| park.naps());
        napping.for_each(|park| {
            park.wake();
        });
    }

    fn others_searching(&self, me: u32) -> impl Iterator<Item = Park<'a>> {
        let others = self.members(&self.masks.searching).filter(move |&p| p != me);
        others.map(|p| (self.seat)(p).park).filter(|park| park.state() == ParkState::Search)
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
        let _ = self.notify_seeing(lane, None);
    }

    /// The same; whether all workers were asleep, so that nobody begins before the kernel has woken one. Nobody is
    /// woken for one task that `freed` will find.
    #[inline]
    pub(crate) fn notify_seeing(&self, lane: usize, freed: Option<Freed>) -> bool {
        fence(Ordering::SeqCst); // pairs with the fences in `Berth::announce` and `pass_on`
        self.ring(lane, freed).all_slept
    }

    /// [`notify`](Self::notify) behind a fence.
    #[inline]
    fn ring(&self, lane: usize, freed: Option<Freed>) -> Rung {
        let searching = |&p: &u32| {
            let seat = (self.seat)(p);
            let looks = match freed {
                Some(freed) if freed.index == p => seat.park.is_awake(freed.incarnation),
                _ => seat.park.state() == ParkState::Search,
            };
            looks && seat.serves(lane)
        };
        if let Some(looks) = self.members(&self.masks.searching).find(searching) {
            return Rung { cover: Some(looks), all_slept: false };
        }
        if (0..self.words).all(|word| self.masks.idle[word].load(Ordering::Relaxed) == 0) {
            return Rung { cover: None, all_slept: false };
        }
        let all_slept = self.members(&self.masks.idle).count() + 1 >= self.processes as usize;
        Rung { cover: self.wake_one(lane), all_slept }
    }

    fn idle_for(&self, lane: usize) -> impl Iterator<Item = (u32, Park<'a>)> {
        let idle = self.members(&self.masks.idle).map(|p| (p, (self.seat)(p)));
        idle.filter(move |(_, seat)| seat.serves(lane)).map(|(p, seat)| (p, seat.park))
    }

    /// Who has been woken, or was being woken.
    #[cold]
    fn wake_one(&self, lane: usize) -> Option<u32> {
        if let Some((p, _)) = self.idle_for(lane).find(|(_, park)| park.state() == ParkState::Notified) {
            return Some(p); // one wake-up in flight is enough
        }
        // A wake that reaches nobody (not yet asleep, or stopped) costs one more try.
        self.idle_for(lane).find(|(_, park)| park.notify() && park.wake()).map(|(p, _)| p)
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
        for (_, park) in self.idle_for(lane) {
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
        if self.anybody_idle(me) {
            for lane in lanes.filter(backlog) {
                let _ = self.ring(lane, None);
            }
        }
    }

    /// The same behind the claim of a task, with no shared store in between, by a worker that was neither searching
    /// nor on its way. Somebody may have skipped a wake-up for its sake if nothing was in flight when that one's task X
    /// was published ([`Freed`]). Then any other task that `me` can claim was published later by the same client, under
    /// the same lock; so who sees the one sees X, and `backlog` tells of it.
    ///
    /// `cover` is who was searching or on its way for all `lanes` the last time, and most often still is: that one
    /// passes wake-ups on itself.
    #[inline]
    pub(crate) fn pass_on_behind_claim(
        &self,
        me: u32,
        lanes: impl Iterator<Item = usize> + Clone,
        backlog: impl FnMut(&usize) -> bool,
        cover: &mut Option<u32>,
    ) {
        // Pairs with the fence in `Berth::announce`: see `pass_on`.
        fence_behind_rmw();
        if !self.anybody_idle(me) || cover.is_some_and(|p| self.covers(p, lanes.clone())) {
            return;
        }
        *cover = None;
        for lane in lanes.filter(backlog) {
            *cover = self.ring(lane, None).cover;
        }
    }

    /// Whether nobody else needs to be woken, for this one looks, or will.
    #[inline]
    fn covers(&self, p: u32, mut lanes: impl Iterator<Item = usize>) -> bool {
        let seat = (self.seat)(p);
        matches!(seat.park.state(), ParkState::Search | ParkState::Notified)
            && lanes.all(|lane| seat.serves(lane))
    }

    /// Wakes one worker whatever the words say: for peers that may be stopped in mid-protocol, and for
    /// masks that somebody has written over.
    pub(crate) fn notify_force(&self, lane: usize) {
        fence(Ordering::SeqCst); // pairs with the fence in `Berth::announce`
        for (_, park) in self.idle_for(lane) {
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
