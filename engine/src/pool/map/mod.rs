//! `map` and `starmap`: items in chunks, results all at once.

mod calls;
mod feed;
mod pieces;

use super::{ChunkSize, Inner};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::Payload;
pub(crate) use calls::{Calls, Patience};
use pieces::MapSink;
pub(crate) use pieces::Piece;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Calls the function on all items, and waits for the values.
pub(crate) fn run<T: Payload, R: Payload>(
    inner: &Inner,
    calls: &Calls<T>,
    items: impl IntoIterator<Item = T>,
) -> Result<Vec<R>> {
    inner.check_running()?;
    feed::run(inner, calls, items)
}

/// The results of [`Pool::map_async`](crate::Pool::map_async) and
/// [`starmap_async`](crate::Pool::starmap_async), now or later.
#[must_use = "results that nobody looks at hide their errors"]
pub struct MapResult<R> {
    inner: Arc<Inner>,
    sink: Arc<MapSink>,
    len: usize,
    value: PhantomData<fn() -> R>,
}

impl<R: Payload> MapResult<R> {
    pub(crate) fn submit<T: Payload>(
        inner: &Arc<Inner>,
        calls: &Calls<T>,
        items: impl IntoIterator<Item = T>,
        chunksize: Option<usize>,
    ) -> Result<Self> {
        inner.check_running()?;
        let chunksize = chunksize.map(ChunkSize::fixed).transpose()?;
        let (sink, len) = feed::submit(inner, calls, items, chunksize);
        Ok(MapResult { inner: inner.clone(), sink, len, value: PhantomData })
    }

    /// How many results there will be.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there was no item.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Waits for all results and returns them in the order of the items, or the error of the first item
    /// that failed.
    pub fn get(&self) -> Result<Vec<R>> {
        self.inner.check_process()?; // a forked child does not have the memory where the results are
        // Copied as they come, while workers make the next.
        self.sink.gather(self.len, || {
            self.inner.client.wait_any(&|| self.sink.has_news() || self.sink.is_done(), None);
        })
    }

    /// [`get`](Self::get), waiting no longer than `timeout`.
    pub fn get_timeout(&self, timeout: Duration) -> Result<Vec<R>> {
        self.complete(Some(timeout))?;
        self.values()
    }

    /// Waits for all results and returns each by itself: what failed beside what succeeded.
    ///
    /// ```
    /// # ringpool::init();
    /// # let pool = ringpool::Pool::new(2)?;
    /// let results = pool.map_async(|x: u32| -> u32 { assert!(x != 2); x }, 0..4, None)?.get_each()?;
    /// assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 3);
    /// assert!(results[2].as_ref().unwrap_err().is_panic());
    /// # Ok::<(), ringpool::Error>(())
    /// ```
    pub fn get_each(&self) -> Result<Vec<Result<R>>> {
        self.complete(None)?;
        let mut results = Vec::with_capacity(self.len);
        for piece in &self.sink.kept().pieces {
            piece.for_each(|result| results.push(result));
        }
        Ok(results)
    }

    fn complete(&self, timeout: Option<Duration>) -> Result<()> {
        self.inner.check_process()?; // a forked child does not have the memory where the results are
        if self.wait(timeout) {
            return Ok(());
        }
        Err(ErrorKind::Timeout { waited: timeout.unwrap_or_default() }.into())
    }

    fn values(&self) -> Result<Vec<R>> {
        self.sink.values(self.len)
    }

    /// Waits until all items are done, at most for `timeout`; `false` if it has passed.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        if self.sink.is_done() {
            return true;
        }
        if self.inner.check_process().is_err() {
            return false;
        }
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        self.inner.client.wait_any(&|| self.sink.is_done(), deadline)
    }

    /// Whether all items are done, well or badly.
    pub fn ready(&self) -> bool {
        if !self.sink.is_done() && self.inner.check_process().is_ok() {
            self.inner.client.collect();
        }
        self.sink.is_done()
    }

    /// Whether all items succeeded; `None` while some are not done.
    pub fn successful(&self) -> Option<bool> {
        (self.ready() && self.inner.check_process().is_ok()).then(|| self.values().is_ok())
    }

    /// Has `f` called with all values when they have come, if no item failed. See
    /// [`AsyncResult::callback`](crate::AsyncResult::callback). Not called for no items at all.
    pub fn callback(self, f: impl FnOnce(Vec<R>) + Send + 'static) -> Self {
        let (sink, len) = (self.sink.clone(), self.len);
        self.then(move || {
            if let Ok(values) = sink.values(len) {
                f(values);
            }
        })
    }

    /// Has `f` called once with the error of the first item that failed, if one fails.
    pub fn error_callback(self, f: impl FnOnce(Error) + Send + 'static) -> Self {
        let (sink, len) = (self.sink.clone(), self.len);
        self.then(move || {
            if let Err(error) = sink.values::<R>(len) {
                f(error);
            }
        })
    }

    fn then(self, job: impl FnOnce() + Send + 'static) -> Self {
        // A forked child has neither the pool's threads nor its memory.
        if self.len > 0 && self.inner.check_process().is_ok() {
            self.sink.followers.add(&self.inner, || self.sink.is_done(), Box::new(job));
        }
        self
    }
}

impl<R> std::fmt::Debug for MapResult<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let left = self.sink.left();
        f.debug_struct("MapResult").field("items", &self.len).field("left", &left).finish_non_exhaustive()
    }
}
