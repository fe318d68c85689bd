//! What a worker process does.

use crate::call::{CALL, CALL_NAMED, EACH, ECHO, HEAD, ITEM, MANY, NUMBERS, STAR, STARRED};
use crate::codec::{Decoder, Encoder, Fetch, LOCAL, RAISED, RawBuffer, Store};
use crate::function::{self, FRESH, NAME, UNIT};
use crate::memory::{Copied, View};
use crate::pickle::Pickle;
use engine::raw::{Chunk, Failure, Function, Output, Private, Service, buffer_at, register as register_function};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PySystemExit, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyRange, PySlice, PyTuple};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};

/// The one function that the engine knows.
pub(crate) const FUNCTION: &str = "ringpool.python";
/// So many functions are kept.
const FUNCTIONS: usize = 256;
/// Outputs of a chunk that lie side by side have at most so many bytes.
const SHORT: usize = 64;
/// Parts of a result that lie beside it are aligned to so many bytes.
const ALIGN: usize = 64;

/// Makes the function known, in clients and workers alike.
pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    let function = Function::new(|input, output| Python::attach(|py| run(py, input, output)));
    let function = function.chunks(|chunk| Python::attach(|py| run_chunk(py, chunk)));
    let function = function.identity([0x7079_7468_6f6e, 1, 0, 0]);
    register_function(FUNCTION, function).map_err(|error| crate::error::to_py(py, &error, None))
}

/// Serves the pool whose seat this descriptor is, and returns when this process is to leave.
///
/// `initialize` is called first; what it raises is told to the pool, which ends, and ends this process.
#[pyfunction]
pub(crate) fn serve(py: Python<'_>, fd: i32, initialize: Py<PyAny>) -> PyResult<()> {
    register(py)?;
    STATE.with(|state| {
        state.forget();
        state.pickle(py).map(drop)
    })?;
    // SAFETY: the caller gives the descriptor away.
    let seat = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut failed = false;
    let served = py.detach(|| {
        let failed = &mut failed;
        let service = Service {
            initialize: Box::new(move || {
                Python::attach(|py| {
                    let initialized = initialize.bind(py).call0();
                    drop(initialize);
                    initialized.map(drop).map_err(|error| {
                        *failed = true;
                        told(py, &error)
                    })
                })
            }),
            // The interpreter is held for a whole chunk; whoever waits for it gets it between chunks, and whenever
            // the interpreter itself lets go of it.
            around: &|task| {
                Python::attach(|_| {
                    task();
                    STATE.with(State::end_task);
                });
            },
        };
        engine::raw::serve(seat, service)
    });
    match served {
        Err(_) if failed => Err(PySystemExit::new_err(1)), // the pool tells of it
        served => served.map_err(|error| crate::error::to_py(py, &error, None)),
    }
}

/// An exception as text, with its traceback.
fn told(py: Python<'_>, error: &PyErr) -> String {
    let lines = PyModule::import(py, "traceback").and_then(|traceback| {
        let value = error.value(py);
        let lines = traceback.getattr("format_exception")?.call1((error.get_type(py), value, error.traceback(py)))?;
        lines.extract::<Vec<String>>()
    });
    lines.map_or_else(|_| error.to_string(), |lines| lines.concat())
}

thread_local! {
    /// Of the one thread that serves.
    static STATE: State = State::default();
}

/// What a worker keeps from one task to the next.
#[derive(Default)]
struct State {
    pickle: OnceLock<Pickle>,
    functions: RefCell<HashMap<u64, Known>>,
    /// The one that was called last.
    last: RefCell<Option<(u64, Py<PyAny>)>>,
    /// Mappings of what the running task was sent.
    views: RefCell<Vec<Weak<Private>>>,
    habit: Habit,
    /// Tasks that have ended.
    tasks: Cell<u64>,
    bytes: RefCell<Vec<u8>>,
}

struct Known {
    function: Py<PyAny>,
    /// The task for which it was made, if it is only good for that.
    only: Option<u64>,
}

impl State {
    fn pickle(&self, py: Python<'_>) -> PyResult<&Pickle> {
        if let Some(pickle) = self.pickle.get() {
            return Ok(pickle);
        }
        let pickle = Pickle::import(py, "dumps")?;
        Ok(self.pickle.get_or_init(|| pickle))
    }

    /// What is there was the parent's, if that is a worker, too: of another pool, whose numbers mean something else.
    fn forget(&self) {
        drop((self.functions.take(), self.last.take(), self.views.take()));
    }

    /// Takes possession of what is still looked at of the task's input, which is gone when the task is over.
    fn settle(&self) {
        let views = self.views.take();
        own(&views);
        self.habit.learn();
    }

    fn end_task(&self) {
        self.tasks.set(self.tasks.get() + 1);
    }
}

fn own(views: &[Weak<Private>]) {
    for view in views.iter().filter_map(Weak::upgrade) {
        if let Err(error) = view.own() {
            // What the program kept would change under it.
            eprintln!("ringpool: an array that was kept beyond its task cannot be: {error}");
            std::process::abort();
        }
    }
}

/// Whether tasks write to most of what they are sent: then a copy of all of it is cheaper than one of each page.
#[derive(Default)]
struct Habit {
    writes: Cell<bool>,
    /// So many buffers in a row were copied because of it.
    copies: Cell<u32>,
    /// Bytes that were mapped for the running call, and how many had been written to before.
    mapped: Cell<usize>,
    written: Cell<u64>,
}

impl Habit {
    /// Every so often it is found out anew.
    const TRUST: u32 = 32;
    /// From so many bytes on.
    const LEAST: usize = 1 << 20;

    /// Whether to copy a buffer.
    fn copies(&self, len: usize) -> bool {
        if len < Self::LEAST || !self.writes.get() {
            return false;
        }
        let copies = self.copies.get() + 1;
        self.copies.set(copies % Self::TRUST);
        copies < Self::TRUST
    }

    fn note_mapped(&self, len: usize) {
        if len >= Self::LEAST {
            if self.mapped.get() == 0 {
                self.written.set(Private::copied());
            }
            self.mapped.set(self.mapped.get() + len);
        }
    }

    /// All that was mapped for the call has been dropped.
    fn learn(&self) {
        let mapped = self.mapped.take();
        if mapped > 0 {
            let written = Private::copied() - self.written.get();
            self.writes.set(written as usize >= mapped / 2);
        }
    }
}

/// Finds what a task refers to.
struct Sent<'a> {
    views: &'a RefCell<Vec<Weak<Private>>>,
    habit: &'a Habit,
}

fn sent<'a>(offset: u64, len: u64) -> PyResult<&'a [u8]> {
    let len = usize::try_from(len).map_err(|_| damaged())?;
    // SAFETY: the client keeps what the task refers to until the task is done; nothing looks at it later.
    unsafe { buffer_at(offset, len) }.map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

#[cold]
fn damaged() -> PyErr {
    PyRuntimeError::new_err("a message between the pool's processes is damaged")
}

impl Fetch for Sent<'_> {
    fn buffer<'py>(&mut self, py: Python<'py>, offset: u64, len: u64) -> PyResult<Bound<'py, PyAny>> {
        let bytes = sent(offset, len)?;
        if self.habit.copies(bytes.len()) {
            let copied = Copied::new(bytes)?;
            return Ok(Bound::new(py, View::copied(copied))?.into_any());
        }
        self.habit.note_mapped(bytes.len());
        // SAFETY: `settle` sees to it before the task ends.
        let private = unsafe { Private::of_task(bytes) };
        let private = Arc::new(private.map_err(|error| crate::error::to_py(py, &error, None))?);
        self.views.borrow_mut().push(Arc::downgrade(&private));
        Ok(Bound::new(py, View::mapped(private))?.into_any())
    }

    fn bytes(&mut self, offset: u64, len: u64) -> PyResult<&[u8]> {
        sent(offset, len)
    }

    fn local(&mut self, _: Python<'_>, _: u64) -> PyErr {
        damaged()
    }
}

/// Large parts of a result, which are to lie behind it.
#[derive(Default)]
struct Behind {
    parts: Vec<(RawBuffer, usize)>,
}

impl Store for Behind {
    fn put(&mut self, _: &Bound<'_, PyAny>, buffer: RawBuffer, out: &mut Vec<u8>) -> PyResult<()> {
        let len = buffer.bytes().len() as u64;
        self.parts.push((buffer, out.len()));
        out.extend_from_slice(&[0; 8]); // known at the end
        out.extend_from_slice(&len.to_ne_bytes());
        Ok(())
    }

    fn truncate(&mut self, count: usize) {
        self.parts.truncate(count);
    }

    fn count(&self) -> usize {
        self.parts.len()
    }
}

/// Runs a chunk of a map.
fn run_chunk(py: Python<'_>, chunk: &mut Chunk<'_, '_>) {
    STATE.with(|state| {
        let mut bytes = state.bytes.take();
        let mut behind = Behind::default();
        // Those of an iteration are calls of their own.
        let whole = chunk.whole().is_some();
        let items = state.pickle(py).and_then(|pickle| match whole {
            true => results(py, state, pickle, chunk),
            false => Err(damaged()),
        });
        while let Some(index) = chunk.take() {
            bytes.clear();
            let answered = state.pickle(py).and_then(|pickle| {
                let result = match &items {
                    Ok(items) => next(items),
                    Err(_) if !whole => {
                        let call = chunk.item(index).ok_or_else(damaged)?;
                        return answer(py, state, call, &mut bytes, &mut behind);
                    }
                    Err(error) => Err(error.clone_ref(py)),
                };
                say(py, pickle, result, &mut bytes, &mut behind)
            });
            match answered {
                Ok(()) if behind.parts.is_empty() && bytes.len() <= SHORT => chunk.put_short(&bytes),
                Ok(()) => chunk.put(|output| write(&mut bytes, &behind, output)),
                Err(error) => chunk.put(|_| Err(Failure::new(1, error.to_string()))),
            }
            behind.truncate(0);
        }
        drop(items);
        state.settle();
        if bytes.capacity() <= 1 << 20 {
            state.bytes.replace(bytes);
        }
    });
}

/// An iterator over what the function makes of the items of a chunk that are left.
fn results<'py>(
    py: Python<'py>,
    state: &State,
    pickle: &Pickle,
    chunk: &Chunk<'_, '_>,
) -> PyResult<Bound<'py, PyAny>> {
    let input = chunk.whole().ok_or_else(damaged)?;
    let (first, end) = chunk.left();
    let (head, rest) = input.split_first_chunk::<HEAD>().ok_or_else(damaged)?;
    let function = function(py, state, pickle, word(&head[..5]), word(&head[5..NAME]))?;
    let mut fetch = Sent { views: &state.views, habit: &state.habit };
    let mut decoder = Decoder { pickle, bytes: rest, fetch: &mut fetch };
    let items = match head[NAME] & !STARRED {
        NUMBERS => {
            let (start, step) = rest.split_at_checked(8).ok_or_else(damaged)?;
            let (start, step) = (word(start) as i64, word(step.get(..8).ok_or_else(damaged)?) as i64);
            let at = |index: u32| start + step * i64::from(index);
            py.get_type::<PyRange>().call1((at(first), at(end), step))?
        }
        EACH => {
            for _ in 0..first {
                decoder.value(py)?; // done already, by one that died after it
            }
            let items = PyList::empty(py);
            for _ in first..end {
                items.append(decoder.value(py)?)?;
            }
            items.into_any()
        }
        MANY => {
            let items = decoder.value(py)?;
            if first == 0 { items } else { items.get_item(PySlice::new(py, first as isize, end as isize, 1))? }
        }
        _ => return Err(damaged()),
    };
    // Python's own loop calls without making a tuple for each call.
    let (module, name) =
        if head[NAME] & STARRED == 0 { ("builtins", "map") } else { ("itertools", "starmap") };
    PyModule::import(py, module)?.getattr(name)?.call1((function, items))
}

/// What comes of the next item.
#[inline]
fn next<'py>(results: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = results.py();
    // SAFETY: a live iterator; it gives a new reference, or null with an exception or at the end.
    let result = unsafe { pyo3::ffi::PyIter_Next(results.as_ptr()) };
    if result.is_null() {
        // There are as many items as the client says: the function itself says that something has ended.
        return Err(PyErr::take(py).unwrap_or_else(|| PyStopIteration::new_err(())));
    }
    // SAFETY: as above.
    Ok(unsafe { Bound::from_owned_ptr(py, result) })
}

/// Runs one call.
fn run(py: Python<'_>, input: &[u8], output: &mut Output<'_, '_>) -> Result<(), Failure> {
    STATE.with(|state| {
        let mut bytes = state.bytes.take();
        bytes.clear();
        let mut behind = Behind::default();
        let answered = answer(py, state, input, &mut bytes, &mut behind);
        let written = match answered {
            Ok(()) => write(&mut bytes, &behind, output),
            Err(error) => Err(Failure::new(1, error.to_string())),
        };
        drop(behind);
        // After all objects of the task have gone, as far as the program has not kept any.
        state.settle();
        if bytes.capacity() <= 1 << 20 {
            state.bytes.replace(bytes);
        }
        written
    })
}

fn write(bytes: &mut [u8], behind: &Behind, output: &mut Output<'_, '_>) -> Result<(), Failure> {
    let mut end = bytes.len();
    for (buffer, at) in &behind.parts {
        let start = end.next_multiple_of(ALIGN);
        bytes[*at..*at + 8].copy_from_slice(&(start as u64).to_ne_bytes());
        end = start + buffer.bytes().len();
    }
    let room = output.reserve(end)?;
    room[..bytes.len()].copy_from_slice(bytes);
    let mut end = bytes.len();
    for (buffer, _) in &behind.parts {
        let start = end.next_multiple_of(ALIGN);
        end = start + buffer.bytes().len();
        room[start..end].copy_from_slice(buffer.bytes());
    }
    output.commit(end)
}

/// Appends what comes of a call. An error is a failure to say even that.
fn answer(
    py: Python<'_>,
    state: &State,
    input: &[u8],
    out: &mut Vec<u8>,
    behind: &mut Behind,
) -> PyResult<()> {
    let pickle = state.pickle(py)?;
    let result = match call(py, state, pickle, input) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => {
            out.push(LOCAL);
            out.extend_from_slice(input.get(HEAD..HEAD + 8).ok_or_else(damaged)?);
            return Ok(());
        }
        Err(error) => Err(error),
    };
    say(py, pickle, result, out, behind)
}

/// Appends what came of a call.
#[inline]
fn say(
    py: Python<'_>,
    pickle: &Pickle,
    result: PyResult<Bound<'_, PyAny>>,
    out: &mut Vec<u8>,
    behind: &mut Behind,
) -> PyResult<()> {
    let value = match result {
        Ok(value) => value,
        Err(error) => return raised(py, pickle, &error, out, behind),
    };
    let Err(error) = (Encoder { pickle, out, store: behind }).value(&value) else { return Ok(()) };
    out.clear();
    behind.truncate(0);
    let described = pickle.encoding_error(py, &error, &value)?;
    drop(value);
    raise(pickle, &described, out, behind)
}

fn raise(
    pickle: &Pickle,
    described: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    behind: &mut Behind,
) -> PyResult<()> {
    out.push(RAISED);
    let mut encoder = Encoder { pickle, out, store: behind };
    match described.getattr("tb") {
        Ok(traceback) => encoder.value(&traceback)?,
        Err(_) => encoder.value(described.str()?.as_any())?, // an exception of the pool's own, without any
    }
    encoder.pickled(described)
}

/// Appends an exception.
#[cold]
fn raised(
    py: Python<'_>,
    pickle: &Pickle,
    error: &PyErr,
    out: &mut Vec<u8>,
    behind: &mut Behind,
) -> PyResult<()> {
    let described = pickle.describe(py, error)?;
    let Err(why) = raise(pickle, &described, out, behind) else { return Ok(()) };
    out.clear();
    behind.truncate(0);
    let described = pickle.encoding_error(py, &why, error.value(py).as_any())?;
    raise(pickle, &described, out, behind)
}

/// A number in so many bytes.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Calls the function; `None` if the call is only to come back.
fn call<'py>(
    py: Python<'py>,
    state: &State,
    pickle: &Pickle,
    input: &[u8],
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let (head, rest) = input.split_first_chunk::<HEAD>().ok_or_else(damaged)?;
    let kind = head[NAME];
    if kind == ECHO {
        return Ok(None);
    }
    let number = word(&head[..5]);
    let function = function(py, state, pickle, number, word(&head[5..NAME]))?;
    let mut fetch = Sent { views: &state.views, habit: &state.habit };
    let mut decoder = Decoder { pickle, bytes: rest, fetch: &mut fetch };
    match kind {
        CALL => {
            let args = decoder.value(py)?.cast_into::<PyTuple>().map_err(|_| damaged())?;
            function.call1(args).map(Some)
        }
        CALL_NAMED => {
            let both = decoder.value(py)?.cast_into::<PyTuple>().map_err(|_| damaged())?;
            let args = both.get_item(0)?.cast_into::<PyTuple>().map_err(|_| damaged())?;
            let kwds = both.get_item(1)?;
            drop(both);
            let kwds = match kwds.cast_into::<PyDict>() {
                Ok(kwds) => kwds,
                Err(error) => {
                    let named = PyDict::new(py);
                    named.update(error.into_inner().cast()?)?;
                    named
                }
            };
            function.call(args, Some(&kwds)).map(Some)
        }
        ITEM => {
            let item = decoder.value(py)?;
            function.call1((item,)).map(Some)
        }
        STAR => {
            let args = decoder.value(py)?;
            function.call1(star(py, args)?).map(Some)
        }
        _ => Err(damaged()),
    }
}

/// The arguments that an item holds.
fn star<'py>(py: Python<'py>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    match item.cast_into::<PyTuple>() {
        Ok(args) => Ok(args),
        Err(error) => {
            let item = error.into_inner();
            let args = py.get_type::<PyTuple>().call1((&item,)).map_err(|_| {
                let kind = item.get_type().name().map_or_else(|_| "it".to_owned(), |name| name.to_string());
                PyTypeError::new_err(format!("the items of starmap have to be iterables of arguments, not {kind}"))
            })?;
            args.cast_into().map_err(PyErr::from)
        }
    }
}

/// The function with this number, whose definition is there.
fn function<'py>(
    py: Python<'py>,
    state: &State,
    pickle: &Pickle,
    number: u64,
    place: u64,
) -> PyResult<Bound<'py, PyAny>> {
    if let Some((last, function)) = &*state.last.borrow()
        && *last == number
    {
        return Ok(function.bind(py).clone());
    }
    let task = state.tasks.get();
    if let Some(known) = state.functions.borrow().get(&number)
        && known.only.is_none_or(|only| only == task)
    {
        let function = known.function.bind(py).clone();
        if known.only.is_none() {
            let last = state.last.replace(Some((number, function.clone().unbind())));
            drop(last);
        }
        return Ok(function);
    }
    let offset = place * UNIT;
    let head = sent(offset, function::HEAD as u64)?;
    if word(&head[..8]) != number {
        return Err(damaged());
    }
    let fresh = word(&head[8..16]) & FRESH != 0;
    let bytes = sent(offset + function::HEAD as u64, word(&head[16..24]))?;
    let function = pickle.loads(py, bytes, &pyo3::types::PyList::empty(py))?;
    let known = Known { function: function.clone().unbind(), only: fresh.then_some(task) };
    let forgotten = {
        let mut functions = state.functions.borrow_mut();
        let forgotten = if functions.len() >= FUNCTIONS { std::mem::take(&mut *functions) } else { HashMap::new() };
        functions.insert(number, known);
        forgotten
    };
    drop(forgotten); // what it runs may come back here
    Ok(function)
}
