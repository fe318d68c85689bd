//! The result of one call, now or later.

use crate::answer::{self, Outcome};
use crate::call::{self, Message};
use crate::error::{is_urgent, to_py};
use crate::function::Definition;
use crate::map;
use crate::overflow::{Task, is_full, submit};
use crate::pool::{Engine, Shared};
use crate::wait;
use engine::Error;
use engine::raw::{Bytes, Caller, Pending};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What a result turned out to be: the same object, or the same exception, however often it is asked for.
type Settled = Result<Py<PyAny>, Py<PyAny>>;

/// A result as a caller gets it.
fn give(py: Python<'_>, settled: &Settled) -> PyResult<Py<PyAny>> {
    match settled {
        Ok(value) => Ok(value.clone_ref(py)),
        Err(exception) => Err(PyErr::from_value(exception.bind(py).clone())),
    }
}

/// What becomes of a value or an exception.
fn settled(py: Python<'_>, result: PyResult<Bound<'_, PyAny>>) -> Settled {
    match result {
        Ok(value) => Ok(value.unbind()),
        Err(error) => Err(error.into_value(py).into_any()),
    }
}

/// Calls a callback. Its exception is its own affair: Python's hook for such tells of it.
fn tell(py: Python<'_>, callback: &Py<PyAny>, argument: &Bound<'_, PyAny>) {
    if let Err(error) = callback.bind(py).call1((argument,)) {
        error.write_unraisable(py, Some(callback.bind(py)));
    }
}

/// Something that happens once.
#[derive(Default)]
pub(crate) struct Event {
    happened: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.lock()
    }

    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), limit, |happened| !*happened);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Where the answer to a call comes.
enum Place {
    /// In the engine.
    Engine(Pending),
    /// There, once the call has been submitted.
    Later(Arc<Later>),
    /// The thread that runs callbacks brings it.
    Told,
}

/// A call that waits to be submitted.
#[derive(Default)]
struct Later {
    pending: OnceLock<Result<Pending, Error>>,
    event: Event,
}

impl Place {
    fn wait(&self, limit: Duration) -> bool {
        match self {
            Place::Engine(pending) => pending.wait(Some(limit)),
            Place::Told => false,
            Place::Later(later) => match later.pending.get() {
                Some(Ok(pending)) => pending.wait(Some(limit)),
                Some(Err(_)) => true,
                None => {
                    later.event.wait(limit);
                    false // there is time for the answer, too
                }
            },
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            Place::Engine(pending) => pending.ready(),
            Place::Told => false,
            Place::Later(later) => later.pending.get().is_some_and(|placed| match placed {
                Ok(pending) => pending.ready(),
                Err(_) => true,
            }),
        }
    }

    /// The answer, which is there.
    fn take(&self) -> Option<Result<Bytes, Error>> {
        match self {
            Place::Engine(pending) => Some(pending.get(None)),
            Place::Later(later) => match later.pending.get()? {
                Ok(pending) => Some(pending.get(None)),
                Err(error) => Some(Err(error.clone())),
            },
            Place::Told => None,
        }
    }
}

/// What a result is of.
pub(crate) enum Work {
    Call(Sent),
    Map(map::Sent),
    /// Nothing: it is settled from the beginning.
    None,
}

/// A call that was sent.
pub(crate) struct Sent {
    place: Place,
    shared: Arc<Shared>,
    definition: Option<Arc<Definition>>,
    /// What went wrong before there was a task.
    early: Mutex<Option<PyErr>>,
}

impl Sent {
    fn read<'py>(&self, py: Python<'py>, outcome: Result<Bytes, Error>) -> PyResult<Outcome<'py>> {
        let mut early = |_: Python<'_>, _| {
            let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
            early.unwrap_or_else(|| answer::no_local(py, 0))
        };
        match outcome {
            Ok(bytes) => answer::read(py, &self.shared.pickle, &Arc::new(bytes), &mut early),
            Err(error) => {
                let name = self.definition.as_ref().map(|definition| definition.name.as_str());
                Ok(Err(to_py(py, &error, name)))
            }
        }
    }
}

/// The result of `Pool.apply_async`, or the base of that of `Pool.map_async`.
#[pyclass(frozen, subclass, weakref, module = "ringpool.pool")]
pub(crate) struct ApplyResult {
    work: Work,
    /// Set once it is settled and its callbacks have been called, if it has any.
    told: Option<Arc<Event>>,
    value: OnceLock<Settled>,
    /// Kept alive until the result has come: the pool.
    owner: Mutex<Option<Py<PyAny>>>,
}

impl ApplyResult {
    pub(crate) fn new(work: Work, told: Option<Arc<Event>>, owner: Option<Py<PyAny>>) -> Self {
        ApplyResult { work, told, value: OnceLock::new(), owner: Mutex::new(owner) }
    }

    /// One that is there.
    pub(crate) fn done(value: Py<PyAny>) -> Self {
        ApplyResult { value: OnceLock::from(Ok(value)), ..Self::new(Work::None, None, None) }
    }

    pub(crate) fn work(&self) -> &Work {
        &self.work
    }

    fn settle(&self, py: Python<'_>, result: PyResult<Bound<'_, PyAny>>) -> &Settled {
        let settled = settled(py, result);
        let value = self.value.get_or_init(|| settled); // another thread may have been first
        if self.told.is_none() {
            self.let_go();
        }
        value
    }

    /// Keeps the pool no longer alive.
    fn let_go(&self) {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(owner); // without the lock: it may be the last reference to the pool
    }

    /// Settles it, calls its callbacks, and says that it is there.
    pub(crate) fn tell(&self, py: Python<'_>, result: Outcome<'_>, callbacks: &Callbacks) {
        let _telling = Telling::begin();
        match (self.settle(py, result), callbacks) {
            (Ok(value), Callbacks { good: Some(good), .. }) => tell(py, good, value.bind(py)),
            (Err(exception), Callbacks { bad: Some(bad), .. }) => tell(py, bad, exception.bind(py)),
            _ => {}
        }
        if let Some(told) = &self.told {
            told.set();
        }
        self.let_go(); // the pool may end with it, right here
    }

    /// The result, if it is there.
    fn look(&self, py: Python<'_>) -> PyResult<Option<&Settled>> {
        if let Some(told) = &self.told {
            return Ok(if told.is_set() { self.value.get() } else { None });
        }
        if let Some(value) = self.value.get() {
            return Ok(Some(value));
        }
        let outcome = match &self.work {
            Work::Call(sent) if sent.shared.check(py).is_err() => return Ok(None),
            Work::Call(sent) if sent.place.is_ready() => match sent.place.take() {
                Some(outcome) => sent.read(py, outcome)?,
                None => return Ok(None),
            },
            Work::Map(sent) if sent.read_some(py)? => sent.values(py),
            _ => return Ok(None),
        };
        Ok(Some(self.settle(py, outcome)))
    }

    fn await_it(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<&Settled>> {
        if let Some(value) = self.look(py)? {
            return Ok(Some(value));
        }
        match &self.work {
            Work::Call(sent) => sent.shared.check(py)?,
            Work::Map(sent) => sent.shared.check(py)?,
            Work::None => {}
        }
        let deadline = wait::deadline(timeout);
        loop {
            if !self.wait_for(py, deadline)? {
                return Ok(None);
            }
            // Of a map, it may be a part that has come.
            if let Some(value) = self.look(py)? {
                return Ok(Some(value));
            }
        }
    }

    /// Waits until it is worth while to look; `false` if the deadline has passed.
    fn wait_for(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<bool> {
        wait::sliced(py, deadline, |limit| match (&self.told, &self.work) {
            (Some(told), _) => told.wait(limit),
            (None, Work::Call(sent)) => sent.place.wait(limit),
            (None, Work::Map(sent)) => sent.wait(limit),
            (None, Work::None) => true,
        })
    }
}

#[pymethods]
impl ApplyResult {
    /// The value, or the exception that was raised instead; of a map, the list of all values, or the exception of
    /// the first item that has one, when all are done. `multiprocessing.TimeoutError` if it does not come within
    /// so many seconds.
    #[pyo3(signature = (timeout=None))]
    fn get(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        match self.await_it(py, timeout)? {
            Some(value) => give(py, value),
            None => Err(timed_out(py)),
        }
    }

    /// Waits until the result is there, at most so many seconds.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.await_it(py, timeout).map(drop)
    }

    /// Whether the result is there.
    fn ready(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.look(py)?.is_some())
    }

    /// Whether there was no exception.
    fn successful(slf: &Bound<'_, Self>) -> PyResult<bool> {
        match slf.get().look(slf.py())? {
            Some(value) => Ok(value.is_ok()),
            None => Err(not_ready(slf.as_any())),
        }
    }

    /// An exception that was raised refers to the frames that it came through, and one of these to the result.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(Ok(value) | Err(value)) = self.value.get() {
            visit.call(value)?;
        }
        // Nobody who has the lock runs the collector.
        if let Ok(owner) = self.owner.try_lock() {
            visit.call(&*owner)?;
        }
        Ok(())
    }

    #[classmethod]
    fn __class_getitem__(
        cls: &Bound<'_, pyo3::types::PyType>,
        item: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        alias(cls, item)
    }
}

thread_local! {
    /// Whether this thread runs callbacks.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is called by a callback: then the thread that runs callbacks is not to be waited for.
pub(crate) fn is_telling() -> bool {
    TELLING.get()
}

/// Says that this thread runs callbacks, until it is dropped.
struct Telling(bool);

impl Telling {
    fn begin() -> Self {
        Telling(TELLING.replace(true))
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        TELLING.set(self.0);
    }
}

/// What is to be called with a value, or with an exception.
#[derive(Default)]
pub(crate) struct Callbacks {
    good: Option<Py<PyAny>>,
    bad: Option<Py<PyAny>>,
}

impl Callbacks {
    pub(crate) fn new(good: Option<Bound<'_, PyAny>>, bad: Option<Bound<'_, PyAny>>) -> Self {
        let callable =
            |object: Option<Bound<'_, PyAny>>| object.filter(|object| !object.is_none()).map(Bound::unbind);
        Callbacks { good: callable(good), bad: callable(bad) }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.good.is_none() && self.bad.is_none()
    }
}

/// `types.GenericAlias`, as multiprocessing has it.
fn alias(cls: &Bound<'_, pyo3::types::PyType>, item: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let types = PyModule::import(cls.py(), "types")?;
    Ok(types.getattr("GenericAlias")?.call1((cls, item))?.unbind())
}

#[cold]
fn not_ready(result: &Bound<'_, PyAny>) -> PyErr {
    match result.repr() {
        Ok(repr) => PyValueError::new_err(format!("{repr} not ready")),
        Err(error) => error,
    }
}

#[cold]
pub(crate) fn timed_out(py: Python<'_>) -> PyErr {
    let class = PyModule::import(py, "multiprocessing.context").and_then(|m| m.getattr("TimeoutError"));
    match class.and_then(|class| class.call0()) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// A call that is to be submitted.
pub(crate) struct Call<'a, 'py> {
    pub function: &'a Bound<'py, PyAny>,
    pub args: &'a Bound<'py, PyAny>,
    pub kwds: Option<&'a Bound<'py, PyAny>>,
    pub caller: &'a Caller,
}

impl Call<'_, '_> {
    /// As bytes; or what is wrong with it, and a message that only comes back.
    /// An error is one that is not about the call.
    fn message(&self, engine: &Engine) -> PyResult<(Message, Option<Arc<Definition>>, Option<PyErr>)> {
        let echo = || Message { bytes: call::echo(0).to_vec(), keep: Vec::new() };
        let unless_urgent = |error| if is_urgent(self.args.py(), &error) { Err(error) } else { Ok(error) };
        let definition = match engine.functions.define(&engine.hasty, &engine.shared.pickle, self.function) {
            Ok(definition) => definition,
            Err(error) => return Ok((echo(), None, Some(unless_urgent(error)?))),
        };
        match self.encode(engine, &definition) {
            Ok(message) => Ok((message, Some(definition), None)),
            Err(error) => Ok((echo(), Some(definition), Some(unless_urgent(error)?))),
        }
    }

    fn encode(&self, engine: &Engine, definition: &Definition) -> PyResult<Message> {
        let py = self.args.py();
        // Any iterable will do as arguments. What is none fails in the worker in multiprocessing: so here, a little
        // earlier, as the call's own error.
        let args = match self.args.cast_exact::<PyTuple>() {
            Ok(args) => args.clone().into_any(),
            Err(_) => arguments(py, self.args)?.into_any(),
        };
        let kwds = self.kwds.filter(|kwds| !kwds.is_none());
        let kwds = match kwds.map(|kwds| kwds.cast_exact::<PyDict>()) {
            Some(Ok(dict)) if dict.is_empty() => None,
            _ => kwds,
        };
        Message::call(engine, definition, &args, kwds)
    }
}

/// A tuple of these arguments.
fn arguments<'py>(py: Python<'py>, args: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    if !args.hasattr("__iter__")? && !args.hasattr("__getitem__")? {
        let message = format!("arguments have to be an iterable, not {}", args.get_type().name()?);
        return Err(PyTypeError::new_err(message));
    }
    py.get_type::<PyTuple>().call1((args,))?.cast_into().map_err(PyErr::from)
}

/// Calls and waits.
pub(crate) fn apply(py: Python<'_>, engine: &Engine, call: &Call<'_, '_>) -> PyResult<Py<PyAny>> {
    let result = begin(engine, call)?;
    let result = result.finish(py, engine, None, Callbacks::default())?;
    result.get().get(py, None)
}

/// A call that was tried.
struct Begun {
    message: Message,
    definition: Option<Arc<Definition>>,
    early: Option<PyErr>,
    caller: Caller,
    pending: Result<Pending, Error>,
}

fn begin(engine: &Engine, call: &Call<'_, '_>) -> PyResult<Begun> {
    engine.shared.check(call.args.py())?;
    let (message, definition, early) = call.message(engine)?;
    let caller = call.caller.clone();
    let pending = if engine.overflow.is_empty() {
        submit(&caller, engine.name, &message.bytes, &message.keep)
    } else {
        Err(full())
    };
    Ok(Begun { message, definition, early, caller, pending })
}

/// The error of a task for which there is no slot.
pub(crate) fn full() -> Error {
    Error::from(engine::ErrorKind::Full { slots: 0, waited: Duration::ZERO })
}

impl Begun {
    /// The result, whatever came of the attempt.
    fn finish<'py>(
        self,
        py: Python<'py>,
        engine: &Engine,
        owner: Option<Py<PyAny>>,
        callbacks: Callbacks,
    ) -> PyResult<Bound<'py, ApplyResult>> {
        let Begun { message, definition, early, caller, pending } = self;
        let pending = match pending {
            Err(error) if is_full(&error) => None,
            Err(error) => return Err(to_py(py, &error, None)),
            Ok(pending) => Some(pending),
        };
        let shared = engine.shared.clone();
        let sent = |place| Sent { place, shared, definition, early: Mutex::new(early) };
        let wait = |placed| {
            let Message { bytes, keep } = message;
            engine.overflow.push(Task::Call { caller, bytes, keep, placed });
        };
        if !callbacks.is_none() {
            let work = Work::Call(sent(Place::Told));
            let result = Bound::new(py, ApplyResult::new(work, Some(Arc::default()), owner))?;
            let job = job(result.clone().unbind(), callbacks);
            match pending {
                Some(pending) => drop(pending.then(job)),
                None => wait(Box::new(move |pending: Result<Pending, Error>| match pending {
                    Ok(pending) => drop(pending.then(job)),
                    Err(error) => job(Err(error)),
                })),
            }
            return Ok(result);
        }
        let place = match pending {
            Some(pending) => Place::Engine(pending),
            None => {
                let later = Arc::new(Later::default());
                let there = later.clone();
                wait(Box::new(move |pending| {
                    let _ = there.pending.set(pending);
                    there.event.set();
                }));
                Place::Later(later)
            }
        };
        Bound::new(py, ApplyResult::new(Work::Call(sent(place)), None, owner))
    }
}

/// What is done on the thread for callbacks: one after the other, before anybody is told that the result is there.
fn job(result: Py<ApplyResult>, callbacks: Callbacks) -> impl FnOnce(Result<Bytes, Error>) + Send + 'static {
    move |outcome| {
        Python::attach(|py| {
            let this = result.get();
            if let Work::Call(sent) = &this.work {
                // Nothing urgent comes to this thread.
                let outcome = sent.read(py, outcome).unwrap_or_else(Err);
                this.tell(py, outcome, &callbacks);
            }
            drop((result, callbacks));
        });
    }
}

/// Calls; the result can be fetched later.
pub(crate) fn apply_async<'py>(
    py: Python<'py>,
    engine: &Engine,
    call: &Call<'_, 'py>,
    owner: Bound<'py, PyAny>,
    callbacks: Callbacks,
) -> PyResult<Bound<'py, ApplyResult>> {
    begin(engine, call)?.finish(py, engine, Some(owner.unbind()), callbacks)
}
