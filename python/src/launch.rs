//! Worker processes are started by Python: `ringpool._launch`.

use engine::Exit;
use engine::raw::{Failure, Launcher};
use pyo3::prelude::*;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

/// Calls the methods of a launcher in Python.
pub(crate) struct PythonLauncher {
    launcher: Py<PyAny>,
    /// What it raised last.
    failed: Arc<Mutex<Option<PyErr>>>,
}

impl PythonLauncher {
    pub(crate) fn new(launcher: Py<PyAny>, failed: Arc<Mutex<Option<PyErr>>>) -> Self {
        PythonLauncher { launcher, failed }
    }
}

impl Launcher for PythonLauncher {
    fn start(&mut self, worker: u32, seat: BorrowedFd<'_>) -> Result<u32, Failure> {
        Python::attach(|py| {
            let launched = self.launcher.bind(py).call_method1("start", (worker, seat.as_raw_fd()));
            launched.and_then(|pid| pid.extract::<u32>()).map_err(|error| {
                let failure = Failure::new(1, error.to_string());
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                failure
            })
        })
    }

    fn exit_of(&mut self, worker: u32, pid: u32) -> Option<Exit> {
        Python::attach(|py| {
            let code = self.launcher.bind(py).call_method1("exit", (worker, pid));
            match code.and_then(|code| code.extract::<Option<i32>>()) {
                Ok(code) => code.map(|code| if code < 0 { Exit::Signal(-code) } else { Exit::Code(code) }),
                Err(error) => {
                    error.write_unraisable(py, None);
                    None
                }
            }
        })
    }
}
