//! `imap` and `imap_unordered`: items are taken as results are asked for.

use super::inner::{Inner, check_chunksize};
use super::map::{Calls, Patience, Piece};
use crate::client::{Outcome, Sink};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::Payload;
use crate::sync::private::{Private, PrivateUsize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In which order results are returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// That of the items.
    Items,
    /// That in which they come.
    Arrival,
}

/// Where the outcomes of an iteration arrive. The tag of a task is the index of its first item.
#[derive(Default)]
struct StreamSink {
    arrived: Mutex<VecDeque<(u64, Piece)>>,
    /// How many are there, so that nobody needs the lock to find none.
    count: PrivateUsize,
}

impl StreamSink {
    fn add(&self, index: u64, piece: Piece) {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).push_back((index, piece));
        self.count.fetch_add(1, Private::Release);
    }

    fn take(&self) -> Option<(u64, Piece)> {
        if self.count.load(Private::Acquire) == 0 {
            return None;
        }
        let taken = self.arrived.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if taken.is_some() {
            self.count.fetch_sub(1, Private::Relaxed);
        }
        taken
    }
}

impl Sink for StreamSink {
    fn deliver(&self, tag: u64, outcome: Outcome) {
        let (first, piece) = Piece::new(outcome);
        self.add(tag + u64::from(first), piece);
    }
}

/// The results of [`Pool::imap`](crate::Pool::imap) and
/// [`imap_unordered`](crate::Pool::imap_unordered), one after the other.
///
/// Dropping it half-way takes back what no worker has started and forgets the rest. A pool that is closed
/// meanwhile goes on with it; once the pool is joined, items that have been submitted are done and others
/// are not taken: the iteration then ends with [`ErrorKind::Closed`] if there was another item.
pub struct IMap<T, R, I> {
    inner: Arc<Inner>,
    calls: Calls<T>,
    /// `None` once it has ended.
    input: Option<I>,
    /// The next chunk, if it was taken from the input before there was memory for it.
    held: Vec<T>,
    sink: Arc<StreamSink>,
    order: Order,
    chunksize: usize,
    buffersize: usize,
    /// Items taken from the input.
    submitted: u64,
    /// Results given to the caller.
    returned: u64,
    /// Results that have come, by the index of their first item; in order of arrival the key only counts.
    waiting: BTreeMap<u64, Piece>,
    arrivals: u64,
    /// Results of the piece that is being returned.
    current: VecDeque<Result<R>>,
    /// What follows the last result.
    last_word: Option<Error>,
}

impl<T: Payload, R: Payload, I: Iterator<Item = T>> IMap<T, R, I> {
    pub(crate) fn start(
        inner: &Arc<Inner>,
        calls: Calls<T>,
        input: I,
        chunksize: usize,
        order: Order,
    ) -> Result<Self> {
        inner.check_running()?;
        let chunksize = check_chunksize(chunksize)?;
        inner.streams.fetch_add(1, Private::AcqRel);
        let mut stream = IMap {
            inner: inner.clone(),
            calls,
            input: Some(input),
            held: Vec::new(),
            sink: Arc::new(StreamSink::default()),
            order,
            chunksize,
            buffersize: chunksize, // one chunk is always right; how many more, the caller may still say
            submitted: 0,
            returned: 0,
            waiting: BTreeMap::new(),
            arrivals: 0,
            current: VecDeque::new(),
            last_word: None,
        };
        stream.feed(); // a worker begins while the caller goes on
        stream.buffersize = chunksize.saturating_mul((4 * inner.processes).max(16));
        Ok(stream)
    }

    /// How many items may have been taken from the input and not yet been returned; at least one chunk.
    /// Default: four chunks for each worker, and at least sixteen.
    pub fn buffersize(mut self, items: usize) -> Self {
        self.buffersize = items.max(1);
        self.feed();
        self
    }

    /// The next result, or the error [`Timeout`](ErrorKind::Timeout) if it does not come in time; then
    /// you may ask again. `None` at the end.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Result<R>> {
        self.next_before(Some(timeout))
    }

    fn next_before(&mut self, timeout: Option<Duration>) -> Option<Result<R>> {
        if let Err(error) = self.inner.check_process() {
            return Some(Err(error)); // a forked child does not have the memory where results are
        }
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        loop {
            self.feed();
            if let Some(result) = self.current.pop_front() {
                self.returned += 1;
                return Some(result);
            }
            self.collect();
            if let Some(piece) = self.next_piece() {
                piece.for_each(|result| self.current.push_back(result));
                continue;
            }
            if self.returned == self.submitted {
                // A chunk that must wait for room waits only for results that are not returned.
                if self.input.is_some() {
                    continue;
                }
                return self.last_word.take().map(Err);
            }
            let sink = &self.sink;
            let come = || sink.count.load(Private::Acquire) > 0;
            if !self.inner.client.wait_any(&come, deadline) {
                return Some(Err(ErrorKind::Timeout { waited: timeout.unwrap_or_default() }.into()));
            }
        }
    }

    /// Moves what has come to where its turn is kept.
    fn collect(&mut self) {
        while let Some((index, piece)) = self.sink.take() {
            let key = match self.order {
                Order::Items => index,
                Order::Arrival => self.arrivals,
            };
            self.arrivals += 1;
            self.waiting.insert(key, piece);
        }
    }

    fn next_piece(&mut self) -> Option<Piece> {
        let entry = self.waiting.first_entry()?;
        let turn = match self.order {
            Order::Items => *entry.key() == self.returned,
            Order::Arrival => true,
        };
        turn.then(|| entry.remove())
    }

    /// Submits items while there is room. Waits for room only if no result is outstanding: otherwise it may
    /// be those that are in the way.
    fn feed(&mut self) {
        loop {
            let outstanding = (self.submitted - self.returned) as usize;
            if outstanding > 0 && outstanding + self.chunksize > self.buffersize {
                return;
            }
            let Some(input) = &mut self.input else { return };
            let client = &self.inner.client;
            let patience = if outstanding == 0 { Patience::Wait } else { Patience::Now };
            if patience == Patience::Now && !client.has_slot() {
                return;
            }
            if let Err(error) = self.inner.check_feeding() {
                // Closed: what is submitted is done; an item more would be one too many.
                let closed = matches!(error.kind(), ErrorKind::Closed);
                if !closed || !self.held.is_empty() || input.next().is_some() {
                    self.last_word = Some(error);
                }
                self.end_input();
                return;
            }
            let tag = self.submitted;
            let result;
            let count;
            if self.chunksize == 1 {
                let Some(item) = self.held.pop().or_else(|| input.next()) else { return self.end_input() };
                count = 1;
                result = match self.calls.submit_one(client, item, patience, self.sink.clone(), tag) {
                    Err((error, Some(item))) if patience == Patience::Now && error.is_arena_full() => {
                        self.held.push(item);
                        return;
                    }
                    other => other.map_err(|(error, _)| error),
                };
            } else {
                let mut chunk = std::mem::take(&mut self.held);
                if chunk.is_empty() {
                    chunk = input.take(self.chunksize).collect();
                }
                if chunk.is_empty() {
                    return self.end_input();
                }
                count = chunk.len();
                result = self.calls.submit_chunk(client, &chunk, patience, self.sink.clone(), tag);
                if patience == Patience::Now && result.as_ref().is_err_and(Error::is_arena_full) {
                    self.held = chunk;
                    return;
                }
            }
            self.submitted += count as u64;
            if let Err(error) = result {
                self.sink.add(tag, Piece::Failed(count as u32, error)); // at its place
            }
        }
    }

    fn end_input(&mut self) {
        self.input = None;
        self.inner.streams.fetch_sub(1, Private::AcqRel);
        self.inner.control.nudge(); // a closing pool may have waited for this
    }
}

impl<T: Payload, R: Payload, I: Iterator<Item = T>> Iterator for IMap<T, R, I> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        self.next_before(None)
    }
}

impl<T, R, I> Drop for IMap<T, R, I> {
    fn drop(&mut self) {
        if self.inner.check_process().is_err() {
            return;
        }
        let sink: Arc<dyn Sink> = self.sink.clone();
        self.inner.client.cancel(&sink);
        if self.input.is_some() {
            self.inner.streams.fetch_sub(1, Private::AcqRel);
            self.inner.control.nudge();
        }
    }
}

impl<T, R, I> std::fmt::Debug for IMap<T, R, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IMap")
            .field("submitted", &self.submitted)
            .field("returned", &self.returned)
            .finish_non_exhaustive()
    }
}
