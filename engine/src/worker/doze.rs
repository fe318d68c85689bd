//! Naps of workers that a stream of tiny tasks does not need.
//!
//! With as many workers as CPUs, or more, and a client that goes on submitting, one worker too many takes the CPU from
//! the client or from another worker. It must not go to sleep: it would be woken at once, for there is always some
//! work. So it searches slowly: it looks again after some ten microseconds, and meanwhile nobody is woken, as for
//! the sake of anybody who searches.

use super::Worker;
use crate::ring::BATCH;
use crate::sync::spin_loop;
use std::time::{Duration, Instant};

/// So long nobody looks, at first and at last. A wake-up takes some ten microseconds, too.
const NAP: Duration = Duration::from_micros(if cfg!(feature = "crash") { 1 } else { 50 });
const NAP_MOST: Duration = Duration::from_micros(if cfg!(feature = "crash") { 1 } else { 800 });
/// After so many naps behind which nothing was waiting it may as well sleep.
const IN_VAIN: u32 = if cfg!(feature = "crash") { 2 } else { 8 };
/// Nanoseconds for a task, at most, if the others are to do what comes by themselves,
const QUICK: u64 = if cfg!(feature = "crash") { 1_000_000_000 } else { 2000 };
/// and if they are to do so however much is waiting.
const TINY: u64 = 100;
/// Fewer tasks say nothing.
const FEW: u64 = if cfg!(feature = "crash") { 1 } else { 8 };
/// Who has been woken looks for so many pauses, a microsecond or two, at what others do.
const SAMPLE: u32 = if cfg!(feature = "crash") { 1 } else { 128 };

/// How many hints workers had taken from the rings at a time.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    taken: u64,
    at: Instant,
}

/// What a worker is to do behind its naps, or without any.
#[derive(PartialEq, Eq)]
pub(super) enum Then {
    /// Look for work.
    Look,
    /// It may as well sleep.
    Sleep,
}

impl Worker<'_> {
    /// How much has been taken.
    fn pace(&self) -> Pace {
        let taken = self.lanes.clone().map(|lane| self.segment.ready(lane).taken());
        Pace { taken: taken.fold(0, u64::wrapping_add), at: Instant::now() }
    }

    /// For a worker that begins to search: naps if there is no need for it.
    pub(super) fn doze_first(&mut self) -> Then {
        let now = self.pace();
        let last = self.pace.replace(now);
        if !std::mem::take(&mut self.roused) {
            return last.map_or(Then::Look, |last| self.doze_after(last));
        }
        // It has not been there to see anything since.
        if !self.may_doze() {
            return Then::Look;
        }
        for _ in 0..SAMPLE {
            spin_loop();
        }
        self.doze_after(now)
    }

    /// The same for one that has seen what others do since then.
    pub(super) fn doze_after(&mut self, since: Pace) -> Then {
        if self.is_spare_since(since) && self.may_doze() { self.doze() } else { Then::Look }
    }

    fn doze(&mut self) -> Then {
        let (mut nap, mut in_vain) = (NAP, 0);
        loop {
            let pace = self.pace();
            self.berth.begin_nap();
            // Of two that do so at the same time, one at least sees the other.
            if !self.enough_are_awake() {
                self.berth.search();
                return Then::Look;
            }
            self.berth.nap(nap);
            self.berth.search();
            if self.stopping() || !self.is_spare_since(pace) || !self.enough_are_awake() {
                return Then::Look;
            }
            in_vain = if self.backlog() { 0 } else { in_vain + 1 };
            if in_vain == IN_VAIN {
                return Then::Sleep;
            }
            nap = (2 * nap).min(NAP_MOST);
        }
    }

    /// Whether others do what there is in no time, as it has been since then.
    fn is_spare_since(&self, since: Pace) -> bool {
        let now = self.pace();
        let tasks = now.taken.wrapping_sub(since.taken);
        let time = now.at.duration_since(since.at).as_nanos() as u64;
        if tasks < FEW || tasks > u64::from(u32::MAX) || tasks * QUICK < time {
            return false;
        }
        // Where the others keep up with the client, or would not gain by help that costs the client its CPU.
        tasks * TINY >= time
            || self.lanes.clone().all(|lane| self.segment.ready(lane).backlog() <= BATCH as u64)
    }

    /// Whether another worker is awake for each CPU but the client's, and none has a nap.
    fn may_doze(&self) -> bool {
        self.spin > 0 && self.segment.bell().nappers(self.index) == 0 && self.enough_are_awake()
    }

    fn enough_are_awake(&self) -> bool {
        self.segment.bell().awake(self.index) >= self.spare_cpus()
    }
}
