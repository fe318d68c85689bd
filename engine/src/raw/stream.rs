//! What comes of tasks, as it comes.

use crate::client::{Key, Outcome, ResultBytes, Sink, Tiny, UnderBooks};
use crate::error::Error;
use crate::pool::bytes_of;
use crate::sync::private::{Private, PrivateUsize};
use std::collections::VecDeque;

/// What came of neighbouring items.
pub(crate) enum Part {
    /// The output of one.
    One(ResultBytes),
    /// The outputs of so many items of a chunk.
    Many(u32, ResultBytes),
    /// So many items failed, all with this.
    Failed(u32, Error),
}

impl Part {
    /// From an outcome: the index of its first item in its task, and the part.
    pub(super) fn new(outcome: Outcome) -> (u32, Part) {
        match outcome {
            Outcome::Items { first, done, bytes } => (first, Part::Many(done, bytes)),
            Outcome::Range { first, end, error } => (first, Part::Failed(end - first, error)),
            other => match bytes_of(other) {
                Ok(bytes) => (0, Part::One(bytes)),
                Err(error) => (0, Part::Failed(1, error)),
            },
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Part::One(_) => 1,
            Part::Many(count, _) | Part::Failed(count, _) => *count as usize,
        }
    }
}

/// Where the outcomes of a stream of tasks arrive, with the tag of each, to which the index of its first item is
/// added.
#[derive(Default)]
pub(super) struct StreamSink {
    arrived: UnderBooks<VecDeque<(u64, Part)>>,
    /// How many are there, so that nobody needs the books to find none.
    count: PrivateUsize,
}

impl StreamSink {
    fn arrived<'a>(&'a self, key: &'a mut Key) -> &'a mut VecDeque<(u64, Part)> {
        // SAFETY: a stream has one client, and nothing else gets at them.
        unsafe { self.arrived.get(key) }
    }

    fn add(&self, tag: u64, part: Part, key: &mut Key) {
        let arrived = self.arrived(key);
        arrived.push_back((tag, part));
        // Only holders of the books write it.
        self.count.store(arrived.len(), Private::Release);
    }

    /// Appends all that is there to `to`.
    pub(super) fn take(&self, to: &mut VecDeque<(u64, Part)>, key: &mut Key) {
        let arrived = self.arrived(key);
        if to.is_empty() {
            std::mem::swap(to, arrived);
        } else {
            to.append(arrived);
        }
        self.count.store(0, Private::Release);
    }

    /// The first `most` of what is there.
    pub(super) fn take_some(&self, most: usize, key: &mut Key) -> VecDeque<(u64, Part)> {
        let arrived = self.arrived(key);
        let rest = arrived.split_off(most.min(arrived.len()));
        let taken = std::mem::replace(arrived, rest);
        self.count.store(arrived.len(), Private::Release);
        taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Private::Acquire) == 0
    }
}

impl Sink for StreamSink {
    fn deliver(&self, tag: u64, outcome: Outcome, key: &mut Key) {
        let (first, part) = Part::new(outcome);
        self.add(tag + u64::from(first), part, key);
    }

    fn deliver_tiny(&self, tag: u64, value: Tiny, key: &mut Key) {
        self.add(tag, Part::One(ResultBytes::Tiny(value)), key);
    }
}
