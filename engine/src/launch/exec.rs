//! Running this program's own file anew, or another program.

use super::messages::ToChild;
use super::{Launched, enter};
use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::sys::{self, Channel, ProcessHandle, Sent};
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Starts the program; it will read on its channel what it is.
///
/// The channel is its standard input: descriptors are handed over without a fork, which a hook between
/// fork and exec would force (and which costs tens of milliseconds in a large process).
pub(super) fn program(command: Option<&[OsString]>) -> Result<Launched> {
    let (ours, theirs) = Channel::sockets()?;
    let ours = Channel::from_fd(ours);
    let mut command = match command.and_then(<[OsString]>::split_first) {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        None => {
            let mut command = Command::new(sys::current_exe_path());
            command.arg0(std::env::args_os().next().unwrap_or_else(|| "ringpool-worker".into()));
            command
        }
    };
    command.env(enter::VARIABLE, std::process::id().to_string()).stdin(Stdio::from(theirs));
    let mut child = command.spawn().map_err(|e| Error::io("running the program anew", e))?;
    // Nobody has waited for it: the number is its.
    match ProcessHandle::open(child.id()) {
        Ok(handle) => Ok(Launched { handle, channel: ours }),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Starts the program as a worker.
pub(super) fn worker(
    command: Option<&[OsString]>,
    segment: &Segment,
    index: u32,
    incarnation: u32,
) -> Result<Launched> {
    instructed(command, &ToChild::Worker { index, incarnation }, segment)
}

/// Starts the program and tells it what it is; if that fails, it is gone again.
pub(super) fn instructed(
    command: Option<&[OsString]>,
    message: &ToChild,
    segment: &Segment,
) -> Result<Launched> {
    let launched = program(command)?;
    if let Err(error) = say(&launched.channel, message, &segment.fds()) {
        let _ = launched.handle.kill(rustix::process::Signal::KILL);
        launched.handle.wait_dead(None);
        launched.handle.wait_status();
        return Err(error);
    }
    Ok(launched)
}

/// Sends without ever waiting: a child that does not read is a child that has failed.
pub(super) fn say(channel: &Channel, message: &ToChild, fds: &[BorrowedFd<'_>]) -> Result<()> {
    match channel.try_send(&message.to_bytes(), fds)? {
        Sent::Yes => Ok(()),
        Sent::Full => Err(Error::start("the new process does not read its instructions")),
        Sent::PeerGone => Err(Error::start("the new process is gone already")),
    }
}
