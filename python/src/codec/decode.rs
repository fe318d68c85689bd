//! From bytes to objects.

use super::*;
use crate::pickle::{Numpy, Pickle};
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyModule};

/// Where large buffers are found.
pub(crate) trait Fetch {
    /// An object with these bytes as a writable buffer.
    fn buffer<'py>(&mut self, py: Python<'py>, offset: u64, len: u64) -> PyResult<Bound<'py, PyAny>>;
    /// The bytes, to be copied at once.
    fn bytes(&mut self, offset: u64, len: u64) -> PyResult<&[u8]>;
    /// The exception that has this token.
    fn local(&mut self, py: Python<'_>, token: u64) -> PyErr;
}

/// Reads values one after the other. It trusts no length.
pub(crate) struct Decoder<'p, 'b, 'f> {
    pub pickle: &'p Pickle,
    pub bytes: &'b [u8],
    pub fetch: &'f mut dyn Fetch,
}

/// What a worker sent.
pub(crate) enum Answer<'py> {
    Value(Bound<'py, PyAny>),
    Raised(PyErr),
}

#[cold]
fn broken() -> PyErr {
    PyRuntimeError::new_err("a message between the pool's processes is damaged")
}

impl<'b> Decoder<'_, 'b, '_> {
    #[inline]
    fn take(&mut self, len: usize) -> PyResult<&'b [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or_else(broken)?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or_else(broken)?;
        self.bytes = rest;
        Ok(*taken)
    }

    #[inline]
    fn number(&mut self) -> PyResult<u32> {
        Ok(u32::from_ne_bytes(self.array()?))
    }

    #[inline]
    fn long(&mut self) -> PyResult<u64> {
        Ok(u64::from_ne_bytes(self.array()?))
    }

    fn span(&mut self) -> PyResult<&'b [u8]> {
        let len = self.number()?;
        self.take(len as usize)
    }

    /// How many values follow; each takes at least a byte.
    fn count(&mut self) -> PyResult<u32> {
        let count = self.number()?;
        if count as usize > self.bytes.len() {
            return Err(broken());
        }
        Ok(count)
    }

    /// The next value, or the exception that was sent instead.
    #[inline]
    pub(crate) fn answer<'py>(&mut self, py: Python<'py>) -> PyResult<Answer<'py>> {
        match self.bytes.first() {
            Some(&RAISED) => {
                self.take(1)?;
                let traceback = self.value(py)?;
                let raised = match self.value(py) {
                    Ok(exception) => PyErr::from_value(exception),
                    // Not every exception can be made again of what it was made of. Why it was raised is not lost.
                    Err(error) => {
                        let cause =
                            PyModule::import(py, "multiprocessing.pool")?.getattr("RemoteTraceback")?;
                        error.set_cause(py, Some(PyErr::from_value(cause.call1((traceback,))?)));
                        error
                    }
                };
                Ok(Answer::Raised(raised))
            }
            Some(&LOCAL) => {
                self.take(1)?;
                let token = self.long()?;
                Ok(Answer::Raised(self.fetch.local(py, token)))
            }
            _ => self.value(py).map(Answer::Value),
        }
    }

    /// The next value.
    #[inline]
    pub(crate) fn value<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let [tag] = self.array()?;
        // SAFETY: throughout, the functions of the C API give a new reference, or null with an exception; those that
        // are given a reference take it.
        unsafe {
            match tag {
                INT => {
                    let value = i64::from_ne_bytes(self.array()?);
                    Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromLongLong(value))
                }
                FLOAT => {
                    let value = f64::from_ne_bytes(self.array()?);
                    Bound::from_owned_ptr_or_err(py, ffi::PyFloat_FromDouble(value))
                }
                NONE => Ok(py.None().into_bound(py)),
                TRUE => Ok(Bound::from_borrowed_ptr(py, ffi::Py_True())),
                FALSE => Ok(Bound::from_borrowed_ptr(py, ffi::Py_False())),
                STR => {
                    let text = self.span()?;
                    let object =
                        ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as ffi::Py_ssize_t);
                    Bound::from_owned_ptr_or_err(py, object)
                }
                BYTES => Ok(PyBytes::new(py, self.span()?).into_any()),
                BYTEARRAY => Ok(PyByteArray::new(py, self.span()?).into_any()),
                TUPLE | SHORT_TUPLE => {
                    let count = match tag {
                        TUPLE => self.count()?,
                        _ => u32::from(self.array::<1>()?[0]),
                    };
                    let tuple = Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(count as ffi::Py_ssize_t))?;
                    for index in 0..count {
                        let item = self.value(py)?;
                        ffi::PyTuple_SetItem(tuple.as_ptr(), index as ffi::Py_ssize_t, item.into_ptr());
                    }
                    Ok(tuple)
                }
                LIST => {
                    let count = self.count()?;
                    self.list(py, count)
                }
                DICT => {
                    let count = self.count()?;
                    let dict = Bound::from_owned_ptr_or_err(py, ffi::PyDict_New())?;
                    for _ in 0..count {
                        let key = self.value(py)?;
                        let value = self.value(py)?;
                        if ffi::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()) != 0 {
                            return Err(PyErr::fetch(py));
                        }
                    }
                    Ok(dict)
                }
                FAR_BYTES => {
                    let (offset, len) = (self.long()?, self.long()?);
                    Ok(PyBytes::new(py, self.fetch.bytes(offset, len)?).into_any())
                }
                FAR_BYTEARRAY => {
                    let (offset, len) = (self.long()?, self.long()?);
                    Ok(PyByteArray::new(py, self.fetch.bytes(offset, len)?).into_any())
                }
                NUMPY_INT => {
                    let value = i64::from_ne_bytes(self.array()?);
                    Ok(self.numpy(py)?.int64.bind(py).call1((value,))?)
                }
                NUMPY_FLOAT => {
                    let value = f64::from_ne_bytes(self.array()?);
                    Ok(self.numpy(py)?.float64.bind(py).call1((value,))?)
                }
                PICKLE => self.unpickled(py),
                _ => Err(broken()),
            }
        }
    }

    /// The next `count` values.
    pub(crate) fn list<'py>(&mut self, py: Python<'py>, count: u32) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: a new list, whose places are all filled before anybody sees it, each with a reference that it takes;
        // should that end early, Python knows what to do with a list that has gaps.
        unsafe {
            let list = Bound::from_owned_ptr_or_err(py, ffi::PyList_New(count as ffi::Py_ssize_t))?;
            for index in 0..count {
                let item = self.value(py)?;
                ffi::PyList_SetItem(list.as_ptr(), index as ffi::Py_ssize_t, item.into_ptr());
            }
            Ok(list)
        }
    }

    fn numpy(&self, py: Python<'_>) -> PyResult<&Numpy> {
        if self.pickle.numpy(py).is_none() {
            PyModule::import(py, "numpy")?;
        }
        self.pickle.numpy(py).ok_or_else(broken)
    }

    fn unpickled<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let count = self.count()?;
        let len = self.long()?;
        let buffers = PyList::empty(py);
        for _ in 0..count {
            let buffer = match self.array()? {
                [NEAR] => {
                    let len = self.long()?;
                    PyByteArray::new(py, self.take(len as usize)?).into_any()
                }
                [FAR] => {
                    let (offset, len) = (self.long()?, self.long()?);
                    self.fetch.buffer(py, offset, len)?
                }
                _ => return Err(broken()),
            };
            buffers.append(buffer)?;
        }
        let bytes = self.take(len as usize)?;
        self.pickle.loads(py, bytes, &buffers)
    }
}
