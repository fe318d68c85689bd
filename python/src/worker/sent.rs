//! What a task was sent, beside its bytes.

use super::habit::Habit;
use crate::codec::Fetch;
use crate::memory::{Copied, View, may_map};
use engine::raw::{Private, buffer_at};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use std::cell::RefCell;
use std::sync::{Arc, Weak};

/// Finds what a task refers to.
pub(super) struct Sent<'a> {
    pub views: &'a RefCell<Vec<Weak<Private>>>,
    pub habit: &'a Habit,
}

pub(super) fn sent<'a>(offset: u64, len: u64) -> PyResult<&'a [u8]> {
    let len = usize::try_from(len).map_err(|_| damaged())?;
    // SAFETY: the client keeps what the task refers to until the task is done; nothing looks at it later.
    unsafe { buffer_at(offset, len) }.map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

#[cold]
pub(super) fn damaged() -> PyErr {
    PyRuntimeError::new_err("a message between the pool's processes is damaged")
}

impl Fetch for Sent<'_> {
    fn buffer<'py>(&mut self, py: Python<'py>, offset: u64, len: u64) -> PyResult<Bound<'py, PyAny>> {
        let bytes = sent(offset, len)?;
        if self.habit.copies(bytes.len()) {
            let copied = Copied::new(bytes)?;
            return Ok(Bound::new(py, View::copied(copied))?.into_any());
        }
        if !may_map() {
            return Ok(PyByteArray::new(py, bytes).into_any());
        }
        // SAFETY: `settle` sees to it before the task ends.
        let Ok(private) = (unsafe { Private::of_task(bytes) }) else {
            return Ok(PyByteArray::new(py, bytes).into_any()); // there are too many mappings
        };
        self.habit.note_mapped(bytes.len());
        let private = Arc::new(private);
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

pub(super) fn own(views: &[Weak<Private>]) {
    for view in views.iter().filter_map(Weak::upgrade) {
        if let Err(error) = view.own() {
            // What the program kept would change under it.
            eprintln!("ringpool: an array that was kept beyond its task cannot be: {error}");
            std::process::abort();
        }
    }
}
