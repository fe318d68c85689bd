//! The engine's errors as exceptions: `ringpool.errors`.

use engine::{Error, ErrorKind, Exit};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};

/// Whether an exception is not about what was to be done but for whoever happens to do it, as a `KeyboardInterrupt` is.
pub(crate) fn is_urgent(py: Python<'_>, error: &PyErr) -> bool {
    !error.is_instance_of::<PyException>(py)
}

/// The exception for an error of the engine. `function` is what Python calls what was to be done.
#[cold]
pub(crate) fn to_py(py: Python<'_>, error: &Error, function: Option<&str>) -> PyErr {
    make(py, error, function).unwrap_or_else(|error| error)
}

fn make(py: Python<'_>, error: &Error, function: Option<&str>) -> PyResult<PyErr> {
    let fields = PyDict::new(py);
    let (name, message) = match error.kind() {
        ErrorKind::WorkerDied { end, pid, worker, attempt, .. } => {
            let function = function.unwrap_or("a function");
            let code = match *end {
                Exit::Code(code) => Some(code),
                Exit::Signal(signal) => Some(-signal),
                _ => None,
            };
            fields.set_item("pid", pid)?;
            fields.set_item("worker", worker)?;
            fields.set_item("exitcode", code)?;
            fields.set_item("function", function)?;
            fields.set_item("attempt", attempt)?;
            let message =
                format!("worker {worker} (pid {pid}) {end} while it ran {function} (attempt {attempt})");
            ("WorkerDied", message)
        }
        ErrorKind::Timeout { .. } => {
            let errors = PyModule::import(py, "multiprocessing.context")?;
            return Ok(PyErr::from_value(errors.getattr("TimeoutError")?.call0()?));
        }
        ErrorKind::Initializer { message, pid, .. } => {
            fields.set_item("pid", pid)?;
            ("InitializerError", message.clone())
        }
        ErrorKind::Closed => ("PoolClosed", error.to_string()),
        ErrorKind::Terminated => ("PoolTerminated", error.to_string()),
        ErrorKind::Forked { .. } => ("PoolForked", error.to_string()),
        ErrorKind::ArenaFull { .. } | ErrorKind::Full { .. } => ("PoolFull", error.to_string()),
        _ => ("RingpoolError", error.to_string()),
    };
    let class = PyModule::import(py, "ringpool.errors")?.getattr(name)?;
    Ok(PyErr::from_value(class.call((message,), Some(&fields))?))
}
