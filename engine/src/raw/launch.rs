//! Workers in processes that another language starts.

use super::Failure;
use crate::error::{Error, Exit};
use crate::launch;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Starts worker processes in the way of another language.
///
/// [`Builder::launcher`](crate::Builder::launcher) has a pool use it. The processes may be forks of the pool's, run
/// other programs, or be children of somebody else: the pool asks nothing of them but that they call [`serve`]. They are
/// trusted like the pool's own program.
pub trait Launcher: Send {
    /// Starts a process that will call [`serve`] with `seat`, or a duplicate of it. Returns its process id.
    ///
    /// `worker` is its place in the pool, from 1. The first workers are started by the thread that calls
    /// [`start`](crate::Builder::start), replacements by another one.
    ///
    /// Until then the seat has to stay open in that process: a fork by the calling thread has it, a program is to be
    /// given a duplicate. Forks by other threads do not get it. A fork must not come back from here: it is ended.
    ///
    /// If it fails, or panics, and there is a process all the same, that is not wanted any more: `serve` returns there
    /// at once.
    fn start(&mut self, worker: u32, seat: BorrowedFd<'_>) -> Result<u32, Failure>;

    /// How a process ended that [`start`](Self::start) has started; `None` if that is unknown. It is asked once, when
    /// the process is dead.
    ///
    /// The pool itself does not wait for these processes: who is their parent has to, if nobody else does. If it takes a
    /// moment until the end is known here, this may wait for it.
    fn exit_of(&mut self, worker: u32, pid: u32) -> Option<Exit>;
}

/// What a worker in a process of another language's does besides tasks.
pub struct Service<'a> {
    /// Is called before the first task. If it fails, or panics, the pool ends: all calls fail with
    /// [`ErrorKind::Initializer`](crate::ErrorKind::Initializer) and this text, of which 16 KiB remain.
    pub initialize: Box<dyn FnOnce() -> Result<(), String> + 'a>,
    /// Is called for each task (a chunk is one), and has to call what it is given, once: that is the task. It may do
    /// before and after it what tasks need. It is not called while the worker waits for a task.
    pub around: &'a dyn Fn(&mut dyn FnMut()),
}

/// Works for a pool, with a seat that a [`Launcher`] was given. Returns when this process is to end: the pool has ended,
/// or this worker has done as many tasks as one may.
///
/// Called on the main thread of a process that is there for nothing else: from now on, until it ends, it is killed as
/// soon as the pool's process is gone, or does not want it any more. Signals, standard streams and the process's name are
/// left as they are, and there may be other threads. The process may do more after this, and is part of the pool until it
/// ends: only then its place is given to another.
///
/// # Errors
///
/// If the pool is gone already, is of another layout version, or its initializer failed.
pub fn serve(seat: OwnedFd, service: Service<'_>) -> Result<(), Error> {
    launch::serve(seat, service)
}
