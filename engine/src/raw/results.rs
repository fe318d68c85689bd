//! Outputs, where they lie.

use super::stream::Part;
use crate::chunk::ChunkReader;
use crate::client::{ResultBytes, Tiny};
use crate::error::{Error, Result};
use crate::pool::Single;
use crate::segment::Segment;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// The output of a call as it lies in shared memory; dropping it gives the memory back. It stays readable after the
/// pool has gone. A forked child does not have the memory.
///
/// Aligned to 16 bytes if it is longer than 8, else to 8; outputs of a chunk that are equally long, and no longer
/// than 64 bytes, lie side by side.
pub struct Bytes(Held);

enum Held {
    Own(ResultBytes),
    Call(Arc<Single>),
    Part(Arc<ResultBytes>, Range<usize>),
}

impl Bytes {
    #[inline]
    pub(super) fn tiny(value: Tiny) -> Self {
        Bytes(Held::Own(ResultBytes::Tiny(value)))
    }

    pub(super) fn own(bytes: ResultBytes) -> Self {
        Bytes(Held::Own(bytes))
    }

    /// The call is done, and well.
    pub(super) fn of_call(single: Arc<Single>) -> Self {
        Bytes(Held::Call(single))
    }

    pub(super) fn part(bytes: Arc<ResultBytes>, range: Range<usize>) -> Self {
        Bytes(Held::Part(bytes, range))
    }
}

impl Bytes {
    /// Whether they lie in shared memory, and are no copy: more than 40 bytes, unless the pool is hardened, or many
    /// results are kept already. Then they can be mapped [once more](super::Private::of_result).
    pub fn is_shared(&self) -> bool {
        self.segment().is_some()
    }

    /// The shared memory in which they lie.
    pub(super) fn segment(&self) -> Option<&Segment> {
        self.whole()?.segment()
    }

    /// What they are part of.
    fn whole(&self) -> Option<&ResultBytes> {
        match &self.0 {
            Held::Own(bytes) => Some(bytes),
            Held::Call(single) => single.outcome()?.as_ref().ok(),
            Held::Part(bytes, _) => Some(bytes),
        }
    }
}

impl Deref for Bytes {
    type Target = [u8];

    /// As long as the [`Bytes`] are not moved.
    fn deref(&self) -> &[u8] {
        let whole = self.whole().map(ResultBytes::as_slice).unwrap_or_default();
        match &self.0 {
            Held::Part(_, range) => whole.get(range.clone()).unwrap_or_default(),
            _ => whole,
        }
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bytes").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Outputs of many calls, each by itself: those of a map in the order of its items, or what was taken from a
/// [`Queue`](super::Queue).
#[derive(Default)]
pub struct Results {
    held: Vec<Arc<ResultBytes>>,
    runs: Vec<Run>,
    count: usize,
    /// What came with each item, if anything.
    tags: Vec<u64>,
}

/// Items one after the other.
struct Run {
    /// Index of the first.
    first: usize,
    count: usize,
    what: What,
}

enum What {
    /// In the bytes with this number, from `at` on, each of this size.
    Values {
        held: usize,
        at: usize,
        size: usize,
    },
    Failed(Error),
}

impl Results {
    /// Appends what has come of the items that are next.
    pub(super) fn push(&mut self, part: Part) {
        match part {
            Part::One(bytes) => {
                let what = What::Values { held: self.held.len(), at: 0, size: bytes.as_slice().len() };
                self.held.push(Arc::new(bytes));
                self.run(1, what);
            }
            Part::Failed(count, error) => self.run(count as usize, What::Failed(error)),
            Part::Many(count, bytes) => {
                let held = self.held.len();
                each_run(&bytes, count, |count, values| {
                    self.run(
                        count as usize,
                        match values {
                            Ok((at, size)) => What::Values { held, at, size },
                            Err(error) => What::Failed(error),
                        },
                    );
                });
                self.held.push(Arc::new(bytes));
            }
        }
    }

    pub(super) fn push_tagged(&mut self, tag: u64, part: Part) {
        self.push(part);
        self.tags.resize(self.count, tag);
    }

    fn run(&mut self, count: usize, what: What) {
        self.runs.push(Run { first: self.count, count, what });
        self.count += count;
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn find(&self, index: usize) -> Option<&Run> {
        if index >= self.count {
            return None;
        }
        let after = match self.runs.get(index) {
            Some(run) if run.first == index => index + 1, // each by itself
            _ => self.runs.partition_point(|run| run.first <= index),
        };
        self.runs.get(after.checked_sub(1)?)
    }

    /// The output of an item, or its error; `None` if there is no such item.
    pub fn get(&self, index: usize) -> Option<Result<&[u8], &Error>> {
        let run = self.find(index)?;
        Some(match &run.what {
            What::Values { held, at, size } => {
                let start = at + (index - run.first) * size;
                Ok(&self.held[*held].as_slice()[start..start + size])
            }
            What::Failed(error) => Err(error),
        })
    }

    /// The output of an item by itself, which outlives the others; or its error.
    pub fn bytes(&self, index: usize) -> Option<Result<Bytes, &Error>> {
        let run = self.find(index)?;
        Some(match &run.what {
            What::Values { held, at, size } => {
                let start = at + (index - run.first) * size;
                Ok(Bytes::part(self.held[*held].clone(), start..start + size))
            }
            What::Failed(error) => Err(error),
        })
    }

    /// The outputs from this item on that are equally long and lie side by side, with the size of each; or the
    /// error of the item.
    pub fn run_at(&self, index: usize) -> Option<Result<(&[u8], usize), &Error>> {
        let run = self.find(index)?;
        Some(match &run.what {
            What::Values { held, at, size } => {
                let start = at + (index - run.first) * size;
                let end = at + run.count * size;
                Ok((&self.held[*held].as_slice()[start..end], *size))
            }
            What::Failed(error) => Err(error),
        })
    }

    /// How many items the run has that begins with this one.
    pub fn run_len(&self, index: usize) -> usize {
        self.find(index).map_or(0, |run| run.first + run.count - index)
    }

    /// The tag with which an item was submitted to a queue.
    pub fn tag(&self, index: usize) -> Option<u64> {
        self.tags.get(index).copied()
    }

    /// The error of the first item that failed.
    pub fn first_error(&self) -> Option<&Error> {
        self.runs.iter().find_map(|run| match &run.what {
            What::Failed(error) => Some(error),
            What::Values { .. } => None,
        })
    }
}

/// Hands on the runs of a chunk's first `count` items: how many they are, and where their bytes begin and the size
/// of each, or their error.
pub(super) fn each_run(bytes: &ResultBytes, count: u32, mut each: impl FnMut(u32, Result<(usize, usize)>)) {
    let bytes = bytes.as_slice();
    let mut reader = ChunkReader::new(bytes, count);
    let mut given = 0;
    while let Some(run) = reader.next_bytes() {
        match run {
            Ok(run) => {
                given += run.count;
                let place =
                    |(values, size): (&[u8], usize)| (values.as_ptr().addr() - bytes.as_ptr().addr(), size);
                each(run.count, run.values.map(place));
            }
            Err(error) => {
                // The rest is unreadable, and every item gets an answer.
                each(count - given, Err(error));
                given = count;
                break;
            }
        }
    }
    if given < count {
        each(count - given, Err(Error::corrupted("a chunk's results end early")));
    }
}
