//! Maps whose items come little by little.

use super::Name;
use super::buffer::Buffer;
use super::caller::{Caller, Input, keeping};
use super::items::Array;
use super::map::{Feed, MapPending};
use super::stream::Part;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::private::Private;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A map whose chunks are given one by one, in any order and by any thread: [`Caller::feed`].
///
/// Each item is to be given once, with [`push`](Self::push) or [`fail`](Self::fail). What was not given when the last
/// clone of the feed is dropped fails with [`ErrorKind::Cancelled`]. A pool that is closed meanwhile takes the rest, and
/// [`Pool::join`](crate::Pool::join) waits for it; so whoever feeds must not be who joins.
#[derive(Clone)]
pub struct MapFeed {
    fed: Arc<Fed>,
}

struct Fed {
    feed: Feed,
    len: usize,
    given: Mutex<Ranges>,
}

/// Items, as ranges that do not touch each other: where each begins, and ends.
#[derive(Default)]
struct Ranges {
    ends: BTreeMap<usize, usize>,
    items: usize,
}

impl Ranges {
    /// What is missing of a range.
    fn gaps(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let mut gaps = Vec::new();
        let before = self.ends.range(..range.start).next_back().map_or(0, |(_, &end)| end);
        let mut at = range.start.max(before);
        for (&start, &end) in self.ends.range(range.start..range.end) {
            if at < start {
                gaps.push(at..start);
            }
            at = end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Adds a range of which nothing was there.
    fn add(&mut self, mut range: Range<usize>) {
        self.items += range.len();
        if let Some((&start, &end)) = self.ends.range(..range.start).next_back()
            && end == range.start
        {
            range.start = start;
        }
        if let Some(end) = self.ends.remove(&range.end) {
            range.end = end;
        }
        self.ends.insert(range.start, range.end);
    }
}

impl MapFeed {
    pub(super) fn new(caller: &Caller, name: Name, items: usize) -> Result<Self> {
        let feed = Feed::new(caller, name, items)?;
        if items > 0 {
            // Before the pool can be closed and see that nothing is left to do.
            caller.inner.streams.fetch_add(1, Private::AcqRel);
            caller.inner.feeds.fetch_add(1, Private::AcqRel);
        }
        Ok(MapFeed { fed: Arc::new(Fed { feed, len: items, given: Mutex::default() }) })
    }

    /// Gives the items from `first` on, which travel together and refer to the buffers that are to be kept. A single
    /// one travels as a call. If there is an error, nothing was submitted: with [`ErrorKind::Full`] or
    /// [`ErrorKind::ArenaFull`] it can be tried again.
    pub fn push(&self, first: usize, items: &[&[u8]], keep: &[Arc<Buffer>]) -> Result<()> {
        let feed = &self.fed.feed;
        let client = &feed.caller.inner.client;
        self.fed.give(first, items.len(), || match items {
            [item] => {
                let args = Input::Bytes(item).args(client, &feed.caller.terms)?;
                feed.submit_call(keeping(client, args, keep)?, first)
            }
            items => {
                let args = keeping(client, feed.table(items)?, keep)?;
                feed.submit_items(args, first, first + items.len(), 0)
            }
        })
    }

    /// The same for items of one size.
    pub fn push_array(&self, first: usize, items: Array<'_>, keep: &[Arc<Buffer>]) -> Result<()> {
        let feed = &self.fed.feed;
        let count = items.count()?;
        self.fed.give(first, count, || {
            let args = keeping(&feed.caller.inner.client, feed.copy(items, 0, count)?, keep)?;
            feed.submit_items(args, first, first + count, 0)
        })
    }

    /// The same for `count` items that a [function for chunks](super::Function::chunks) finds in these bytes by itself.
    pub fn push_whole(&self, first: usize, count: usize, bytes: &[u8], keep: &[Arc<Buffer>]) -> Result<()> {
        let feed = &self.fed.feed;
        if count > u32::MAX as usize {
            let error = format!("{count} items are more than a map can have: {}", u32::MAX);
            return Err(Error::invalid(error));
        }
        self.fed.give(first, count, || {
            let args = keeping(&feed.caller.inner.client, feed.whole(bytes, count)?, keep)?;
            feed.submit_items(args, first, first + count, 0)
        })
    }

    /// Lets those of `count` items from `first` on that have not been given fail with this error.
    pub fn fail(&self, first: usize, count: usize, error: Error) {
        if self.fed.feed.caller.check_process().is_ok() {
            self.fed.fail(first..first.saturating_add(count), &error);
        }
    }

    /// The outputs.
    pub fn pending(&self) -> MapPending {
        self.fed.feed.pending(self.fed.len)
    }
}

impl Fed {
    fn given(&self) -> MutexGuard<'_, Ranges> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits these items; those who give others at the same time come behind.
    fn give(&self, first: usize, count: usize, submit: impl FnOnce() -> Result<()>) -> Result<()> {
        let inner = &self.feed.caller.inner;
        inner.check_feeding()?;
        if count == 0 {
            return Ok(());
        }
        let mut given = self.given();
        let range = match first.checked_add(count) {
            Some(end) if end <= self.len => first..end,
            _ => {
                let error = format!("the map has {} items, and not {count} from {first} on", self.len);
                return Err(Error::invalid(error));
            }
        };
        if given.gaps(range.clone()) != std::slice::from_ref(&range) {
            let error = format!("of items {first} to {} some have been given already", range.end);
            return Err(Error::invalid(error));
        }
        submit()?;
        self.note(&mut given, range);
        Ok(())
    }

    /// Notes what was given.
    fn note(&self, given: &mut Ranges, range: Range<usize>) {
        given.add(range);
        if given.items == self.len {
            self.end();
        }
    }

    /// No more items will come.
    fn end(&self) {
        let inner = &self.feed.caller.inner;
        inner.end_stream();
        inner.feeds.fetch_sub(1, Private::AcqRel);
        inner.client.wake_waiters(); // one may be in `Pool::join`
    }

    fn fail(&self, range: Range<usize>, error: &Error) {
        let mut given = self.given();
        let gaps = given.gaps(range.start.min(self.len)..range.end.min(self.len));
        if gaps.is_empty() {
            return;
        }
        for gap in gaps {
            self.feed.sink.add(gap.start, Part::Failed(gap.len() as u32, error.clone()));
            self.note(&mut given, gap);
        }
        drop(given);
        self.feed.caller.inner.client.wake_waiters();
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        // A forked child's copy is nobody's feed.
        if self.feed.caller.check_process().is_ok() {
            self.fail(0..self.len, &ErrorKind::Cancelled.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_known() {
        let mut ranges = Ranges::default();
        let gap = |ranges: &Ranges, range| match &ranges.gaps(range)[..] {
            [gap] => gap.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(gap(&ranges, 3..9), 3..9);
        assert!(ranges.gaps(4..4).is_empty());
        ranges.add(4..6);
        ranges.add(8..10);
        assert_eq!(ranges.gaps(0..12), [0..4, 6..8, 10..12]);
        assert_eq!(gap(&ranges, 5..9), 6..8);
        assert_eq!(gap(&ranges, 9..11), 10..11);
        assert!(ranges.gaps(4..6).is_empty() && ranges.gaps(5..6).is_empty());
        ranges.add(6..8);
        assert_eq!((ranges.ends.len(), ranges.items), (1, 6));
        assert_eq!(ranges.gaps(0..20), [0..4, 10..20]);
        ranges.add(10..11);
        ranges.add(3..4);
        assert_eq!(ranges.ends, BTreeMap::from([(3, 11)]));
    }
}
