//! Handing the items of a map to the workers.

use super::super::{ChunkSize, Inner};
use super::calls::{Calls, Patience};
use super::pieces::{MapSink, Piece, Values};
use crate::client::{Sink, Target};
use crate::error::Result;
use crate::payload::{Payload, is_plain};
use std::sync::Arc;

/// So many chunks for each worker are on their way at most if the caller waits for them: enough that nobody
/// who is woken late finds nothing to do.
const WINDOW: usize = 16;

/// Items on their way into tasks.
///
/// Dropped half-way, because the iterator panicked, it takes back what no worker has started.
struct Feed<'a, T: Payload, I: Iterator<Item = T>> {
    inner: &'a Inner,
    calls: &'a Calls<T>,
    sink: Arc<MapSink>,
    items: I,
    chunksize: ChunkSize,
    /// Index of the next item.
    start: usize,
    /// How many more there are, if the iterator has told the truth.
    left: usize,
    /// There are no more.
    ended: bool,
    /// Chunks submitted.
    chunks: usize,
}

impl<T: Payload, I: Iterator<Item = T>> Drop for Feed<'_, T, I> {
    fn drop(&mut self) {
        if !self.ended {
            let sink: Arc<dyn Sink> = self.sink.clone();
            self.inner.client.cancel(&sink);
        }
    }
}

impl<'a, T: Payload, I: Iterator<Item = T>> Feed<'a, T, I> {
    fn new(inner: &'a Inner, calls: &'a Calls<T>, items: I, len: usize, chunksize: ChunkSize) -> Self {
        Feed {
            inner,
            calls,
            sink: MapSink::new(),
            items,
            chunksize,
            start: 0,
            left: len,
            ended: false,
            chunks: 0,
        }
    }

    /// Submits the next chunk, if there is another. So many items are on their way.
    fn submit(&mut self, on_their_way: usize) {
        let client = &self.inner.client;
        let most = self.chunksize.next(self.left, on_their_way);
        if most == 0 {
            // Nearly always nothing: an iterator that has more than it said.
            let rest: Vec<T> = self.items.by_ref().collect();
            for chunk in rest.chunks(self.chunksize.most) {
                let (to, tag) = (Target::Sink(self.sink.clone()), self.start as u64);
                let result = self.calls.submit_chunk(client, chunk, Patience::Wait, to, tag);
                self.count(chunk.len(), result);
            }
            self.ended = true;
            return;
        }
        let tag = self.start as u64;
        let (count, result) = self.calls.submit_next(client, &mut self.items, most, &self.sink, tag);
        self.count(count, result);
        self.left -= count;
        self.ended = count < most;
        // There is work for all of them. Left to itself, a worker wakes the next only once it runs.
        self.chunks += 1;
        if (2..=self.inner.processes).contains(&self.chunks) {
            client.rouse(self.calls.function().0, self.chunks);
        }
    }

    fn count(&mut self, items: usize, submitted: Result<()>) {
        if let Err(error) = submitted {
            // These items fail; the others are done all the same.
            self.sink.add(self.start, Piece::Failed(items as u32, error));
        }
        self.start += items;
    }

    /// Submits all. Returns where their outcomes will be, and how many they are.
    fn submit_all(mut self) -> (Arc<MapSink>, usize) {
        while !self.ended {
            self.submit(self.start);
        }
        self.sink.expect(self.start);
        (self.sink.clone(), self.start)
    }

    /// Submits all and takes their values at the same time, so that memory is used again while it is warm.
    fn run<R: Payload>(mut self) -> Result<Vec<R>> {
        let client = &self.inner.client;
        let window = self.chunksize.most.saturating_mul(WINDOW * self.inner.processes.max(1));
        let sink = self.sink.clone();
        let mut values = Values::new(self.left);
        loop {
            let on_their_way = self.start - sink.settled(); // asked before what has come is taken
            sink.take(|index, piece| values.add(index, piece));
            if !self.ended && on_their_way + self.chunksize.most <= window {
                self.submit(on_their_way);
                client.collect();
            } else if on_their_way > 0 {
                client.wait_any(&|| sink.has_news(), None);
            } else {
                return values.finish();
            }
        }
    }
}

/// Submits all items. Returns where their outcomes will be, and how many they are.
///
/// An iterator that knows how many items it has is read chunk by chunk, while workers begin; others are read
/// to their end first.
pub(super) fn submit<T: Payload>(
    inner: &Inner,
    calls: &Calls<T>,
    items: impl IntoIterator<Item = T>,
    chunksize: Option<ChunkSize>,
) -> (Arc<MapSink>, usize) {
    let chunksize = |len| chunksize.unwrap_or_else(|| ChunkSize::quarters(len, inner.processes));
    let items = items.into_iter();
    match items.size_hint() {
        (len, Some(most)) if len == most => Feed::new(inner, calls, items, len, chunksize(len)).submit_all(),
        _ => {
            let items: Vec<T> = items.collect();
            let len = items.len();
            Feed::new(inner, calls, items.into_iter(), len, chunksize(len)).submit_all()
        }
    }
}

/// Submits all items, in the same way, and waits for the values.
pub(super) fn run<T: Payload, R: Payload>(
    inner: &Inner,
    calls: &Calls<T>,
    items: impl IntoIterator<Item = T>,
) -> Result<Vec<R>> {
    let size = plain_size::<T>().max(plain_size::<R>());
    let chunksize = |len| match is_plain::<T>() {
        true => ChunkSize::cached(len, inner.processes, size),
        false => ChunkSize::quarters(len, inner.processes),
    };
    let items = items.into_iter();
    match items.size_hint() {
        (len, Some(most)) if len == most => Feed::new(inner, calls, items, len, chunksize(len)).run(),
        _ => {
            let items: Vec<T> = items.collect();
            let len = items.len();
            Feed::new(inner, calls, items.into_iter(), len, chunksize(len)).run()
        }
    }
}

const fn plain_size<T: Payload>() -> usize {
    if is_plain::<T>() { size_of::<T>() } else { 0 }
}
