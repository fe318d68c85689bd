//! A pool as `ringpool.Pool` drives it.

use crate::error::to_py;
use crate::function::Functions;
use crate::imap::{self, IMapIterator, Iteration};
use crate::launch::PythonLauncher;
use crate::map::{self, MapResult};
use crate::memory::{Memories, Memory};
use crate::overflow::Overflow;
use crate::pickle::Pickle;
use crate::result::{self, ApplyResult, Call, Callbacks, Event};
use crate::wait;
use crate::worker::FUNCTION;
use engine::raw::{Caller, Name};
use engine::{ErrorKind, Pool};
use pyo3::prelude::*;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Slots cost memory only once they are used; what does not fit waits in the client's memory.
const SLOTS: u32 = 1 << 16;

/// What results share with their pool.
pub(crate) struct Shared {
    pub pickle: Pickle,
    /// Submits without waiting.
    pub hasty: Caller,
}

impl Shared {
    /// Refuses a forked child: it has neither the pool's memory nor the threads that hold its locks.
    #[inline]
    pub(crate) fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.hasty.check_process().map_err(|error| to_py(py, &error, None))
    }
}

/// The engine's pool. It ends with the last reference, which takes threads that need the interpreter.
struct Held(Option<Arc<Pool>>);

impl Deref for Held {
    type Target = Arc<Pool>;

    fn deref(&self) -> &Arc<Pool> {
        self.0.as_ref().expect("it is there until the drop")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let pool = self.0.take();
        Python::attach(|py| py.detach(|| drop(pool)));
    }
}

/// A pool.
#[pyclass(frozen, weakref, module = "ringpool._native")]
pub(crate) struct Engine {
    pool: Held,
    pub(crate) name: Name,
    pub(crate) shared: Arc<Shared>,
    pub(crate) functions: Functions,
    pub(crate) memories: Memories,
    pub(crate) overflow: Overflow,
    pub(crate) processes: usize,
    /// Iterations that may still have inputs to take.
    pub(crate) streams: Mutex<Vec<Weak<dyn Iteration>>>,
    terminated: AtomicBool,
}

impl Deref for Engine {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Engine {
    /// Who submits calls that may be tried so often.
    fn caller(&self, retries: Option<u32>) -> Caller {
        match retries {
            Some(retries) => self.hasty.retries(retries),
            None => self.hasty.clone(),
        }
    }

    /// Waits until all that waits, and all that iterations still have, is submitted.
    fn submit_all(&self, py: Python<'_>) -> PyResult<()> {
        let streams = {
            let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.iter().filter_map(Weak::upgrade).collect::<Vec<_>>()
        };
        for stream in streams {
            stream.take_all(py)?;
        }
        wait::sliced(py, None, |limit| self.overflow.drained(limit)).map(drop)
    }

    /// Waits for the end of the pool.
    fn await_end(&self, py: Python<'_>) -> PyResult<()> {
        if result::is_telling() {
            // By the pool itself it is known not to wait for the thread that it is called by.
            return py.detach(|| self.pool.join()).map_err(|error| to_py(py, &error, None));
        }
        // On a thread of its own, for it cannot be interrupted.
        let done = Arc::new(Event::default());
        let outcome = Arc::new(Mutex::new(Ok(())));
        let (pool, there, result) = (Arc::clone(&self.pool), done.clone(), outcome.clone());
        let join = move || {
            *result.lock().unwrap_or_else(PoisonError::into_inner) = pool.join();
            there.set();
        };
        let thread = std::thread::Builder::new().name("ringpool-join".to_owned());
        thread.spawn(join).map_err(PyErr::from)?;
        wait::sliced(py, None, |limit| done.wait(limit))?;
        let joined = outcome.lock().unwrap_or_else(PoisonError::into_inner).clone();
        joined.map_err(|error| to_py(py, &error, None))
    }

    fn remember(&self, stream: &Arc<dyn Iteration>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(stream));
    }
}

#[pymethods]
impl Engine {
    /// Starts the workers: `launcher.start(worker, fd)` starts a process that calls `serve` with the descriptor and
    /// returns its process id, `launcher.exit(worker, pid)` its exit code as multiprocessing has it.
    #[new]
    #[pyo3(signature = (processes, launcher, *, maxtasksperchild=None, retries=0, main=None))]
    fn new(
        py: Python<'_>,
        processes: usize,
        launcher: Py<PyAny>,
        maxtasksperchild: Option<u64>,
        retries: u32,
        main: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        crate::worker::register(py)?;
        let pickle = Pickle::import(py, "dump_arguments")?;
        let failed = Arc::new(Mutex::new(None));
        let launcher = PythonLauncher::new(launcher, failed.clone());
        let mut builder =
            Pool::builder().processes(processes).slots(SLOTS).retries(retries).launcher(launcher);
        if let Some(tasks) = maxtasksperchild {
            builder = builder.max_tasks_per_child(tasks);
        }
        // The first workers are started by this very thread, which has the interpreter.
        // Nothing waits for another thread before there are workers.
        let pool = builder.start().map_err(|error| {
            let raised: Option<PyErr> = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
            raised.unwrap_or_else(|| to_py(py, &error, None))
        })?;
        let shared = Arc::new(Shared { pickle, hasty: pool.raw().patience(Duration::ZERO) });
        let name = Name::new(FUNCTION).map_err(|error| to_py(py, &error, None))?;
        Ok(Engine {
            pool: Held(Some(Arc::new(pool))),
            name,
            overflow: Overflow::new(shared.hasty.clone(), name),
            shared,
            functions: Functions::new(main.unwrap_or_else(|| py.None())),
            memories: Memories::new(),
            processes,
            streams: Mutex::default(),
            terminated: AtomicBool::new(false),
        })
    }

    /// Calls the function and waits for what it returns.
    #[pyo3(signature = (function, args, kwds=None, retries=None))]
    fn apply(
        &self,
        py: Python<'_>,
        function: Bound<'_, PyAny>,
        args: Bound<'_, PyAny>,
        kwds: Option<Bound<'_, PyAny>>,
        retries: Option<u32>,
    ) -> PyResult<Py<PyAny>> {
        let caller = self.caller(retries);
        let call = Call { function: &function, args: &args, kwds: kwds.as_ref(), caller: &caller };
        result::apply(py, self, &call)
    }

    /// Calls the function; `owner` is kept until the result has come.
    #[expect(clippy::too_many_arguments, reason = "they are those of Pool.apply_async")]
    #[pyo3(signature = (owner, function, args, kwds=None, callback=None, error_callback=None, retries=None))]
    fn submit<'py>(
        &self,
        py: Python<'py>,
        owner: Bound<'py, PyAny>,
        function: Bound<'py, PyAny>,
        args: Bound<'py, PyAny>,
        kwds: Option<Bound<'py, PyAny>>,
        callback: Option<Bound<'py, PyAny>>,
        error_callback: Option<Bound<'py, PyAny>>,
        retries: Option<u32>,
    ) -> PyResult<Bound<'py, ApplyResult>> {
        let caller = self.caller(retries);
        let call = Call { function: &function, args: &args, kwds: kwds.as_ref(), caller: &caller };
        result::apply_async(py, self, &call, owner, Callbacks::new(callback, error_callback))
    }

    /// Calls the function for each item; `star`: with all that an item holds.
    #[expect(clippy::too_many_arguments, reason = "they are those of Pool.map_async")]
    #[pyo3(signature = (owner, function, iterable, star, chunksize=None, callback=None, error_callback=None, retries=None))]
    fn map<'py>(
        &self,
        py: Python<'py>,
        owner: Bound<'py, PyAny>,
        function: Bound<'py, PyAny>,
        iterable: Bound<'py, PyAny>,
        star: bool,
        chunksize: Option<usize>,
        callback: Option<Bound<'py, PyAny>>,
        error_callback: Option<Bound<'py, PyAny>>,
        retries: Option<u32>,
    ) -> PyResult<Bound<'py, MapResult>> {
        let caller = self.caller(retries);
        let callbacks = Callbacks::new(callback, error_callback);
        map::submit(py, self, &caller, owner, &function, &iterable, star, chunksize, callbacks)
    }

    /// Calls the function for each item as results are asked for.
    #[expect(clippy::too_many_arguments, reason = "they are those of Pool.imap")]
    #[pyo3(signature = (owner, function, iterable, star, chunksize, ordered, buffersize=None, retries=None))]
    fn imap<'py>(
        slf: &Bound<'py, Self>,
        owner: Bound<'py, PyAny>,
        function: Bound<'py, PyAny>,
        iterable: Bound<'py, PyAny>,
        star: bool,
        chunksize: usize,
        ordered: bool,
        buffersize: Option<usize>,
        retries: Option<u32>,
    ) -> PyResult<Bound<'py, IMapIterator>> {
        let this = slf.get();
        // An iteration waits for room when nothing of it is on its way.
        let caller = retries.map_or_else(|| this.pool.raw(), |retries| this.pool.raw().retries(retries));
        let plan = imap::Plan { star, chunksize, ordered, buffersize };
        let (iterator, stream) = imap::start(slf, &caller, owner, &function, &iterable, &plan)?;
        this.remember(&stream);
        Ok(iterator)
    }

    /// Memory that workers can map, as an object with a writable buffer.
    fn memory(&self, py: Python<'_>, nbytes: usize) -> PyResult<Memory> {
        self.memories.make(py, &self.hasty, nbytes)
    }

    /// How many tasks and iterations are not done.
    fn pending(&self) -> usize {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = streams.iter().filter_map(Weak::upgrade).filter(|stream| !stream.has_ended()).count();
        if self.hasty.check_process().is_err() {
            return 0;
        }
        self.hasty.in_flight() + self.overflow.len() + streams
    }

    /// Takes no more work; what was submitted is done.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.check(py)?;
        let pool = Arc::clone(&self.pool);
        py.detach(|| self.overflow.then(move || pool.close()));
        Ok(())
    }

    /// Kills the workers; what is not done fails.
    fn terminate(&self, py: Python<'_>) {
        if self.hasty.check_process().is_err() {
            return; // the workers are another process's
        }
        self.terminated.store(true, Ordering::Relaxed);
        py.detach(|| {
            self.overflow.end(ErrorKind::Terminated.into());
            self.pool.terminate();
        });
    }

    /// Waits until all workers are gone and all callbacks have run.
    fn join(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.check(py)?;
        if !self.terminated.load(Ordering::Relaxed) {
            self.submit_all(py)?;
        }
        self.await_end(py)
    }

    /// Raises what keeps this process from using the pool.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.check(py)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A forked child's copy of what waits is not its own.
        if self.hasty.check_process().is_ok() {
            self.overflow.end(ErrorKind::Terminated.into());
        }
    }
}
