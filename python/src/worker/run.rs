//! Calls.

use super::output::{Behind, say, write};
use super::sent::{Sent, damaged, sent};
use super::{Known, STATE, State};
use crate::call::{CALL, CALL_NAMED, ECHO, HEAD, ITEM, STAR};
use crate::codec::{Decoder, LOCAL};
use crate::function::{self, FRESH, NAME, UNIT};
use crate::pickle::Pickle;
use engine::raw::{Failure, Output};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// So many functions are kept.
const FUNCTIONS: usize = 256;
/// Made of so many bytes, at most, unless it is a single one.
const FUNCTION_BYTES: usize = 64 << 20;

/// Runs one call.
pub(super) fn run(py: Python<'_>, input: &[u8], output: &mut Output<'_, '_>) -> Result<(), Failure> {
    STATE.with(|state| {
        let mut bytes = state.bytes.take();
        bytes.clear();
        let mut behind = Behind::default();
        let answered = answer(py, state, input, &mut bytes, &mut behind);
        let written = match answered {
            Ok(()) => write(&mut bytes, &mut behind, output),
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

/// Appends what comes of a call. An error is a failure to say even that.
pub(super) fn answer(
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

/// Calls the function; `None` if the call is only to come back.
pub(super) fn call<'py>(
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
pub(super) fn star<'py>(py: Python<'py>, item: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    match item.cast_into::<PyTuple>() {
        Ok(args) => Ok(args),
        Err(error) => {
            let item = error.into_inner();
            let args = py.get_type::<PyTuple>().call1((&item,)).map_err(|_| {
                let kind = item.get_type().name().map_or_else(|_| "it".to_owned(), |name| name.to_string());
                PyTypeError::new_err(format!(
                    "the items of starmap have to be iterables of arguments, not {kind}"
                ))
            })?;
            args.cast_into().map_err(PyErr::from)
        }
    }
}

/// The function with this number, whose definition is there.
pub(super) fn function<'py>(
    py: Python<'py>,
    state: &State,
    pickle: &Pickle,
    number: u64,
    place: u64,
) -> PyResult<Bound<'py, PyAny>> {
    for place in [&state.last, &state.fresh] {
        if let Some((known, function)) = &*place.borrow()
            && *known == number
        {
            return Ok(function.bind(py).clone());
        }
    }
    let known = state.functions.borrow().functions.get(&number).map(|function| function.clone_ref(py));
    if let Some(function) = known {
        drop(state.last.replace(Some((number, function.clone_ref(py)))));
        return Ok(function.into_bound(py));
    }
    let offset = place * UNIT;
    let head = sent(offset, function::HEAD as u64)?;
    if word(&head[..8]) != number {
        return Err(damaged());
    }
    let fresh = word(&head[8..16]) & FRESH != 0;
    let bytes = sent(offset + function::HEAD as u64, word(&head[16..24]))?;
    let function = pickle.loads(py, bytes, &pyo3::types::PyList::empty(py))?;
    if fresh {
        drop(state.fresh.replace(Some((number, function.clone().unbind()))));
        return Ok(function);
    }
    let forgotten = {
        let mut known = state.functions.borrow_mut();
        let full = known.functions.len() >= FUNCTIONS || known.bytes + bytes.len() > FUNCTION_BYTES;
        let forgotten = if full { std::mem::take(&mut *known) } else { Known::default() };
        known.functions.insert(number, function.clone().unbind());
        known.bytes += bytes.len();
        forgotten
    };
    drop((forgotten, state.last.take())); // what they run may come back here
    Ok(function)
}

/// A number in so many bytes.
#[inline]
pub(super) fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}
