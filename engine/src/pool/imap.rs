//! `imap` and `imap_unordered`: items are taken as results are asked for.

use super::map::{Calls, Patience, Piece};
use super::{Inner, check_chunksize};
use crate::client::{Call, Key, Outcome, Sink, Target, Tiny, UnderBooks};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::{self, Payload};
use crate::sync::private::{Private, PrivateUsize};
use crate::wake::Lull;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most calls that are submitted together.
const BATCH_MOST: usize = 32;
/// The input gives calls to be submitted together as long as it takes no more time for them than this: a slow one
/// must not keep workers waiting for what it has given already.
const BATCH_TIME: Duration = Duration::from_micros(10);

/// In which order results are returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// That of the items.
    Items,
    /// That in which they come.
    Arrival,
}

/// What has arrived of an iteration. The tag of a task is the index of its first item.
#[derive(Default)]
struct Arrived {
    /// Values of up to eight bytes: index, value, length.
    tiny: VecDeque<[u64; 3]>,
    /// All else, by the index of the first item.
    pieces: VecDeque<(u64, Piece)>,
}

impl Arrived {
    fn len(&self) -> usize {
        self.tiny.len() + self.pieces.len()
    }

    /// Appends all that is in `other`.
    fn append(&mut self, other: &mut Self) {
        fn append<T>(to: &mut VecDeque<T>, from: &mut VecDeque<T>) {
            if to.is_empty() {
                std::mem::swap(to, from);
            } else {
                to.append(from);
            }
        }
        append(&mut self.tiny, &mut other.tiny);
        append(&mut self.pieces, &mut other.pieces);
    }

    fn pop_tiny(&mut self) -> Option<(u64, Tiny)> {
        let &[index, word, len] = self.tiny.front()?;
        self.tiny.pop_front();
        Some((index, Tiny { word, len: len as u8 }))
    }
}

/// Where the outcomes of an iteration arrive.
#[derive(Default)]
struct StreamSink {
    arrived: UnderBooks<Arrived>,
    /// How many are there, so that nobody needs the books to find none.
    count: PrivateUsize,
}

impl StreamSink {
    fn arrived<'a>(&'a self, key: &'a mut Key) -> &'a mut Arrived {
        // SAFETY: a stream has one client, and nothing else gets at them.
        unsafe { self.arrived.get(key) }
    }

    /// Appends all that is there to `to`.
    fn take(&self, to: &mut Arrived, key: &mut Key) {
        to.append(self.arrived(key));
        self.count.store(0, Private::Release);
    }

    fn is_empty(&self) -> bool {
        self.count.load(Private::Acquire) == 0
    }
}

impl Sink for StreamSink {
    fn deliver(&self, tag: u64, outcome: Outcome, key: &mut Key) {
        let (first, piece) = Piece::new(outcome);
        let arrived = self.arrived(key);
        arrived.pieces.push_back((tag + u64::from(first), piece));
        // Only holders of the books write it.
        self.count.store(arrived.len(), Private::Release);
    }

    fn deliver_tiny(&self, tag: u64, value: Tiny, key: &mut Key) {
        let arrived = self.arrived(key);
        arrived.tiny.push_back([tag, value.word, u64::from(value.len)]);
        self.count.store(arrived.len(), Private::Release);
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
    /// Items that were taken from the input before there was memory for them.
    held: Vec<T>,
    /// Calls that wait for slots.
    ready: VecDeque<Call>,
    /// How many calls are to be submitted together.
    batch: usize,
    sink: Arc<StreamSink>,
    /// Before each look for what has come.
    lull: Lull,
    stream: u32,
    order: Order,
    chunksize: usize,
    buffersize: usize,
    /// Items taken from the input, without those in `held`.
    submitted: u64,
    /// Those of them whose results have not come.
    awaited: u64,
    /// Results given to the caller.
    returned: u64,
    /// Results that have come.
    come: Arrived,
    /// Those among them that came before their turn.
    waiting: BTreeMap<u64, Piece>,
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
        let sink = Arc::new(StreamSink::default());
        let mut stream = IMap {
            inner: inner.clone(),
            calls,
            input: Some(input),
            held: Vec::new(),
            ready: VecDeque::new(),
            batch: 1,
            stream: inner.client.open_stream(sink.clone()),
            sink,
            lull: Lull::default(),
            order,
            chunksize,
            buffersize: chunksize, // one chunk is always right; how many more, the caller may still say
            submitted: 0,
            awaited: 0,
            returned: 0,
            come: Arrived::default(),
            waiting: BTreeMap::new(),
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
            // Most results, straight from where they are.
            if self.order == Order::Arrival
                && let Some((_, value)) = self.come.pop_tiny()
            {
                self.awaited -= 1;
                self.returned += 1;
                return Some(payload::take(value.as_slice()));
            }
            match self.next_piece() {
                Some(Piece::Tiny(value)) => {
                    self.returned += 1;
                    return Some(payload::take(value.as_slice()));
                }
                Some(Piece::One(bytes)) => {
                    self.returned += 1;
                    return Some(payload::take(bytes.as_slice()));
                }
                Some(piece) => {
                    piece.for_each(|result| self.current.push_back(result));
                    continue;
                }
                None => {}
            }
            if self.returned == self.submitted {
                // A chunk that must wait for room waits only for results that are not returned.
                if self.input.is_some() {
                    continue;
                }
                return self.last_word.take().map(Err);
            }
            let client = &self.inner.client;
            self.lull.rest();
            client.collect_then(|books| self.sink.take(&mut self.come, books.key()));
            let outstanding = (self.submitted - self.returned) / self.chunksize as u64;
            self.lull.learn_found(self.come.len(), outstanding);
            if self.come.len() > 0 {
                continue;
            }
            if !client.wait_any(&|| !self.sink.is_empty(), deadline) {
                return Some(Err(ErrorKind::Timeout { waited: timeout.unwrap_or_default() }.into()));
            }
        }
    }

    /// The piece whose turn it is, of those that have come.
    fn next_piece(&mut self) -> Option<Piece> {
        loop {
            if self.order == Order::Items
                && let Some(entry) = self.waiting.first_entry()
                && *entry.key() == self.returned
            {
                return Some(entry.remove());
            }
            let (index, piece) = match self.come.pop_tiny() {
                Some((index, value)) => (index, Piece::Tiny(value)),
                None => self.come.pieces.pop_front()?,
            };
            self.awaited -= piece.len() as u64;
            if self.order == Order::Arrival || index == self.returned {
                return Some(piece);
            }
            self.waiting.insert(index, piece);
        }
    }

    /// Submits items while there is room. Waits for room only if no result is outstanding: otherwise it may
    /// be those that are in the way.
    fn feed(&mut self) {
        loop {
            let outstanding = (self.submitted - self.returned) as usize;
            let room = self.buffersize.saturating_sub(outstanding);
            let step =
                if self.chunksize == 1 { self.batch.min(self.buffersize / 4).max(1) } else { self.chunksize };
            if outstanding > 0 && room < step && !self.is_stranded() {
                return;
            }
            if self.ready.is_empty() && self.input.is_none() {
                return;
            }
            let client = &self.inner.client;
            let patience = if outstanding == 0 { Patience::Wait } else { Patience::Now };
            if let Err(error) = self.inner.check_feeding() {
                return self.refuse(error);
            }
            let fed = match self.chunksize {
                1 => self.feed_calls(step.min(room).max(1), patience),
                _ if patience == Patience::Now && !client.has_slot() => false,
                _ => self.feed_chunk(patience),
            };
            if !fed {
                return;
            }
        }
    }

    /// Whether calls wait for slots, and no task of this iteration is on its way that would make room.
    fn is_stranded(&self) -> bool {
        !self.ready.is_empty() && self.ready.len() as u64 == self.awaited
    }

    /// Takes no more from the input. What was taken and not submitted is not done, either.
    fn refuse(&mut self, error: Error) {
        let Some(input) = &mut self.input else { return };
        // Closed: what is submitted is done; an item more would be one too many.
        let closed = matches!(error.kind(), ErrorKind::Closed);
        let unsubmitted = self.ready.len() as u64;
        if !closed || unsubmitted > 0 || !self.held.is_empty() || input.next().is_some() {
            self.last_word = Some(error);
        }
        self.ready.clear();
        self.submitted -= unsubmitted;
        self.awaited -= unsubmitted;
        self.held.clear();
        self.end_input();
    }

    /// Submits up to `most` calls; `false` if there is no more to do about that now.
    fn feed_calls(&mut self, most: usize, patience: Patience) -> bool {
        let client = &self.inner.client;
        let mut stuck = false;
        let mut ended = false;
        if self.ready.is_empty()
            && let Some(input) = &mut self.input
        {
            // A single one is submitted at once: the next may take its time.
            let start = (most > 1 || self.batch == 1).then(Instant::now);
            let sure = input.size_hint().0;
            for _ in 0..most {
                let Some(item) = self.held.pop().or_else(|| input.next()) else {
                    ended = true;
                    break;
                };
                let tag = self.submitted;
                match self.calls.append(client, item, patience, tag, &mut self.ready) {
                    Ok(()) => {}
                    Err((error, item)) if patience == Patience::Now && error.is_arena_full() => {
                        self.held.push(item);
                        stuck = true;
                        break;
                    }
                    // At its place.
                    Err((error, _)) => self.come.pieces.push_back((tag, Piece::Failed(1, error))),
                }
                self.submitted += 1;
                self.awaited += 1;
            }
            if let Some(start) = start {
                // An input that does not know whether it has more may wait for it.
                let quick = sure > most && start.elapsed() <= BATCH_TIME;
                self.batch = if quick { (self.batch * 2).min(BATCH_MOST) } else { (self.batch / 2).max(1) };
            }
        }
        let (func, name) = self.calls.function();
        let mut result =
            client.submit_calls(client.terms.max_attempts, func, name, self.stream, &mut self.ready);
        if result.is_ok()
            && self.is_stranded()
            && let Some(call) = self.ready.pop_front()
        {
            let tag = call.tag;
            let spec = self.calls.call(call.into_args());
            result = client.submit(spec, None, Target::Stream(self.stream), tag).map(drop);
            if let Err(error) = &result {
                self.come.pieces.push_back((tag, Piece::Failed(1, error.clone())));
            }
        }
        if let Err(error) = result {
            for Call { tag, .. } in self.ready.drain(..) {
                self.come.pieces.push_back((tag, Piece::Failed(1, error.clone()))); // at its place
            }
        }
        if ended {
            self.end_input();
        }
        !stuck && !ended && self.ready.is_empty()
    }

    /// Submits one chunk; `false` if there is no more to do about that now.
    fn feed_chunk(&mut self, patience: Patience) -> bool {
        let Some(input) = &mut self.input else { return false };
        let mut chunk = std::mem::take(&mut self.held);
        if chunk.is_empty() {
            chunk = input.take(self.chunksize).collect();
        }
        if chunk.is_empty() {
            self.end_input();
            return false;
        }
        let (count, tag) = (chunk.len(), self.submitted);
        let to = Target::Stream(self.stream);
        let result = self.calls.submit_chunk(&self.inner.client, &chunk, patience, to, tag);
        if patience == Patience::Now && result.as_ref().is_err_and(Error::is_arena_full) {
            self.held = chunk;
            return false;
        }
        self.submitted += count as u64;
        self.awaited += count as u64;
        if let Err(error) = result {
            self.come.pieces.push_back((tag, Piece::Failed(count as u32, error))); // at its place
        }
        true
    }

    fn end_input(&mut self) {
        self.input = None;
        self.inner.end_stream();
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
        self.inner.client.close_stream(self.stream);
        if self.input.is_some() {
            self.inner.end_stream();
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
