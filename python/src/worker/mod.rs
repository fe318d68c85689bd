//! What a worker process does.

mod chunk;
mod habit;
mod output;
mod run;
mod sent;

use crate::pickle::Pickle;
use chunk::run_chunk;
use engine::ErrorKind;
use engine::raw::{Function, Private, Service, register as register_function};
use habit::Habit;
use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use run::run;
use sent::own;
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{OnceLock, Weak};

/// The one function that the engine knows.
pub(crate) const FUNCTION: &str = "ringpool.python";

/// Makes the function known, in clients and workers alike.
pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    let function = Function::new(|input, output| Python::attach(|py| run(py, input, output)));
    let function = function.chunks(|chunk| Python::attach(|py| run_chunk(py, chunk)));
    let function = function.identity([0x7079_7468_6f6e, 1, 0, 0]);
    register_function(FUNCTION, function).map_err(|error| crate::error::to_py(py, &error, None))
}

/// Serves the pool whose seat this descriptor is, and returns when this process is to leave.
///
/// `initialize` is called first; what it raises is told to the pool, which ends, and ends this process.
#[pyfunction]
pub(crate) fn serve(py: Python<'_>, fd: i32, initialize: Py<PyAny>) -> PyResult<()> {
    register(py)?;
    STATE.with(|state| {
        state.forget();
        state.pickle(py).map(drop)
    })?;
    // SAFETY: the caller gives the descriptor away.
    let seat = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut failed = false;
    let served = py.detach(|| {
        let failed = &mut failed;
        let service = Service {
            initialize: Box::new(move || {
                Python::attach(|py| {
                    let initialized = initialize.bind(py).call0();
                    drop(initialize);
                    initialized.map(drop).map_err(|error| {
                        *failed = true;
                        told(py, &error)
                    })
                })
            }),
            // The interpreter is held for a whole chunk; whoever waits for it gets it between chunks, and whenever
            // the interpreter itself lets go of it.
            around: &|task| Python::attach(|_| task()),
        };
        engine::raw::serve(seat, service)
    });
    match served {
        Err(_) if failed => Err(PySystemExit::new_err(1)), // the pool tells of it
        // The pool has gone, or has another in this place: there is nobody to be told.
        Err(error) if matches!(error.kind(), ErrorKind::Start { .. }) => Err(PySystemExit::new_err(1)),
        served => served.map_err(|error| crate::error::to_py(py, &error, None)),
    }
}

/// An exception as text, with its traceback.
fn told(py: Python<'_>, error: &PyErr) -> String {
    let lines = PyModule::import(py, "traceback").and_then(|traceback| {
        let value = error.value(py);
        let lines =
            traceback.getattr("format_exception")?.call1((error.get_type(py), value, error.traceback(py)))?;
        lines.extract::<Vec<String>>()
    });
    lines.map_or_else(|_| error.to_string(), |lines| lines.concat())
}

thread_local! {
    /// Of the one thread that serves.
    static STATE: State = State::default();
}

/// What a worker keeps from one task to the next.
#[derive(Default)]
struct State {
    pickle: OnceLock<Pickle>,
    functions: RefCell<Known>,
    /// The one that was called last.
    last: RefCell<Option<(u64, Py<PyAny>)>>,
    /// One that is only good for the running task.
    fresh: RefCell<Option<(u64, Py<PyAny>)>>,
    /// Mappings of what the running task was sent.
    views: RefCell<Vec<Weak<Private>>>,
    habit: Habit,
    bytes: RefCell<Vec<u8>>,
}

/// Functions by their numbers, and how many bytes of pickle they were made of.
#[derive(Default)]
struct Known {
    functions: HashMap<u64, Py<PyAny>>,
    bytes: usize,
}

impl State {
    fn pickle(&self, py: Python<'_>) -> PyResult<&Pickle> {
        if let Some(pickle) = self.pickle.get() {
            return Ok(pickle);
        }
        let pickle = Pickle::import(py, "dumps")?;
        Ok(self.pickle.get_or_init(|| pickle))
    }

    /// What is there was the parent's, if that is a worker, too: of another pool, whose numbers mean something else.
    fn forget(&self) {
        drop((self.functions.take(), self.last.take(), self.fresh.take(), self.views.take()));
    }

    /// Takes possession of what is still looked at of the task's input, which is gone when the task is over.
    fn settle(&self) {
        drop(self.fresh.take());
        let views = self.views.take();
        own(&views);
        self.habit.learn();
    }
}
