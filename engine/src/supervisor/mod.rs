//! The thread that keeps a pool's workers: launches them, watches them die, repairs, replaces.

mod control;
mod deaths;
mod places;

use crate::client::{Client, Sight};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{FLUSH_LIMIT, FromWorker, Launcher};
use crate::name_card::{self, OwnCard};
use crate::segment::{PoolState, Segment};
use crate::sync::back_stop;
use crate::sync::private::{Private, PrivateUsize};
use crate::sys::{self, Channel, Listener, ProcessHandle, Received, Timer, Wait};
use crate::wake::ParkState;
pub(crate) use control::Control;
use control::Wish;
use deaths::Orphan;
use places::{Coming, ORPHAN_LIMIT};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a closing pool looks whether its work is done, besides being told.
const CLOSING_TICK: Duration = Duration::from_millis(10);
/// How often workers that closed their channel are looked at: nothing else would show an `execve`.
const DEAF_TICK: Duration = Duration::from_secs(1);
/// How long nothing must have happened before memory is given back that the pool does not need at once.
const IDLE_TICK: Duration = Duration::from_secs(2);
/// How often, at most, the slots of a busy pool are looked at in any case, and busy workers: nothing else would show one
/// whose thread ended and left others. The client's timer says when the pool is busy.
const LOOK_TICK: Duration = Duration::from_secs(1);
/// How often launching workers is tried again after it has failed.
const LAUNCH_TICK: Duration = Duration::from_millis(100);
/// How long after workers were started that is written down. They have just got going, and the CPU is theirs.
const NOTE_TICK: Duration = Duration::from_millis(10);
/// How long processes of a [launcher](crate::raw::Launcher) may take to leave when a pool is terminated, if they run no
/// task, and how often they are looked at.
const FAREWELL: Duration = Duration::from_millis(500);
const FAREWELL_TICK: Duration = Duration::from_millis(5);
/// Time between SIGTERM and SIGKILL when a pool is terminated.
const GRACE: Duration = Duration::from_millis(50);

/// A process in a place.
struct Resident {
    incarnation: u32,
    handle: ProcessHandle,
    /// `None` once it has closed its end, alive.
    channel: Option<Channel>,
    guest: bool,
    /// Forked by the pool's process itself.
    ward: bool,
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
    orphans: Vec<Orphan>,
    /// The first workers, as long as they are being launched, and of how many that was begun.
    coming: VecDeque<Coming>,
    begun: u32,
    /// The template that ends with the first workers, if these are not its own children.
    guardian: Option<u64>,
    /// Places that guests have left, whose payload memory no successor may ever need.
    vacated: Vec<u32>,
    /// The next incarnation of each place. None is used twice, whatever the life words say.
    incarnations: Vec<u32>,
    name: Option<(OwnCard, Listener)>,
    /// Workers that ended, one after the other, before they were ready.
    early_deaths: u32,
    /// When the first of them ended.
    early_since: Instant,
    /// When places that had stayed empty were last filled, or tried to.
    last_fill: Instant,
    /// When busy workers, and slots, were last looked at without being told to.
    last_look: Instant,
    /// What was seen of the tasks when the client's timer went off last.
    sight: Sight,
    /// When it is written down that somebody has come.
    note_at: Option<Instant>,
    broken: bool,
    /// Iterators that still have input to submit.
    streams: Arc<PrivateUsize>,
}

impl Supervisor {
    pub(crate) fn new(
        client: Arc<Client>,
        control: Arc<Control>,
        launcher: Launcher,
        target: u32,
        streams: Arc<PrivateUsize>,
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
            orphans: Vec::new(),
            coming: VecDeque::new(),
            begun: 0,
            guardian: None,
            vacated: Vec::new(),
            incarnations,
            name: None,
            early_deaths: 0,
            early_since: Instant::now(),
            last_fill: Instant::now(),
            last_look: Instant::now(),
            sight: Sight::default(),
            note_at: None,
            broken: false,
            streams,
        }
    }

    /// Puts up the pool's name, if it has one, and launches what has to be forked from the calling thread. On
    /// failure nothing is left.
    pub(crate) fn prepare(&mut self, name: Option<&str>) -> Result<()> {
        if !self.is_bound() && !self.launcher.is_foreign() {
            sys::flush_output(FLUSH_LIMIT);
        }
        let named = name.map_or(Ok(()), |name| {
            name_card::check_name(name)?;
            let id = self.segment.pool_id();
            self.launcher.guard_name(id, name)?; // first, so that no death leaves a card behind
            let card = OwnCard::create(name, id)?;
            let listener = Listener::bind(&card.card.socket())?;
            self.name = Some((card, listener));
            Ok(())
        });
        let begun = named.and_then(|()| match self.launcher.may_fork_here() {
            true => self.fork_first(),
            false => self.launcher.fork_template(Vec::new),
        });
        begun.inspect_err(|_| self.abandon())
    }

    /// Launches all workers; on failure those that were launched are gone again.
    ///
    /// For [contexts](Self::is_bound) whose workers die with the thread that launched them, to be called by the
    /// one that will [`run`](Self::run); and for workers that [somebody else](Self::is_foreign) starts.
    pub(crate) fn launch_all(&mut self) -> Result<()> {
        while self.is_starting() {
            self.launch_first().inspect_err(|_| self.abandon())?;
        }
        Ok(())
    }

    /// Whether the thread that launches workers has to live as long as they do.
    pub(crate) fn is_bound(&self) -> bool {
        !self.launcher.is_anybodys()
    }

    /// Whether somebody else starts the workers: the first ones on the thread of whoever wants the pool.
    pub(crate) fn is_foreign(&self) -> bool {
        self.launcher.is_foreign()
    }

    /// Ends what was launched, and begun, before it has served anybody.
    pub(crate) fn abandon(&mut self) {
        self.stop_all();
        self.finish();
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
        let mut launched = false;
        // Without a timer the pool is looked at all the time.
        if let Ok(timer) = Timer::new() {
            self.client.watch_by(timer);
        }
        loop {
            let wish = self.control.lock().wish;
            if wish == Wish::Terminate {
                self.client.refuse(ErrorKind::Terminated.into());
                self.stop_all();
                self.client.fail(ErrorKind::Terminated.into());
                break;
            }
            if self.is_starting() {
                if let Err(error) = self.launch_first() {
                    self.break_pool(error);
                }
                continue;
            }
            if !std::mem::replace(&mut launched, true) {
                self.control.say_launched();
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
        let mut state = self.control.lock();
        state.launched = true;
        state.ended = true;
        drop(state);
        self.control.changed.notify_all();
    }

    /// Whether a closed pool has nothing more to do; tells its workers to leave when so.
    fn drained(&mut self) -> bool {
        if self.broken {
            return true;
        }
        self.client.collect();
        let streaming = self.streams.load(Private::Acquire) > 0 && !self.control.lock().streams_ended;
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
            Wish::Close => Some(CLOSING_TICK),
            _ if self.note_at.is_some() => Some(NOTE_TICK),
            _ if short => Some(LAUNCH_TICK),
            _ if deaf => Some(DEAF_TICK),
            _ if self.client.watch_fd().is_none() => Some(LOOK_TICK),
            _ if !self.vacated.is_empty() || self.client.may_give_memory() => Some(IDLE_TICK),
            // Nothing is to be done that nobody would tell.
            _ => None,
        };
        let mut fds = vec![Wait::input(self.control.bell.as_fd())];
        let watch = self.client.watch_fd().map(|timer| add(&mut fds, timer));
        let knock = self.name.as_ref().map(|(_, listener)| add(&mut fds, listener.as_fd()));
        let template = self.launcher.template_fd().map(|template| add(&mut fds, template));
        let first = fds.len();
        let mut who = Vec::new();
        for (index, resident) in self.residents.iter().enumerate() {
            let Some(resident) = resident else { continue };
            fds.push(Wait::input(resident.handle.as_fd()));
            who.push((index as u32, false));
            if let Some(channel) = &resident.channel {
                // What it says can wait until it hangs up, as it does after bad news, or dies. A process that is not
                // this crate's alone has more to do after that, and hangs up when it dies.
                let listens = self.launcher.is_foreign() && !resident.ready;
                let wait = if listens { Wait::input } else { Wait::hangup };
                fds.push(wait(channel.as_fd()));
                who.push((index as u32, true));
            }
        }
        let ready = match sys::poll_for(&fds, tick) {
            Ok(ready) => ready,
            Err(_) => {
                std::thread::sleep(Duration::from_millis(10)); // out of kernel memory: it passes
                return;
            }
        };
        drop(fds);
        if !ready.iter().any(|r| r.any()) {
            self.client.rest();
            self.give_back();
        }
        if self.note_at.is_some_and(|at| at <= Instant::now()) {
            self.note_starts();
        }
        if watch.is_some_and(|at| ready[at].input) {
            if self.sight == Sight::default() {
                self.last_look = Instant::now(); // the pool has just become busy
            }
            self.sight = self.client.look_around(self.sight);
        }
        if self.last_look.elapsed() >= back_stop(LOOK_TICK) {
            self.last_look = Instant::now();
            self.client.look_behind(); // somebody may only ask now and then whether a result is there
            self.end_headless();
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
        if template.is_some_and(|at| ready[at].any()) {
            self.launcher.bury_template(); // after its workers: it may have told of their ends
        }
        self.end_orphaned_wards();
        if short {
            self.fill_places();
        }
        if knock.is_some_and(|at| ready[at].input) {
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

    /// Ends all work with `error`: the pool cannot go on.
    fn break_pool(&mut self, error: Error) {
        self.broken = true;
        self.client.refuse(error.clone()); // nobody is left waiting for the processes to die
        self.stop_all();
        self.client.fail(error);
    }

    /// Kills all workers and reaps them.
    fn stop_all(&mut self) {
        self.give_up_first();
        self.segment.set_state(PoolState::Stopping);
        if self.launcher.is_foreign() {
            self.see_off();
        }
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
        let places: Vec<u32> = self.orphans.iter().map(|orphan| orphan.index).collect();
        for index in places {
            let _ = self.bury_orphan(index, ORPHAN_LIMIT); // it dies, now or soon
        }
    }
}

impl Supervisor {
    /// Lets workers that run no task leave by themselves, for so long at most: other languages have things to do at the
    /// end of a process, such as to write what was printed. Those that run one are not waited for.
    fn see_off(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        let chance = Instant::now() + GRACE / 2;
        for index in 1..self.residents.len() as u32 {
            loop {
                self.listen_to(index);
                let Some(resident) = &self.residents[index as usize] else { break };
                let leaves = resident.leaving || self.segment.park(index).state() != ParkState::Run;
                let until = if resident.ready && leaves { deadline } else { chance };
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() || resident.handle.wait_dead(Some(left.min(FAREWELL_TICK))) {
                    break;
                }
            }
        }
    }
}

/// Adds a descriptor that something can be read from; its position.
fn add<'f>(fds: &mut Vec<Wait<'f>>, fd: BorrowedFd<'f>) -> usize {
    fds.push(Wait::input(fd));
    fds.len() - 1
}
