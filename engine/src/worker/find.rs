//! Finding work: own window, rings, requeued slots, other workers' windows; then sleep.

use super::doze::Then;
use super::{Claimed, Leave, Worker};
use crate::ring::{BATCH, Hint};
use crate::segment::PoolState;
use crate::slot::{State, Word};
use crate::sync::{Ordering, may_steal, prefetch_to_write, spin_loop};
use crate::sys::yield_cpu;
use crate::worker::FuncWord;
use std::time::{Duration, Instant};

/// A parked worker looks around after this time, or this often, if it has a reason to.
const PARK_LIMIT: Duration = Duration::from_secs(1);
/// Who is woken so soon after it went to sleep had better stayed awake: as long as a search takes, and a wake-up.
const SOON: Duration = Duration::from_micros(100);
/// Free payload memory that a worker keeps when it has been idle for that long.
const KEEP: usize = 64 << 20;
/// Every so many ranges are taken in the order that favours what waits elsewhere.
const FAIR_EVERY: u32 = 8;
/// Every so many rounds of the search loop the core is told that it spins, which takes as long as two rounds.
const PAUSE_EVERY: u32 = 4;
/// A client whose payloads are large is waited for one round longer for so many bytes: a tenth of a nanosecond each, about
/// twice as long as it takes to write, look at and copy them.
const MOVED_IN_ROUND: usize = 200;
/// But not for more than so many rounds, some 5 milliseconds.
const MOVING_MOST: usize = if cfg!(feature = "crash") { 2 } else { 250_000 };
/// Every so many rounds, where processes of the pool share CPUs, another may have this one: some microseconds.
const YIELD_EVERY: u32 = 128;
/// Every so many rounds of the search loop, and in the last one, other workers' windows are looked at, too. Not in the
/// first: what is in a ring would be claimed by an old hint that names the same slot, and somebody be woken for the
/// hint in the ring.
const STEAL_EVERY: u32 = 64;

impl Worker<'_> {
    /// The next task, claimed; waits for one. `Err` when there is a reason to leave.
    pub(super) fn find(&mut self) -> Result<Claimed, Leave> {
        if self.stopping() {
            return Err(Leave::PoolEnded);
        }
        // Straight from one task to the next. The claim is the barrier for what is owed to others.
        if let Some(task) = self.look_again() {
            if std::mem::take(&mut self.untold) {
                self.segment.sleep().wake_sleepers_behind_rmw();
            }
            // Before this worker gets busy.
            if self.segment.places() > 2 {
                let mut cover = self.cover;
                let backlog = |&lane: &usize| self.backlog_in(lane);
                self.segment.bell().pass_on_behind_claim(self.index, self.lanes.clone(), backlog, &mut cover);
                self.cover = cover;
            }
            return Ok(task);
        }
        self.tell_client();
        loop {
            if let Some(task) = self.search() {
                return Ok(task);
            }
            self.park()?;
        }
    }

    /// Runs one task, if there is one; never sleeps.
    #[cfg(test)]
    pub(crate) fn step(&mut self) -> bool {
        let task = self.look().or_else(|| self.steal());
        task.is_some_and(|task| {
            self.run(task);
            self.tell_client();
            true
        })
    }

    /// [`look`](Self::look), straight after a task.
    ///
    /// A worker that has caught up with a client that goes on submitting would take the line of the tail from it for
    /// each task, and both would wait for it more than they work. So it lets some tasks come together first, as
    /// long as there are several each time.
    fn look_again(&mut self) -> Option<Claimed> {
        if self.next < self.claimed || !self.caught_up {
            return self.look();
        }
        self.lull.rest();
        let found = self.look();
        // One alone may be a call whose client waits for it.
        self.lull.learn(found.is_some() && self.claimed > 1);
        found
    }

    /// Looks everywhere but in other workers' windows.
    fn look(&mut self) -> Option<Claimed> {
        loop {
            while self.next < self.claimed {
                let hint = self.segment.window(self.index).get(self.next);
                self.next += 1;
                if let Some(task) = self.claim(hint) {
                    return Some(task);
                }
            }
            if !self.take_range() {
                return None;
            }
        }
    }

    /// Fills the own window from a ring or a requeue bit.
    ///
    /// Rings first, and the lane of code first, but every so often the other way round: a stream of new
    /// tasks must not keep a task waiting whose worker died, or one that is called by name.
    fn take_range(&mut self) -> bool {
        self.rounds = self.rounds.wrapping_add(1);
        if self.rounds.is_multiple_of(FAIR_EVERY) {
            let lanes = self.lanes.clone().rev();
            return lanes.clone().any(|lane| self.take_requeued(lane))
                || lanes.clone().any(|lane| self.take_ready(lane));
        }
        let lanes = self.lanes.clone();
        lanes.clone().any(|lane| self.take_ready(lane)) || lanes.clone().any(|lane| self.take_requeued(lane))
    }

    fn take_ready(&mut self, lane: usize) -> bool {
        let segment = self.segment;
        let most = |waiting: u64| {
            let workers = (segment.places() as usize - 1).min(self.cpus()) as u64;
            let quota = self.tasks_left.unwrap_or(u64::MAX);
            // An even share of what is there among as many as can run at a time, and of the rest the next time. Who is
            // idle is woken for what is in the window as for what is in the ring.
            let share = if workers <= 1 { waiting } else { waiting / (2 * workers) };
            share.min(BATCH as u64).min(quota)
        };
        // All at once, and for writing: otherwise the claim of one would wait for its line, then the next for its.
        let fetch_slot = |hint: Hint| {
            if let Some(slot) = hint.get().and_then(|(_, number)| segment.slots().get(number as usize)) {
                prefetch_to_write(&slot.word);
            }
        };
        let window = segment.window(self.index);
        let fetch = |hint: Hint| {
            fetch_slot(hint);
            self.habit.fetch();
            self.region.prefetch(segment);
        };
        let mut there = 0;
        let most = |waiting| {
            there = waiting;
            most(waiting)
        };
        let count = segment.ready(lane).claim(most, window, |slot| Hint::new(0, slot), fetch);
        (self.next, self.claimed) = (0, count);
        self.caught_up = count as u64 == there;
        count > 0
    }

    /// As many as fit: after a death every ready slot is announced, the stream's own among them.
    fn take_requeued(&mut self, lane: usize) -> bool {
        let segment = self.segment;
        let most = self.tasks_left.map_or(BATCH, |left| left.min(BATCH as u64) as usize);
        let count = {
            let window = segment.window(self.index);
            segment.requeue(lane).claim(most, &mut self.cursor, window, |slot| Hint::new(0, slot))
        };
        (self.next, self.claimed) = (0, count);
        count > 0
    }

    /// The slot that a hint names and its word, if it is ready and this worker can run it.
    fn runnable(&self, hint: Hint) -> Option<(u32, Word)> {
        let (client, number) = hint.get()?;
        if client != 0 || number >= self.segment.layout.sizes.slots {
            return None;
        }
        let slot = self.segment.slot(number);
        let seen = slot.word().load();
        // The function cannot change while the word stays `seen`.
        let ready = seen.state() == Some(State::Ready) && self.lanes.contains(&FuncWord::lane_of(slot));
        ready.then_some((number, seen))
    }

    /// T2 on the slot that a hint names, if it is one and this worker can run it.
    fn claim(&self, hint: Hint) -> Option<Claimed> {
        let (number, seen) = self.runnable(hint)?;
        let run = self.segment.slot(number).word().claim(seen, self.me)?;
        Some(Claimed { slot: number, run })
    }

    /// Takes over what another worker has claimed and not started: it may be stopped, or busy for long.
    fn steal(&self) -> Option<Claimed> {
        self.others_hints().find_map(|hint| self.claim(hint))
    }

    fn others_hints(&self) -> impl Iterator<Item = Hint> {
        let (segment, me) = (self.segment, self.index);
        let places = if may_steal() { segment.places() } else { 0 };
        (1..places)
            .filter(move |&p| p != me)
            .flat_map(move |p| (0..BATCH).map(move |i| segment.window(p).get(i)))
    }

    /// Whether another worker's window holds something that this one could run.
    fn others_have_work(&self) -> bool {
        self.others_hints().any(|hint| self.runnable(hint).is_some())
    }

    /// Looks for work for a while, awake: meanwhile nobody needs to be woken for it.
    fn search(&mut self) -> Option<Claimed> {
        let segment = self.segment;
        self.berth.search();
        let workers = segment.places() as usize - 1;
        // The others that are awake may need the CPU more; but as long as this one searches nobody is woken.
        let shares = workers >= self.cpus();
        if shares && workers > 1 && self.doze_first() == Then::Sleep {
            return None;
        }
        let crowded = workers > 1
            && segment.bell().searchers(self.index) >= (workers / 2).max(1).min(self.spare_cpus());
        // A client that has just been woken takes a while to come again, if it comes, and may need this very CPU.
        let hopeless = std::mem::take(&mut self.woke) && !self.patient;
        // It takes longer, too, if it has to read a large result and to write the next arguments; but that makes up for
        // two wake-ups, one to each side, without which both would go on sleeping in each call.
        let moving = if shares { 0 } else { (self.moved / MOVED_IN_ROUND).min(MOVING_MOST) as u32 };
        let rounds = match self.spin {
            _ if crowded => 1,
            0 => 1,
            _ if hopeless => moving.max(1),
            spin => spin + moving,
        };
        if rounds > 1 {
            self.berth.stay_up();
        }
        for round in 0..rounds {
            let task = match self.look() {
                None if round % STEAL_EVERY == STEAL_EVERY - 1 || round + 1 == rounds => self.steal(),
                found => found,
            };
            if let Some(task) = task {
                // The task is ours first; then others may be needed for what is left.
                self.berth.found();
                if workers > 1 {
                    self.pass_on();
                }
                return Some(task);
            }
            if self.stopping() {
                break;
            }
            if shares && round % YIELD_EVERY == YIELD_EVERY - 1 {
                if let Some(begin) = self.pace
                    && self.doze_after(begin) == Then::Sleep
                {
                    return None;
                }
                yield_cpu();
            } else if round % PAUSE_EVERY == 0 {
                spin_loop();
            }
        }
        None
    }

    fn cpus(&self) -> usize {
        let cpus = self.segment.header().cpus.load(Ordering::Relaxed) as usize;
        // Sweeps pass the same accesses on all machines.
        if cfg!(feature = "crash") { 2 } else { cpus }
    }

    /// CPUs that are left for searching when the client has one.
    pub(super) fn spare_cpus(&self) -> usize {
        self.cpus().saturating_sub(1).max(1)
    }

    /// Sleeps until there may be work; `Err` when there is a reason to leave.
    fn park(&mut self) -> Result<(), Leave> {
        let segment = self.segment;
        // Should somebody have written over it, only this worker knows: nobody would wake it again.
        self.tell_lanes();
        self.berth.announce();
        if self.backlog() || self.others_have_work() {
            return Ok(());
        }
        match segment.state() {
            PoolState::Running => {}
            PoolState::Draining | PoolState::Stopping => return Err(Leave::PoolEnded),
        }
        let begin = Instant::now();
        while self.berth.is_asleep() {
            // Mostly neither: then nothing happens until somebody wakes this worker.
            let much = !self.trimmed && self.region.holds_more_than(KEEP);
            let limit = (much || self.creator_gone.is_some()).then_some(PARK_LIMIT);
            if !self.berth.sleep(limit) {
                if self.creator_gone.is_some_and(|gone| gone()) {
                    return Err(Leave::CreatorGone);
                }
                if !self.trimmed {
                    self.region.trim(segment, KEEP);
                    self.trimmed = true;
                }
            }
            if self.backlog() || segment.state() != PoolState::Running {
                break; // only a stopped process leaves work without waking us
            }
        }
        self.patient = begin.elapsed() < SOON;
        self.roused = true;
        Ok(())
    }
}
