//! A worker's own side of the wake-up protocol.

use super::{Masks, Park};
use crate::sync::{Ordering, fence};
use std::time::Duration;

/// Where a worker sleeps: its park word, and its bits in the masks, which nobody else writes.
pub(crate) struct Berth<'a> {
    park: Park<'a>,
    masks: &'a Masks,
    index: u32,
    incarnation: u32,
    /// What the bits are.
    idle: bool,
    searching: bool,
}

impl<'a> Berth<'a> {
    pub(crate) fn new(park: Park<'a>, masks: &'a Masks, index: u32, incarnation: u32) -> Self {
        // A predecessor may have left the bits set.
        Berth { park, masks, index, incarnation, idle: true, searching: true }
    }

    /// The worker looks for work, awake.
    pub(crate) fn search(&mut self) {
        self.park.search(self.incarnation);
        self.set_idle(false);
    }

    /// It will look for a while: for its sake wake-ups are skipped from here on.
    pub(crate) fn stay_up(&mut self) {
        self.set_searching(true);
    }

    /// It will not look for a moment, and then [`search`](Self::search) again, as which all of it counts.
    pub(crate) fn begin_nap(&mut self) {
        self.set_searching(true);
        self.park.begin_nap(self.incarnation);
    }

    /// The moment is so long, or until somebody wakes the worker.
    pub(crate) fn nap(&mut self, limit: Duration) {
        self.park.nap(self.incarnation, limit);
    }

    /// It has taken a task, and passes on the wake-ups that were skipped: see
    /// [`Bell::pass_on`](super::Bell::pass_on).
    pub(crate) fn found(&self) {
        self.park.run(self.incarnation);
    }

    /// The worker will sleep. It looks for work once more before it does.
    pub(crate) fn announce(&mut self) {
        self.park.announce(self.incarnation);
        self.set_idle(true);
        self.set_searching(false);
        fence(Ordering::SeqCst); // pairs with the fences in `Bell`
    }

    /// Whether nobody has woken the worker since it announced that it sleeps.
    pub(crate) fn is_asleep(&self) -> bool {
        self.park.is_parked(self.incarnation)
    }

    /// Sleeps unless somebody has woken it since; `false` if `limit` passed.
    pub(crate) fn sleep(&self, limit: Option<Duration>) -> bool {
        self.park.sleep(self.incarnation, limit)
    }

    /// Nobody may count on this worker any more. It passes on the wake-ups that were meant for it, or
    /// skipped for its sake: see [`Bell::pass_on`](super::Bell::pass_on).
    pub(crate) fn leave(&mut self) {
        self.park.run(self.incarnation);
        self.set_idle(false);
        self.set_searching(false);
    }

    fn set_idle(&mut self, on: bool) {
        if self.idle != on {
            self.masks.set_idle(self.index, on);
            self.idle = on;
        }
    }

    fn set_searching(&mut self, on: bool) {
        if self.searching != on {
            self.masks.set_searching(self.index, on);
            self.searching = on;
        }
    }
}
