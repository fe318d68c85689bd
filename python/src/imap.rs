//! Iterations: inputs are taken as results are asked for.

use crate::answer;
use crate::call::{Message, echo};
use crate::error::{is_urgent, to_py};
use crate::fed::Fed;
use crate::function::Definition;
use crate::inline::Inline;
use crate::pool::Engine;
use crate::result::timed_out;
use crate::wait;
use engine::raw::{Bytes, Caller};
use engine::{Error, ErrorKind};
use pyo3::exceptions::PyStopIteration;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFrozenSet, PyList, PyRange, PySet, PyString, PyTuple};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How an iteration is to be done.
pub(crate) struct Plan {
    pub star: bool,
    pub chunksize: usize,
    pub ordered: bool,
    pub buffersize: Option<usize>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What went wrong on the client's side.
#[derive(Default)]
pub(crate) struct Wrong {
    /// With items, by the token that the worker sends back.
    items: HashMap<u64, PyErr>,
    /// With the iterable, at its end.
    pub iterable: Option<PyErr>,
    next: u64,
}

/// Makes calls of items.
pub(crate) struct Items {
    /// `None` at the end.
    iterator: Option<Py<PyAny>>,
    pub engine: Py<Engine>,
    definition: Result<Arc<Definition>, PyErr>,
    star: bool,
    pub wrong: Arc<Mutex<Wrong>>,
}

impl Items {
    /// The next one. An exception of the iterable is noted, and the error says only that there was one.
    pub(crate) fn next(&mut self, py: Python<'_>) -> Option<Result<Message, Error>> {
        let raised = match self.take(py)? {
            Ok(message) => return Some(Ok(message)),
            Err(raised) => raised,
        };
        lock(&self.wrong).iterable = Some(raised);
        Some(Err(ErrorKind::Invalid { message: "the iterable raised an exception".to_owned() }.into()))
    }

    fn take(&mut self, py: Python<'_>) -> Option<PyResult<Message>> {
        let iterator = self.iterator.as_ref()?;
        // SAFETY: a live iterator; it gives a new reference, or null with an exception or at the end.
        let item = unsafe { pyo3::ffi::PyIter_Next(iterator.as_ptr()) };
        if item.is_null() {
            let raised = PyErr::take(py);
            self.end(py);
            return raised.map(Err);
        }
        // SAFETY: as above.
        let item = unsafe { Bound::from_owned_ptr(py, item) };
        let encoded = match &self.definition {
            Ok(definition) => Message::item(self.engine.get(), definition, &item, self.star),
            Err(error) => Err(error.clone_ref(py)),
        };
        if let Err(error) = &encoded
            && is_urgent(py, error)
        {
            self.end(py);
            return Some(encoded);
        }
        Some(Ok(encoded.unwrap_or_else(|error| {
            let mut wrong = lock(&self.wrong);
            let token = wrong.next;
            wrong.next += 1;
            wrong.items.insert(token, error);
            Message { bytes: echo(token).to_vec(), keep: Vec::new() }
        })))
    }

    /// Lets go of the iterable: what it refers to may be large.
    pub(crate) fn end(&mut self, _: Python<'_>) {
        drop(self.iterator.take());
    }
}

/// What an iteration has when it is asked for the next result.
pub(crate) enum Step {
    Output(Result<Bytes, Error>),
    /// Nothing so far.
    Later,
    End,
}

/// An iteration, as its iterator and its pool have it.
pub(crate) trait Iteration: Send + Sync {
    /// The next result, if it comes within `limit`.
    fn next(&self, py: Python<'_>, limit: Duration) -> PyResult<Step>;
    /// Takes no more items; what no worker has begun is not done.
    fn end(&self, py: Python<'_>) -> PyResult<()>;
    /// Takes all items, so that the pool can end; unless the caller has limited how many may be on their way.
    fn take_all(&self, py: Python<'_>) -> PyResult<()>;
    fn has_ended(&self) -> bool;
}

/// The iterator of `Pool.imap` and `imap_unordered`.
#[pyclass(frozen, subclass, weakref, module = "ringpool.pool")]
pub(crate) struct IMapIterator {
    iteration: Arc<dyn Iteration>,
    wrong: Arc<Mutex<Wrong>>,
    engine: Py<Engine>,
    name: String,
    /// A result that was not read, because something urgent came.
    again: Mutex<Option<Arc<Bytes>>>,
    /// Kept alive until the end: the pool.
    owner: Mutex<Option<Py<PyAny>>>,
}

/// Whether taking an item can neither wait nor run the program's own code.
fn is_at_hand(iterable: &Bound<'_, PyAny>) -> bool {
    iterable.is_exact_instance_of::<PyList>()
        || iterable.is_exact_instance_of::<PyTuple>()
        || iterable.is_exact_instance_of::<PyRange>()
        || iterable.is_exact_instance_of::<PyDict>()
        || iterable.is_exact_instance_of::<PySet>()
        || iterable.is_exact_instance_of::<PyFrozenSet>()
        || iterable.is_exact_instance_of::<PyString>()
        || iterable.is_exact_instance_of::<PyBytes>()
        || crate::map::is_array(iterable).unwrap_or(false)
}

pub(crate) fn start<'py>(
    engine: &Bound<'py, Engine>,
    caller: &Caller,
    owner: Bound<'py, PyAny>,
    function: &Bound<'py, PyAny>,
    iterable: &Bound<'py, PyAny>,
    plan: &Plan,
) -> PyResult<(Bound<'py, IMapIterator>, Arc<dyn Iteration>)> {
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
    };
    let iteration: Arc<dyn Iteration> = if is_at_hand(iterable) {
        Arc::new(Inline::start(py, caller, this.name, items, plan)?)
    } else {
        Fed::start(py, caller, items, plan)?
    };
    let iterator = IMapIterator {
        iteration: iteration.clone(),
        wrong,
        engine: engine.clone().unbind(),
        name,
        again: Mutex::default(),
        owner: Mutex::new(Some(owner.unbind())),
    };
    if let Some(urgent) = iterator.urgent(py) {
        return Err(urgent);
    }
    Ok((Bound::new(py, iterator)?, iteration))
}

impl IMapIterator {
    fn read<'py>(&self, py: Python<'py>, output: Result<Arc<Bytes>, Error>) -> PyResult<Bound<'py, PyAny>> {
        match output {
            Ok(bytes) => {
                let mut local = |py: Python<'_>, token| {
                    let error = lock(&self.wrong).items.remove(&token);
                    error.unwrap_or_else(|| answer::no_local(py, token))
                };
                match answer::read(py, &self.engine.get().pickle, &bytes, &mut local) {
                    Ok(outcome) => outcome,
                    Err(urgent) => {
                        *lock(&self.again) = Some(bytes);
                        Err(urgent)
                    }
                }
            }
            Err(error) => {
                let raised = match error.kind() {
                    ErrorKind::Invalid { .. } => lock(&self.wrong).iterable.take(),
                    _ => None,
                };
                Err(raised.unwrap_or_else(|| to_py(py, &error, Some(&self.name))))
            }
        }
    }

    /// What came while an item was taken, and is not about that.
    fn urgent(&self, py: Python<'_>) -> Option<PyErr> {
        let mut wrong = lock(&self.wrong);
        wrong.iterable.as_ref().filter(|&error| is_urgent(py, error))?;
        wrong.iterable.take()
    }

    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.iteration.end(py)?;
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
        let again = lock(&self.again).take();
        if let Some(bytes) = again {
            return self.read(py, Ok(bytes));
        }
        let deadline = wait::deadline(timeout);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let slice = left.map_or(wait::SLICE, |left| left.min(wait::SLICE));
            let step = self.iteration.next(py, slice)?;
            let urgent = self.urgent(py);
            match step {
                Step::Output(output) => {
                    let output = output.map(Arc::new);
                    let Some(urgent) = urgent else { return self.read(py, output) };
                    if let Ok(bytes) = output {
                        *lock(&self.again) = Some(bytes);
                    }
                    return Err(urgent);
                }
                Step::End => {
                    self.end(py)?;
                    return Err(urgent.unwrap_or_else(|| PyStopIteration::new_err(())));
                }
                Step::Later => {
                    urgent.map_or(Ok(()), Err)?;
                    py.check_signals()?;
                    if left.is_some_and(|left| left <= slice) {
                        return Err(timed_out(py));
                    }
                }
            }
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.engine)?;
        if let Ok(owner) = self.owner.try_lock() {
            visit.call(&*owner)?;
        }
        Ok(())
    }

    /// Takes no more items; what no worker has begun is not done.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.engine.get().shared.check(py)?;
        self.end(py)
    }
}

impl Drop for IMapIterator {
    fn drop(&mut self) {
        Python::attach(|py| {
            if self.engine.get().shared.check(py).is_ok() {
                let _ = self.iteration.end(py); // it is refused only to the iterable itself
            }
        });
    }
}
