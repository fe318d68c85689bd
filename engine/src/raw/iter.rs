//! Inputs are taken as outputs are asked for.

use super::Name;
use super::buffer::Buffer;
use super::caller::{Caller, Input, func, keeping, words};
use super::items::{table_len, write_table};
use super::results::{Bytes, each_run};
use super::stream::{Part, StreamSink};
use crate::client::{Args, Call, Client, Target, TaskSpec, Terms};
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{Inner, check_chunksize};
use crate::slot::Shape;
use crate::sync::private::Private;
use crate::wake::Lull;
use crate::worker::FuncWord;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most calls that are submitted together.
const BATCH: usize = 32;
/// The source gives calls to be submitted together as long as it takes no more time for them than this: a slow one must
/// not keep workers waiting for what it has given already.
const BATCH_TIME: Duration = Duration::from_micros(10);

/// In which order outputs are returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// That of the inputs.
    Items,
    /// That in which they come.
    Arrival,
}

/// Where an iteration takes its inputs from.
pub trait Source {
    /// The next input; `None` at the end, and an error ends the iteration, too: after the outputs of the inputs
    /// before it.
    fn next(&mut self) -> Option<Result<&[u8]>>;

    /// The buffers to which the input refers that `next` gave last: see [`Input::Keeping`](super::Input::Keeping).
    /// Asked for once, after each input.
    fn keep(&mut self) -> Vec<Arc<Buffer>> {
        Vec::new()
    }
}

/// Inputs that wait to be submitted, one behind the other.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    items: Vec<Range<usize>>,
    /// What they refer to.
    buffers: Vec<Arc<Buffer>>,
}

impl Gathered {
    fn push(&mut self, item: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(item);
        self.items.push(start..self.bytes.len());
    }

    fn args(&self, client: &Client, terms: &Terms, wait: bool) -> Result<Args> {
        let items: Vec<&[u8]> = self.items.iter().map(|range| &self.bytes[range.clone()]).collect();
        let len =
            table_len(&items).ok_or_else(|| Error::invalid("the items are larger than an address space"))?;
        let make = || Args::filled(&client.arena, len, |block| write_table(&items, block));
        let args = if wait { client.with_memory_on(terms, make) } else { client.with_memory_now(make) };
        keeping(client, args?, &self.buffers)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
        self.buffers.clear();
    }
}

/// The outputs of [`Caller::imap`](super::Caller::imap), one after the other.
///
/// Lazy and bounded: only so many inputs have been taken from the source whose outputs have not been returned. Dropping it half-way takes back what no worker has started and forgets the rest. A pool that
/// is closed meanwhile goes on with it; once the pool is joined, no more inputs are taken.
pub struct Iter<S> {
    inner: Arc<Inner>,
    terms: Terms,
    func: FuncWord,
    name: Name,
    /// `None` once it has ended.
    source: Option<S>,
    /// Inputs that were taken from the source before there was memory for them.
    held: Gathered,
    /// Calls that wait for slots.
    ready: VecDeque<Call>,
    sink: Arc<StreamSink>,
    /// Before each look for what has come.
    lull: Lull,
    stream: u32,
    order: Order,
    chunksize: usize,
    buffersize: u64,
    /// Inputs taken from the source, without those in `held`.
    submitted: u64,
    /// Those of them whose outputs have not come.
    awaited: u64,
    /// Outputs given to the caller.
    returned: u64,
    /// What has come.
    come: VecDeque<(u64, Part)>,
    /// Those among them that came before their turn.
    waiting: BTreeMap<u64, Part>,
    /// Outputs of the part that is being returned.
    current: VecDeque<Result<Bytes>>,
    /// What follows the last output.
    last_word: Option<Error>,
}

impl<S: Source> Iter<S> {
    pub(super) fn start(
        caller: &Caller,
        name: Name,
        source: S,
        chunksize: usize,
        order: Order,
        buffersize: Option<usize>,
    ) -> Result<Self> {
        let inner = &caller.inner;
        inner.check_running()?;
        let chunksize = check_chunksize(chunksize)?;
        let func = func(name)?;
        let buffersize = match buffersize {
            Some(items) => items.max(chunksize) as u64,
            None => (chunksize as u64).saturating_mul((4 * inner.processes as u64).max(16)),
        };
        inner.streams.fetch_add(1, Private::AcqRel);
        let sink = Arc::new(StreamSink::default());
        let mut iter = Iter {
            inner: inner.clone(),
            terms: caller.terms,
            func,
            name,
            source: Some(source),
            held: Gathered::default(),
            ready: VecDeque::new(),
            stream: inner.client.open_stream(sink.clone()),
            sink,
            lull: Lull::default(),
            order,
            chunksize,
            buffersize,
            submitted: 0,
            awaited: 0,
            returned: 0,
            come: VecDeque::new(),
            waiting: BTreeMap::new(),
            current: VecDeque::new(),
            last_word: None,
        };
        iter.feed(); // workers begin while the caller goes on
        Ok(iter)
    }

    /// The next output, or its error; `None` at the end. The error [`Timeout`](ErrorKind::Timeout) if it does not come
    /// in time; then you may ask again.
    pub fn next(&mut self, timeout: Option<Duration>) -> Option<Result<Bytes>> {
        if let Err(error) = self.inner.check_process() {
            return Some(Err(error)); // a forked child does not have the memory where outputs are
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            self.feed();
            if let Some(output) = self.current.pop_front() {
                self.returned += 1;
                return Some(output);
            }
            if let Some(part) = self.next_part() {
                self.unpack(part);
                continue;
            }
            if self.returned == self.submitted {
                // A chunk that must wait for room waits only for outputs that are not returned.
                if self.source.is_some() || !self.held.items.is_empty() {
                    continue;
                }
                return self.last_word.take().map(Err);
            }
            let client = &self.inner.client;
            self.lull.rest();
            client.collect_then(|books| self.sink.take(&mut self.come, books.key()));
            let outstanding = (self.submitted - self.returned) / self.chunksize as u64;
            self.lull.learn_found(self.come.len(), outstanding);
            if self.come.is_empty() && !client.wait_any(&|| !self.sink.is_empty(), deadline) {
                return Some(Err(ErrorKind::Timeout { waited: timeout.unwrap_or_default() }.into()));
            }
        }
    }

    /// Takes all that is left of the source, however much that is, as far as that is done within `limit`: so that the
    /// pool can end, and the outputs be had afterwards. Whether it is done.
    pub fn take_all(&mut self, limit: Duration) -> bool {
        if self.inner.check_process().is_err() {
            return true;
        }
        let deadline = Instant::now() + limit;
        self.buffersize = u64::MAX;
        loop {
            self.feed();
            if self.source.is_none() && self.held.items.is_empty() && self.ready.is_empty() {
                return true;
            }
            let client = &self.inner.client;
            client.collect_then(|books| self.sink.take(&mut self.come, books.key()));
            if !client.wait_any(&|| !self.sink.is_empty() || client.has_slot(), Some(deadline)) {
                return false;
            }
        }
    }

    /// Makes a part the one that is being returned.
    fn unpack(&mut self, part: Part) {
        match part {
            Part::One(bytes) => self.current.push_back(Ok(Bytes::own(bytes))),
            Part::Failed(count, error) => self.current.extend((0..count).map(|_| Err(error.clone()))),
            Part::Many(count, bytes) => {
                let bytes = Arc::new(bytes);
                each_run(&bytes, count, |count, place| {
                    self.current.extend((0..count as usize).map(|index| match &place {
                        Ok((at, size)) => {
                            let start = at + index * size;
                            Ok(Bytes::part(bytes.clone(), start..start + size))
                        }
                        Err(error) => Err(error.clone()),
                    }));
                });
            }
        }
    }

    /// The part whose turn it is, of those that have come.
    fn next_part(&mut self) -> Option<Part> {
        loop {
            if self.order == Order::Items
                && let Some(entry) = self.waiting.first_entry()
                && *entry.key() == self.returned
            {
                return Some(entry.remove());
            }
            let (index, part) = self.come.pop_front()?;
            self.awaited -= part.len() as u64;
            if self.order == Order::Arrival || index == self.returned {
                return Some(part);
            }
            self.waiting.insert(index, part);
        }
    }

    /// Submits inputs while there is room. Waits for room only if no output is outstanding: otherwise it may be those
    /// that are in the way.
    fn feed(&mut self) {
        loop {
            let outstanding = self.submitted - self.returned;
            let room = self.buffersize.saturating_sub(outstanding);
            if outstanding > 0 && room < self.chunksize as u64 && !self.is_stranded() {
                return;
            }
            if self.ready.is_empty() && self.held.items.is_empty() && self.source.is_none() {
                return;
            }
            if let Err(error) = self.inner.check_feeding() {
                return self.refuse(error);
            }
            let wait = outstanding == 0;
            let fed = match self.chunksize {
                1 => self.feed_calls((room as usize).clamp(1, BATCH), wait),
                _ if !wait && !self.inner.client.has_slot() => false,
                _ => self.feed_chunk(wait),
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

    /// Takes no more from the source. What was taken and not submitted is not done, either.
    fn refuse(&mut self, error: Error) {
        let closed = matches!(error.kind(), ErrorKind::Closed);
        let unsubmitted = self.ready.len() as u64;
        // Closed: what is submitted is done; an input more would be one too many.
        let more = unsubmitted > 0
            || !self.held.items.is_empty()
            || self.source.as_mut().is_some_and(|source| source.next().is_some());
        if !closed || more {
            self.last_word = Some(error);
        }
        self.ready.clear();
        self.submitted -= unsubmitted;
        self.awaited -= unsubmitted;
        self.held.clear();
        self.end();
    }

    /// Takes an input; `false` at the end.
    fn pull(&mut self) -> bool {
        let Some(source) = &mut self.source else { return false };
        match source.next() {
            Some(Ok(item)) => {
                self.held.push(item);
                self.held.buffers.append(&mut source.keep());
                return true;
            }
            Some(Err(error)) => self.last_word = Some(error),
            None => {}
        }
        self.end();
        false
    }

    /// Submits up to `most` calls; `false` if there is no more to do about that now.
    fn feed_calls(&mut self, most: usize, wait: bool) -> bool {
        let mut stuck = false;
        if self.ready.is_empty() {
            let start = Instant::now();
            for _ in 0..most {
                if self.held.items.is_empty() && !self.pull() {
                    break;
                }
                let item = &self.held.bytes[..];
                let (client, tag) = (&self.inner.client, self.submitted);
                if item.len() <= client.arena.inline_most() && self.held.buffers.is_empty() {
                    self.ready.push_back(Call::short(tag, words(item), item.len()));
                } else {
                    let terms =
                        if wait { &self.terms } else { &Terms { patience: Duration::ZERO, ..self.terms } };
                    let args = Input::Bytes(item).args(client, terms);
                    match args.and_then(|args| keeping(client, args, &self.held.buffers)) {
                        Ok(args) => self.ready.push_back(Call::new(tag, args)),
                        Err(error) if !wait && matches!(error.kind(), ErrorKind::ArenaFull { .. }) => {
                            stuck = true;
                            break;
                        }
                        Err(error) => self.come.push_back((tag, Part::Failed(1, error))), // at its place
                    }
                }
                self.held.clear();
                self.submitted += 1;
                self.awaited += 1;
                if start.elapsed() > BATCH_TIME {
                    break;
                }
            }
        }
        let client = &self.inner.client;
        let mut result = client.submit_calls(
            self.terms.max_attempts,
            self.func,
            self.name.text,
            self.stream,
            &mut self.ready,
        );
        if result.is_ok()
            && self.is_stranded()
            && let Some(call) = self.ready.pop_front()
        {
            let tag = call.tag;
            result = self.submit(call.into_args(), None, tag);
            if let Err(error) = &result {
                self.come.push_back((tag, Part::Failed(1, error.clone())));
            }
        }
        if let Err(error) = result {
            for call in self.ready.drain(..) {
                self.come.push_back((call.tag, Part::Failed(1, error.clone()))); // at its place
            }
        }
        let ended = self.source.is_none() && self.held.items.is_empty();
        !stuck && !ended && self.ready.is_empty()
    }

    /// Submits one chunk; `false` if there is no more to do about that now.
    fn feed_chunk(&mut self, wait: bool) -> bool {
        while self.held.items.len() < self.chunksize && self.pull() {}
        let count = self.held.items.len() as u32;
        if count == 0 {
            return false;
        }
        let tag = self.submitted;
        let args = self.held.args(&self.inner.client, &self.terms, wait);
        if !wait && args.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::ArenaFull { .. })) {
            return false;
        }
        self.held.clear();
        let result = args.and_then(|args| self.submit(args, Some((0, count)), tag));
        self.submitted += u64::from(count);
        self.awaited += u64::from(count);
        if let Err(error) = result {
            self.come.push_back((tag, Part::Failed(count, error))); // at its place
        }
        true
    }

    fn submit(&self, args: Args, items: Option<(u32, u32)>, tag: u64) -> Result<()> {
        let shape = if items.is_some() { Shape::Items } else { args.shape() };
        let spec = TaskSpec { func: self.func, name: self.name.text, args, shape };
        let to = Target::Stream(self.stream);
        self.inner.client.submit_on(&self.terms, spec, items, to, tag).map(drop)
    }

    fn end(&mut self) {
        if self.source.take().is_some() {
            self.inner.end_stream();
        }
    }
}

impl<S> Drop for Iter<S> {
    fn drop(&mut self) {
        if self.inner.check_process().is_err() {
            return;
        }
        self.inner.client.close_stream(self.stream);
        if self.source.is_some() {
            self.inner.end_stream();
        }
    }
}
