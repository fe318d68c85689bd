//! From objects to bytes.

use super::*;
use crate::pickle::Pickle;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use std::ffi::c_int;
use std::ptr;

/// Deeper than this pickle takes over.
const DEPTH: u32 = 32;

/// Contiguous memory of an object, held.
pub(crate) struct RawBuffer(Box<ffi::Py_buffer>);

impl RawBuffer {
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: a live object and a fresh view, which is released on drop.
        let got = unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &mut *view, ffi::PyBUF_FULL_RO) };
        if got != 0 {
            return Err(PyErr::fetch(object.py()));
        }
        let buffer = RawBuffer(view);
        // SAFETY: a filled view.
        if unsafe { ffi::PyBuffer_IsContiguous(&*buffer.0, b'A' as _) } == 0 {
            return Err(pyo3::exceptions::PyBufferError::new_err("the buffer is not contiguous"));
        }
        Ok(buffer)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        if self.0.len == 0 {
            return &[];
        }
        // SAFETY: contiguous memory of that length, held by the view. Other threads of the program may write it
        // meanwhile, if they do not care what arrives; single bytes are copied out, and nothing is made of them here.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast(), self.0.len as usize) }
    }
}

impl Drop for RawBuffer {
    fn drop(&mut self) {
        // SAFETY: a filled view, released once, by a thread that holds the interpreter: buffers do not leave it.
        unsafe { ffi::PyBuffer_Release(&mut *self.0) };
    }
}

/// Where large buffers are put.
pub(crate) trait Store {
    /// Stores the bytes of `object` and says [where](super) they are.
    fn put(&mut self, object: &Bound<'_, PyAny>, buffer: RawBuffer, out: &mut Vec<u8>) -> PyResult<()>;
    /// Forgets what was stored since there were `count` of them.
    fn truncate(&mut self, count: usize);
    /// How many are stored.
    fn count(&self) -> usize;
}

pub(crate) struct Encoder<'p, 'o> {
    pub pickle: &'p Pickle,
    pub out: &'o mut Vec<u8>,
    pub store: &'o mut dyn Store,
}

/// Who refers to an object besides us.
#[derive(Clone, Copy, PartialEq)]
enum Referred {
    /// Nothing else that is sent.
    Alone,
    /// What contains it; more only if its reference count says so.
    Contained,
    /// Perhaps several, as they do to something around it.
    Shared,
}

/// What came of an attempt to write a value plainly.
enum Plain {
    Written,
    /// It is for pickle.
    No,
}

impl Encoder<'_, '_> {
    /// Appends a value.
    pub(crate) fn value(&mut self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let (start, stored) = (self.out.len(), self.store.count());
        match self.plain(object, 0, Referred::Alone)? {
            Plain::Written => Ok(()),
            Plain::No => {
                self.out.truncate(start);
                self.store.truncate(stored);
                self.pickled(object)
            }
        }
    }

    /// Appends a number, if that is all that it takes; whether it was one.
    ///
    /// # Safety
    ///
    /// A live object.
    #[inline(always)]
    pub(crate) unsafe fn number(&mut self, object: *mut ffi::PyObject) -> bool {
        // SAFETY: a live object, and a number.
        unsafe {
            if ffi::Py_TYPE(object) != &raw mut ffi::PyLong_Type {
                return false;
            }
            let mut overflow: c_int = 0;
            let value = ffi::PyLong_AsLongLongAndOverflow(object, &mut overflow);
            if overflow == 0 {
                self.word(INT, value.to_ne_bytes());
            }
            overflow == 0
        }
    }

    /// Appends a value that needs no pickle; whether it was one. If not, part of it may
    /// have been appended.
    #[inline]
    pub(crate) fn small(&mut self, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(matches!(self.plain(object, 0, Referred::Contained)?, Plain::Written))
    }

    /// Appends a pair of arguments and named arguments.
    pub(crate) fn named_arguments(
        &mut self,
        args: &Bound<'_, PyAny>,
        kwds: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (start, stored) = (self.out.len(), self.store.count());
        self.tuple(2);
        // What both refer to has more references than one.
        if matches!(self.plain(args, 1, Referred::Alone)?, Plain::Written)
            && matches!(self.plain(kwds, 1, Referred::Alone)?, Plain::Written)
        {
            return Ok(());
        }
        self.out.truncate(start);
        self.store.truncate(stored);
        self.pickled(PyTuple::new(args.py(), [args, kwds])?.as_any())
    }

    /// Appends the arguments of a call.
    pub(crate) fn arguments(&mut self, args: &Bound<'_, PyAny>) -> PyResult<()> {
        let (start, stored) = (self.out.len(), self.store.count());
        // SAFETY: a live object; the size and the item of an exact tuple.
        let single = unsafe {
            (ffi::PyTuple_CheckExact(args.as_ptr()) != 0 && ffi::PyTuple_Size(args.as_ptr()) == 1)
                .then(|| Bound::from_borrowed_ptr(args.py(), ffi::PyTuple_GetItem(args.as_ptr(), 0)))
        };
        let Some(single) = single else { return self.value(args) };
        self.tuple(1);
        // Nothing else is sent that could refer to it, too.
        match self.plain(&single, 1, Referred::Alone)? {
            Plain::Written => Ok(()),
            Plain::No => {
                self.out.truncate(start);
                self.store.truncate(stored);
                self.pickled(args)
            }
        }
    }

    fn tag_count(&mut self, tag: u8, count: u32) {
        self.out.push(tag);
        self.out.extend_from_slice(&count.to_ne_bytes());
    }

    fn tuple(&mut self, count: u32) {
        match u8::try_from(count) {
            Ok(count) => self.out.extend_from_slice(&[SHORT_TUPLE, count]),
            Err(_) => self.tag_count(TUPLE, count),
        }
    }

    fn word(&mut self, tag: u8, word: [u8; 8]) {
        let mut bytes = [0; 9];
        bytes[0] = tag;
        bytes[1..].copy_from_slice(&word);
        self.out.extend_from_slice(&bytes);
    }

    fn span(&mut self, tag: u8, bytes: &[u8]) {
        self.tag_count(tag, bytes.len() as u32);
        self.out.extend_from_slice(bytes);
    }

    /// Writes what needs no pickle.
    #[inline]
    fn plain(&mut self, object: &Bound<'_, PyAny>, depth: u32, referred: Referred) -> PyResult<Plain> {
        let py = object.py();
        let pointer = object.as_ptr();
        // SAFETY: throughout, a live object of the exact type that was asked for.
        unsafe {
            let kind = ffi::Py_TYPE(pointer);
            if kind == &raw mut ffi::PyLong_Type {
                let mut overflow: c_int = 0;
                let value = ffi::PyLong_AsLongLongAndOverflow(pointer, &mut overflow);
                if overflow != 0 {
                    return Ok(Plain::No);
                }
                self.word(INT, value.to_ne_bytes());
            } else if kind == &raw mut ffi::PyFloat_Type {
                self.word(FLOAT, ffi::PyFloat_AsDouble(pointer).to_ne_bytes());
            } else if kind == &raw mut ffi::PyUnicode_Type {
                let mut len = 0;
                let text = ffi::PyUnicode_AsUTF8AndSize(pointer, &mut len);
                if text.is_null() {
                    drop(PyErr::take(py)); // surrogates
                    return Ok(Plain::No);
                }
                if len as usize > u32::MAX as usize {
                    return Ok(Plain::No);
                }
                self.span(STR, std::slice::from_raw_parts(text.cast(), len as usize));
            } else if pointer == ffi::Py_None() {
                self.out.push(NONE);
            } else if pointer == ffi::Py_True() {
                self.out.push(TRUE);
            } else if pointer == ffi::Py_False() {
                self.out.push(FALSE);
            } else if kind == &raw mut ffi::PyTuple_Type {
                let count = ffi::PyTuple_Size(pointer);
                if depth >= DEPTH || count as usize > u32::MAX as usize {
                    return Ok(Plain::No);
                }
                self.tuple(count as u32);
                let within = self.within(object, referred);
                for index in 0..count {
                    let item = Bound::from_borrowed_ptr(py, ffi::PyTuple_GetItem(pointer, index));
                    if let Plain::No = self.plain(&item, depth + 1, within)? {
                        return Ok(Plain::No);
                    }
                }
            } else if kind == &raw mut ffi::PyBytes_Type {
                let bytes = object.cast_unchecked::<PyBytes>().as_bytes();
                if bytes.len() < LARGE {
                    self.span(BYTES, bytes);
                } else {
                    self.out.push(FAR_BYTES);
                    self.store.put(object, RawBuffer::of(object)?, self.out)?;
                }
            } else if self.within(object, referred) == Referred::Shared {
                return Ok(Plain::No); // it can be changed, so it matters whether it is sent once or twice
            } else if kind == &raw mut ffi::PyList_Type {
                let count = ffi::PyList_Size(pointer);
                if depth >= DEPTH || count as usize > u32::MAX as usize {
                    return Ok(Plain::No);
                }
                self.tag_count(LIST, count as u32);
                for index in 0..count {
                    let item = ffi::PyList_GetItem(pointer, index);
                    if item.is_null() {
                        drop(PyErr::take(py)); // it got shorter: pickle may see what it makes of that
                        return Ok(Plain::No);
                    }
                    let item = Bound::from_borrowed_ptr(py, item);
                    if let Plain::No = self.plain(&item, depth + 1, Referred::Contained)? {
                        return Ok(Plain::No);
                    }
                }
                if ffi::PyList_Size(pointer) != count {
                    return Ok(Plain::No);
                }
            } else if kind == &raw mut ffi::PyDict_Type {
                let count = ffi::PyDict_Size(pointer);
                if depth >= DEPTH || count as usize > u32::MAX as usize {
                    return Ok(Plain::No);
                }
                self.tag_count(DICT, count as u32);
                let (mut at, mut seen) = (0, 0);
                let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
                // Nothing that is called in here runs code that could change the dictionary.
                while ffi::PyDict_Next(pointer, &mut at, &mut key, &mut value) != 0 {
                    for part in [key, value] {
                        let part = Bound::from_borrowed_ptr(py, part);
                        if let Plain::No = self.plain(&part, depth + 1, Referred::Contained)? {
                            return Ok(Plain::No);
                        }
                    }
                    seen += 1;
                }
                if seen != count {
                    return Ok(Plain::No);
                }
            } else if kind == &raw mut ffi::PyByteArray_Type {
                let buffer = RawBuffer::of(object)?;
                if buffer.bytes().len() < LARGE {
                    self.span(BYTEARRAY, buffer.bytes());
                } else {
                    self.out.push(FAR_BYTEARRAY);
                    self.store.put(object, buffer, self.out)?;
                }
            } else {
                return self.scalar(object);
            }
        }
        Ok(Plain::Written)
    }

    /// How what an object contains is referred to.
    #[inline]
    fn within(&self, object: &Bound<'_, PyAny>, referred: Referred) -> Referred {
        // One reference is its container's, one is ours.
        // SAFETY: a live object.
        let references = unsafe { ffi::Py_REFCNT(object.as_ptr()) };
        match referred {
            Referred::Contained if references > 2 => Referred::Shared,
            Referred::Alone => Referred::Contained,
            other => other,
        }
    }

    /// Numbers of numpy, which are many if there are any.
    #[cold]
    fn scalar(&mut self, object: &Bound<'_, PyAny>) -> PyResult<Plain> {
        let Some(numpy) = self.pickle.numpy(object.py()) else { return Ok(Plain::No) };
        let kind = object.get_type_ptr();
        // SAFETY: a live object; a `numpy.float64` is a float.
        unsafe {
            if kind == numpy.float64.as_ptr().cast() {
                self.word(NUMPY_FLOAT, ffi::PyFloat_AsDouble(object.as_ptr()).to_ne_bytes());
            } else if kind == numpy.int64.as_ptr().cast() {
                let number = Bound::from_owned_ptr_or_err(object.py(), ffi::PyNumber_Index(object.as_ptr()))?;
                self.word(NUMPY_INT, number.extract::<i64>()?.to_ne_bytes());
            } else {
                return Ok(Plain::No);
            }
        }
        Ok(Plain::Written)
    }

    /// Appends a pickle, its buffers beside it if they are large.
    pub(crate) fn pickled(&mut self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        let buffers = PyList::empty(py);
        let pickle = self.pickle.dumps(object, &buffers)?;
        let bytes = pickle.as_bytes();
        self.tag_count(PICKLE, buffers.len() as u32);
        self.out.extend_from_slice(&(bytes.len() as u64).to_ne_bytes());
        for buffer in buffers.iter() {
            let raw = RawBuffer::of(&buffer)?;
            let len = raw.bytes().len();
            if len < LARGE {
                self.out.push(NEAR);
                self.out.extend_from_slice(&(len as u64).to_ne_bytes());
                self.out.extend_from_slice(raw.bytes());
            } else {
                self.out.push(FAR);
                self.store.put(&buffer, raw, self.out)?;
            }
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}
