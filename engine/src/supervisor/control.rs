//! What a pool tells its supervisor, and asks of it.

use crate::error::Result;
use crate::sys::EventFd;
use std::sync::{Condvar, Mutex, PoisonError};

/// What the pool wants of its supervisor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(super) enum Wish {
    Run,
    Close,
    Terminate,
}

/// The pool's end of its supervisor.
pub(crate) struct Control {
    pub(super) bell: EventFd,
    state: Mutex<ControlState>,
    pub(super) changed: Condvar,
}

pub(super) struct ControlState {
    pub(super) wish: Wish,
    /// Iterators take no more input.
    pub(super) streams_ended: bool,
    /// All workers that the pool begins with have been launched, or will not be.
    pub(super) launched: bool,
    /// All workers are gone and the thread is about to end.
    pub(super) ended: bool,
    /// Process ids of the workers that live now, by place.
    pub(super) pids: Vec<(u32, u32)>,
}

impl Control {
    pub(crate) fn new() -> Result<Self> {
        let state = ControlState {
            wish: Wish::Run,
            streams_ended: false,
            launched: false,
            ended: false,
            pids: Vec::new(),
        };
        Ok(Control { bell: EventFd::new()?, state: Mutex::new(state), changed: Condvar::new() })
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, ControlState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wish(&self, wish: Wish) {
        let mut state = self.lock();
        if state.wish < wish {
            state.wish = wish;
        }
        drop(state);
        self.bell.ring();
    }

    /// Workers leave once all work is done.
    pub(crate) fn close(&self) {
        self.wish(Wish::Close);
    }

    /// Iterators that still have input keep a closed pool no longer.
    pub(crate) fn end_streams(&self) {
        self.lock().streams_ended = true;
        self.bell.ring();
    }

    /// Workers are killed.
    pub(crate) fn terminate(&self) {
        self.wish(Wish::Terminate);
    }

    pub(super) fn say_launched(&self) {
        self.lock().launched = true;
        self.changed.notify_all();
    }

    /// Waits until all workers are gone.
    pub(crate) fn wait_ended(&self) {
        let mut state = self.lock();
        while !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes a closing supervisor look again.
    pub(crate) fn nudge(&self) {
        self.bell.ring();
    }

    /// Waits until the workers have been launched with which the pool begins.
    pub(crate) fn wait_launched(&self) {
        let mut state = self.lock();
        while !state.launched {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.lock().pids.iter().map(|&(_, pid)| pid).collect()
    }
}
