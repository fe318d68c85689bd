//! The pool itself: its life cycle and its methods.

mod builder;
mod callbacks;
mod chunk_size;
mod imap;
mod inner;
mod map;
mod result;

use crate::client::{Outcome, Taken, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::{self, Payload};
use crate::shared_slice::{Pod, SliceMut};
use crate::sync::private::Private;
use crate::task::Task;
pub use builder::Builder;
pub(crate) use callbacks::Followers;
pub(crate) use chunk_size::{ChunkSize, check_chunksize};
pub use imap::IMap;
use imap::Order;
pub(crate) use inner::Inner;
use inner::{CLOSED, JOINING, RUNNING, TERMINATED};
use map::Calls;
pub use map::MapResult;
use result::bytes_in;
pub use result::{AsyncResult, View};
pub(crate) use result::{Settled, Single, bytes_of};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A pool of worker processes.
///
/// Methods are those of Python's `multiprocessing.Pool`. Functions are plain `fn`s and closures that
/// capture nothing; arguments and results are any types that [rkyv](crate::rkyv) can archive, and travel
/// through shared memory. A worker that is killed costs the task that it ran, and is replaced.
///
/// Dropping a pool terminates it. To let it finish, [`close`](Self::close) and [`join`](Self::join) it.
///
/// ```
/// # ringpool::init();
/// use ringpool::Pool;
///
/// let pool = Pool::new(2)?;
/// assert_eq!(pool.apply(|a: u64, b: u64| a + b, (1, 2))?, 3);
/// let squares = pool.map(|x: u64| x * x, 0..10u64)?;
/// assert_eq!(squares[9], 81);
/// pool.close();
/// pool.join()?;
/// # Ok::<(), ringpool::Error>(())
/// ```
pub struct Pool {
    pub(crate) inner: Arc<Inner>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Pool {
    /// Starts a pool of `processes` workers with default settings; 0 means one for each CPU.
    pub fn new(processes: usize) -> Result<Self> {
        Self::builder().processes(processes).start()
    }

    /// A pool with settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_parts(inner: Arc<Inner>, supervisor: JoinHandle<()>) -> Self {
        Pool { inner, supervisor: Mutex::new(Some(supervisor)) }
    }

    /// How many workers the pool keeps.
    pub fn processes(&self) -> usize {
        self.inner.processes
    }

    /// Process ids of the workers that live now, guests included.
    ///
    /// While the pool starts, this waits until all its workers have been launched.
    pub fn worker_pids(&self) -> Vec<u32> {
        if self.inner.check_process().is_ok() {
            self.inner.control.wait_launched(); // nobody launches anything in a forked child's copy
        }
        self.inner.control.pids()
    }

    /// The way to call functions by name, with bytes: see [`raw`](crate::raw).
    pub fn raw(&self) -> crate::raw::Caller {
        crate::raw::Caller::new(self.inner.clone())
    }

    /// Calls `f` in a worker and waits for its result.
    ///
    /// ```
    /// # ringpool::init();
    /// # let pool = ringpool::Pool::new(1)?;
    /// let length = pool.apply(|text: String| text.len() as u64, ("four".to_owned(),))?;
    /// assert_eq!(length, 4);
    /// # Ok::<(), ringpool::Error>(())
    /// ```
    pub fn apply<A, M, F>(&self, f: F, args: A) -> Result<F::Value>
    where
        A: Payload,
        F: Task<A, M>,
    {
        match self.call(f, args)? {
            Some(Taken::Tiny(value)) => payload::take(value.as_slice()),
            Some(Taken::Outcome(outcome)) => payload::take(bytes_in(&outcome)?.as_slice()),
            None => Err(Error::corrupted("a wait ended without a result")),
        }
    }

    /// [`apply`](Self::apply) that does not copy the result: it is looked at where it lies.
    ///
    /// Its memory is its worker's, who gets it back when the view is dropped.
    ///
    /// ```
    /// # ringpool::init();
    /// # let pool = ringpool::Pool::new(1)?;
    /// let view = pool.apply_view(|n: u32| vec![7u8; n as usize], (1 << 20,))?;
    /// assert_eq!(view.len(), 1 << 20);
    /// assert!(view.iter().all(|&byte| byte == 7));
    /// # Ok::<(), ringpool::Error>(())
    /// ```
    pub fn apply_view<A, M, F>(&self, f: F, args: A) -> Result<View<F::Value>>
    where
        A: Payload,
        F: Task<A, M>,
    {
        View::new(match self.call(f, args)? {
            Some(Taken::Tiny(value)) => Box::new(Outcome::of_tiny(value)),
            Some(Taken::Outcome(outcome)) => outcome,
            None => return Err(Error::corrupted("a wait ended without a result")),
        })
    }

    /// Calls `f` in a worker and waits for what comes of it.
    #[inline(always)] // what comes stays in registers
    fn call<A, M, F>(&self, f: F, args: A) -> Result<Option<Taken>>
    where
        A: Payload,
        F: Task<A, M>,
    {
        self.inner.check_running()?;
        let ticket = self.inner.submit_call(f, &args, Target::Caller)?;
        drop(args); // while the worker is at it: to give large ones back takes a while
        Ok(self.inner.client.wait_for_call(ticket))
    }

    /// Calls `f` in a worker; the result can be fetched later.
    ///
    /// Returns as soon as the task is in a slot. While all slots are taken it waits for one, at most for
    /// the pool's [patience](Builder::patience).
    ///
    /// ```
    /// # ringpool::init();
    /// # let pool = ringpool::Pool::new(2)?;
    /// let results = (1..=3u64).map(|i| pool.apply_async(|x: u64| 10 * x, (i,))).collect::<Result<Vec<_>, _>>()?;
    /// for (i, result) in results.iter().enumerate() {
    ///     assert_eq!(result.get()?, 10 * (i as u64 + 1));
    /// }
    /// # Ok::<(), ringpool::Error>(())
    /// ```
    pub fn apply_async<A, M, F>(&self, f: F, args: A) -> Result<AsyncResult<F::Value>>
    where
        A: Payload,
        F: Task<A, M>,
    {
        self.inner.check_running()?;
        let ticket = self.inner.submit_call(f, &args, Target::Caller)?;
        Ok(AsyncResult::new(self.inner.clone(), ticket))
    }

    /// Calls `f` on every item and waits for all results, in the order of the items.
    ///
    /// Items travel in chunks of a quarter of each worker's share, numbers and the like in chunks of 256 KiB
    /// at most, of which the last may be smaller; [`map_async`](Self::map_async) lets you choose. If calls fail, the error is that of the first
    /// item that failed; all others are run.
    ///
    /// If the iterator knows how many items it has, the first are run while it goes on. Should it panic then,
    /// what no worker has begun is taken back.
    ///
    /// ```
    /// # ringpool::init();
    /// # let pool = ringpool::Pool::new(2)?;
    /// assert_eq!(pool.map(|x: u32| x + 1, [1, 2, 3])?, [2, 3, 4]);
    /// # Ok::<(), ringpool::Error>(())
    /// ```
    pub fn map<T, M, F, I>(&self, f: F, items: I) -> Result<Vec<F::Value>>
    where
        T: Payload,
        I: IntoIterator<Item = T>,
        F: Task<(T,), M>,
    {
        map::run(&self.inner, &Calls::items(f)?, items)
    }

    /// Calls `f` on every item in a worker; the results can be fetched later, all at once.
    ///
    /// `chunksize` items travel together, run in one worker, one after the other; `None` cuts the items
    /// into four chunks for each worker, as `multiprocessing` does.
    pub fn map_async<T, M, F, I>(
        &self,
        f: F,
        items: I,
        chunksize: Option<usize>,
    ) -> Result<MapResult<F::Value>>
    where
        T: Payload,
        I: IntoIterator<Item = T>,
        F: Task<(T,), M>,
    {
        MapResult::submit(&self.inner, &Calls::items(f)?, items, chunksize)
    }

    /// [`map`](Self::map) for functions of several arguments: each item is a tuple of them.
    ///
    /// ```
    /// # ringpool::init();
    /// # let pool = ringpool::Pool::new(2)?;
    /// assert_eq!(pool.starmap(|a: i32, b: i32| a * b, [(1, 2), (3, 4)])?, [2, 12]);
    /// # Ok::<(), ringpool::Error>(())
    /// ```
    pub fn starmap<A, M, F, I>(&self, f: F, items: I) -> Result<Vec<F::Value>>
    where
        A: Payload,
        I: IntoIterator<Item = A>,
        F: Task<A, M>,
    {
        map::run(&self.inner, &Calls::tuples(f)?, items)
    }

    /// [`map_async`](Self::map_async) for functions of several arguments.
    pub fn starmap_async<A, M, F, I>(
        &self,
        f: F,
        items: I,
        chunksize: Option<usize>,
    ) -> Result<MapResult<F::Value>>
    where
        A: Payload,
        I: IntoIterator<Item = A>,
        F: Task<A, M>,
    {
        MapResult::submit(&self.inner, &Calls::tuples(f)?, items, chunksize)
    }

    /// Calls `f` on the items as they are asked for; results come in the order of the items.
    ///
    /// Lazy and bounded: at most [`buffersize`](IMap::buffersize) items have been taken from `items` and
    /// not yet been returned. `chunksize` items travel together; 1 is right unless calls are very short.
    /// An item that fails is an `Err` at its place, and the iteration goes on.
    ///
    /// ```
    /// # ringpool::init();
    /// # let pool = ringpool::Pool::new(2)?;
    /// let firsts: Vec<u64> = pool.imap(|x: u64| x * 2, 0.., 1)?.take(3).collect::<Result<_, _>>()?;
    /// assert_eq!(firsts, [0, 2, 4]);
    /// # Ok::<(), ringpool::Error>(())
    /// ```
    pub fn imap<T, M, F, I>(&self, f: F, items: I, chunksize: usize) -> Result<IMap<T, F::Value, I::IntoIter>>
    where
        T: Payload,
        I: IntoIterator<Item = T>,
        F: Task<(T,), M>,
    {
        IMap::start(&self.inner, Calls::items(f)?, items.into_iter(), chunksize, Order::Items)
    }

    /// [`imap`](Self::imap), with results in the order in which they come.
    pub fn imap_unordered<T, M, F, I>(
        &self,
        f: F,
        items: I,
        chunksize: usize,
    ) -> Result<IMap<T, F::Value, I::IntoIter>>
    where
        T: Payload,
        I: IntoIterator<Item = T>,
        F: Task<(T,), M>,
    {
        IMap::start(&self.inner, Calls::items(f)?, items.into_iter(), chunksize, Order::Arrival)
    }

    /// A slice in shared memory to fill in place and send without a copy, all zeros at first.
    ///
    /// ```
    /// # ringpool::init();
    /// use ringpool::{ArchivedSharedSlice, Pool};
    /// let pool = Pool::new(1)?;
    /// let mut numbers = pool.alloc::<f64>(1000)?;
    /// numbers.fill(0.5);
    /// let sum = pool.apply(|s: &ArchivedSharedSlice<f64>| s.iter().sum::<f64>(), (numbers.share(),))?;
    /// assert_eq!(sum, 500.0);
    /// # Ok::<(), ringpool::Error>(())
    /// ```
    pub fn alloc<T: Pod>(&self, len: usize) -> Result<SliceMut<T>> {
        self.inner.check_process()?;
        SliceMut::zeroed(&self.inner.client, len)
    }

    /// The same without the zeros, for who writes all items anyway: they have whatever values the memory of
    /// earlier payloads holds.
    pub fn alloc_unset<T: Pod>(&self, len: usize) -> Result<SliceMut<T>> {
        self.inner.check_process()?;
        SliceMut::unset(&self.inner.client, len)
    }

    /// Checks every word of the pool's memory against the rules that hold at all times: for tests.
    ///
    /// It changes nothing and disturbs nobody; [`audit`](crate::audit) says what it looks at.
    ///
    /// ```
    /// # ringpool::init();
    /// # let pool = ringpool::Pool::new(1)?;
    /// let audit = pool.audit()?;
    /// assert!(audit.is_clean(), "{audit}");
    /// assert_eq!(audit.slots.total, 1024);
    /// # Ok::<(), ringpool::Error>(())
    /// ```
    pub fn audit(&self) -> Result<crate::audit::Audit> {
        self.inner.check_process()?;
        Ok(crate::audit::of_segment(&self.inner.client.segment))
    }

    /// Takes no more work. Workers leave when all that was submitted is done, and all iterators that were
    /// started have ended.
    pub fn close(&self) {
        if self.inner.check_process().is_ok() {
            let _ = self.inner.phase.compare_exchange(RUNNING, CLOSED, Private::Relaxed, Private::Relaxed);
            self.inner.control.close();
        }
    }

    /// Kills the workers. Work that is not done fails with [`ErrorKind::Terminated`].
    ///
    /// When this returns, all workers that the pool launched are dead.
    pub fn terminate(&self) {
        if self.inner.check_process().is_ok() {
            self.inner.phase.store(TERMINATED, Private::Relaxed);
            self.inner.control.terminate();
            self.inner.control.wait_ended();
        }
    }

    /// Waits until all workers are gone and all callbacks have run. Only after [`close`](Self::close) or
    /// [`terminate`](Self::terminate).
    ///
    /// Iterators that have not ended take no more input from now on; nobody would ask them for it.
    pub fn join(&self) -> Result<()> {
        self.inner.check_process()?;
        if self.inner.phase.load(Private::Relaxed) == RUNNING {
            return Err(ErrorKind::StillRunning.into());
        }
        let client = &self.inner.client;
        let phase = &self.inner.phase;
        let fed = || self.inner.feeds.load(Private::Acquire) == 0 || phase.load(Private::Relaxed) != CLOSED;
        if !fed() {
            client.wait_any(&fed, None);
        }
        let _ = phase.compare_exchange(CLOSED, JOINING, Private::Relaxed, Private::Relaxed);
        if phase.load(Private::Relaxed) == JOINING {
            self.inner.control.end_streams();
            client.wait_any(&|| client.in_flight() == 0, None);
            self.inner.control.nudge();
        }
        self.finish();
        Ok(())
    }

    fn finish(&self) {
        self.inner.control.wait_ended();
        let thread = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        self.inner.callbacks.finish();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.inner.check_process().is_err() {
            // A forked child's copy: the workers are its parent's. The thread handle is of no use here.
            std::mem::forget(self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take());
            return;
        }
        self.terminate();
        self.finish();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = match self.inner.phase.load(Private::Relaxed) {
            RUNNING => "running",
            CLOSED | JOINING => "closed",
            _ => "terminated",
        };
        f.debug_struct("Pool").field("state", &phase).field("processes", &self.inner.processes).finish()
    }
}
