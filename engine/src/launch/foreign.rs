//! Workers that a launcher of another language starts.

use super::messages::ToChild;
use super::{Failed, Launched, Stray, exec};
use crate::error::{Error, Exit, Result};
use crate::raw;
use crate::segment::Segment;
use crate::sys::{self, Channel, ProcessHandle, fork_guard};
use crate::task::catch;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long the kernel may take to end a process that is told to, and how long such a process may take to get to where
/// it hears that.
const END_LIMIT: Duration = Duration::from_millis(500);

pub(super) struct Foreign(Box<dyn raw::Launcher>);

impl Foreign {
    pub(super) fn new(launcher: Box<dyn raw::Launcher>) -> Self {
        Foreign(launcher)
    }

    /// Has incarnation `incarnation` of place `index` started.
    pub(super) fn launch(
        &mut self,
        segment: &Segment,
        index: u32,
        incarnation: u32,
    ) -> Result<Launched, Failed> {
        // Workers are killed by the hang-up, so this process alone may have the other end.
        let (channel, seat) = Channel::kept_pair()?;
        exec::say(&channel, &ToChild::Worker { index, incarnation }, &segment.fds())?;
        let generation = fork_guard::generation();
        let started = catch(|| self.0.start(index, seat.as_fd()));
        if fork_guard::generation() != generation {
            sys::abandon_fork(); // else there would be two of the pool's process
        }
        drop(seat);
        let failed = |error: Error, channel| {
            let stray = Some(Stray { template: None, channel });
            Err(Failed { error, stray })
        };
        let pid = match started {
            Ok(Ok(pid)) => pid,
            Ok(Err(failure)) => return failed(Error::start(failure.message), channel),
            Err(panic) => {
                let error =
                    Error::start(format!("the launcher panicked at {}: {}", panic.place, panic.message));
                return failed(error, channel);
            }
        };
        match Self::handle(pid, &channel) {
            Ok(handle) => Ok(Launched { handle, channel }),
            Err(error) => {
                channel.end_peer();
                if channel.hangs_up_within(END_LIMIT) {
                    self.exit_of(index, pid);
                }
                failed(error, channel)
            }
        }
    }

    /// The process that was just started.
    ///
    /// It need not be a child of this one, and whoever is its parent may have waited for it: so the number is known to
    /// be its only if it has the channel open afterwards.
    fn handle(pid: u32, channel: &Channel) -> Result<ProcessHandle> {
        match ProcessHandle::open(pid) {
            Ok(handle) if !channel.has_hung_up() => Ok(handle),
            Err(error) if !channel.has_hung_up() && !sys::is_nobody(&error) => Err(error),
            _ => ProcessHandle::gone(pid),
        }
    }

    /// How a dead worker ended.
    pub(super) fn exit_of(&mut self, index: u32, pid: u32) -> Exit {
        catch(|| self.0.exit_of(index, pid)).ok().flatten().unwrap_or(Exit::Unknown)
    }
}
