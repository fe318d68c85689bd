//! The life of a worker in a process that somebody else started.

use super::enter::{Manner, Memory, attach, run_worker};
use super::messages::{FromWorker, ToChild};
use crate::error::{Error, Result};
use crate::raw::Service;
use crate::sys::{Channel, Received};
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;

/// See [`raw::serve`](crate::raw::serve).
pub(crate) fn serve(seat: OwnedFd, service: Service<'_>) -> Result<()> {
    // Never closed: the pool takes the hang-up for the end of this process, which has yet to come.
    let channel = ManuallyDrop::new(Channel::from_fd(seat));
    channel.close_on_exec()?;
    if !channel.kill_on_hang_up() {
        return Err(Error::io("asking to end with the pool's process", std::io::Error::last_os_error()));
    }
    // It has been there since before this process. What is not there will not come.
    let mut buffer = [0; 64];
    let Received::Message(len, fds) = channel.try_recv(&mut buffer)? else { return Err(gone()) };
    let Some(ToChild::Worker { index, incarnation }) = ToChild::from_bytes(&buffer[..len]) else {
        return Err(Error::start("this is no seat of a pool: it said something unreadable"));
    };
    let memory = Memory::from_fds(fds).ok_or_else(|| Error::start("the pool did not pass its memory"))?;
    // Who had hung up before this process asked kills nobody. Nothing else is ever sent.
    if !matches!(channel.try_recv(&mut buffer)?, Received::Nothing) || channel.has_hung_up() {
        return Err(gone());
    }
    let (segment, same_program) = attach(memory, index).inspect_err(|error| {
        let _ = channel.try_send(&FromWorker::Refused(error.to_string()).to_bytes(), &[]);
    })?;
    let (left, _) = run_worker(&segment, incarnation, same_program, &channel, Manner::Service(service));
    left.map(drop)
}

fn gone() -> Error {
    Error::start("the pool's process is gone, or does not want this worker any more")
}
