//! What Python itself does better: `ringpool._pickle`.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyModule};
use std::sync::OnceLock;

/// The functions of `ringpool._pickle`.
pub(crate) struct Pickle {
    dumps: Py<PyAny>,
    loads: Py<PyAny>,
    dump_function: Py<PyAny>,
    describe: Py<PyAny>,
    encoding_error: Py<PyAny>,
    numpy: OnceLock<Numpy>,
}

/// Types of numpy's numbers.
pub(crate) struct Numpy {
    pub int64: Py<PyAny>,
    pub float64: Py<PyAny>,
}

impl Pickle {
    pub(crate) fn import(py: Python<'_>, dumps: &str) -> PyResult<Self> {
        let module = PyModule::import(py, "ringpool._pickle")?;
        let get = |name: &str| Ok::<_, PyErr>(module.getattr(name)?.unbind());
        Ok(Pickle {
            dumps: get(dumps)?,
            loads: get("loads")?,
            dump_function: get("dump_function")?,
            describe: get("describe_exception")?,
            encoding_error: get("encoding_error")?,
            numpy: OnceLock::new(),
        })
    }

    /// What numpy has, if the program uses it.
    pub(crate) fn numpy(&self, py: Python<'_>) -> Option<&Numpy> {
        if let Some(numpy) = self.numpy.get() {
            return Some(numpy);
        }
        let modules = PyModule::import(py, "sys").and_then(|sys| sys.getattr("modules")).ok()?;
        let numpy = modules.get_item("numpy").ok()?;
        // Half-way through its import it may not have them yet.
        let get = |name| numpy.getattr(name).ok().map(Bound::unbind);
        let numpy = Numpy { int64: get("int64")?, float64: get("float64")? };
        Some(self.numpy.get_or_init(|| numpy))
    }

    /// The pickle of an object; its buffers are appended to `buffers`.
    pub(crate) fn dumps<'py>(
        &self,
        object: &Bound<'py, PyAny>,
        buffers: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(self.dumps.bind(object.py()).call1((object, buffers))?.cast_into()?)
    }

    /// The object of a pickle.
    pub(crate) fn loads<'py>(
        &self,
        py: Python<'py>,
        bytes: &[u8],
        buffers: &Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.loads.bind(py).call1((PyBytes::new(py, bytes), buffers))
    }

    /// The pickle of a function, and whether it holds the function itself, not only its name.
    pub(crate) fn dump_function<'py>(
        &self,
        function: &Bound<'py, PyAny>,
        snapshot: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyBytes>, bool)> {
        self.dump_function.bind(function.py()).call1((function, snapshot))?.extract()
    }

    /// What stands for an exception, with its traceback, on the way to the client.
    pub(crate) fn describe<'py>(&self, py: Python<'py>, error: &PyErr) -> PyResult<Bound<'py, PyAny>> {
        self.describe.bind(py).call1((error.value(py), error.traceback(py)))
    }

    /// The exception for a value that cannot be sent.
    pub(crate) fn encoding_error<'py>(
        &self,
        py: Python<'py>,
        error: &PyErr,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.encoding_error.bind(py).call1((error.value(py), value))
    }
}
