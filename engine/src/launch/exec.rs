//! Running this program's own file anew.

use super::messages::ToChild;
use super::{Launched, enter};
use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::sys::{self, Channel, ProcessHandle, Sent};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Starts the program; it will read on its channel what it is.
///
/// The channel is its standard input: descriptors are handed over without a fork, which a hook between
/// fork and exec would force (and which costs tens of milliseconds in a large process).
pub(super) fn program() -> Result<Launched> {
    let (ours, theirs) = Channel::pair()?;
    let mut command = Command::new(sys::current_exe_path());
    command
        .arg0(std::env::args_os().next().unwrap_or_else(|| "ringpool-worker".into()))
        .env(enter::VARIABLE, std::process::id().to_string())
        .stdin(Stdio::from(theirs.into_fd()));
    let child = command.spawn().map_err(|e| Error::io("running the program anew", e))?;
    let handle = ProcessHandle::open(child.id())?; // nobody has waited for it: the number is its
    Ok(Launched { handle, channel: ours })
}

/// Starts the program as a worker.
pub(super) fn worker(segment: &Segment, index: u32, incarnation: u32) -> Result<Launched> {
    let launched = program()?;
    say(&launched.channel, &ToChild::Worker { index, incarnation }, &segment.fds())?;
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
