//! Maps over bytes.

use super::Name;
use super::buffer::Buffer;
use super::caller::{Caller, func};
use super::items::{Array, Trailer, table_len, write_table};
use super::results::{Results, each_run};
use super::stream::Part;
use crate::client::{Args, Key, Outcome, Sink, Target, TaskSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{ChunkSize, Followers, Inner};
use crate::slot::Shape;
use crate::sync::private::{Private, PrivateUsize};
use crate::worker::FuncWord;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// So many chunks for each worker are on their way at most if the caller waits for them.
const WINDOW: usize = 16;

/// Where the outcomes of a map arrive. The tag of a task is the index of its first item.
pub(super) struct MapSink {
    /// Items without an outcome.
    left: PrivateUsize,
    arrived: Mutex<Vec<(usize, Part)>>,
    /// How many have arrived, so that nobody needs the lock to find none.
    news: PrivateUsize,
    followers: Followers,
}

impl MapSink {
    fn new(items: usize) -> Arc<Self> {
        Arc::new(MapSink {
            left: PrivateUsize::new(items),
            arrived: Mutex::default(),
            news: PrivateUsize::new(0),
            followers: Followers::default(),
        })
    }

    fn arrived(&self) -> MutexGuard<'_, Vec<(usize, Part)>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> usize {
        self.left.load(Private::Acquire)
    }

    pub(super) fn add(&self, index: usize, part: Part) {
        let count = part.len();
        let mut arrived = self.arrived();
        arrived.push((index, part));
        self.news.store(arrived.len(), Private::Release);
        drop(arrived);
        if self.left.fetch_sub(count, Private::AcqRel) == count {
            self.followers.release();
        }
    }

    fn has_news(&self) -> bool {
        self.news.load(Private::Acquire) > 0
    }

    fn take(&self) -> Vec<(usize, Part)> {
        let mut arrived = self.arrived();
        self.news.store(0, Private::Relaxed);
        std::mem::take(&mut *arrived)
    }
}

impl Sink for MapSink {
    fn deliver(&self, tag: u64, outcome: Outcome, _: &mut Key) {
        let (first, part) = Part::new(outcome);
        self.add(tag as usize + first as usize, part);
    }
}

/// A map on its way into tasks.
pub(super) struct Feed {
    pub caller: Caller,
    func: FuncWord,
    name: Name,
    pub sink: Arc<MapSink>,
    /// Of all that [are pending](Self::pending).
    results: Arc<OnceLock<Arc<Results>>>,
}

impl Feed {
    pub(super) fn new(caller: &Caller, name: Name, items: usize) -> Result<Self> {
        caller.inner.check_running()?;
        if items > u32::MAX as usize {
            return Err(Error::invalid(format!("{items} items are more than a map can have: {}", u32::MAX)));
        }
        Ok(Feed {
            caller: caller.clone(),
            func: func(name)?,
            name,
            sink: MapSink::new(items),
            results: Arc::default(),
        })
    }

    /// Submits the item with this index as a call.
    pub(super) fn submit_call(&self, args: Args, index: usize) -> Result<()> {
        let shape = args.shape();
        self.submit_task(args, shape, None, index as u64)
    }

    /// Submits the items from `first` to `end` of a map, which are those from `start` on of a block.
    pub(super) fn submit_items(&self, args: Args, first: usize, end: usize, start: usize) -> Result<()> {
        let range = (start as u32, (start + end - first) as u32);
        // The outcome names items by their index in the block.
        let tag = first as u64 - start as u64;
        self.submit_task(args, Shape::Items, Some(range), tag)
    }

    fn submit_task(&self, args: Args, shape: Shape, range: Option<(u32, u32)>, tag: u64) -> Result<()> {
        let Caller { inner, terms } = &self.caller;
        let spec = TaskSpec { func: self.func, name: self.name.text, args, shape };
        let to = Target::Sink(self.sink.clone());
        inner.client.submit_on(terms, spec, range, to, tag).map(drop)
    }

    /// [`submit_items`](Self::submit_items) that fail at their place if they cannot be submitted; the others are done
    /// all the same.
    fn submit(&self, args: Result<Args>, first: usize, end: usize, start: usize) {
        if let Err(error) = args.and_then(|args| self.submit_items(args, first, end, start)) {
            self.sink.add(first, Part::Failed((end - first) as u32, error));
        }
    }

    /// The items from `first` to `end` of an array that is not shared, as a block.
    pub(super) fn copy(&self, array: Array<'_>, first: usize, end: usize) -> Result<Args> {
        let Caller { inner, terms } = &self.caller;
        let bytes = &array.items[first * array.item_size..end * array.item_size];
        let len = Trailer::block_len(bytes.len());
        inner.client.with_memory_on(terms, || {
            Args::filled(&inner.client.arena, len, |block| {
                block[..bytes.len()].copy_from_slice(bytes);
                Trailer::of_array(array.item_size, end - first).write(block);
            })
        })
    }

    /// Bytes that are so many items.
    pub(super) fn whole(&self, bytes: &[u8], count: usize) -> Result<Args> {
        let Caller { inner, terms } = &self.caller;
        let len = Trailer::block_len(bytes.len());
        inner.client.with_memory_on(terms, || {
            Args::filled(&inner.client.arena, len, |block| {
                block[..bytes.len()].copy_from_slice(bytes);
                Trailer::of_whole(bytes.len(), count).write(block);
            })
        })
    }

    /// Items of any size as a block.
    pub(super) fn table(&self, items: &[&[u8]]) -> Result<Args> {
        let Caller { inner, terms } = &self.caller;
        let len = table_len(items);
        let len = len.ok_or_else(|| Error::invalid("the items are larger than an address space"))?;
        inner.client.with_memory_on(terms, || {
            Args::filled(&inner.client.arena, len, |block| write_table(items, block))
        })
    }

    pub(super) fn pending(&self, len: usize) -> MapPending {
        let (inner, sink) = (self.caller.inner.clone(), self.sink.clone());
        MapPending { inner, sink, len, results: self.results.clone() }
    }
}

/// The beginnings and ends of chunks.
fn chunks(
    inner: &Inner,
    items: usize,
    chunksize: Option<usize>,
) -> Result<impl Iterator<Item = (usize, usize)>> {
    let size = match chunksize {
        Some(chunksize) => ChunkSize::fixed(chunksize)?.most,
        None => ChunkSize::quarters(items, inner.processes).most,
    };
    Ok((0..items).step_by(size).map(move |first| (first, items.min(first.saturating_add(size)))))
}

pub(super) fn items(
    caller: &Caller,
    name: Name,
    items: &[&[u8]],
    chunksize: Option<usize>,
) -> Result<MapPending> {
    let feed = Feed::new(caller, name, items.len())?;
    for (first, end) in chunks(&caller.inner, items.len(), chunksize)? {
        feed.submit(feed.table(&items[first..end]), first, end, 0);
    }
    Ok(feed.pending(items.len()))
}

pub(super) fn array(
    caller: &Caller,
    name: Name,
    items: Array<'_>,
    chunksize: Option<usize>,
) -> Result<MapPending> {
    let count = items.count()?;
    let feed = Feed::new(caller, name, count)?;
    for (first, end) in chunks(&caller.inner, count, chunksize)? {
        feed.submit(feed.copy(items, first, end), first, end, 0);
    }
    Ok(feed.pending(count))
}

pub(super) fn buffer(
    caller: &Caller,
    name: Name,
    items: &Buffer,
    item_size: usize,
    chunksize: Option<usize>,
) -> Result<MapPending> {
    let inner = &caller.inner;
    inner.check_running()?; // before the buffer is written to, which a forked child does not have
    let (items, count) = items.items(&inner.client, item_size)?;
    let feed = Feed::new(caller, name, count)?;
    for (first, end) in chunks(inner, count, chunksize)? {
        feed.submit(Ok(items()), first, end, first);
    }
    Ok(feed.pending(count))
}

pub(super) fn into(
    caller: &Caller,
    name: Name,
    items: Array<'_>,
    value_size: usize,
    values: &mut [u8],
    chunksize: Option<usize>,
) -> Result<()> {
    let inner = &caller.inner;
    let count = items.count()?;
    if count.checked_mul(value_size) != Some(values.len()) {
        let error = format!("{} bytes are not {count} values of {value_size} bytes", values.len());
        return Err(Error::invalid(error));
    }
    let feed = Feed::new(caller, name, count)?;
    let chunksize = match chunksize {
        Some(chunksize) => ChunkSize::fixed(chunksize)?,
        None => ChunkSize::cached(count, inner.processes, items.item_size.max(value_size)),
    };
    let window = chunksize.most.saturating_mul(WINDOW * inner.processes.max(1));
    let mut failed: Option<(usize, Error)> = None;
    let mut fail = |index: usize, error: Error| {
        if failed.as_ref().is_none_or(|&(first, _)| index < first) {
            failed = Some((index, error));
        }
    };
    let (client, sink) = (&inner.client, &feed.sink);
    let mut submitted = 0;
    loop {
        let on_their_way = submitted - (count - sink.left()); // asked before what has come is taken
        for (index, part) in sink.take() {
            let (bytes, items) = match part {
                Part::Many(items, bytes) => (bytes, items),
                Part::Failed(_, error) => {
                    fail(index, error);
                    continue;
                }
                Part::One(_) => {
                    fail(index, Error::corrupted("a chunk was answered as a call"));
                    continue;
                }
            };
            let mut at = index;
            each_run(&bytes, items, |run, place| {
                match place {
                    Ok((start, size)) if size == value_size => {
                        let len = run as usize * size;
                        values[at * size..][..len].copy_from_slice(&bytes.as_slice()[start..start + len]);
                    }
                    Ok((_, size)) => {
                        let error = format!("the function gave {size} bytes, and {value_size} were expected");
                        fail(at, Error::payload(error));
                    }
                    Err(error) => fail(at, error),
                }
                at += run as usize;
            });
        }
        let next = chunksize.next(count - submitted, on_their_way);
        if next > 0 && on_their_way + next <= window {
            let end = submitted + next;
            feed.submit(feed.copy(items, submitted, end), submitted, end, 0);
            submitted = end;
            client.collect();
        } else if on_their_way > 0 {
            client.wait_any(&|| sink.has_news(), None);
        } else {
            return failed.map_or(Ok(()), |(_, error)| Err(error));
        }
    }
}

/// The outputs of a map, now or later.
pub struct MapPending {
    inner: Arc<Inner>,
    sink: Arc<MapSink>,
    len: usize,
    /// Gathered once, by whoever asks first.
    results: Arc<OnceLock<Arc<Results>>>,
}

impl MapPending {
    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of them are not done, as far as that is known.
    pub fn left(&self) -> usize {
        self.sink.left()
    }

    /// Waits for all outputs, at most for `timeout`, and returns each by itself: failed ones beside good ones.
    pub fn get(&self, timeout: Option<Duration>) -> Result<Arc<Results>> {
        self.inner.check_process()?; // a forked child does not have the memory where they are
        if !self.wait(timeout) {
            return Err(ErrorKind::Timeout { waited: timeout.unwrap_or_default() }.into());
        }
        Ok(self.results.get_or_init(|| gather(&self.sink)).clone())
    }

    /// Waits until all items are done, at most for `timeout`; `false` if it has passed.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        if self.sink.left() == 0 {
            return true;
        }
        if self.inner.check_process().is_err() {
            return false;
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.inner.client.wait_any(&|| self.sink.left() == 0, deadline)
    }

    /// Waits until so many chunks, or single items, have come that were not [taken](Self::take), or no more will, at most
    /// for `timeout`; `false` if it has passed.
    pub fn wait_for_some(&self, chunks: usize, timeout: Option<Duration>) -> bool {
        let ready = || self.sink.news.load(Private::Acquire) >= chunks.max(1) || self.sink.left() == 0;
        if ready() {
            return true;
        }
        if self.inner.check_process().is_err() {
            return false;
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.inner.client.wait_any(&ready, deadline)
    }

    /// What has come, with the index of the first item of each, for whoever does not want to wait for all. It is not
    /// among what [`get`](Self::get) returns any more, nor [`then`](Self::then).
    pub fn take(&self) -> Vec<(usize, Results)> {
        if self.inner.check_process().is_err() {
            return Vec::new();
        }
        let single = |(index, part)| {
            let mut results = Results::default();
            results.push(part);
            (index, results)
        };
        self.sink.take().into_iter().map(single).collect()
    }

    /// Whether all items are done, well or badly.
    pub fn ready(&self) -> bool {
        if self.sink.left() > 0 && self.inner.check_process().is_ok() {
            self.inner.client.collect();
        }
        self.sink.left() == 0
    }

    /// Whether all items succeeded; `None` while some are not done.
    pub fn successful(&self) -> Option<bool> {
        let done = self.ready() && self.inner.check_process().is_ok();
        done.then(|| self.get(None).is_ok_and(|results| results.first_error().is_none()))
    }

    /// Refuses use by a forked child, which has no part in the pool.
    pub fn check_process(&self) -> Result<()> {
        self.inner.check_process()
    }

    /// Takes back the chunks that no worker has started: their items' error is [`ErrorKind::Cancelled`]. Whether
    /// there was one.
    pub fn cancel(&self) -> bool {
        if self.inner.check_process().is_err() {
            return false;
        }
        let sink: Arc<dyn Sink> = self.sink.clone();
        self.inner.client.recall(&sink, &ErrorKind::Cancelled.into())
    }

    /// Has `f` called with all outputs when they have come, on the pool's thread for callbacks. Not called for no
    /// items at all.
    pub fn then(self, f: impl FnOnce(Arc<Results>) + Send + 'static) -> Self {
        if self.len > 0 && self.inner.check_process().is_ok() {
            let (sink, results) = (self.sink.clone(), self.results.clone());
            let job = move || f(results.get_or_init(|| gather(&sink)).clone());
            self.sink.followers.add(&self.inner, || self.sink.left() == 0, Box::new(job));
        }
        self
    }
}

/// All parts, in the order of their items.
fn gather(sink: &MapSink) -> Arc<Results> {
    let mut parts = sink.take();
    parts.sort_by_key(|&(index, _)| index);
    let mut results = Results::default();
    parts.into_iter().for_each(|(_, part)| results.push(part));
    Arc::new(results)
}
