//! Functions on their way to workers: sent once, named by a number from then on.
//!
//! A function's definition lies in the pool's buffer memory: its number (8), flags (8), length (8), and so many bytes
//! of pickle. A call has the number (5 bytes of it) and where the definition is, in units of 128 bytes (4). A worker that does not
//! know the number reads the definition; so no call waits for another, and none has to be answered before the next.

use crate::error::to_py;
use crate::pickle::Pickle;
use engine::raw::{Buffer, Caller};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyFunction, PyModule, PyType};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What definitions are aligned to.
pub(crate) const UNIT: u64 = 128;
/// Bytes in front of the pickle.
pub(crate) const HEAD: usize = 24;
/// Bytes by which a call names a function.
pub(crate) const NAME: usize = 9;
/// The function may change from call to call: a worker makes it anew for each task.
pub(crate) const FRESH: u64 = 1;
/// So many definitions by value are remembered.
const BY_VALUE: usize = 64;

/// A function that workers can find.
pub(crate) struct Definition {
    /// Number and place.
    pub head: [u8; NAME],
    /// For messages.
    pub name: String,
    /// Kept with each call, unless it is there as long as the pool.
    pub buffer: Arc<Buffer>,
    pub lasting: bool,
}

/// The functions of one pool.
pub(crate) struct Functions {
    /// What workers have in `__main__`: `ringpool._pickle.MainModule`, or `None`.
    main: Py<PyAny>,
    known: Mutex<Known>,
    next: AtomicU64,
}

#[derive(Default)]
struct Known {
    /// Those sent by name, by their address; the reference keeps that from being another's.
    by_name: HashMap<usize, (Py<PyAny>, Arc<Definition>)>,
    /// Those whose code was sent, by that.
    by_value: HashMap<Vec<u8>, Arc<Definition>>,
}

/// Whether the function is the same however often it is sent by its name.
fn is_constant(function: &Bound<'_, PyAny>) -> bool {
    if function.is_exact_instance_of::<PyFunction>() || function.is_exact_instance_of::<PyType>() {
        return true;
    }
    // Those of modules; others belong to an object.
    function.is_exact_instance_of::<PyCFunction>()
        && function
            .getattr("__self__")
            .is_ok_and(|owner| owner.is_none() || owner.is_instance_of::<PyModule>())
}

/// What messages call a function.
pub(crate) fn name_of(function: &Bound<'_, PyAny>) -> String {
    let name =
        function.getattr("__qualname__").or_else(|_| function.get_type().qualname().map(|n| n.into_any()));
    let name = name.and_then(|name| name.extract::<String>()).unwrap_or_else(|_| "a function".to_owned());
    match function.getattr("__module__").and_then(|module| module.extract::<String>()) {
        Ok(module) => format!("{module}.{name}"),
        Err(_) => name,
    }
}

impl Functions {
    pub(crate) fn new(main: Py<PyAny>) -> Self {
        Functions { main, known: Mutex::default(), next: AtomicU64::new(1) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The definition of a function, made if it is new.
    #[inline]
    pub(crate) fn define(
        &self,
        caller: &Caller,
        pickle: &Pickle,
        function: &Bound<'_, PyAny>,
    ) -> PyResult<Arc<Definition>> {
        let address = function.as_ptr().addr();
        if let Some((_, definition)) = self.known().by_name.get(&address) {
            return Ok(definition.clone());
        }
        self.make(caller, pickle, function)
    }

    #[cold]
    fn make(
        &self,
        caller: &Caller,
        pickle: &Pickle,
        function: &Bound<'_, PyAny>,
    ) -> PyResult<Arc<Definition>> {
        let (bytes, by_value) = pickle.dump_function(function, self.main.bind(function.py()))?;
        let bytes = bytes.as_bytes();
        let constant = is_constant(function);
        if by_value && let Some(definition) = self.known().by_value.get(bytes) {
            return Ok(definition.clone());
        }
        let lasting = constant && !by_value;
        let flags = if constant { 0 } else { FRESH };
        let definition = Arc::new(self.write(caller, function, bytes, flags, lasting)?);
        let mut known = self.known();
        if lasting {
            let entry = (function.clone().unbind(), definition.clone());
            known.by_name.insert(function.as_ptr().addr(), entry);
        } else if by_value && constant {
            if known.by_value.len() >= BY_VALUE {
                known.by_value.clear(); // what is in use stays where it is
            }
            known.by_value.insert(bytes.to_vec(), definition.clone());
        }
        Ok(definition)
    }

    fn write(
        &self,
        caller: &Caller,
        function: &Bound<'_, PyAny>,
        bytes: &[u8],
        flags: u64,
        lasting: bool,
    ) -> PyResult<Definition> {
        let py = function.py();
        let mut buffer = caller.buffer(HEAD + bytes.len()).map_err(|error| to_py(py, &error, None))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let place = buffer.offset() / UNIT;
        let Ok(place) = u32::try_from(place) else {
            return Err(PyMemoryError::new_err("the pool's memory is too large for functions at its end"));
        };
        let Some(room) = buffer.bytes_mut() else {
            return Err(PyMemoryError::new_err("fresh memory of the pool is in use"));
        };
        room[..8].copy_from_slice(&number.to_le_bytes());
        room[8..16].copy_from_slice(&flags.to_le_bytes());
        room[16..24].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        room[HEAD..].copy_from_slice(bytes);
        // So many numbers last for years.
        let mut head = [0; NAME];
        head[..5].copy_from_slice(&number.to_le_bytes()[..5]);
        head[5..].copy_from_slice(&place.to_le_bytes());
        Ok(Definition { head, name: name_of(function), buffer: Arc::new(buffer), lasting })
    }
}
