//! Iterations: inputs are taken as results are asked for.

use crate::answer;
use crate::call::{Message, echo};
use crate::pool::Engine;
use crate::error::to_py;
use crate::function::Definition;
use crate::result::timed_out;
use crate::wait;
use engine::raw::{Buffer, Bytes, Caller, Iter, Order, Source};
use engine::{Error, ErrorKind};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

/// How an iteration is to be done.
pub(crate) struct Plan {
    pub star: bool,
    pub chunksize: usize,
    pub ordered: bool,
    pub buffersize: Option<usize>,
}

/// What went wrong on the client's side.
#[derive(Default)]
struct Wrong {
    /// With items, by the token that the worker sends back.
    items: HashMap<u64, PyErr>,
    /// With the iterable, at its end.
    iterable: Option<PyErr>,
    next: u64,
}

/// Takes items from an iterable.
struct Items {
    iterator: Option<Py<PyAny>>,
    engine: Py<Engine>,
    definition: Result<Arc<Definition>, PyErr>,
    star: bool,
    wrong: Arc<Mutex<Wrong>>,
    message: Message,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source for Items {
    fn next(&mut self) -> Option<Result<&[u8], Error>> {
        let iterator = self.iterator.as_ref()?;
        let next = Python::attach(|py| {
            // SAFETY: a live iterator; it gives a new reference, or null with an exception or at the end.
            let item = unsafe { pyo3::ffi::PyIter_Next(iterator.as_ptr()) };
            if item.is_null() {
                return PyErr::take(py).map(Err);
            }
            // SAFETY: as above.
            let item = unsafe { Bound::from_owned_ptr(py, item) };
            let encoded = match &self.definition {
                Ok(definition) => Message::item(self.engine.get(), definition, &item, self.star),
                Err(error) => Err(error.clone_ref(py)),
            };
            Some(Ok(encoded.unwrap_or_else(|error| {
                let mut wrong = lock(&self.wrong);
                let token = wrong.next;
                wrong.next += 1;
                wrong.items.insert(token, error);
                Message { bytes: echo(token).to_vec(), keep: Vec::new() }
            })))
        });
        match next {
            None => {
                self.end();
                None
            }
            Some(Ok(message)) => {
                self.message = message;
                Some(Ok(&self.message.bytes))
            }
            Some(Err(error)) => {
                lock(&self.wrong).iterable = Some(error);
                self.end();
                Some(Err(ErrorKind::Invalid { message: "the iterable raised an exception".to_owned() }.into()))
            }
        }
    }

    fn keep(&mut self) -> Vec<Arc<Buffer>> {
        std::mem::take(&mut self.message.keep)
    }
}

impl Items {
    /// Lets go of the iterable: what it refers to may be large.
    fn end(&mut self) {
        let iterator = self.iterator.take();
        Python::attach(|_| drop(iterator));
    }
}

/// An iteration, as its iterator and its pool have it.
pub(crate) struct Stream {
    iter: Mutex<Option<Iter<Items>>>,
    wrong: Arc<Mutex<Wrong>>,
    /// The thread that is taking from the iterable, which must not come back here meanwhile.
    inside: Mutex<Option<ThreadId>>,
    /// The number of inputs on their way was chosen by the caller.
    limited: bool,
    ended: AtomicBool,
}

impl Stream {
    /// Does something with the iteration, without the interpreter.
    fn outside<R: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&mut Option<Iter<Items>>) -> R + Send,
    ) -> PyResult<R> {
        let me = std::thread::current().id();
        if *lock(&self.inside) == Some(me) {
            return Err(PyRuntimeError::new_err("the iterable asks the iterator that takes from it"));
        }
        Ok(py.detach(|| {
            let mut iter = lock(&self.iter);
            *lock(&self.inside) = Some(me);
            let result = f(&mut iter);
            *lock(&self.inside) = None;
            result
        }))
    }

    /// The same; `None` if the iteration has ended.
    fn with<R: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&mut Iter<Items>) -> R + Send,
    ) -> PyResult<Option<R>> {
        self.outside(py, |iter| iter.as_mut().map(f))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Takes all inputs, so that the pool can end; unless the caller has limited how many may be on their way.
    pub(crate) fn take_all(&self, py: Python<'_>) -> PyResult<()> {
        if self.limited {
            return Ok(());
        }
        while !self.with(py, |iter| iter.take_all(wait::SLICE))?.unwrap_or(true) {
            py.check_signals()?;
        }
        Ok(())
    }
}

/// The iterator of `Pool.imap` and `imap_unordered`.
#[pyclass(frozen, subclass, weakref, module = "ringpool.pool")]
pub(crate) struct IMapIterator {
    stream: Arc<Stream>,
    engine: Py<Engine>,
    name: String,
    /// Kept alive until the end: the pool.
    owner: Mutex<Option<Py<PyAny>>>,
}

pub(crate) fn start<'py>(
    engine: &Bound<'py, Engine>,
    caller: &Caller,
    owner: Bound<'py, PyAny>,
    function: &Bound<'py, PyAny>,
    iterable: &Bound<'py, PyAny>,
    plan: &Plan,
) -> PyResult<(Bound<'py, IMapIterator>, Arc<Stream>)> {
    let py = engine.py();
    let iterator = iterable.try_iter()?.into_any().unbind();
    let this = engine.get();
    this.shared.check(py)?;
    let definition = this.functions.define(&this.hasty, &this.pickle, function);
    let name = match &definition {
        Ok(definition) => definition.name.clone(),
        Err(_) => String::new(),
    };
    let wrong = Arc::new(Mutex::new(Wrong::default()));
    let items = Items {
        iterator: Some(iterator),
        engine: engine.clone().unbind(),
        definition,
        star: plan.star,
        wrong: wrong.clone(),
        message: Message::default(),
    };
    let order = if plan.ordered { Order::Items } else { Order::Arrival };
    let started = py.detach(|| caller.imap(this.name, items, plan.chunksize, order, plan.buffersize));
    let iter = started.map_err(|error| to_py(py, &error, None))?;
    let stream = Arc::new(Stream {
        iter: Mutex::new(Some(iter)),
        wrong,
        inside: Mutex::default(),
        limited: plan.buffersize.is_some(),
        ended: AtomicBool::new(false),
    });
    let iterator = IMapIterator {
        stream: stream.clone(),
        engine: engine.clone().unbind(),
        name,
        owner: Mutex::new(Some(owner.unbind())),
    };
    Ok((Bound::new(py, iterator)?, stream))
}

impl IMapIterator {
    fn read<'py>(&self, py: Python<'py>, output: Result<Bytes, Error>) -> PyResult<Bound<'py, PyAny>> {
        match output {
            Ok(bytes) => {
                let mut local = |py: Python<'_>, token| {
                    let error = lock(&self.stream.wrong).items.remove(&token);
                    error.unwrap_or_else(|| answer::no_local(py, token))
                };
                answer::read(py, &self.engine.get().pickle, &Arc::new(bytes), &mut local)
            }
            Err(error) => {
                let raised = match error.kind() {
                    ErrorKind::Invalid { .. } => lock(&self.stream.wrong).iterable.take(),
                    _ => None,
                };
                Err(raised.unwrap_or_else(|| to_py(py, &error, Some(&self.name))))
            }
        }
    }

    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.stream.ended.store(true, Ordering::Relaxed);
        drop(self.stream.outside(py, Option::take)?);
        let owner = lock(&self.owner).take();
        drop(owner);
        Ok(())
    }
}

#[pymethods]
impl IMapIterator {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.next(py, None)
    }

    /// The next result, or its exception; `multiprocessing.TimeoutError` if it does not come within so many
    /// seconds: then it can be asked for again.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        self.engine.get().shared.check(py)?;
        let deadline = wait::deadline(timeout);
        loop {
            let now = std::time::Instant::now();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
            let slice = left.map_or(wait::SLICE, |left| left.min(wait::SLICE));
            match self.stream.with(py, |iter| iter.next(Some(slice)))? {
                None => return Err(PyStopIteration::new_err(())),
                Some(None) => {
                    self.end(py)?;
                    return Err(PyStopIteration::new_err(()));
                }
                Some(Some(Err(error))) if matches!(error.kind(), ErrorKind::Timeout { .. }) => {
                    py.check_signals()?;
                    if left.is_some_and(|left| left <= slice || left == Duration::ZERO) {
                        return Err(timed_out(py));
                    }
                }
                Some(Some(output)) => return self.read(py, output),
            }
        }
    }

    /// Takes no more items; what no worker has begun is not done.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.engine.get().shared.check(py)?;
        self.end(py)
    }
}
