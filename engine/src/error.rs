//! The one error type: what went wrong, in words and as a [`kind`](Error::kind).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call, a pool or a payload failed.
///
/// One machine word, cheap to clone: one failure may be the answer to many calls. Ask
/// [`kind`](Self::kind) or one of the predicates what happened; `Display` says it to a person.
///
/// ```
/// # ringpool::init();
/// use ringpool::{ErrorKind, Pool};
/// let pool = Pool::new(1)?;
/// let error = pool.apply(|x: u32| -> u32 { panic!("no {x}") }, (7,)).unwrap_err();
/// assert!(error.is_panic());
/// if let ErrorKind::Panicked { message, .. } = error.kind() {
///     assert_eq!(message, "no 7");
/// }
/// # Ok::<(), ringpool::Error>(())
/// ```
#[derive(Clone)]
pub struct Error(Arc<ErrorKind>);

/// What happened, with the values that matter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The task returned `Err`; this is its error's text.
    #[error("the task failed: {message}")]
    Failed {
        /// The `Display` text of the task's error.
        message: String,
    },
    /// The task failed with a code of its own, as tasks of [other languages](crate::raw) do.
    #[error("the task failed with code {code}: {message}")]
    FailedWith {
        /// The task's code.
        code: i32,
        /// The task's text.
        message: String,
    },
    /// The task panicked. Its worker lives on.
    #[error("the task panicked at {place}: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
        /// `file:line:column` of the panic.
        place: String,
    },
    /// The process that ran the task died while it ran it.
    #[error("worker {worker} (pid {pid}) {end} while it ran {function} (attempt {attempt})")]
    WorkerDied {
        /// How the process ended.
        end: Exit,
        /// Its process id.
        pid: u32,
        /// Its place in the pool, from 1.
        worker: u32,
        /// The function that it ran.
        function: String,
        /// Which attempt this was, from 1.
        attempt: u32,
    },
    /// The result did not come in time. Nothing is cancelled: waiting again may succeed.
    #[error("no result within {waited:?}")]
    Timeout {
        /// How long the caller waited.
        waited: Duration,
    },
    /// It was taken back before any worker had started it.
    #[error("the call was cancelled before a worker had started it")]
    Cancelled,
    /// The pool was closed, so it takes no new work.
    #[error("the pool is closed and takes no new work")]
    Closed,
    /// The pool was terminated before this work was done.
    #[error("the pool was terminated before the work was done")]
    Terminated,
    /// `join` was called on a pool that still runs.
    #[error("the pool is still running: call close() or terminate() before join()")]
    StillRunning,
    /// The pool was made by another process (this one is its fork) and cannot be used here.
    #[error("the pool belongs to process {owner}; a forked child cannot use it")]
    Forked {
        /// The process that made the pool.
        owner: u32,
    },
    /// The initializer failed in a worker, so the pool cannot work.
    #[error("the pool's initializer failed in worker {worker} (pid {pid}): {message}")]
    Initializer {
        /// The worker that reported it first.
        worker: u32,
        /// Its process id.
        pid: u32,
        /// What the initializer said.
        message: String,
    },
    /// Workers could not be started.
    #[error("workers cannot be started: {message}")]
    Start {
        /// What failed.
        message: String,
    },
    /// All task slots were taken for longer than the pool's submit time-out.
    #[error("all {slots} task slots stayed taken for {waited:?}")]
    Full {
        /// How many slots the pool has.
        slots: u32,
        /// How long the submitter waited.
        waited: Duration,
    },
    /// A payload needs more shared memory than the quota of its process leaves.
    #[error("a payload of {needed} bytes does not fit: {used} of the arena's {quota} bytes are in use")]
    ArenaFull {
        /// Bytes asked for.
        needed: u64,
        /// Bytes in use.
        used: u64,
        /// The most that this process may use.
        quota: u64,
    },
    /// A value could not be written as an archive, or an archive could not be read.
    #[error("{message}")]
    Payload {
        /// What is wrong with it.
        message: String,
    },
    /// The function is not known where it should run, or cannot be sent there.
    #[error("{message}")]
    Function {
        /// Which function, and why.
        message: String,
    },
    /// Words in shared memory hold values that no process of this pool may write there.
    #[error("shared memory is corrupt: {message}")]
    Corrupted {
        /// Which word, and its value.
        message: String,
    },
    /// Joining a named pool was refused.
    #[error("cannot attach to pool {name:?}: {message}")]
    Attach {
        /// The pool's name.
        name: String,
        /// The reason.
        message: String,
    },
    /// An argument of the caller makes no sense.
    #[error("{message}")]
    Invalid {
        /// What it was, and what would be right.
        message: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It left with this exit code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It is gone, and nobody could tell how.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Exit::Code(code) => write!(f, "left with exit code {code}"),
            Exit::Signal(number) => match signal_name(number) {
                Some(name) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {number}"),
            },
            Exit::Unknown => f.write_str("disappeared"),
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

impl Error {
    /// What happened, with the values that matter.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }

    /// The task itself returned `Err`.
    pub fn is_task_error(&self) -> bool {
        matches!(*self.0, ErrorKind::Failed { .. } | ErrorKind::FailedWith { .. })
    }

    /// The task panicked.
    pub fn is_panic(&self) -> bool {
        matches!(*self.0, ErrorKind::Panicked { .. })
    }

    /// The task's worker died under it.
    pub fn is_worker_died(&self) -> bool {
        matches!(*self.0, ErrorKind::WorkerDied { .. })
    }

    /// The wait ended before the result came.
    pub fn is_timeout(&self) -> bool {
        matches!(*self.0, ErrorKind::Timeout { .. })
    }

    /// The pool is closed or terminated.
    pub fn is_closed(&self) -> bool {
        matches!(*self.0, ErrorKind::Closed | ErrorKind::Terminated)
    }

    /// There was no payload memory.
    pub(crate) fn is_arena_full(&self) -> bool {
        matches!(*self.0, ErrorKind::ArenaFull { .. })
    }

    /// There never will be: the payload is larger than all that its process may use.
    pub(crate) fn is_beyond_quota(&self) -> bool {
        matches!(*self.0, ErrorKind::ArenaFull { needed, quota, .. } if needed > quota)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn io(what: &'static str, source: impl Into<std::io::Error>) -> Self {
        ErrorKind::Io { what, source: source.into() }.into()
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        ErrorKind::Invalid { message: message.into() }.into()
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn payload(message: impl Into<String>) -> Self {
        ErrorKind::Payload { message: message.into() }.into()
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn function(message: impl Into<String>) -> Self {
        ErrorKind::Function { message: message.into() }.into()
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn corrupted(message: impl Into<String>) -> Self {
        ErrorKind::Corrupted { message: message.into() }.into()
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn start(message: impl Into<String>) -> Self {
        ErrorKind::Start { message: message.into() }.into()
    }
}

impl From<ErrorKind> for Error {
    #[cold]
    #[inline(never)]
    fn from(kind: ErrorKind) -> Self {
        Error(Arc::new(kind))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}

const _: () = assert!(size_of::<Error>() == size_of::<usize>());
