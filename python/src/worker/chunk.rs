//! Chunks of maps and iterations.

use super::output::{Behind, say, write};
use super::run::{answer, function, word};
use super::sent::{Sent, damaged};
use super::{STATE, State};
use crate::call::{EACH, HEAD, MANY, NUMBERS, STARRED};
use crate::codec::Decoder;
use crate::function::NAME;
use crate::pickle::Pickle;
use engine::raw::{Chunk, Failure};
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::{PyRange, PySlice};

/// Outputs of a chunk that lie side by side have at most so many bytes.
const SHORT: usize = 64;

/// Runs a chunk of a map.
pub(super) fn run_chunk(py: Python<'_>, chunk: &mut Chunk<'_, '_>) {
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
                Ok(()) => chunk.put(|output| write(&mut bytes, &mut behind, output)),
                Err(error) => chunk.put(|_| Err(Failure::new(1, error.to_string()))),
            }
            behind.parts.clear();
        }
        drop(items);
        state.settle();
        if bytes.capacity() <= 1 << 20 {
            state.bytes.replace(bytes);
        }
    });
}

/// An iterator over what the function makes of the items of a chunk that are left.
pub(super) fn results<'py>(
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
            decoder.list(py, end - first)?
        }
        MANY => {
            let items = decoder.value(py)?;
            if first == 0 {
                items
            } else {
                items.get_item(PySlice::new(py, first as isize, end as isize, 1))?
            }
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
pub(super) fn next<'py>(results: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
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
