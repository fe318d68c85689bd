//! Maps: items in chunks, results in a list.

use crate::answer;
use crate::call::{EACH, HEAD, MANY, NUMBERS, STARRED, head, item_call};
use crate::codec::{Encoder, Store};
use crate::error::{is_urgent, to_py};
use crate::function::Definition;
use crate::memory::ClientStore;
use crate::overflow::{Chunk, Task, is_full};
use crate::pool::{Engine, Shared};
use crate::result::{self, ApplyResult, Callbacks, Work};
use engine::raw::{Buffer, Caller, MapFeed, MapPending, Results};
use engine::{Error, ErrorKind};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyRange};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Results that lie side by side have at most so many bytes.
const SHORT: usize = 64;

/// The result of `Pool.map_async` and `starmap_async`.
#[pyclass(extends = ApplyResult, frozen, subclass, module = "ringpool.pool")]
pub(crate) struct MapResult;

#[pymethods]
impl MapResult {
    /// How many chunks are not done, or of a result that is there, 0.
    #[getter]
    fn _number_left(slf: &Bound<'_, Self>) -> usize {
        match slf.as_super().get().work() {
            Work::Map(sent) => sent.pending.left().div_ceil(sent.chunksize),
            _ => 0,
        }
    }

    /// How many items are in a chunk.
    #[getter]
    fn _chunksize(slf: &Bound<'_, Self>) -> usize {
        match slf.as_super().get().work() {
            Work::Map(sent) => sent.chunksize,
            _ => 0,
        }
    }
}

/// A map that was sent.
pub(crate) struct Sent {
    pub pending: MapPending,
    count: usize,
    chunksize: usize,
    pub shared: Arc<Shared>,
    name: String,
    /// What kept a chunk from being sent, and its first item.
    early: Mutex<Option<(usize, PyErr)>>,
    come: Mutex<Come>,
    /// Somebody makes objects of what has come.
    reading: AtomicBool,
    /// What was being read when something urgent came: from which item on, and which of its results are read.
    unread: Mutex<Vec<(usize, Results, usize)>>,
}

/// What has come of a map, as objects.
#[derive(Default)]
struct Come {
    /// With places for all values.
    list: Option<Py<PyList>>,
    /// The exception of the first item that has one, as far as is known.
    failed: Option<(usize, PyErr)>,
}

/// Reads what has come, and says when it is through.
struct Reading<'a>(&'a AtomicBool);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Sent {
    /// Waits for some results, which can be read while others are made; or for all.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        // A few times for a map, but not for each of many small chunks.
        let some = self.count.div_ceil(self.chunksize) / 16;
        self.pending.wait_for_some(some, Some(limit))
    }

    /// Makes objects of what has come; whether that is all.
    pub(crate) fn read_some(&self, py: Python<'_>) -> PyResult<bool> {
        let all = self.pending.ready(); // asked before what has come is taken
        if self.reading.swap(true, Ordering::AcqRel) {
            // Another thread does it, and may need the interpreter.
            py.detach(|| std::thread::sleep(Duration::from_millis(1)));
            return Ok(false);
        }
        let _reading = Reading(&self.reading);
        let unread = std::mem::take(&mut *self.unread());
        let come = self.pending.take().into_iter().map(|(first, results)| (first, results, 0));
        let mut parts = unread.into_iter().chain(come).collect::<VecDeque<_>>();
        while let Some((first, results, read)) = parts.pop_front() {
            if let Err((read, error)) = self.read_part(py, first, &results, read) {
                parts.push_front((first, results, read));
                self.unread().extend(parts);
                return Err(error);
            }
        }
        Ok(all)
    }

    fn unread(&self) -> MutexGuard<'_, Vec<(usize, Results, usize)>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn come(&self) -> MutexGuard<'_, Come> {
        self.come.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list, which nobody else knows yet.
    fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        if let Some(list) = &self.come().list {
            return Ok(list.bind(py).clone());
        }
        // SAFETY: a new list, whose places are all filled before anybody sees it; should that end early, Python
        // knows what to do with a list that has gaps.
        let list = unsafe {
            Bound::from_owned_ptr_or_err(py, pyo3::ffi::PyList_New(self.count as pyo3::ffi::Py_ssize_t))?
        };
        let list = list.cast_into::<PyList>()?;
        // Not while it is made: that may run any code.
        self.come().list = Some(list.clone().unbind());
        Ok(list)
    }

    fn fail(&self, index: usize, error: PyErr) {
        let mut come = self.come();
        let is_first = come.failed.as_ref().is_none_or(|&(first, _)| index < first);
        let other = if is_first { come.failed.replace((index, error)) } else { Some((index, error)) };
        drop(come);
        drop(other); // what it refers to may have code that comes here
    }

    /// All values, or the exception of the first item that has one. All have been read.
    pub(crate) fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
        let list = self.list(py)?;
        let come = std::mem::take(&mut *self.come());
        match (early, come.failed) {
            // What was not sent failed in the engine, too, which knows nothing of the reason.
            (Some((unsent, error)), failed) if failed.as_ref().is_none_or(|&(first, _)| unsent <= first) => {
                Err(error)
            }
            (_, Some((_, error))) => Err(error),
            (_, None) => Ok(list.into_any()),
        }
    }

    /// The same for all of them at once.
    pub(crate) fn read<'py>(
        &self,
        py: Python<'py>,
        results: Result<Arc<Results>, Error>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match results {
            Ok(results) => self.read_part(py, 0, &results, 0).map_err(|(_, error)| error)?,
            Err(error) => return Err(to_py(py, &error, Some(&self.name))),
        }
        self.values(py)
    }

    /// Makes objects of the results of the items from `first` on.
    /// An error is one that is not about them, with the number of those that have been read.
    fn read_part(
        &self,
        py: Python<'_>,
        first: usize,
        results: &Results,
        read: usize,
    ) -> Result<(), (usize, PyErr)> {
        let pickle = &self.shared.pickle;
        let list = self.list(py).map_err(|error| (read, error))?;
        let mut index = read;
        let put = |index: usize, value: PyResult<Bound<'_, PyAny>>| match value {
            Ok(value) if first + index < self.count => {
                // SAFETY: a place of the list, which takes the reference.
                unsafe {
                    let at = (first + index) as pyo3::ffi::Py_ssize_t;
                    pyo3::ffi::PyList_SetItem(list.as_ptr(), at, value.into_ptr());
                }
            }
            Ok(_) => {}
            Err(error) => self.fail(first + index, error),
        };
        while index < results.len() {
            match results.run_at(index) {
                Some(Ok((bytes, size))) if size > 0 && size <= SHORT => {
                    // Side by side, and too short for anything that lies behind.
                    if size == 9
                        && let Some(values) =
                            answer::read_numbers(py, bytes).map_err(|error| (index, error))?
                    {
                        for value in values.iter() {
                            put(index, Ok(value));
                            index += 1;
                        }
                        continue;
                    }
                    for item in bytes.chunks_exact(size) {
                        let outcome = answer::read_short(py, pickle, item);
                        put(index, outcome.map_err(|error| (index, error))?);
                        index += 1;
                    }
                }
                Some(Err(error)) => {
                    for _ in 0..results.run_len(index).max(1) {
                        put(index, Err(to_py(py, error, Some(&self.name))));
                        index += 1;
                    }
                }
                _ => {
                    let value = match results.bytes(index) {
                        Some(Ok(bytes)) => answer::read(py, pickle, &Arc::new(bytes), &mut answer::no_local),
                        Some(Err(error)) => Ok(Err(to_py(py, error, Some(&self.name)))),
                        None => Ok(Err(PyRuntimeError::new_err("a map has lost an item"))),
                    };
                    put(index, value.map_err(|error| (index, error))?);
                    index += 1;
                }
            }
        }
        Ok(())
    }
}

/// A map on its way.
struct Feeding<'a> {
    engine: &'a Engine,
    definition: &'a Definition,
    feed: MapFeed,
    star: bool,
}

impl Feeding<'_> {
    /// Submits a chunk, or has it wait.
    fn push(&self, first: usize, chunk: Chunk, mut keep: Vec<Arc<Buffer>>) {
        if !self.definition.lasting {
            keep.push(self.definition.buffer.clone());
        }
        let tried = if self.engine.overflow.is_empty() {
            chunk.push(&self.feed, first, &keep)
        } else {
            Err(result::full())
        };
        match tried {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                let feed = self.feed.clone();
                self.engine.overflow.push(Task::Chunk { feed, first, chunk, keep });
            }
            Err(error) => self.feed.fail(first, chunk.count, error),
        }
    }

    /// A chunk that begins, with so many bytes to come.
    fn begin(&self, kind: u8, bytes: usize) -> Vec<u8> {
        let starred = if self.star { STARRED } else { 0 };
        let mut message = Vec::with_capacity(HEAD + bytes);
        message.extend_from_slice(&head(self.definition, kind | starred));
        message
    }

    /// The items of a list, if none needs a pickle.
    fn each(
        &self,
        list: &Bound<'_, PyList>,
        first: usize,
        end: usize,
        store: &mut ClientStore<'_>,
    ) -> PyResult<Option<Vec<u8>>> {
        let mut bytes = self.begin(EACH, (end - first) * 9);
        for index in first..end {
            let mut encoder = Encoder { pickle: &self.engine.pickle, out: &mut bytes, store: &mut *store };
            // SAFETY: a live list, which gives a reference that it keeps, or null if it has become shorter.
            let item = unsafe { pyo3::ffi::PyList_GetItem(list.as_ptr(), index as pyo3::ffi::Py_ssize_t) };
            // SAFETY: as above; nothing is called meanwhile that could take it from the list.
            if !item.is_null() && unsafe { encoder.number(item) } {
                continue;
            }
            // SAFETY: as above.
            let item = unsafe { Bound::from_borrowed_ptr_or_err(list.py(), item)? };
            if !encoder.small(&item)? {
                store.truncate(0);
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    }

    /// The items of a sequence, which is sent as a whole.
    fn many(&self, sequence: &Bound<'_, PyAny>, store: &mut ClientStore<'_>) -> PyResult<Vec<u8>> {
        let mut bytes = self.begin(MANY, 0);
        Encoder { pickle: &self.engine.pickle, out: &mut bytes, store }.pickled(sequence)?;
        Ok(bytes)
    }
}

/// What the items of a map are in.
enum Input<'py> {
    Range {
        start: i64,
        step: i64,
    },
    List(Bound<'py, PyList>),
    /// An array of numpy, which is cut into slices.
    Array(Bound<'py, PyAny>),
}

fn input<'py>(iterable: &Bound<'py, PyAny>) -> PyResult<(Input<'py>, usize)> {
    if let Ok(range) = iterable.cast_exact::<PyRange>() {
        let count = range.len();
        if let (Ok(count), Ok(start), Ok(step)) =
            (count, range.getattr("start")?.extract::<i64>(), range.getattr("step")?.extract::<i64>())
            && i64::try_from(count)
                .ok()
                .and_then(|count| step.checked_mul(count)?.checked_add(start))
                .is_some()
        {
            return Ok((Input::Range { start, step }, count));
        }
    }
    if is_array(iterable)? {
        return Ok((Input::Array(iterable.clone()), iterable.len()?));
    }
    if let Ok(list) = iterable.cast_exact::<PyList>() {
        return Ok((Input::List(list.clone()), list.len()));
    }
    // What says that it has no items is asked for none.
    let list = match iterable.len() {
        Ok(0) => PyList::empty(iterable.py()),
        _ => iterable.py().get_type::<PyList>().call1((iterable,))?.cast_into::<PyList>()?,
    };
    let count = list.len();
    Ok((Input::List(list), count))
}

/// Whether it is numpy's, of plain numbers and with items.
pub(crate) fn is_array(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let kind = object.get_type();
    if kind.name()? != "ndarray" || kind.module()? != "numpy" {
        return Ok(false);
    }
    let plain = !object.getattr("dtype")?.getattr("hasobject")?.is_truthy()?;
    Ok(plain && object.getattr("ndim")?.extract::<usize>()? > 0)
}

#[expect(clippy::too_many_arguments, reason = "they are those of Pool.map_async")]
pub(crate) fn submit<'py>(
    py: Python<'py>,
    engine: &Engine,
    caller: &Caller,
    owner: Bound<'py, PyAny>,
    function: &Bound<'py, PyAny>,
    iterable: &Bound<'py, PyAny>,
    star: bool,
    chunksize: Option<usize>,
    callbacks: Callbacks,
) -> PyResult<Bound<'py, MapResult>> {
    engine.shared.check(py)?;
    let (input, count) = input(iterable)?;
    let chunksize = chunksize.unwrap_or_else(|| count.div_ceil(4 * engine.processes)).max(1);
    let chunksize = chunksize.min(u32::MAX as usize);
    let make = |result| Bound::new(py, PyClassInitializer::from(result).add_subclass(MapResult));
    if count == 0 {
        return make(ApplyResult::done(PyList::empty(py).into_any().unbind()));
    }
    let mut early = None;
    let feed = caller.feed(engine.name, count).map_err(|error| to_py(py, &error, None))?;
    let defined = engine.functions.define(&engine.hasty, &engine.pickle, function);
    let name = match &defined {
        Ok(definition) => definition.name.clone(),
        Err(_) => String::new(),
    };
    match defined {
        Err(error) if is_urgent(py, &error) => return Err(error),
        Err(error) => {
            early = Some((0, error));
            feed.fail(0, count, unsent());
        }
        Ok(definition) => {
            let feeding = Feeding { engine, definition: &definition, feed: feed.clone(), star };
            let mut store = ClientStore::of_many(&engine.hasty, &engine.memories);
            for first in (0..count).step_by(chunksize) {
                let end = count.min(first.saturating_add(chunksize));
                match chunk(py, &feeding, &input, first, end, &mut store) {
                    Ok(bytes) => {
                        let chunk = Chunk { bytes, count: end - first };
                        feeding.push(first, chunk, std::mem::take(&mut store.keep));
                    }
                    Err(error) if is_urgent(py, &error) => return Err(error), // the rest is not sent
                    Err(error) => {
                        store.keep.clear();
                        if early.is_none() {
                            early = Some((first, error));
                        }
                        feed.fail(first, end - first, unsent());
                    }
                }
            }
        }
    }
    let pending = feed.pending();
    let owner = Some(owner.unbind());
    let told = (!callbacks.is_none()).then(Arc::default);
    let sent = Sent {
        pending,
        count,
        chunksize,
        shared: engine.shared.clone(),
        name,
        early: Mutex::new(early),
        come: Mutex::default(),
        reading: AtomicBool::new(false),
        unread: Mutex::default(),
    };
    let result = make(ApplyResult::new(Work::Map(sent), told, owner))?;
    if !callbacks.is_none() {
        let there = result.clone().unbind();
        drop(feed.pending().then(move |results| {
            Python::attach(|py| {
                let this = there.bind(py).as_super().get();
                if let Work::Map(sent) = this.work() {
                    this.tell(py, sent.read(py, Ok(results)), &callbacks);
                }
                drop((there, callbacks));
            });
        }));
    }
    Ok(result)
}

/// For items of which the client knows why they were not sent.
fn unsent() -> Error {
    ErrorKind::Invalid { message: "the items could not be sent".to_owned() }.into()
}

fn chunk<'py>(
    py: Python<'py>,
    feeding: &Feeding<'_>,
    input: &Input<'py>,
    first: usize,
    end: usize,
    store: &mut ClientStore<'_>,
) -> PyResult<Vec<u8>> {
    if end - first == 1 {
        let item = match input {
            Input::Range { start, step } => (start + step * first as i64).into_pyobject(py)?.into_any(),
            Input::List(list) => list.get_item(first)?,
            Input::Array(array) => array.get_item(first)?,
        };
        return item_call(&feeding.engine.pickle, feeding.definition, &item, feeding.star, store);
    }
    match input {
        Input::Range { start, step } => {
            let mut bytes = feeding.begin(NUMBERS, 16);
            for number in [start + step * first as i64, *step] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            Ok(bytes)
        }
        Input::List(list) => match feeding.each(list, first, end, store)? {
            Some(bytes) => Ok(bytes),
            None => feeding.many(&list.get_slice(first, end).into_any(), store),
        },
        Input::Array(array) => {
            let slice = pyo3::types::PySlice::new(py, first as isize, end as isize, 1);
            feeding.many(&array.get_item(slice)?, store)
        }
    }
}
