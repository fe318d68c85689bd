//! Maps: items in chunks, results in a list.

use crate::answer;
use crate::call::{HEAD, ITEM, OF_MANY, STAR, STAR_OF_MANY, head};
use crate::codec::{Encoder, INT, Store};
use crate::pool::{Engine, Shared};
use crate::error::to_py;
use crate::function::Definition;
use crate::memory::{ClientStore, patiently};
use crate::overflow::{Items, Task, is_full};
use crate::result::{self, ApplyResult, Callbacks, Work};
use engine::raw::{Buffer, Bytes, Caller, MapFeed, MapPending, Results};
use engine::{Error, ErrorKind};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyRange};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    chunksize: usize,
    pub shared: Arc<Shared>,
    name: String,
    /// What kept a chunk from being sent, and its first item.
    early: Mutex<Option<(usize, PyErr)>>,
}

impl Sent {
    pub(crate) fn read<'py>(
        &self,
        py: Python<'py>,
        results: Result<Arc<Results>, Error>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match results {
            Ok(results) => self.gather(py, &results),
            Err(error) => Err(to_py(py, &error, Some(&self.name))),
        }
    }

    /// All values, or the exception of the first item that has one.
    fn gather<'py>(&self, py: Python<'py>, results: &Results) -> PyResult<Bound<'py, PyAny>> {
        let count = results.len();
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stop = early.as_ref().map_or(count, |&(first, _)| first);
        // SAFETY: a new list, whose places are all filled before anybody sees it; should that end early, Python
        // knows what to do with a list that has gaps.
        let list = unsafe {
            Bound::from_owned_ptr_or_err(py, pyo3::ffi::PyList_New(count as pyo3::ffi::Py_ssize_t))?
        };
        let mut index = 0;
        while index < stop {
            let run = results.run_len(index).max(1);
            match results.run_at(index) {
                Some(Ok((bytes, size))) if size > 0 && size <= 64 => {
                    // Side by side, and too short for anything that lies behind.
                    for item in bytes.chunks_exact(size).take(stop - index) {
                        let value = answer::read_short(py, &self.shared.pickle, item)?;
                        // SAFETY: within the list; it takes the reference.
                        unsafe {
                            let at = index as pyo3::ffi::Py_ssize_t;
                            pyo3::ffi::PyList_SetItem(list.as_ptr(), at, value.into_ptr());
                        }
                        index += 1;
                    }
                    continue;
                }
                Some(Err(error)) => return Err(to_py(py, error, Some(&self.name))),
                _ => {}
            }
            for _ in 0..run {
                let bytes = match results.bytes(index) {
                    Some(Ok(bytes)) => Arc::<Bytes>::new(bytes),
                    Some(Err(error)) => return Err(to_py(py, error, Some(&self.name))),
                    None => return Err(PyRuntimeError::new_err("a map has lost an item")),
                };
                let value = answer::read(py, &self.shared.pickle, &bytes, &mut answer::no_local)?;
                // SAFETY: as above.
                unsafe {
                    let at = index as pyo3::ffi::Py_ssize_t;
                    pyo3::ffi::PyList_SetItem(list.as_ptr(), at, value.into_ptr());
                }
                index += 1;
            }
        }
        match early {
            Some((_, error)) => Err(error),
            None => Ok(list),
        }
    }
}

/// Tells a sequence in the pool's memory from those that were there before.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A map on its way.
struct Feeding<'a> {
    engine: &'a Engine,
    definition: &'a Definition,
    feed: MapFeed,
    star: bool,
}

impl Feeding<'_> {
    /// Submits a chunk, or has it wait.
    fn push(&self, first: usize, items: Items, mut keep: Vec<Arc<Buffer>>) {
        if !self.definition.lasting {
            keep.push(self.definition.buffer.clone());
        }
        let tried = if self.engine.overflow.is_empty() {
            items.push(&self.feed, first, &keep)
        } else {
            Err(result::full())
        };
        match tried {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                let feed = self.feed.clone();
                self.engine.overflow.push(Task::Chunk { feed, first, items, keep });
            }
            Err(error) => self.feed.fail(first, items.len(), error),
        }
    }

    /// The items of a sequence that need no pickle, each by itself; `None` if one needs it.
    fn plain(
        &self,
        first: usize,
        end: usize,
        store: &mut ClientStore<'_>,
        mut item: impl FnMut(usize, &mut Encoder<'_, '_>) -> PyResult<bool>,
    ) -> PyResult<Option<Items>> {
        let head = head(self.definition, if self.star { STAR } else { ITEM });
        let mut items = Items { bytes: Vec::with_capacity((end - first) * 18), ends: Vec::with_capacity(end - first) };
        for index in first..end {
            items.bytes.extend_from_slice(&head);
            let mut encoder =
                Encoder { pickle: &self.engine.pickle, out: &mut items.bytes, store: &mut *store };
            if !item(index, &mut encoder)? {
                store.truncate(0);
                return Ok(None);
            }
            items.ends.push(items.bytes.len());
        }
        Ok(Some(items))
    }

    /// A sequence of `count` items as a whole in the pool's memory, and the items that refer to it.
    fn whole(
        &self,
        sequence: &Bound<'_, PyAny>,
        count: usize,
        store: &mut ClientStore<'_>,
    ) -> PyResult<Items> {
        let py = sequence.py();
        let mut bytes = Vec::new();
        Encoder { pickle: &self.engine.pickle, out: &mut bytes, store }.pickled(sequence)?;
        let mut buffer = patiently(py, &self.engine.hasty, bytes.len())?;
        if let Some(room) = buffer.bytes_mut() {
            room.copy_from_slice(&bytes);
        }
        let head = head(self.definition, if self.star { STAR_OF_MANY } else { OF_MANY });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut items = Items { bytes: Vec::with_capacity(count * (HEAD + 32)), ends: Vec::with_capacity(count) };
        for index in 0..count {
            items.bytes.extend_from_slice(&head);
            items.bytes.extend_from_slice(&(index as u32).to_le_bytes());
            items.bytes.extend_from_slice(&(count as u32).to_le_bytes());
            for word in [number, buffer.offset(), bytes.len() as u64] {
                items.bytes.extend_from_slice(&word.to_le_bytes());
            }
            items.ends.push(items.bytes.len());
        }
        store.keep.push(Arc::new(buffer));
        Ok(items)
    }
}

/// What the items of a map are in.
enum Input<'py> {
    Range { start: i64, step: i64 },
    List(Bound<'py, PyList>),
    /// An array of numpy, which is cut into slices.
    Array(Bound<'py, PyAny>),
}

fn input<'py>(iterable: &Bound<'py, PyAny>) -> PyResult<(Input<'py>, usize)> {
    if let Ok(range) = iterable.cast_exact::<PyRange>() {
        let count = range.len();
        if let (Ok(count), Ok(start), Ok(step)) =
            (count, range.getattr("start")?.extract::<i64>(), range.getattr("step")?.extract::<i64>())
            && i64::try_from(count).ok().and_then(|count| step.checked_mul(count)?.checked_add(start)).is_some()
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
                    Ok(items) => feeding.push(first, items, std::mem::take(&mut store.keep)),
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
    let sent = Sent { pending, chunksize, shared: engine.shared.clone(), name, early: Mutex::new(early) };
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
) -> PyResult<Items> {
    match input {
        Input::Range { start, step } if !feeding.star => {
            let items = feeding.plain(first, end, store, |index, encoder| {
                encoder.out.push(INT);
                encoder.out.extend_from_slice(&(start + step * index as i64).to_ne_bytes());
                Ok(true)
            })?;
            items.ok_or_else(|| PyRuntimeError::new_err("a number that cannot be sent"))
        }
        Input::Range { .. } => Err(PyTypeError::new_err("the items of starmap have to be iterables of arguments")),
        Input::List(list) => {
            let plain = feeding.plain(first, end, store, |index, encoder| encoder.small(&list.get_item(index)?))?;
            match plain {
                Some(items) => Ok(items),
                None => feeding.whole(&list.get_slice(first, end).into_any(), end - first, store),
            }
        }
        Input::Array(array) => {
            let slice = pyo3::types::PySlice::new(py, first as isize, end as isize, 1);
            feeding.whole(&array.get_item(slice)?, end - first, store)
        }
    }
}

