//! The thread that keeps a pool's workers: launches them, watches them die, repairs, replaces.

use crate::client::{Client, Death};
use crate::error::{Error, ErrorKind, Exit, Result};
use crate::launch::{FromWorker, Launched, Launcher, ToChild};
use crate::name_card::OwnCard;
use crate::recovery;
use crate::segment::{Life, LifeState, PoolState, Role, Segment};
use crate::slot::Owner;
use crate::sync::Ordering;
use crate::sys::{self, Channel, EventFd, Listener, ProcessHandle, Received, Sent};
use rustix::process::Signal;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a closing pool looks whether its work is done, besides being told.
const CLOSING_TICK: Duration = Duration::from_millis(10);
/// How often workers that closed their channel are looked at: nothing else would show an `execve`.
const DEAF_TICK: Duration = Duration::from_secs(1);
/// How often an idle pool's memory is looked at.
const IDLE_TICK: Duration = Duration::from_secs(2);
/// How often the slots of a busy pool are looked at even if nobody waits.
const LOOK_TICK: Duration = Duration::from_secs(1);
/// How often launching workers is tried again after it has failed.
const LAUNCH_TICK: Duration = Duration::from_millis(100);
/// How many templates in a row may be killed while they launch one worker.
const TEMPLATE_TRIES: u32 = 8;
/// Workers that end early one after the other for so long cannot be started.
const EARLY_LIMIT: Duration = Duration::from_secs(1);
/// How long a process that was sent SIGKILL may go on until its CPU has heard of it; microseconds, in truth.
const ORPHAN_LIMIT: Duration = Duration::from_millis(20);
/// Time between SIGTERM and SIGKILL when a pool is terminated.
const GRACE: Duration = Duration::from_millis(50);

/// What the pool wants of its supervisor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum Wish {
    Run,
    Close,
    Terminate,
}

/// The pool's end of its supervisor.
pub(crate) struct Control {
    bell: EventFd,
    state: Mutex<ControlState>,
    changed: Condvar,
}

struct ControlState {
    wish: Wish,
    /// Iterators take no more input.
    streams_ended: bool,
    /// All workers are gone and the thread is about to end.
    ended: bool,
    /// Process ids of the workers that live now, by place.
    pids: Vec<(u32, u32)>,
}

impl Control {
    pub(crate) fn new() -> Result<Self> {
        let state = ControlState { wish: Wish::Run, streams_ended: false, ended: false, pids: Vec::new() };
        Ok(Control { bell: EventFd::new()?, state: Mutex::new(state), changed: Condvar::new() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ControlState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(&self, wish: Wish) {
        let mut state = self.lock();
        if state.wish < wish {
            state.wish = wish;
        }
        drop(state);
        self.bell.ring();
    }

    /// Workers leave once all work is done.
    pub(crate) fn close(&self) {
        self.wish(Wish::Close);
    }

    /// Iterators that still have input keep a closed pool no longer.
    pub(crate) fn end_streams(&self) {
        self.lock().streams_ended = true;
        self.bell.ring();
    }

    /// Workers are killed.
    pub(crate) fn terminate(&self) {
        self.wish(Wish::Terminate);
    }

    /// Waits until all workers are gone.
    pub(crate) fn wait_ended(&self) {
        let mut state = self.lock();
        while !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes a closing supervisor look again.
    pub(crate) fn nudge(&self) {
        self.bell.ring();
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.lock().pids.iter().map(|&(_, pid)| pid).collect()
    }
}

/// A process in a place.
struct Resident {
    incarnation: u32,
    handle: ProcessHandle,
    /// `None` once it has closed its end, alive.
    channel: Option<Channel>,
    guest: bool,
    ready: bool,
    leaving: bool,
}

pub(crate) struct Supervisor {
    client: Arc<Client>,
    segment: Arc<Segment>,
    control: Arc<Control>,
    launcher: Launcher,
    /// Workers that the pool keeps, in places 1 to `target`.
    target: u32,
    residents: Vec<Option<Resident>>,
    /// The next incarnation of each place. None is used twice, whatever the life words say.
    incarnations: Vec<u32>,
    name: Option<(OwnCard, Listener)>,
    /// Workers that ended, one after the other, before they were ready.
    early_deaths: u32,
    /// When the first of them ended.
    early_since: Instant,
    /// When places that had stayed empty were last filled, or tried to.
    last_fill: Instant,
    /// When slots were last looked at without being told to.
    last_look: Instant,
    broken: bool,
    /// Iterators that still have input to submit.
    streams: Arc<std::sync::atomic::AtomicUsize>,
}

impl Supervisor {
    pub(crate) fn new(
        client: Arc<Client>,
        control: Arc<Control>,
        launcher: Launcher,
        target: u32,
        streams: Arc<std::sync::atomic::AtomicUsize>,
    ) -> Self {
        let segment = client.segment.clone();
        let residents = (0..segment.processes()).map(|_| None).collect();
        let incarnations = vec![0; segment.processes() as usize];
        Supervisor {
            client,
            segment,
            control,
            launcher,
            target,
            residents,
            incarnations,
            name: None,
            early_deaths: 0,
            early_since: Instant::now(),
            last_fill: Instant::now(),
            last_look: Instant::now(),
            broken: false,
            streams,
        }
    }

    /// Launches all workers; on failure those that were launched are gone again.
    ///
    /// To be called by the thread that will [`run`](Self::run): workers die with the thread that
    /// launched them.
    pub(crate) fn launch_all(&mut self, name: Option<&str>) -> Result<()> {
        let result = (|| {
            if let Some(name) = name {
                let card = OwnCard::create(name)?;
                let listener = Listener::bind(&card.card.socket())?;
                self.launcher.guard_name(card.card.nonce, name)?;
                self.name = Some((card, listener));
            }
            (1..=self.target).try_for_each(|index| self.launch(index))
        })();
        if result.is_err() {
            self.stop_all();
            self.finish();
        }
        result
    }

    /// Gives an empty place to a process that is about to be launched, or let in.
    fn occupy(&mut self, index: u32, role: Role) -> u32 {
        let header = self.segment.header();
        header.places.fetch_max(u64::from(index) + 1, Ordering::AcqRel);
        let next = &mut self.incarnations[index as usize];
        let incarnation = *next;
        *next = next.wrapping_add(1);
        self.client.admit(index, incarnation, role == Role::Guest);
        let entry = self.segment.process(index);
        entry.role.store(role as u32, Ordering::Relaxed);
        entry.current.store(0, Ordering::Relaxed);
        entry.starved.store(0, Ordering::Relaxed);
        // By our own books nobody is there: a word that says otherwise is wrong.
        entry.life.store(Life { state: LifeState::Joining, incarnation }.pack(), Ordering::Release);
        incarnation
    }

    fn settle(&mut self, index: u32, incarnation: u32, launched: Launched, guest: bool) {
        let Launched { handle, channel } = launched;
        let entry = self.segment.process(index);
        entry.pid.store(handle.pid(), Ordering::Relaxed);
        entry.start_time.store(sys::start_time(handle.pid()).unwrap_or(0), Ordering::Relaxed);
        self.control.lock().pids.push((index, handle.pid()));
        self.residents[index as usize] = Some(Resident {
            incarnation,
            handle,
            channel: Some(channel),
            guest,
            ready: false,
            leaving: false,
        });
    }

    fn launch(&mut self, index: u32) -> Result<()> {
        let mut tries = 0;
        loop {
            let incarnation = self.occupy(index, Role::Worker);
            match self.launcher.launch(index, incarnation) {
                Ok(launched) => {
                    self.settle(index, incarnation, launched, false);
                    return Ok(());
                }
                Err(error) => {
                    // A process that was started all the same finds the place given away, and ends.
                    let away = Life { state: LifeState::Free, incarnation: incarnation.wrapping_add(1) };
                    let entry = self.segment.process(index);
                    if !entry.change_life(incarnation, &[LifeState::Joining], away) {
                        // Somebody is there whom we do not know: it dies with the template.
                        self.launcher.discard_template();
                        // The kernel sent it SIGKILL before the template's end could be seen; there is no
                        // descriptor of it to wait on, so it gets the time until the signal arrives.
                        std::thread::sleep(ORPHAN_LIMIT);
                        self.reap(index, incarnation, 0, Exit::Unknown);
                    } else {
                        self.client.after_reap(index); // it has never been there
                    }
                    tries += 1;
                    // That a template was killed while it was asked is no failure: ask the next one.
                    if tries == TEMPLATE_TRIES || !self.launcher.template_is_dead() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Fills places that stayed empty because launching failed; not oftener than once a tick.
    fn fill_places(&mut self) {
        if self.last_fill.elapsed() < LAUNCH_TICK {
            return;
        }
        self.last_fill = Instant::now();
        for index in 1..=self.target {
            if self.residents[index as usize].is_none() && self.launch(index).is_err() {
                return; // the next tick tries again
            }
        }
    }

    /// Whether a worker that ends is to be replaced.
    fn wants_workers(&self) -> bool {
        match self.control.lock().wish {
            _ if self.broken => false,
            Wish::Run => true,
            Wish::Close => self.segment.state() == PoolState::Running,
            Wish::Terminate => false,
        }
    }

    /// Keeps the pool until it is closed or terminated and all workers are gone.
    pub(crate) fn run(mut self) {
        loop {
            let wish = self.control.lock().wish;
            if wish == Wish::Terminate {
                self.client.refuse(ErrorKind::Terminated.into());
                self.stop_all();
                self.client.fail(ErrorKind::Terminated.into());
                break;
            }
            if wish == Wish::Close && self.drained() {
                // What an iterator submitted at the very last moment has nobody to run it.
                self.client.fail(ErrorKind::Closed.into());
                break;
            }
            self.attend(wish);
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.name = None;
        self.launcher.shut_down();
        self.control.lock().ended = true;
        self.control.changed.notify_all();
    }

    /// Whether a closed pool has nothing more to do; tells its workers to leave when so.
    fn drained(&mut self) -> bool {
        if self.broken {
            return true;
        }
        self.client.collect();
        let streaming =
            self.streams.load(std::sync::atomic::Ordering::Acquire) > 0 && !self.control.lock().streams_ended;
        if self.client.in_flight() == 0 && !streaming && self.segment.state() == PoolState::Running {
            self.segment.set_state(PoolState::Draining);
        }
        self.segment.state() == PoolState::Draining && self.residents.iter().all(Option::is_none)
    }

    /// Waits for something to happen and does what it asks for.
    fn attend(&mut self, wish: Wish) {
        let deaf = self.residents.iter().flatten().any(|r| r.channel.is_none());
        let places = &self.residents[1..=self.target as usize];
        let short = places.iter().any(Option::is_none) && self.wants_workers();
        let tick = match wish {
            Wish::Close => CLOSING_TICK,
            _ if short => LAUNCH_TICK,
            _ if deaf => DEAF_TICK,
            _ => IDLE_TICK,
        };
        let mut fds = vec![self.control.bell.as_fd()];
        let listening = self.name.is_some();
        fds.extend(self.name.iter().map(|(_, listener)| listener.as_fd()));
        fds.extend(self.launcher.template_fd());
        let first = fds.len();
        let template = first > 1 + usize::from(listening);
        let mut who = Vec::new();
        for (index, resident) in self.residents.iter().enumerate() {
            let Some(resident) = resident else { continue };
            fds.push(resident.handle.as_fd());
            who.push((index as u32, false));
            if let Some(channel) = &resident.channel {
                fds.push(channel.as_fd());
                who.push((index as u32, true));
            }
        }
        let ready = match sys::poll_in(&fds, Some(tick)) {
            Ok(ready) => ready,
            Err(_) => {
                std::thread::sleep(Duration::from_millis(10)); // out of kernel memory: it passes
                return;
            }
        };
        drop(fds);
        if !ready.iter().any(|r| r.any()) {
            self.client.rest();
        }
        if self.last_look.elapsed() >= LOOK_TICK {
            self.last_look = Instant::now();
            self.client.look_behind(); // somebody may only ask now and then whether a result is there
        }
        if !self.broken
            && let Some(error) = self.client.failure()
        {
            self.break_pool(error);
            return;
        }
        if ready[0].input {
            self.control.bell.clear();
        }
        for (&(index, is_channel), ready) in who.iter().zip(&ready[first..]) {
            if is_channel && ready.any() {
                self.listen_to(index);
            }
        }
        for (&(index, is_channel), ready) in who.iter().zip(&ready[first..]) {
            if !is_channel && ready.any() {
                self.bury(index);
            }
        }
        if template && ready[first - 1].any() {
            self.launcher.bury_template(); // after its workers: it may have told of their ends
        }
        if short {
            self.fill_places();
        }
        if listening && ready[1].input {
            self.welcome();
        }
        if deaf {
            self.check_deaf();
        }
    }

    /// Reads what a worker says.
    fn listen_to(&mut self, index: u32) {
        let mut buffer = vec![0; crate::launch::MAX_TEXT + 1];
        loop {
            let Some(resident) = &mut self.residents[index as usize] else { return };
            let Some(channel) = &resident.channel else { return };
            match channel.try_recv(&mut buffer) {
                Ok(Received::Message(len, _)) => match FromWorker::from_bytes(&buffer[..len]) {
                    Some(FromWorker::Ready) => {
                        resident.ready = true;
                        self.early_deaths = 0;
                    }
                    Some(FromWorker::Leaving) => resident.leaving = true,
                    Some(FromWorker::InitializerFailed(message)) if !resident.guest => {
                        let pid = resident.handle.pid();
                        self.break_pool(ErrorKind::Initializer { worker: index, pid, message }.into());
                        return;
                    }
                    Some(FromWorker::Refused(message)) if !resident.guest => {
                        self.break_pool(Error::start(format!("worker {index}: {message}")));
                        return;
                    }
                    _ => {}
                },
                Ok(Received::Nothing) => return,
                Ok(Received::Closed) | Err(_) => {
                    resident.channel = None;
                    self.check_deaf();
                    return;
                }
            }
        }
    }

    /// Looks at workers that hung up without dying: one that runs another program by now is killed,
    /// one that merely closed its descriptors is left alone.
    fn check_deaf(&mut self) {
        let mut departed = Vec::new();
        for (index, resident) in self.residents.iter().enumerate() {
            let Some(resident) = resident else { continue };
            let deaf = resident.channel.is_none() && !resident.handle.is_dead();
            if !deaf || self.segment.is_mapped_by(resident.handle.pid()) != Some(false) {
                continue;
            }
            // It has unmapped our memory, so it can do nothing to it any more.
            if resident.guest {
                departed.push(index as u32);
            } else {
                let _ = resident.handle.kill(Signal::KILL);
            }
        }
        for index in departed {
            self.bury(index);
        }
    }

    /// Repairs what a dead worker left, and replaces it if it is still needed.
    fn bury(&mut self, index: u32) {
        self.listen_to(index); // its last words
        let Some(resident) = self.residents[index as usize].take() else { return };
        let exit = self.repair(index, &resident);
        if resident.guest || self.broken {
            return;
        }
        if !resident.ready && !resident.leaving {
            if self.early_deaths == 0 {
                self.early_since = Instant::now();
            }
            self.early_deaths += 1;
            if self.early_deaths > 3 + self.target {
                if self.early_since.elapsed() < EARLY_LIMIT {
                    return; // perhaps somebody kills a lot just now: `fill_places` tries again, slowly
                }
                let message = format!(
                    "{} workers in a row ended before they were ready; the last {exit}",
                    self.early_deaths
                );
                self.break_pool(Error::start(message));
                return;
            }
        }
        if self.wants_workers()
            && let Err(error) = self.launch(index)
        {
            // Out of processes or memory: go on with fewer as long as there is one.
            if self.residents.iter().flatten().all(|r| r.guest) {
                self.break_pool(error);
            }
        }
    }

    /// Records the death, and reaps.
    fn repair(&mut self, index: u32, resident: &Resident) -> Exit {
        let exit = if resident.guest { Exit::Unknown } else { self.launcher.exit_of(&resident.handle) };
        self.reap(index, resident.incarnation, resident.handle.pid(), exit);
        self.control.lock().pids.retain(|&(place, _)| place != index);
        exit
    }

    fn reap(&self, index: u32, incarnation: u32, pid: u32, exit: Exit) {
        let who = Owner::new(index, incarnation);
        let current = self.segment.process(index).current.load(Ordering::Acquire);
        self.client.record_death(Death { who, pid, exit, current });
        recovery::reap(&self.segment, index, incarnation);
        self.segment.park(index).vacate();
        self.client.after_reap(index); // it takes all results that the dead has left
        if self.client.holds_nothing_of(index) {
            recovery::renew_region(&self.segment, index);
        }
    }

    /// Ends all work with `error`: the pool cannot go on.
    fn break_pool(&mut self, error: Error) {
        self.broken = true;
        self.client.refuse(error.clone()); // nobody is left waiting for the processes to die
        self.stop_all();
        self.client.fail(error);
    }

    /// Kills all workers and reaps them.
    fn stop_all(&mut self) {
        self.segment.set_state(PoolState::Stopping);
        let signal = |residents: &[Option<Resident>], signal: Signal| {
            for resident in residents.iter().flatten().filter(|r| !r.guest) {
                let _ = resident.handle.kill(signal);
            }
        };
        signal(&self.residents, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        for resident in self.residents.iter().flatten().filter(|r| !r.guest) {
            resident.handle.wait_dead(Some(deadline.saturating_duration_since(Instant::now())));
        }
        signal(&self.residents, Signal::KILL);
        for index in 0..self.residents.len() {
            let Some(resident) = self.residents[index].take() else { continue };
            if resident.guest {
                continue; // it leaves by itself after its task
            }
            resident.handle.wait_dead(None); // SIGKILL cannot be refused
            self.repair(index as u32, &resident);
        }
    }

    /// Takes in guests that knock at the pool's socket.
    fn welcome(&mut self) {
        while let Some((_, listener)) = &self.name {
            let (channel, handle) = match listener.accept() {
                Ok(Some(guest)) => guest,
                Ok(None) => return,
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(10)); // out of descriptors: it passes
                    return;
                }
            };
            let place = (self.target + 1..self.segment.processes())
                .find(|&index| self.residents[index as usize].is_none());
            let Some(index) = place else {
                let _ = channel.try_send(&ToChild::NoPlace.to_bytes(), &[]);
                continue;
            };
            let incarnation = self.occupy(index, Role::Guest);
            let message = ToChild::Worker { index, incarnation }.to_bytes();
            let told = matches!(channel.try_send(&message, &self.segment.fds()), Ok(Sent::Yes));
            self.settle(index, incarnation, Launched { handle, channel }, true);
            if !told && let Some(resident) = self.residents[index as usize].take() {
                self.repair(index, &resident); // it hung up before it had our memory
            }
        }
    }
}
