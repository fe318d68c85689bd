//! Where worker processes enter.

use super::messages::{FromWorker, ToChild};
use super::{Launched, template};
use crate::error::{Error, Result};
use crate::name_card;
use crate::raw::Service;
use crate::segment::Segment;
use crate::shared_slice::Serving;
use crate::sync::Ordering;
use crate::sync::private::{Private, PrivateBool, PrivateUsize};
use crate::sys::{self, Channel, Fork, ProcessHandle, Program, Received};
use crate::task::catch;
use crate::worker::{Leave, Worker};
use std::cell::Cell;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Set in the environment of a program that is run anew: the process id of its pool.
pub(super) const VARIABLE: &str = "RINGPOOL_ENTER";

/// A program that is run anew is told at once what it is to be.
const INSTRUCTION_LIMIT: Duration = Duration::from_secs(1);

/// Every so often an idle worker reads in `/proc` whether the pool's process lives, not only whether
/// anybody has its id: that costs more than all else that an idle worker does.
const CLOSE_LOOK: u32 = 16;

static INITIALIZED: PrivateBool = PrivateBool::new(false);
/// How many pools this process works for.
static SERVING: PrivateUsize = PrivateUsize::new(0);

/// Makes the first line of `main` of a program that uses [`Context::Spawn`](crate::Context::Spawn) or
/// [`ForkServer`](crate::Context::ForkServer).
///
/// In the program that the user started it does next to nothing. In a worker, which is the same program
/// run anew, it serves the pool and never returns: nothing after it runs there. Functions that are
/// registered by name are registered before this line, so that workers know them, too.
///
/// ```
/// fn hello() -> String { "hello".to_owned() }
///
/// ringpool::register("hello", hello)?;
/// ringpool::init();
/// // the program
/// # Ok::<(), ringpool::Error>(())
/// ```
pub fn init() {
    INITIALIZED.store(true, Private::Relaxed);
    if let Some(pool) = std::env::var_os(VARIABLE) {
        // SAFETY: the first line of `main`: no other thread reads the environment.
        unsafe { std::env::remove_var(VARIABLE) };
        enter(pool.to_string_lossy().parse().unwrap_or(0));
    }
}

pub(super) fn initialized() -> bool {
    INITIALIZED.load(Private::Relaxed)
}

/// Whether this process is a worker of a pool.
pub fn is_worker() -> bool {
    SERVING.load(Private::Relaxed) > 0
}

/// The life of a program that was run anew.
fn enter(pool: u32) -> ! {
    // SAFETY: standard input is the channel that the pool passed, and nothing has used it yet.
    let duplicate = unsafe { OwnedFd::from_raw_fd(0) }.try_clone();
    let (Ok(fd), Ok(())) = (duplicate, sys::redirect_stdin_to_null()) else { sys::quick_exit(1) };
    let channel = Channel::from_fd(fd);
    let mut buffer = [0; 64];
    let Some((len, fds)) = instruction(&channel, &mut buffer, pool) else { sys::quick_exit(1) };
    let Some(memory) = Memory::from_fds(fds) else { sys::quick_exit(1) };
    match ToChild::from_bytes(&buffer[..len]) {
        Some(ToChild::BeTemplate) => match ProcessHandle::open(pool) {
            Ok(parent) => {
                sys::clear_parent_death_signal(); // it watches its parent, and has work to do after its end
                template::serve(channel, memory, parent, Vec::new())
            }
            Err(_) => template::end_with_the_pool(&channel, None, &[]),
        },
        Some(ToChild::Worker { index, incarnation }) => {
            // The pool's process may be dead already; then nobody would ever end this one.
            if !sys::set_parent_death_signal(pool) {
                sys::quick_exit(1);
            }
            forked_worker(memory, index, incarnation, channel)
        }
        Some(ToChild::GuardName { .. } | ToChild::NoPlace) | None => sys::quick_exit(1),
    }
}

/// What this process is to be; `None` if the pool's process died before it said so.
///
/// One that has said so and died since is obeyed: a template must take its name down. So this process
/// asks for death with its parent only if no word comes.
fn instruction(channel: &Channel, buffer: &mut [u8], pool: u32) -> Option<(usize, Vec<OwnedFd>)> {
    match channel.recv_timeout(buffer, INSTRUCTION_LIMIT) {
        Ok(Received::Message(len, fds)) => Some((len, fds)),
        Ok(Received::Nothing) if sys::set_parent_death_signal(pool) => channel.recv(buffer).ok()?,
        Ok(Received::Nothing | Received::Closed) | Err(_) => None,
    }
}

/// Forks the calling thread, the first of its process, into a worker.
pub(super) fn fork_worker(segment: &Segment, index: u32, incarnation: u32) -> Result<Launched> {
    let (ours, theirs) = Channel::pair()?;
    let me = std::process::id();
    let still = name_card::hold_still();
    // SAFETY: the child runs `forked_worker` only, which neither returns nor unwinds into our frames, and
    // touches no lock that another thread of this process might hold, but the allocator's, which libc makes
    // usable in the child.
    match unsafe { sys::fork()? } {
        Fork::Child => {
            if !sys::set_parent_death_signal(me) {
                template::leave();
            }
            drop(still);
            drop(ours);
            sys::default_signals();
            let Ok(memory) = Memory::of(segment) else { template::leave() };
            forked_worker(memory, index, incarnation, theirs)
        }
        Fork::Parent(pid) => {
            sys::begin_elsewhere(pid); // there is more to do here
            drop(still);
            drop(theirs);
            // Our child, and nobody has waited for it: the number is its.
            match ProcessHandle::open(pid) {
                Ok(handle) => Ok(Launched { handle, channel: ours }),
                Err(error) => {
                    sys::kill_child(pid);
                    Err(error)
                }
            }
        }
    }
}

/// The life of a worker process. Its parent's death kills it.
pub(super) fn forked_worker(memory: Memory, index: u32, incarnation: u32, channel: Channel) -> ! {
    sys::set_name("ringpool-worker");
    sys::heed_ending_signals(); // a template does not
    sys::ignore_sigint(); // what Ctrl-C means is the business of the pool's process
    #[cfg(feature = "crash")]
    crate::sync::crash::born(index, incarnation);
    let code = catch_unwind(AssertUnwindSafe(|| match attach(memory, index) {
        Ok((segment, same_program)) => {
            // The kernel kills workers with their parent, and with the pool's process. This is for one that does
            // not know the second.
            let header = segment.header();
            let pid = header.creator_pid.load(Ordering::Relaxed) as u32;
            let start = header.creator_start.load(Ordering::Relaxed);
            let looks = Cell::new(0u32);
            let creator_gone = || {
                looks.set(looks.get().wrapping_add(1));
                let closely = looks.get().is_multiple_of(CLOSE_LOOK);
                !sys::is_somebody(pid) || closely && !sys::still_runs(pid, start)
            };
            run_worker(&segment, incarnation, same_program, &channel, Manner::Own(&creator_gone)).1
        }
        Err(error) => {
            let _ = channel.try_send(&FromWorker::Refused(error.to_string()).to_bytes(), &[]);
            channel.hang_up();
            1
        }
    }));
    // A panic here is a bug of ours; it looks like any other death to the pool.
    sys::quick_exit(code.unwrap_or(101))
}

/// The descriptors of a pool's memory.
pub(super) struct Memory {
    control: OwnedFd,
    data: OwnedFd,
}

impl Memory {
    /// Descriptors of its own for the memory of `segment`.
    pub(super) fn of(segment: &Segment) -> Result<Self> {
        let own = |fd: BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|e| Error::io("duplicating a descriptor", e))
        };
        let [control, data] = segment.fds();
        Ok(Memory { control: own(control)?, data: own(data)? })
    }

    /// As [`Segment::fds`] gave them.
    pub(super) fn from_fds(fds: Vec<OwnedFd>) -> Option<Self> {
        let [control, data] = fds.try_into().ok()?;
        Some(Memory { control, data })
    }
}

/// The pool's memory, and whether this process runs the program of the pool's: not so only if that started it by a
/// [command](crate::Builder::command) of its own.
pub(super) fn attach(memory: Memory, index: u32) -> Result<(Arc<Segment>, bool)> {
    let segment = Segment::attach(memory.control, memory.data, index)?;
    let same_program = segment.header().program.load(Ordering::Relaxed) == Program::current().fingerprint();
    Ok((Arc::new(segment), same_program))
}

/// This process works for one pool less.
struct Reset;

impl Drop for Reset {
    fn drop(&mut self) {
        SERVING.fetch_sub(1, Private::Relaxed);
    }
}

/// How a process works for a pool.
pub(crate) enum Manner<'a> {
    /// It is there for nothing else, so it may be killed with the pool's process; until it is ready it looks whether
    /// that is gone.
    Own(&'a dyn Fn() -> bool),
    /// It looks now and then whether the pool's process is gone.
    Guest(&'a dyn Fn() -> bool),
    /// It is killed with the pool's process already, and somebody else ends it.
    Service(Service<'a>),
}

/// Initializes, serves and leaves; returns the reason and the exit code.
pub(crate) fn run_worker(
    segment: &Arc<Segment>,
    incarnation: u32,
    same_program: bool,
    channel: &Channel,
    manner: Manner<'_>,
) -> (Result<Leave>, i32) {
    SERVING.fetch_add(1, Private::Relaxed);
    crate::task::install_hook();
    let _reset = Reset;
    let serving = Serving::begin(segment);
    let say = |message: FromWorker| {
        let _ = channel.try_send(&message.to_bytes(), &[]);
    };
    let (creator_gone, expendable, mut service) = match manner {
        Manner::Own(creator_gone) => (Some(creator_gone), true, None),
        Manner::Guest(creator_gone) => (Some(creator_gone), false, None),
        Manner::Service(service) => (None, false, Some(service)),
    };
    // The pool reads no message of somebody who is still there, unless it is a service: that hangs up when it ends.
    let hangs_up = service.is_none();
    let say_last = |message: FromWorker| {
        say(message);
        if hangs_up {
            channel.hang_up();
        }
    };
    let _serving = match serving {
        Ok(serving) => serving,
        Err(error) => {
            say_last(FromWorker::Refused(error.to_string()));
            return (Err(error), 1);
        }
    };
    let mut worker = match Worker::new(segment, incarnation, same_program, creator_gone) {
        Ok(worker) => worker,
        // Its place was given away, or somebody wrote over the word that says so: another launch may do
        // better, so this is an early death and no reason for the pool to end.
        Err(error) => return (Err(error), 1),
    };
    let mut initialized = worker.initialize();
    if let Some(Service { initialize, around }) = service.take() {
        worker.call_by(around);
        initialized = initialized.and_then(|()| {
            let called = catch(initialize);
            called.unwrap_or_else(|panic| Err(format!("it panicked at {}: {}", panic.place, panic.message)))
        });
    }
    if let Err(text) = initialized {
        say_last(FromWorker::InitializerFailed(text.clone()));
        return (Err(Error::start(format!("the pool's initializer failed: {text}"))), 1);
    }
    say(FromWorker::Ready);
    // From here on the pool closes its end only when this process is dead. Its template, whose death is this
    // worker's, may be stopped when the pool's process dies; and a worker that changes its user is not killed with its
    // parent any more.
    if expendable && channel.kill_on_hang_up() {
        if channel.has_hung_up() {
            return (Ok(Leave::CreatorGone), 0);
        }
        worker.ends_with_creator();
    }
    let reason = worker.serve();
    say(FromWorker::Leaving);
    (Ok(reason), 0)
}
