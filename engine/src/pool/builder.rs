//! Settings of a pool, and its start.

use super::Pool;
use super::inner::Inner;
use crate::client::{Args, Client, PATIENCE_MOST, RETRIES_MOST};
use crate::error::{Error, Result};
use crate::launch::{Context, Launcher};
use crate::payload::Payload;
use crate::raw;
use crate::segment::{MAX_FUNCTIONS, MAX_PROCESSES, Segment, Sizes};
use crate::supervisor::{Control, Supervisor};
use crate::sync::Ordering;
use crate::sys::{self, Own, Program, fork_guard};
use crate::task::{Task, registry};
use crate::worker::FuncWord;
use std::ffi::OsString;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Places for workers that join a named pool.
const GUESTS: u32 = 64;
const EXTENT: u64 = crate::arena::EXTENT as u64;

/// Makes a [`Pool`]: `Pool::builder().processes(4).start()?`.
///
/// ```
/// # ringpool::init();
/// use ringpool::{Context, Pool};
/// fn hello(workers: u32) { println!("one of {workers} workers") }
///
/// let pool = Pool::builder()
///     .processes(2)
///     .initializer(hello, (2,))
///     .max_tasks_per_child(100)
///     .retries(1)
///     .context(Context::Fork)
///     .start()?;
/// # Ok::<(), ringpool::Error>(())
/// ```
#[must_use]
pub struct Builder {
    processes: Option<usize>,
    initializer: Option<Initializer>,
    max_tasks_per_child: Option<u64>,
    context: Context,
    command: Option<Vec<OsString>>,
    launcher: Option<Box<dyn raw::Launcher>>,
    slots: u32,
    reserve: u64,
    quota: Option<u64>,
    retries: u32,
    patience: Duration,
    hardened: bool,
    name: Option<String>,
}

type Initializer = Box<dyn FnOnce(&Client) -> Result<(FuncWord, Args)> + Send>;

impl Default for Builder {
    fn default() -> Self {
        Builder {
            processes: None,
            initializer: None,
            max_tasks_per_child: None,
            context: Context::default(),
            command: None,
            launcher: None,
            slots: 1024,
            reserve: 16 << 30,
            quota: None,
            retries: 0,
            patience: Duration::from_secs(600),
            hardened: false,
            name: None,
        }
    }
}

impl Builder {
    /// How many workers; 0, the default, means one for each CPU that this process may use, by its affinity
    /// and by its control group's quota. A [named](Self::name) pool may be told to launch none, with
    /// [`guests_only`](Self::guests_only).
    pub fn processes(mut self, processes: usize) -> Self {
        self.processes = (processes > 0).then_some(processes);
        self
    }

    /// Launches no workers: only those that join by name work for this pool.
    pub fn guests_only(mut self) -> Self {
        self.processes = Some(0);
        self
    }

    /// A function that each worker calls once before its first task, replacements included.
    ///
    /// If it panics or returns an error, the pool ends: all calls fail with
    /// [`ErrorKind::Initializer`](crate::ErrorKind::Initializer).
    pub fn initializer<A, M, F>(mut self, f: F, args: A) -> Self
    where
        A: Payload + Send,
        F: Task<A, M>,
    {
        self.initializer = Some(Box::new(move |client: &Client| {
            Ok((FuncWord::new(f.func())?, Args::archive_in_block(&client.arena, &args)?))
        }));
        self
    }

    /// A function over [bytes](crate::raw) that each worker calls in the same way, with these bytes.
    pub fn raw_initializer(mut self, name: raw::Name, input: Vec<u8>) -> Self {
        self.initializer = Some(Box::new(move |client: &Client| {
            Ok((FuncWord::new(name.func())?, Args::of_bytes(&client.arena, &input)?))
        }));
        self
    }

    /// The program that is run for workers with [`Context::Spawn`], or as what forks them with
    /// [`Context::ForkServer`], and its arguments. Default: the file of this program, without arguments.
    ///
    /// It has to get to [`init`](crate::init) before it reads its standard input or starts threads. If it is not
    /// the same program, its workers run only functions that are called by name.
    pub fn command<S: Into<OsString>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.command = Some(command.into_iter().map(Into::into).collect());
        self
    }

    /// After so many tasks (a chunk is one) a worker leaves and a fresh one takes its place. Default: never.
    pub fn max_tasks_per_child(mut self, tasks: u64) -> Self {
        self.max_tasks_per_child = Some(tasks);
        self
    }

    /// How workers are started. Default: [`Context::Fork`].
    pub fn context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// Has workers started by somebody else: see [`Launcher`](raw::Launcher).
    ///
    /// The pool's context and command are not used then, and it cannot have a [name](Self::name). The first workers
    /// are started by the thread that calls [`start`](Self::start), one after the other, before it makes any thread;
    /// if one cannot be, those before it are ended, and `start` fails.
    pub fn launcher(mut self, launcher: impl raw::Launcher + 'static) -> Self {
        self.launcher = Some(Box::new(launcher));
        self
    }

    /// How many tasks may be on their way at once, rounded up to a power of two. Default: 1024.
    /// More wait in `apply_async`.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Address space for the payloads of each process, rounded up to 2 MiB: the largest that its quota can
    /// ever be. It costs nothing until it is used. Default: 16 GiB.
    pub fn arena_reserve(mut self, bytes: u64) -> Self {
        self.reserve = bytes;
        self
    }

    /// Most payload memory that each process may use, rounded up to 2 MiB. Default: half of the
    /// machine's (or control group's) memory, or the reserve if that is less.
    pub fn arena_quota(mut self, bytes: u64) -> Self {
        self.quota = Some(bytes);
        self
    }

    /// How often a task is started again after its worker has died under it, 0 to 14. Default: 0, because
    /// the task may have had effects.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How long to wait for a slot or for payload memory while others have it all, before that is an error.
    /// Default: ten minutes.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience.min(PATIENCE_MOST);
        self
    }

    /// Distrusts what workers write: for tasks that may be buggy in ways that Rust does not prevent, such as
    /// code in C. Default: `false`.
    ///
    /// In every pool a worker can write only where it has to, and whatever it writes there costs tasks
    /// ([`ErrorKind::Corrupted`](crate::ErrorKind::Corrupted)), not the pool's process. But arguments and
    /// results of a few bytes lie where all workers can write, and larger results are read where their
    /// worker still could. With this, what lies there carries checks, which a wild store does not pass, and
    /// results are copied before they are looked at: a task gives its value or an error, even while
    /// some worker writes all over the pool's memory. A round trip takes a tenth of a microsecond
    /// more, a large result the time of a copy. It is no protection from a worker that forges checks.
    pub fn hardened(mut self, hardened: bool) -> Self {
        self.hardened = hardened;
        self
    }

    /// Lets workers of other programs join: see [`attach`](crate::attach()).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Starts the pool. With [`Context::Fork`] workers are still being launched when this returns; should that
    /// fail, all calls report why, as they do if the initializer fails.
    pub fn start(self) -> Result<Pool> {
        let cpus = sys::usable_cpus();
        let processes = self.processes.unwrap_or(cpus);
        let guests = if self.name.is_some() { GUESTS } else { 0 };
        self.check(processes, guests)?;
        if let Some(name) = &self.name {
            crate::name_card::check_name(name)?;
        }
        let slots = self.slots.next_power_of_two();
        let region = self.reserve.next_multiple_of(EXTENT);
        let quota = self.quota.unwrap_or_else(|| sys::physical_memory() / 2);
        let quota = quota.next_multiple_of(EXTENT).min(region);
        let sizes = Sizes {
            processes: 1 + processes as u32 + guests,
            slots,
            completions: slots.clamp(64, 4096),
            region,
        };

        fork_guard::install()?;
        let program = Program::current().fingerprint(); // workers need not find it again
        let functions = registry::list(); // workers know no others
        let mut segment = Segment::create(sizes)?;
        if self.launcher.is_some() {
            segment.keep_from_forks()?; // workers get theirs with their seats
        }
        let segment = Arc::new(segment);
        let header = segment.header();
        header.payload_format.store(crate::payload::format_fingerprint(), Ordering::Relaxed);
        header.program.store(program, Ordering::Relaxed);
        header.quota.store(quota, Ordering::Relaxed);
        let me = std::process::id();
        header.creator_pid.store(u64::from(me), Ordering::Relaxed);
        header.creator_start.store(Own::get().start_time, Ordering::Relaxed);
        header.tasks_per_worker.store(self.max_tasks_per_child.unwrap_or(0), Ordering::Relaxed);
        header.cpus.store(cpus as u64, Ordering::Relaxed);
        header.patience.store(self.patience.as_millis() as u64, Ordering::Relaxed);
        header.hardened.store(u64::from(self.hardened), Ordering::Relaxed);
        header.places.store(1 + processes as u64, Ordering::Relaxed);
        let client = Client::new(segment.clone(), self.patience, self.retries + 1, quota);
        if let Some(initializer) = self.initializer {
            let (func, args) = initializer(&client)?;
            let block = args.block().ok_or_else(|| Error::corrupted("initargs are in no block"))?;
            header.init_offset.store(block.offset(), Ordering::Relaxed);
            header.init_len.store(block.len() as u64, Ordering::Relaxed);
            header.init_func.store(func.0, Ordering::Relaxed);
            client.keep(args); // replacements read them, too
        }
        write_functions(&segment, &functions)?;
        segment.publish();

        let client = Arc::new(client);
        let control = Arc::new(Control::new()?);
        let bell = control.clone();
        client.on_ruin(move || bell.nudge());
        let streams = Arc::default();
        let launcher = match self.launcher {
            Some(foreign) => Launcher::foreign(foreign, segment),
            None => Launcher::new(self.context, self.command, segment)?,
        };
        let supervisor = Supervisor::new(
            client.clone(),
            control.clone(),
            launcher,
            processes as u32,
            Arc::clone(&streams),
        );
        let thread = launch(supervisor, self.name)?;
        Ok(Pool::from_parts(Arc::new(Inner::new(client, control, streams, processes)), thread))
    }

    fn check(&self, processes: usize, guests: u32) -> Result<()> {
        let most = (MAX_PROCESSES - 1 - guests) as usize;
        if processes > most {
            return Err(Error::invalid(format!(
                "the number of processes is {processes}; it must be at most {most}"
            )));
        }
        if processes == 0 && self.name.is_none() {
            return Err(Error::invalid(
                "a pool without workers of its own needs a name by which others can join",
            ));
        }
        if self.launcher.is_some() && self.name.is_some() {
            return Err(Error::invalid("a pool whose workers are started by a launcher cannot have a name"));
        }
        if self.command.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid("the command that starts workers is empty"));
        }
        if self.max_tasks_per_child == Some(0) {
            return Err(Error::invalid("max_tasks_per_child is 0; it must be at least 1"));
        }
        if self.retries > RETRIES_MOST {
            return Err(Error::invalid(format!(
                "the number of retries is {}; it must be 0 to 14",
                self.retries
            )));
        }
        if self.slots < 2 || self.slots > 1 << 22 {
            return Err(Error::invalid(format!(
                "the number of slots is {}; it must be 2 to 4194304",
                self.slots
            )));
        }
        let needs = (self.reserve, "arena_reserve");
        for (bytes, what) in std::iter::once(needs).chain(self.quota.map(|quota| (quota, "arena_quota"))) {
            if bytes == 0 || bytes > 1 << 40 {
                return Err(Error::invalid(format!("{what} is {bytes} bytes; it must be 1 byte to 1 TiB")));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("processes", &self.processes)
            .field("context", &self.context)
            .field("slots", &self.slots)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Launches the workers, and starts the thread that keeps them.
fn launch(mut supervisor: Supervisor, name: Option<String>) -> Result<JoinHandle<()>> {
    if supervisor.is_bound() {
        return launch_bound(supervisor, name);
    }
    supervisor.prepare(name.as_deref())?;
    if supervisor.is_foreign() {
        supervisor.launch_all()?;
    }
    // Handed over like this, so that it is there to clean up if no thread can be made.
    let (give, take) = mpsc::sync_channel::<Supervisor>(1);
    match supervisor_thread(move || take.recv().into_iter().for_each(Supervisor::run)) {
        Ok(thread) => {
            let _ = give.send(supervisor); // it waits for it
            Ok(thread)
        }
        Err(error) => {
            supervisor.abandon();
            Err(error)
        }
    }
}

/// The same if the workers would not outlive the thread that launches them.
fn launch_bound(mut supervisor: Supervisor, name: Option<String>) -> Result<JoinHandle<()>> {
    let (started, wait) = mpsc::sync_channel(1);
    let thread = supervisor_thread(move || {
        let launched = supervisor.prepare(name.as_deref()).and_then(|()| supervisor.launch_all());
        let good = launched.is_ok();
        let _ = started.send(launched);
        if good {
            supervisor.run();
        }
    })?;
    match wait.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(_) => Err(Error::start("the supervisor thread ended at once")),
    }
}

fn supervisor_thread(body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("ringpool".to_owned()).spawn(body);
    thread.map_err(|e| Error::io("starting the supervisor thread", e))
}

/// Shows guests which functions they must know.
fn write_functions(segment: &Segment, functions: &[registry::RegisteredView]) -> Result<()> {
    if functions.len() > MAX_FUNCTIONS {
        return Err(Error::invalid(format!(
            "{} functions are registered by name; a pool can have {MAX_FUNCTIONS}",
            functions.len()
        )));
    }
    for (entry, function) in segment.functions().iter().zip(functions) {
        entry.write(&function.name, function.name_hash, function.signature_hash);
    }
    segment.header().functions.store(functions.len() as u64, Ordering::Release);
    Ok(())
}
