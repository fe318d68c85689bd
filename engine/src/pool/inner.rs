//! What a pool, its results and its iterators share.

use super::callbacks::Callbacks;
use crate::client::{Archived, Args, Client, Target, Ticket};
use crate::error::{ErrorKind, Result};
use crate::payload::Payload;
use crate::supervisor::Control;
use crate::sync::private::{Private, PrivateU8, PrivateUsize};
use crate::task::Task;
use crate::worker::FuncWord;
use std::sync::Arc;

pub(super) const RUNNING: u8 = 0;
pub(super) const CLOSED: u8 = 1;
/// Closed, and waited for: iterators take no more input.
pub(super) const JOINING: u8 = 2;
pub(super) const TERMINATED: u8 = 3;

/// What the pool, its results and its iterators share.
pub(crate) struct Inner {
    pub(crate) client: Arc<Client>,
    pub(crate) control: Arc<Control>,
    pub(crate) callbacks: Callbacks,
    pub(crate) streams: Arc<PrivateUsize>,
    /// Those among them that are maps: a pool is not joined before they have all their items.
    pub(crate) feeds: PrivateUsize,
    pub(crate) processes: usize,
    pub(super) phase: PrivateU8,
    owner: u32,
}

impl Inner {
    pub(crate) fn new(
        client: Arc<Client>,
        control: Arc<Control>,
        streams: Arc<PrivateUsize>,
        processes: usize,
    ) -> Self {
        Inner {
            callbacks: Callbacks::new(client.clone()),
            client,
            control,
            streams,
            feeds: PrivateUsize::new(0),
            processes,
            phase: PrivateU8::new(RUNNING),
            owner: std::process::id(),
        }
    }

    /// Refuses use by a forked child, whose memory does not contain the pool's.
    #[inline]
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.client.segment.is_here() {
            return Ok(());
        }
        Err(ErrorKind::Forked { owner: self.owner }.into())
    }

    /// Refuses new work unless the pool runs.
    #[inline]
    pub(crate) fn check_running(&self) -> Result<()> {
        self.check_process()?;
        match self.phase.load(Private::Relaxed) {
            RUNNING => Ok(()),
            CLOSED | JOINING => Err(ErrorKind::Closed.into()),
            _ => Err(ErrorKind::Terminated.into()),
        }
    }

    /// Refuses more input from an iterator that was accepted while the pool ran.
    pub(crate) fn check_feeding(&self) -> Result<()> {
        match self.phase.load(Private::Relaxed) {
            CLOSED => self.check_process(),
            _ => self.check_running(),
        }
    }

    /// An iterator has taken its last input.
    pub(crate) fn end_stream(&self) {
        self.streams.fetch_sub(1, Private::AcqRel);
        // A closing pool may have waited for this; one that is closed this very moment finds it with its next tick.
        // One that runs on must not have its supervisor woken for each of many short iterations.
        if self.phase.load(Private::Relaxed) != RUNNING {
            self.control.nudge();
        }
    }

    /// Submits one call.
    #[inline]
    pub(crate) fn submit_call<A, M, F>(&self, task: F, args: &A, to: Target) -> Result<Ticket>
    where
        A: Payload,
        F: Task<A, M>,
    {
        let func = FuncWord::new(task.func())?;
        let client = &self.client;
        if let Some((words, len)) = Args::short::<A, M, F>(&client.arena, args) {
            return client.submit_short(&client.terms, func, task.name(), &words, len, to);
        }
        let mut archived = Archived::default();
        client.with_memory(|| archived.write(&client.arena, args))?;
        let Archived { kept, words, len } = archived;
        match kept {
            Some(kept) => client.submit_kept(&client.terms, func, task.name(), kept, to),
            None => client.submit_short(&client.terms, func, task.name(), &words, len, to),
        }
    }
}
