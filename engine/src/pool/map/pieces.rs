//! What comes back from the tasks of a map, and how it is put together.

use super::super::callbacks::Followers;
use super::super::result::bytes_of;
use crate::chunk::ChunkReader;
use crate::client::{Key, Outcome, ResultBytes, Sink, Tiny};
use crate::error::{Error, Result};
use crate::payload::{self, Payload};
use crate::sync::private::{Private, PrivateUsize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// Puts pieces in the order of their items.
#[derive(Default)]
struct InOrder {
    /// How many items have had their turn.
    items: usize,
    /// What has come before its turn, by the index of its first item.
    early: BTreeMap<usize, Piece>,
}

impl InOrder {
    /// Hands on what has its turn now that this piece is there.
    fn add(&mut self, index: usize, piece: Piece, mut each: impl FnMut(Piece)) {
        if index != self.items {
            self.early.insert(index, piece);
            return;
        }
        let mut next = Some(piece);
        while let Some(piece) = next {
            self.items += piece.len();
            each(piece);
            let entry = self.early.first_entry().filter(|entry| *entry.key() == self.items);
            next = entry.map(|entry| entry.remove());
        }
    }
}

/// The values of pieces, which are let go as soon as they are copied.
pub(super) struct Values<R> {
    order: InOrder,
    values: Vec<R>,
    /// That of the first item that has one.
    failure: Option<Error>,
}

impl<R: Payload> Values<R> {
    /// Expects so many values.
    pub(super) fn new(len: usize) -> Self {
        Values { order: InOrder::default(), values: Vec::with_capacity(len), failure: None }
    }

    pub(super) fn add(&mut self, index: usize, piece: Piece) {
        let (values, failure) = (&mut self.values, &mut self.failure);
        self.order.add(index, piece, |piece| {
            if failure.is_none() {
                *failure = piece.append(values).err();
            }
        });
    }

    pub(super) fn finish(self) -> Result<Vec<R>> {
        self.failure.map_or(Ok(self.values), Err)
    }
}

/// Pieces that are kept, in the order of their items.
#[derive(Default)]
pub(super) struct Kept {
    order: InOrder,
    /// Those of the first items, without a gap.
    pub(super) pieces: Vec<Piece>,
}

/// Where the outcomes of a map arrive. The tag of a task is the index of its first item.
pub(crate) struct MapSink {
    /// Items without an outcome; [`UNKNOWN`] more until it is known how many there are.
    left: PrivateUsize,
    /// What has come and was not taken.
    arrived: Mutex<Vec<(usize, Piece)>>,
    /// How many of these there are, so that nobody needs the lock to find none.
    news: PrivateUsize,
    /// For results that can be asked for more than once. Locked as long as somebody reads them, so never
    /// by a [`Sink`].
    kept: Mutex<Kept>,
    pub(super) followers: Followers,
}

/// More items than there can be.
const UNKNOWN: usize = usize::MAX / 2;

impl MapSink {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(MapSink {
            left: PrivateUsize::new(UNKNOWN),
            arrived: Mutex::default(),
            news: PrivateUsize::new(0),
            kept: Mutex::default(),
            followers: Followers::default(),
        })
    }

    fn arrived(&self) -> MutexGuard<'_, Vec<(usize, Piece)>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Items without an outcome, once it is known how many there are.
    pub(super) fn left(&self) -> usize {
        self.left.load(Private::Acquire)
    }

    pub(super) fn is_done(&self) -> bool {
        self.left() == 0
    }

    /// How many items have an outcome, as long as it is not known how many there are.
    pub(super) fn settled(&self) -> usize {
        UNKNOWN - self.left()
    }

    /// Says how many there are.
    pub(super) fn expect(&self, items: usize) {
        self.settle(UNKNOWN - items);
    }

    pub(super) fn has_news(&self) -> bool {
        self.news.load(Private::Acquire) > 0
    }

    pub(super) fn add(&self, index: usize, piece: Piece) {
        let count = piece.len();
        let mut arrived = self.arrived();
        arrived.push((index, piece));
        self.news.store(arrived.len(), Private::Release);
        drop(arrived);
        self.settle(count);
    }

    /// So many items have an outcome, or do not exist.
    fn settle(&self, count: usize) {
        if self.left.fetch_sub(count, Private::AcqRel) == count {
            self.followers.release();
        }
    }

    /// Takes what has come. What was settled before is among it.
    pub(super) fn take(&self, mut each: impl FnMut(usize, Piece)) {
        if self.has_news() {
            let arrived = {
                let mut arrived = self.arrived();
                self.news.store(0, Private::Relaxed);
                std::mem::take(&mut *arrived)
            };
            arrived.into_iter().for_each(|(index, piece)| each(index, piece));
        }
    }

    /// What has come of the first items, as far as there is no gap; it stays. Waits for whoever reads it.
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        self.keep(&mut kept);
        kept
    }

    fn keep(&self, kept: &mut Kept) {
        let Kept { order, pieces } = kept;
        self.take(|index, piece| order.add(index, piece, |piece| pieces.push(piece)));
    }

    /// The values of all `len` items, or the error of the first that failed; the pieces stay. While they are
    /// not all there, `wait` is called, which is to wait for more.
    pub(super) fn gather<R: Payload>(&self, len: usize, mut wait: impl FnMut()) -> Result<Vec<R>> {
        let mut kept = self.kept();
        let mut values = Vec::with_capacity(len);
        let mut failure = None;
        let mut next = 0;
        loop {
            let done = self.is_done(); // asked before what has come is taken
            self.keep(&mut kept);
            for piece in &kept.pieces[next..] {
                if failure.is_none() {
                    failure = piece.append(&mut values).err();
                }
            }
            next = kept.pieces.len();
            if done {
                return failure.map_or(Ok(values), Err);
            }
            wait();
        }
    }

    /// The same once all are there.
    pub(super) fn values<R: Payload>(&self, len: usize) -> Result<Vec<R>> {
        self.gather(len, || unreachable!("whoever asks has seen that all are done"))
    }
}

impl Sink for MapSink {
    fn deliver(&self, tag: u64, outcome: Outcome, _: &mut Key) {
        let (first, piece) = Piece::new(outcome);
        self.add(tag as usize + first as usize, piece);
    }
}
