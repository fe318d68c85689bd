//! `map` and `starmap`: items in chunks, results all at once.

use super::callbacks::Followers;
use super::inner::{Inner, check_chunksize};
use super::result::bytes_of;
use crate::chunk::ChunkReader;
use crate::client::{Args, Call, Client, Key, Outcome, ResultBytes, Sink, Target, TaskSpec, Tiny};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::{self, Payload};
use crate::slot::Shape;
use crate::sync::private::{Private, PrivateUsize};
use crate::task::Task;
use crate::worker::FuncWord;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whether to wait for memory that others have, or to fail at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    Wait,
    Now,
}

/// The archived item, or why it is none, and the item.
pub(crate) type ArgsOrItem<T> = Result<Args, (Error, T)>;

type Append<T> = fn(&Client, T, Patience, u64, &mut VecDeque<Call>) -> Result<(), (Error, T)>;

/// A function and how items become calls of it: one alone, or a chunk of several as one task.
pub(crate) struct Calls<T> {
    func: FuncWord,
    name: &'static str,
    /// How a chunk of items is to be read.
    chunk: Shape,
    /// Archives the arguments for one item.
    one: fn(&Client, T, Patience) -> ArgsOrItem<T>,
    /// The same, and appends them as a call with this tag.
    append: Append<T>,
}

/// [`Calls::one`] of a task whose one argument is the item.
fn one_item<T: Payload, M, F: Task<(T,), M>>(client: &Client, item: T, patience: Patience) -> ArgsOrItem<T> {
    let args = (item,);
    let archived = archive(client, patience, || Args::of_task::<_, M, F>(&client.arena, &args));
    archived.map_err(|error| (error, args.0))
}

/// [`Calls::one`] of a task whose arguments are the item.
fn one_tuple<T: Payload, M, F: Task<T, M>>(client: &Client, item: T, patience: Patience) -> ArgsOrItem<T> {
    let archived = archive(client, patience, || Args::of_task::<_, M, F>(&client.arena, &item));
    archived.map_err(|error| (error, item))
}

impl<T: Payload> Calls<T> {
    /// Each item is the one argument.
    pub(crate) fn items<M, F: Task<(T,), M>>(f: F) -> Result<Self> {
        let append = |client: &Client, item: T, patience, tag, calls: &mut VecDeque<Call>| {
            let args = (item,);
            if let Some((words, len)) = Args::short::<_, M, F>(&client.arena, &args) {
                calls.push_back(Call::short(tag, words, len));
                return Ok(());
            }
            let args = one_item::<T, M, F>(client, args.0, patience)?;
            calls.push_back(Call::new(tag, args));
            Ok(())
        };
        let (func, name) = (FuncWord::new(f.func())?, f.name());
        Ok(Calls { func, name, chunk: Shape::Items, one: one_item::<T, M, F>, append })
    }

    /// Each item is the tuple of all arguments.
    pub(crate) fn tuples<M, F: Task<T, M>>(f: F) -> Result<Self> {
        let append = |client: &Client, item: T, patience, tag, calls: &mut VecDeque<Call>| {
            if let Some((words, len)) = Args::short::<_, M, F>(&client.arena, &item) {
                calls.push_back(Call::short(tag, words, len));
                return Ok(());
            }
            let args = one_tuple::<T, M, F>(client, item, patience)?;
            calls.push_back(Call::new(tag, args));
            Ok(())
        };
        let (func, name) = (FuncWord::new(f.func())?, f.name());
        Ok(Calls { func, name, chunk: Shape::Tuples, one: one_tuple::<T, M, F>, append })
    }

    /// Submits one item as an ordinary call. If it cannot be archived, it comes back with the error.
    pub(crate) fn submit_one(
        &self,
        client: &Client,
        item: T,
        patience: Patience,
        to: Target,
        tag: u64,
    ) -> Result<(), (Error, Option<T>)> {
        let args = (self.one)(client, item, patience).map_err(|(error, item)| (error, Some(item)))?;
        let shape = args.shape();
        let submitted = client.submit(self.spec(args, shape), None, to, tag);
        submitted.map(drop).map_err(|error| (error, None))
    }

    /// Submits a chunk of items as one task.
    pub(crate) fn submit_chunk(
        &self,
        client: &Client,
        items: &[T],
        patience: Patience,
        to: Target,
        tag: u64,
    ) -> Result<()> {
        let args = archive(client, patience, || Args::archive_items(&client.arena, items))?;
        let range = (0, items.len() as u32);
        client.submit(self.spec(args, self.chunk), Some(range), to, tag).map(drop)
    }

    /// Appends the call for one item, with this tag.
    #[inline]
    pub(crate) fn append(
        &self,
        client: &Client,
        item: T,
        patience: Patience,
        tag: u64,
        calls: &mut VecDeque<Call>,
    ) -> Result<(), (Error, T)> {
        (self.append)(client, item, patience, tag, calls)
    }

    /// The call with these arguments.
    pub(crate) fn call(&self, args: Args) -> TaskSpec {
        let shape = args.shape();
        self.spec(args, shape)
    }

    /// The function, and its name for messages.
    pub(crate) fn function(&self) -> (FuncWord, &'static str) {
        (self.func, self.name)
    }

    fn spec(&self, args: Args, shape: Shape) -> TaskSpec {
        TaskSpec { func: self.func, name: self.name, args, shape }
    }
}

fn archive(client: &Client, patience: Patience, archive: impl FnMut() -> Result<Args>) -> Result<Args> {
    match patience {
        Patience::Wait => client.with_memory(archive),
        Patience::Now => client.with_memory_now(archive),
    }
}

/// Results of neighbouring items, as they came.
pub(crate) enum Piece {
    /// The result of one item, if it is short.
    Tiny(Tiny),
    /// The result of one item.
    One(Box<ResultBytes>),
    /// The results of so many items of a chunk.
    Many(u32, Box<ResultBytes>),
    /// So many items failed, all with this.
    Failed(u32, Error),
}

impl Piece {
    /// From an outcome: the index of its first item in its task, and the piece.
    pub(crate) fn new(outcome: Outcome) -> (u32, Piece) {
        match outcome {
            Outcome::Items { first, done, bytes } => (first, Piece::Many(done, Box::new(bytes))),
            Outcome::Range { first, end, error } => (first, Piece::Failed(end - first, error)),
            other => match bytes_of(other) {
                Ok(ResultBytes::Tiny(value)) => (0, Piece::Tiny(value)),
                Ok(bytes) => (0, Piece::One(Box::new(bytes))),
                Err(error) => (0, Piece::Failed(1, error)),
            },
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Piece::Tiny(_) | Piece::One(_) => 1,
            Piece::Many(count, _) | Piece::Failed(count, _) => *count as usize,
        }
    }

    /// Hands every item's result to `take`.
    pub(crate) fn for_each<R: Payload>(&self, mut take: impl FnMut(Result<R>)) {
        match self {
            Piece::Tiny(value) => take(payload::take(value.as_slice())),
            Piece::One(bytes) => take(payload::take(bytes.as_slice())),
            Piece::Failed(count, error) => (0..*count).for_each(|_| take(Err(error.clone()))),
            Piece::Many(count, bytes) => {
                let mut reader = ChunkReader::new(bytes.as_slice(), *count);
                let mut given = 0;
                while let Some(item) = reader.next::<R>() {
                    match item {
                        Ok(result) => take(result),
                        Err(error) => {
                            // The rest is unreadable, and every item gets an answer.
                            (given..*count).for_each(|_| take(Err(error.clone())));
                            return;
                        }
                    }
                    given += 1;
                }
                (given..*count).for_each(|_| take(Err(Error::corrupted("a chunk's results end early"))));
            }
        }
    }

    /// Appends the values, or stops at the first error. Arrays of plain values are copied at once.
    fn append<R: Payload>(&self, values: &mut Vec<R>) -> Result<()> {
        if let Piece::Many(count, bytes) = self {
            let start = values.len();
            let mut reader = ChunkReader::new(bytes.as_slice(), *count);
            while reader.left() > 0 {
                if reader.read_flat_into(values)? == 0 {
                    match reader.next::<R>() {
                        Some(item) => values.push(item??),
                        None => break,
                    }
                }
            }
            if values.len() - start == *count as usize {
                return Ok(());
            }
            return Err(Error::corrupted("a chunk's results end early"));
        }
        let mut failure = None;
        self.for_each(|result: Result<R>| match result {
            Ok(value) => values.push(value),
            Err(error) => failure = Some(error),
        });
        failure.map_or(Ok(()), Err)
    }
}

/// Where the outcomes of a map arrive. The tag of a task is the index of its first item.
#[derive(Default)]
pub(crate) struct MapSink {
    /// Items without an outcome; more than there can be until all are submitted.
    left: PrivateUsize,
    pieces: Mutex<Vec<(usize, Piece)>>,
    followers: Followers,
}

impl MapSink {
    fn pieces(&self) -> MutexGuard<'_, Vec<(usize, Piece)>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self) -> bool {
        self.left.load(Private::Acquire) == 0
    }

    fn add(&self, index: usize, piece: Piece) {
        let count = piece.len();
        let mut pieces = self.pieces();
        pieces.push((index, piece));
        let last = self.left.fetch_sub(count, Private::AcqRel) == count;
        if last {
            // Under the same guard: whoever sees that all are there finds them in order.
            pieces.sort_by_key(|&(index, _)| index);
        }
        drop(pieces);
        if last {
            self.followers.release();
        }
    }
}

impl Sink for MapSink {
    fn deliver(&self, tag: u64, outcome: Outcome, _: &mut Key) {
        let (first, piece) = Piece::new(outcome);
        self.add(tag as usize + first as usize, piece);
    }
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
        let chunksize = chunksize.map(check_chunksize).transpose()?;
        let items: Vec<T> = items.into_iter().collect();
        let len = items.len();
        let share = len.div_ceil(4 * inner.processes.max(1)).clamp(1, u32::MAX as usize);
        let chunksize = chunksize.unwrap_or(share);
        let sink = Arc::new(MapSink::default());
        sink.left.store(len, Private::Relaxed);
        let mut items = items.into_iter();
        let mut start = 0;
        while start < len {
            let result = if chunksize == 1 {
                let item = items.next().expect("counted above");
                let tag = start as u64;
                let to = Target::Sink(sink.clone());
                let result = calls.submit_one(&inner.client, item, Patience::Wait, to, tag);
                result.map_err(|(error, _)| error)
            } else {
                let chunk: Vec<T> = items.by_ref().take(chunksize).collect();
                let to = Target::Sink(sink.clone());
                calls.submit_chunk(&inner.client, &chunk, Patience::Wait, to, start as u64)
            };
            let end = (start + chunksize).min(len);
            if let Err(error) = result {
                // These items fail; the others are done all the same.
                sink.add(start, Piece::Failed((end - start) as u32, error));
            }
            start = end;
        }
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
        self.complete(None)?;
        self.values()
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
        for (_, piece) in &*self.sink.pieces() {
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
        values(&self.sink, self.len)
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
            if let Ok(values) = values(&sink, len) {
                f(values);
            }
        })
    }

    /// Has `f` called once with the error of the first item that failed, if one fails.
    pub fn error_callback(self, f: impl FnOnce(Error) + Send + 'static) -> Self {
        let (sink, len) = (self.sink.clone(), self.len);
        self.then(move || {
            if let Err(error) = values::<R>(&sink, len) {
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

fn values<R: Payload>(sink: &MapSink, len: usize) -> Result<Vec<R>> {
    let mut values = Vec::with_capacity(len);
    for (_, piece) in &*sink.pieces() {
        piece.append(&mut values)?;
    }
    Ok(values)
}

impl<R> std::fmt::Debug for MapResult<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let left = self.sink.left.load(Private::Relaxed);
        f.debug_struct("MapResult").field("items", &self.len).field("left", &left).finish_non_exhaustive()
    }
}
