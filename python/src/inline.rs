//! Iterations over what is at hand: who asks for a result takes items, too.

use crate::error::to_py;
use crate::imap::{Items, Iteration, Plan, Step, lock};
use crate::wait;
use engine::raw::{Buffer, Caller, Iter, Name, Order, Source};
use engine::{Error, ErrorKind};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

/// Hands items to the engine.
struct Inputs {
    items: Items,
    bytes: Vec<u8>,
    keep: Vec<Arc<Buffer>>,
}

impl Source for Inputs {
    fn next(&mut self) -> Option<Result<&[u8], Error>> {
        let next = Python::attach(|py| self.items.next(py))?;
        Some(next.map(|message| {
            (self.bytes, self.keep) = (message.bytes, message.keep);
            &self.bytes[..]
        }))
    }

    fn keep(&mut self) -> Vec<Arc<Buffer>> {
        std::mem::take(&mut self.keep)
    }
}

pub(crate) struct Inline {
    /// `None` once it has ended.
    iter: Mutex<Option<Iter<Inputs>>>,
    /// The thread that is taking from the iterable, which must not come back here meanwhile.
    inside: Mutex<Option<ThreadId>>,
    /// The number of inputs on their way was chosen by the caller.
    limited: bool,
    ended: AtomicBool,
}

impl Inline {
    pub(crate) fn start(
        py: Python<'_>,
        caller: &Caller,
        name: Name,
        items: Items,
        plan: &Plan,
    ) -> PyResult<Self> {
        let order = if plan.ordered { Order::Items } else { Order::Arrival };
        let inputs = Inputs { items, bytes: Vec::new(), keep: Vec::new() };
        let started = py.detach(|| caller.imap(name, inputs, plan.chunksize, order, plan.buffersize));
        let iter = started.map_err(|error| to_py(py, &error, None))?;
        Ok(Inline {
            iter: Mutex::new(Some(iter)),
            inside: Mutex::default(),
            limited: plan.buffersize.is_some(),
            ended: AtomicBool::new(false),
        })
    }

    /// Does something with the iteration, without the interpreter.
    fn outside<R: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&mut Option<Iter<Inputs>>) -> R + Send,
    ) -> PyResult<R> {
        let me = std::thread::current().id();
        // An item may have a method for pickle that comes here.
        if *lock(&self.inside) == Some(me) {
            return Err(PyRuntimeError::new_err("an item asks the iterator that takes it"));
        }
        Ok(py.detach(|| {
            let mut iter = lock(&self.iter);
            *lock(&self.inside) = Some(me);
            let result = f(&mut iter);
            *lock(&self.inside) = None;
            result
        }))
    }
}

impl Iteration for Inline {
    fn next(&self, py: Python<'_>, limit: Duration) -> PyResult<Step> {
        let next = self.outside(py, |iter| iter.as_mut().map(|iter| iter.next(Some(limit))))?;
        Ok(match next {
            None | Some(None) => Step::End,
            Some(Some(Err(error))) if matches!(error.kind(), ErrorKind::Timeout { .. }) => Step::Later,
            Some(Some(output)) => Step::Output(output),
        })
    }

    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.ended.store(true, Ordering::Relaxed);
        drop(self.outside(py, Option::take)?);
        Ok(())
    }

    fn take_all(&self, py: Python<'_>) -> PyResult<()> {
        if self.limited {
            return Ok(());
        }
        let more =
            |iter: &mut Option<Iter<Inputs>>| !iter.as_mut().is_none_or(|iter| iter.take_all(wait::SLICE));
        while self.outside(py, more)? {
            py.check_signals()?;
        }
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}
