//! What workers send back, as a client sees it.

use crate::codec::{Answer, Decoder, FORWARD, Fetch, INT, NUMPY_FLOAT, NUMPY_INT};
use crate::memory::View;
use crate::pickle::Pickle;
use engine::raw::{Bytes, Private};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList};
use std::sync::Arc;

/// Finds what lies behind a value.
struct Behind<'a> {
    bytes: &'a Arc<Bytes>,
    local: &'a mut dyn FnMut(Python<'_>, u64) -> PyErr,
}

#[cold]
fn damaged() -> PyErr {
    PyRuntimeError::new_err("a message between the pool's processes is damaged")
}

fn span(bytes: &[u8], offset: u64, len: u64) -> PyResult<std::ops::Range<usize>> {
    let end = offset.checked_add(len).filter(|&end| end <= bytes.len() as u64).ok_or_else(damaged)?;
    Ok(offset as usize..end as usize)
}

impl Fetch for Behind<'_> {
    fn buffer<'py>(&mut self, py: Python<'py>, offset: u64, len: u64) -> PyResult<Bound<'py, PyAny>> {
        let range = span(self.bytes, offset, len)?;
        let private = Private::of_result(self.bytes, range.clone());
        match private.map_err(|error| crate::error::to_py(py, &error, None))? {
            Some(private) => Ok(Bound::new(py, View::mapped(Arc::new(private)))?.into_any()),
            None => Ok(PyByteArray::new(py, &self.bytes[range]).into_any()),
        }
    }

    fn bytes(&mut self, offset: u64, len: u64) -> PyResult<&[u8]> {
        let range = span(self.bytes, offset, len)?;
        Ok(&self.bytes[range])
    }

    fn local(&mut self, py: Python<'_>, token: u64) -> PyErr {
        (self.local)(py, token)
    }
}

/// The object, or the exception that came instead of it. An error is the decoder's own.
pub(crate) fn read<'py>(
    py: Python<'py>,
    pickle: &Pickle,
    bytes: &Arc<Bytes>,
    local: &mut dyn FnMut(Python<'_>, u64) -> PyErr,
) -> PyResult<Bound<'py, PyAny>> {
    let mut fetch = Behind { bytes, local };
    let mut rest: &[u8] = bytes;
    if let [FORWARD, place @ ..] = rest {
        let place = place.first_chunk().map_or(usize::MAX, |place| u64::from_ne_bytes(*place) as usize);
        rest = bytes.get(place..).ok_or_else(damaged)?;
    }
    match (Decoder { pickle, bytes: rest, fetch: &mut fetch }).answer(py)? {
        Answer::Value(value) => Ok(value),
        Answer::Raised(error) => Err(error),
    }
}

/// For answers to calls that were sent as they should.
pub(crate) fn no_local(_: Python<'_>, _: u64) -> PyErr {
    PyRuntimeError::new_err("a worker answered what was not asked")
}

/// Nothing lies behind a value.
struct Nothing;

impl Fetch for Nothing {
    fn buffer<'py>(&mut self, py: Python<'py>, _: u64, _: u64) -> PyResult<Bound<'py, PyAny>> {
        Err(no_local(py, 0))
    }

    fn bytes(&mut self, _: u64, _: u64) -> PyResult<&[u8]> {
        Err(damaged())
    }

    fn local(&mut self, py: Python<'_>, token: u64) -> PyErr {
        no_local(py, token)
    }
}

/// The same for an answer that is too short for anything to lie behind it.
#[inline]
pub(crate) fn read_short<'py>(py: Python<'py>, pickle: &Pickle, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if let &[INT, ref number @ ..] = bytes
        && let Ok(number) = <[u8; 8]>::try_from(number)
    {
        return Ok(i64::from_ne_bytes(number).into_pyobject(py)?.into_any());
    }
    match (Decoder { pickle, bytes, fetch: &mut Nothing }).answer(py)? {
        Answer::Value(value) => Ok(value),
        Answer::Raised(error) => Err(error),
    }
}

/// Values of numpy that lie side by side, each with its tag: as many as there are of one kind. `None` if that is not
/// worth it.
pub(crate) fn read_numbers<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Option<Bound<'py, PyList>>> {
    const LEAST: usize = 16;
    let (items, _) = bytes.as_chunks::<9>();
    let (name, tag) = match items.first() {
        Some([NUMPY_INT, ..]) => ("int64", NUMPY_INT),
        Some([NUMPY_FLOAT, ..]) => ("float64", NUMPY_FLOAT),
        _ => return Ok(None),
    };
    let count = items.iter().position(|item| item[0] != tag).unwrap_or(items.len());
    if count < LEAST {
        return Ok(None);
    }
    let plain: Vec<u8> = items[..count].iter().flat_map(|item| &item[1..]).copied().collect();
    let numpy = PyModule::import(py, "numpy")?;
    let array = numpy.getattr("frombuffer")?.call1((PyBytes::new(py, &plain), name))?;
    Ok(Some(py.get_type::<PyList>().call1((array,))?.cast_into()?))
}
