//! Waiting for results: awake for a moment, then asleep on the slot's word or the client's sleep word.

use super::first_look::FirstLook;
use super::{Books, Client, Taken};
use crate::error::Error;
use crate::segment::LANES;
use crate::slot::State as SlotState;
use crate::sync::private::Private;
use crate::sync::{Ordering, back_stop, spin_loop};
use crate::sys::yield_cpu;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Where a submitted task is. Whole words, none of which can tell a `Result` what it is: tickets are moved
/// about a lot, and then not in odd pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ticket {
    pub slot: u32,
    pub generation: u32,
    /// By which a [caller](super::Target::Caller) gets its outcome.
    pub caller: u32,
    /// Whether all workers were asleep: the result comes after a wake-up, and waiting awake would only keep a CPU
    /// from whoever is woken.
    asleep: u32,
    /// Bytes that the task reads from shared memory: of its arguments, and of arrays that they refer to.
    pub bytes: usize,
}

impl Ticket {
    #[inline]
    pub(super) fn new(slot: u32, generation: u32, caller: u64) -> Self {
        Ticket { slot, generation, caller: caller as u32, asleep: 0, bytes: 0 }
    }

    /// Whether it is that of the pool's first task: the first in the first slot.
    #[inline]
    fn is_first(self) -> bool {
        self.slot == 0 && self.generation == 0
    }

    #[inline]
    pub(super) fn set_asleep(&mut self, asleep: bool) {
        self.asleep = u32::from(asleep);
    }
}

/// Rounds that a thread waits awake: at most some 50 microseconds, which a wake-up costs, and some 10 if that has not
/// helped lately: fewer would not see what comes soon again.
pub(super) const SPIN_MOST: u32 = if cfg!(feature = "crash") { 10 } else { 2000 };
const SPIN_LEAST: u32 = if cfg!(feature = "crash") { 2 } else { 400 };
/// One round more for so many bytes that the task has to read: a tenth of a nanosecond each, about twice as long as
/// reading them and writing as many takes.
const READ_IN_ROUND: usize = 256;
/// But no more than so many rounds, some 2 milliseconds.
const READING_MOST: usize = if cfg!(feature = "crash") { 2 } else { 100_000 };
/// Every so many rounds, where processes of the pool share CPUs, another may have this one: some microseconds.
const YIELD_EVERY: u32 = 64;
/// The back-stop: peers that were stopped in the middle of a wake-up are noticed after this time,
/// twice as long each time.
const BACKSTOP_FIRST: Duration = Duration::from_millis(1);
const BACKSTOP_LAST: Duration = Duration::from_millis(64);

/// When a waiting thread looks behind what it is told.
struct Backstop {
    pause: Duration,
    /// When it looks however often it is woken; words that change all the time must not keep it from that.
    /// `None` before it has slept for the first time.
    latest: Option<Instant>,
}

impl Backstop {
    fn new() -> Self {
        Backstop { pause: BACKSTOP_FIRST, latest: None }
    }

    /// How long to sleep at most; `None` if the deadline has passed.
    fn limit(&mut self, deadline: Option<Instant>) -> Option<Duration> {
        let now = Instant::now();
        let latest = *self.latest.get_or_insert(now + back_stop(BACKSTOP_LAST));
        let pause = back_stop(self.pause).min(latest.saturating_duration_since(now));
        let Some(deadline) = deadline else { return Some(pause) };
        let left = deadline.saturating_duration_since(now);
        (!left.is_zero()).then(|| left.min(pause))
    }

    /// To be called after each sleep, or instead of it.
    fn look(&mut self, client: &Client, slept_out: bool) {
        if slept_out || self.latest.is_some_and(|latest| Instant::now() >= latest) {
            client.look_behind();
            self.pause = (self.pause * 2).min(BACKSTOP_LAST);
            self.latest = Some(Instant::now() + back_stop(BACKSTOP_LAST));
        }
    }
}

impl Client {
    /// Waits for the outcome of a call that has just been submitted and is awaited by nobody else.
    #[inline(always)]
    pub(crate) fn wait_for_call(&self, ticket: Ticket) -> Option<Taken> {
        let own = |books: &mut Books| self.take_own(books, ticket);
        self.wait_until(ticket, Some(&self.first_look), own, |books| books.take_outcome(ticket), None)
    }

    /// Waits until the outcome of `ticket` makes `take` give something; `None` if `deadline` passed.
    pub(crate) fn wait_for<R>(
        &self,
        ticket: Ticket,
        take: impl FnMut(&mut Books) -> Option<R>,
        deadline: Option<Instant>,
    ) -> Option<R> {
        self.wait_until(ticket, None, |_| None, take, deadline)
    }

    /// The same, where `own` may take the outcome straight from the slot, and `first` says when to look for it.
    #[inline]
    fn wait_until<R>(
        &self,
        ticket: Ticket,
        first: Option<&FirstLook>,
        own: impl Fn(&mut Books) -> Option<R>,
        mut take: impl FnMut(&mut Books) -> Option<R>,
        deadline: Option<Instant>,
    ) -> Option<R> {
        let word = self.segment.slot(ticket.slot).word();
        let over = || {
            let now = word.load();
            now.generation() != ticket.generation || now.is_terminal()
        };
        if ticket.asleep == 0 && !self.await_change(ticket, first, over) {
            self.segment.bell().end_naps();
        }
        let mut backstop = Backstop::new();
        let mut slept = false;
        loop {
            {
                let mut state = self.lock();
                if self.is_urged() {
                    self.poll(&mut state);
                }
                let mut taken = own(&mut state);
                let entry = &state.entries[ticket.slot as usize];
                let mine = entry.generation == ticket.generation && entry.task.is_some();
                if taken.is_some() || mine && self.consume(&mut state, ticket.slot) {
                    // Who waits for one result of many will ask for the others next.
                    if state.in_flight > 0 {
                        self.poll(&mut state);
                    }
                    self.wake_sleepers(&mut state);
                }
                if taken.is_none() {
                    taken = take(&mut state);
                }
                if taken.is_some() {
                    drop(state);
                    if slept {
                        self.end_watch_soon();
                    }
                    return taken;
                }
                if state.entries[ticket.slot as usize].generation != ticket.generation {
                    // Its slot is somebody else's by now: what is left of a chunk, or an error on its way.
                    drop(state);
                    let try_again = RefCell::new((take, None));
                    let ready = || {
                        let (take, taken) = &mut *try_again.borrow_mut();
                        if taken.is_none() {
                            *taken = take(&mut self.lock());
                        }
                        taken.is_some()
                    };
                    self.wait_any(&ready, deadline);
                    return try_again.into_inner().1;
                }
                state.entries[ticket.slot as usize].waiters += 1;
            }
            let limit = match backstop.limit(deadline) {
                Some(limit) => limit,
                None => {
                    self.leave_slot(ticket);
                    return take(&mut self.lock());
                }
            };
            let seen = word.announce_wait(ticket.generation);
            let slept_out = match seen {
                Some(seen) if !self.is_urged() => !word.sleep(seen, Some(limit)),
                _ => false,
            };
            slept = true;
            self.leave_slot(ticket);
            backstop.look(self, slept_out);
        }
    }

    /// Waits awake for a while, or until `over`; whether that came.
    ///
    /// For the pool's first call no CPU is given away: the worker that does it was begun on another, and takers of
    /// this one would be a template and a supervisor that have much to do and are not needed for it.
    fn await_change(&self, ticket: Ticket, first: Option<&FirstLook>, over: impl Fn() -> bool) -> bool {
        let budget = self.spin_budget();
        // A task cannot be done before it has read what it was sent.
        let reading = if budget == 0 || self.segment.places() > self.cpus {
            0
        } else {
            (ticket.bytes / READ_IN_ROUND).min(READING_MOST) as u32
        };
        if budget > 0
            && let Some(first) = first
        {
            first.rest();
        }
        let mut rounds = 0;
        while rounds < budget + reading && !over() {
            if ticket.is_first() {
                spin_loop()
            } else {
                self.pause(rounds)
            }
            rounds += 1;
        }
        // What came in the time for reading says nothing of other tasks.
        if rounds < budget || rounds == budget + reading {
            self.learn(rounds < budget);
        }
        if let Some(first) = first {
            first.learn(rounds);
        }
        rounds < budget + reading
    }

    /// Lets some time pass, awake.
    #[inline]
    fn pause(&self, round: u32) {
        if round % YIELD_EVERY == YIELD_EVERY - 1 && self.segment.places() > self.cpus {
            yield_cpu(); // whose result we wait for may need it
        } else {
            spin_loop();
        }
    }

    /// Whether somebody has asked for a look at all slots.
    fn is_urged(&self) -> bool {
        self.segment.rescan().is_up()
    }

    /// Ends a thread's interest in a slot's word; the last one lets the slot be used again.
    fn leave_slot(&self, ticket: Ticket) {
        let mut state = self.lock();
        let entry = &mut state.entries[ticket.slot as usize];
        entry.waiters -= 1;
        if entry.waiters == 0 && entry.task.is_none() && !entry.quarantined && state.failed.is_none() {
            state.free.push(ticket.slot);
            self.wake_sleepers(&mut state); // somebody may wait for a slot
        }
    }

    /// Waits until `ready`, which some outcome makes true; `false` if `deadline` passed.
    pub(crate) fn wait_any(&self, ready: &dyn Fn() -> bool, deadline: Option<Instant>) -> bool {
        let budget = self.spin_budget();
        for round in 0..budget {
            if round % 8 == 0 {
                self.collect();
                if ready() {
                    self.learn(true);
                    return true;
                }
            }
            self.pause(round);
        }
        self.learn(false);
        self.segment.bell().end_naps();
        let sleep = self.segment.sleep();
        let mut backstop = Backstop::new();
        loop {
            let (seen, news);
            {
                let mut state = self.lock();
                self.poll(&mut state);
                state.sleepers += 1;
                // A value of its own, so that no later sleeper can make this one sleep on.
                state.sleep_epoch = state.sleep_epoch.wrapping_add(2);
                seen = sleep.announce(state.sleep_epoch);
                news = self.has_news(&state);
            }
            // Whoever makes it ready from here on finds us among the sleepers.
            let limit = backstop.limit(deadline);
            let nap = if news || ready() { None } else { limit };
            let Some(nap) = nap else {
                self.leave_sleepers();
                if ready() {
                    return true;
                }
                // News without end, which only corrupt words bring, do not outlast the deadline.
                if limit.is_none() {
                    return false;
                }
                backstop.look(self, false);
                continue;
            };
            let slept_out = !sleep.sleep(seen, nap);
            self.leave_sleepers();
            backstop.look(self, slept_out);
            self.collect();
            if ready() {
                self.end_watch_soon();
                return true;
            }
        }
    }

    fn leave_sleepers(&self) {
        let mut state = self.lock();
        state.sleepers -= 1;
        if state.sleepers == 0 {
            self.segment.sleep().withdraw();
        }
    }

    /// The back-stop: a stopped worker may keep a hint or a wake-up from us, so look without them. And a word
    /// that somebody has written over may say that a task is on its way which nobody will ever end.
    #[cold]
    pub(crate) fn look_behind(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        for lane in 0..LANES {
            self.segment.ready(lane).repair(state.tail[lane]);
        }
        if state.in_flight == 0 {
            return;
        }
        self.scan(state);
        let mut announced = [false; LANES];
        let mut failed = false;
        for number in 0..state.fresh {
            let entry = &state.entries[number as usize];
            let Some(task) = &entry.task else { continue };
            let (func, _) = state.function(task.function);
            let slot = self.segment.slot(number);
            let word = slot.word().load();
            match word.state() {
                // Workers go by the function to know whether a task is for them.
                Some(SlotState::Ready) if slot.func.load(Ordering::Relaxed) != func.0 => {
                    if slot.word().cancel(entry.generation)
                        && let Some(task) = self.release_slot(state, number)
                    {
                        let error = format!("the function in slot {number} was written over");
                        task.fail(Error::corrupted(error), state);
                        failed = true;
                    }
                }
                Some(SlotState::Ready) => {
                    let lane = func.lane();
                    self.segment.requeue(lane).announce(number);
                    announced[lane] = true;
                }
                Some(SlotState::Run) if self.nobody_runs(state, number, word) => {
                    let error = Error::corrupted(format!("slot {number} is {word:?}, which does not run it"));
                    failed = self.corrupted(state, number, error);
                }
                _ => {}
            }
        }
        if failed {
            self.wake_sleepers(state);
        }
        drop(guard);
        for lane in (0..LANES).filter(|&lane| announced[lane]) {
            self.segment.bell().notify_force(lane);
        }
    }

    fn spin_budget(&self) -> u32 {
        if self.cpus > 1 { self.spin.load(Private::Relaxed) } else { 0 }
    }

    /// Waiting awake pays only if the result comes meanwhile.
    fn learn(&self, paid: bool) {
        let now = self.spin.load(Private::Relaxed);
        let next = if paid { (now * 2).min(SPIN_MOST) } else { (now / 2).max(SPIN_LEAST) };
        if next != now {
            self.spin.store(next, Private::Relaxed);
        }
    }
}
