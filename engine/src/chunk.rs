//! The results of a chunk of a `map`, readable up to the last finished item even if the writer was
//! killed in the middle of the next.
//!
//! A chunk is a sequence of segments, each 16-byte aligned:
//!
//! ```text
//!  0      4      8              16                            16 + data
//!  +------+------+--------------+-----------------------------+---------+
//!  | kind | count|     len      | data                        | padding | next segment ..
//!  +------+------+--------------+-----------------------------+---------+
//! ```
//!
//! | kind | items | `len` | data |
//! | --- | --- | --- | --- |
//! | 0x100 | `count` values, or all that are left while it is `u32::MAX` | size of one value | the values, side by side |
//! | [`Status::Value`] | one | size of the archive | the archive |
//! | another [`Status`] | `count`, all with this failure | size of the text | the text |
//!
//! One with no item at all is passed over: of many values, those of a long run lie behind such a gap.
//!
//! Results of functions over [bytes](crate::raw) are runs of values of one size as long as they are short and
//! equally long, and archives of any bytes otherwise.
//!
//! Nothing but `done` says how much of this counts. It is stored with `Release` after an item is
//! complete, and what is written later never changes what an earlier `done` covers: the count of the last
//! segment may be that of before, of after, or `OPEN`, and all three are cut to `done`.

use crate::error::{Error, Result};
use crate::payload::{
    Grow, Payload, Room, Span, flat_bytes, is_flat, is_plain, put_after, put_items_after, take, take_flat,
};
use crate::raw::Output;
use crate::sync::{AtomicU32, Ordering};
use crate::task::{Status, describe};

/// A run of flat values; the other kinds are those of [`Status`].
const FLAT: u32 = 0x100;
/// The count of a flat run that is being written.
const OPEN: u32 = u32::MAX;
const HEADER: usize = 16;
/// Kept free behind every segment, for one that says that there is no more room.
const RESERVE: usize = 128;
/// Bytes of a function over bytes that may travel in a run of equally long ones.
const SHORT: usize = 64;
/// Where the values of a long run begin that is the first segment: half a page further than the items from which they are
/// made, which lie at the beginning of a block, too. Where both are equally far into their pages, a processor
/// that compares only that far takes each load of an item for one of the value stored just before, and waits.
const APART: usize = 2048;
/// Bytes of a long run, at least: eight such gaps.
const LONG: usize = 8 * APART;
/// How much text that segment can have, after padding and header.
const RESERVE_TEXT: usize = RESERVE - 15 - HEADER;

#[inline]
const fn align(at: usize) -> usize {
    at.next_multiple_of(16)
}

/// Writes the results of a chunk, item by item.
///
/// Every item gets a segment, come what may: if memory runs out, the ones that do not fit become
/// failures that say so, and smaller ones after them are still written.
pub struct ChunkWriter<'r, 'g> {
    room: &'r mut Room<'g>,
    /// Where the bytes that count end.
    used: usize,
    done: &'r AtomicU32,
    items: u32,
    last: Last,
}

/// The segment that the next item may join, and where its header is.
#[derive(Clone, Copy)]
enum Last {
    Closed,
    Flat { at: usize, size: usize, count: u32 },
    Full { at: usize, count: u32 },
}

impl<'r, 'g> ChunkWriter<'r, 'g> {
    /// Makes room for a chunk of `items` values of type `T`, or at least for one failure.
    pub(crate) fn reserve<T: Payload>(room: &mut Room<'_>, items: usize) -> Result<()> {
        Self::reserve_expected(room, expected::<T>(items))
    }

    /// The same for results of most likely so many bytes.
    pub(crate) fn reserve_bytes(room: &mut Room<'_>, bytes: usize) -> Result<()> {
        Self::reserve_expected(room, bytes.saturating_add(HEADER + RESERVE))
    }

    fn reserve_expected(room: &mut Room<'_>, bytes: usize) -> Result<()> {
        match room.reserve(0, bytes) {
            Err(error) if error.is_arena_full() => room.reserve(0, RESERVE),
            other => other,
        }
    }

    /// Begins a chunk at the start of a room in which [there is some](Self::reserve).
    pub(crate) fn new(room: &'r mut Room<'g>, done: &'r AtomicU32) -> Self {
        ChunkWriter { room, used: 0, done, items: 0, last: Last::Closed }
    }

    /// How many items there are.
    #[inline]
    pub fn items(&self) -> u32 {
        self.items
    }

    /// Adds an item's value. If it cannot be written, the item becomes a failure.
    ///
    /// Should the value's `Serialize` panic, nothing was added.
    #[inline]
    pub fn push<T: Payload>(&mut self, value: &T) {
        let written = match flat_bytes(value) {
            Some(bytes) => self.push_flat(bytes),
            None => self.push_archive(|span, base, room| put_after(value, span, base, room)),
        };
        self.pushed(written);
    }

    /// Adds an item whose value is a `Vec` of these, in the same way.
    pub(crate) fn push_items<T: Payload>(&mut self, values: &[T]) {
        let written = self.push_archive(|span, base, room| put_items_after(values, span, base, room));
        self.pushed(written);
    }

    #[inline]
    fn pushed(&mut self, written: Result<()>) {
        match written {
            Ok(()) => self.count_item(),
            Err(error) => {
                let (status, text) = describe(&error, Status::BadValue);
                self.push_failure(status, &text);
            }
        }
    }

    /// Adds the values that `value` makes of these items, as far as there is room without growing; it is
    /// told each item's number in the chunk. Ends early at an item without a value, and says why there is
    /// none. Should `value` panic, all items before that are there.
    ///
    /// Only for [plain](is_plain) values, of others it adds none: one loop, with two stores for an item, its
    /// value and `done`.
    #[inline]
    pub fn push_values<I, T: Payload, E>(
        &mut self,
        items: &[I],
        mut value: impl FnMut(u32, &I) -> Result<T, E>,
    ) -> Option<E> {
        if const { !is_plain::<T>() } {
            return None;
        }
        self.open_long_run(items.len().saturating_mul(size_of::<T>()));
        let (at, count, start) = self.flat_run(size_of::<T>());
        let free = self.room.span.cap.saturating_sub(start + RESERVE);
        let fit = free.checked_div(size_of::<T>()).unwrap_or(items.len()).min(items.len());
        if fit == 0 {
            return None;
        }
        if count == 0 {
            self.close();
            self.header(at, FLAT, OPEN, size_of::<T>());
        }
        let (done, before) = (self.done, self.items);
        // SAFETY: `fit` values fit behind `start`, as computed above.
        let mut place = unsafe { self.room.span.ptr.as_ptr().add(start) }.cast::<T>();
        let mut run = Added { writer: self, at, count, start, size: size_of::<T>(), before, items: before };
        for item in &items[..fit] {
            let value = match value(run.items, item) {
                Ok(value) => value,
                Err(error) => return Some(error),
            };
            // SAFETY: there is room for it, which the span lets us write; see `place`.
            unsafe { place.write_unaligned(value) };
            place = place.wrapping_add(1);
            run.items += 1;
            // As in `count_item`.
            done.store(run.items, Ordering::Release);
        }
        None
    }

    /// Where the next value of a run of flat ones goes: its header, how many there are, and the value.
    #[inline]
    fn flat_run(&self, size: usize) -> (usize, u32, usize) {
        match self.last {
            Last::Flat { at, size: same, count } if same == size => (at, count, self.used),
            _ => (align(self.used), 0, align(self.used) + HEADER),
        }
    }

    /// Moves a long run of so many bytes away from its items, if it is the first and there is room for all of it.
    fn open_long_run(&mut self, bytes: usize) {
        let gap = gap_before(bytes);
        if self.used == 0 && gap > 0 && self.room.span.cap >= run_bytes(gap, bytes) {
            self.header(0, Status::Failed as u32, 0, gap - HEADER);
            self.used = gap;
        }
    }

    #[inline]
    fn push_flat(&mut self, bytes: &[u8]) -> Result<()> {
        let (at, count, start) = self.flat_run(bytes.len());
        self.room.reserve(self.used, start + bytes.len() + RESERVE)?;
        if count == 0 {
            self.close();
            self.header(at, FLAT, OPEN, bytes.len());
        }
        self.room.span.copy_in(start, bytes);
        self.used = start + bytes.len();
        self.last = Last::Flat { at, size: bytes.len(), count: count + 1 };
        Ok(())
    }

    /// Adds an item with these bytes, which are at most [`SHORT`]; more become a failure.
    #[inline]
    pub(crate) fn push_short(&mut self, bytes: &[u8]) {
        let written = match bytes.len() {
            0..=SHORT => self.push_flat(bytes),
            len => Err(Error::payload(format!("{len} bytes are not short"))),
        };
        self.pushed(written);
    }

    fn push_archive(
        &mut self,
        put: impl FnOnce(Span, usize, &mut dyn Grow) -> Result<(Span, usize)>,
    ) -> Result<()> {
        let at = align(self.used);
        let start = at + HEADER;
        self.room.reserve(self.used, start + RESERVE)?;
        let (_, end) = put(self.room.span, start, self.room)?;
        self.room.reserve(end, end + RESERVE)?;
        self.close();
        self.header(at, Status::Value as u32, 1, end - start);
        self.used = end;
        Ok(())
    }

    /// Adds an item whose bytes `write` makes, or its failure.
    pub(crate) fn push_written(
        &mut self,
        write: impl FnOnce(&mut Output<'_, 'g>) -> Result<(), (Status, Vec<u8>)>,
    ) {
        let start = align(self.used) + HEADER;
        if let Err(error) = self.room.reserve(self.used, start + RESERVE) {
            return self.pushed(Err(error));
        }
        let mut output = Output::new(self.room, start);
        let written = write(&mut output);
        let end = output.end();
        match written {
            Ok(()) => {
                let written = self.keep_written(start, end);
                self.pushed(written);
            }
            Err((status, text)) => self.push_failure(status, &text),
        }
    }

    /// Makes what was written behind the place of a header a segment, or part of a run.
    fn keep_written(&mut self, start: usize, end: usize) -> Result<()> {
        let len = end - start;
        if len <= SHORT {
            let mut short = [0; SHORT];
            self.room.span.copy_out(start, &mut short[..len]);
            return self.push_flat(&short[..len]);
        }
        self.room.reserve(end, end + RESERVE)?;
        self.close();
        self.header(start - HEADER, Status::Value as u32, 1, len);
        self.used = end;
        Ok(())
    }

    /// Adds `count` items at once, whose values of `size` bytes `make` writes side by side, or the one failure
    /// of all of them. `finished` is called before they count.
    pub(crate) fn push_together(
        &mut self,
        count: u32,
        size: usize,
        make: impl FnOnce(&mut [u8]) -> Result<(), (Status, Vec<u8>)>,
        finished: impl FnOnce(),
    ) {
        let at = align(self.used);
        let start = at + HEADER;
        let end = (count as usize).checked_mul(size).and_then(|bytes| bytes.checked_add(start + RESERVE));
        let reserved = match end {
            Some(end) => self.room.reserve(self.used, end),
            None => {
                Err(Error::payload(format!("{count} values of {size} bytes are more than an address space")))
            }
        };
        let made = match reserved {
            Ok(()) => make(self.room.span.bytes_mut(start, count as usize * size)),
            Err(error) => Err(describe(&error, Status::BadValue)),
        };
        match made {
            Ok(()) => {
                self.close();
                self.header(at, FLAT, count, size);
                self.used = start + count as usize * size;
                finished();
                self.count_items(count);
            }
            Err((status, text)) => self.push_failures(count, status, &text),
        }
    }

    /// Adds an item that failed, with the bytes that belong to the status.
    #[cold]
    pub fn push_failure(&mut self, status: Status, text: &[u8]) {
        self.push_failures(1, status, text);
    }

    /// Adds items that all failed in this way.
    #[cold]
    fn push_failures(&mut self, count: u32, status: Status, text: &[u8]) {
        let at = align(self.used);
        let end = at + HEADER + text.len();
        match self.room.reserve(self.used, end + RESERVE) {
            Ok(()) => {
                self.close();
                self.header(at, status as u32, count, text.len());
                self.room.span.copy_in(at + HEADER, text);
                self.used = end;
            }
            Err(error) => self.push_full(count, &error),
        }
        self.count_items(count);
    }

    /// Adds items for which there was no room, not even for their failure.
    fn push_full(&mut self, items: u32, error: &Error) {
        // The reserve is gone only if the last segment is one of these, which these items join.
        if let Last::Full { at, count } = self.last {
            self.room.span.copy_in(at + 4, &(count + items).to_le_bytes());
            self.last = Last::Full { at, count: count + items };
            return;
        }
        let (status, mut text) = describe(error, Status::BadValue);
        text.truncate(RESERVE_TEXT);
        self.close();
        let at = align(self.used);
        self.header(at, status as u32, items, text.len());
        self.room.span.copy_in(at + HEADER, &text);
        self.used = at + HEADER + text.len();
        self.last = Last::Full { at, count: items };
    }

    /// Ends the last segment, so that another can follow.
    fn close(&mut self) {
        if let Last::Flat { at, count, .. } = self.last {
            self.room.span.copy_in(at + 4, &count.to_le_bytes());
        }
        self.last = Last::Closed;
    }

    #[inline]
    fn header(&mut self, at: usize, kind: u32, count: u32, len: usize) {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[4..8].copy_from_slice(&count.to_le_bytes());
        header[8..].copy_from_slice(&(len as u64).to_le_bytes());
        self.room.span.copy_in(at, &header);
    }

    #[inline]
    fn count_item(&mut self) {
        self.count_items(1);
    }

    #[inline]
    fn count_items(&mut self, count: u32) {
        self.items += count;
        // Pairs with the reader's load of `done`: what it counts is written.
        self.done.store(self.items, Ordering::Release);
    }

    /// How much of the room is used.
    pub fn finish(mut self) -> usize {
        self.close();
        self.used
    }
}

/// Bytes that the results of so many items will most likely take, for those that are not flat within reason.
fn expected<T: Payload>(items: usize) -> usize {
    if is_flat::<T>() {
        let bytes = items.saturating_mul(size_of::<T>());
        return run_bytes(gap_before(bytes), bytes);
    }
    let bytes = items.saturating_mul(HEADER + align(size_of::<T::Archived>())).min(1 << 20);
    bytes.saturating_add(RESERVE)
}

/// Bytes before the header of a first run of so many bytes.
const fn gap_before(bytes: usize) -> usize {
    if bytes >= LONG { APART - HEADER } else { 0 }
}

/// Bytes of a chunk that is a run of so many bytes behind a gap.
const fn run_bytes(gap: usize, bytes: usize) -> usize {
    bytes.saturating_add(gap + HEADER + RESERVE)
}

/// What [`push_values`](ChunkWriter::push_values) has added; told to the writer at the end, whatever that is.
struct Added<'w, 'r, 'g> {
    writer: &'w mut ChunkWriter<'r, 'g>,
    at: usize,
    count: u32,
    start: usize,
    size: usize,
    /// How many items there were.
    before: u32,
    /// How many there are.
    items: u32,
}

impl Drop for Added<'_, '_, '_> {
    #[inline]
    fn drop(&mut self) {
        let added = self.items - self.before;
        if added > 0 {
            self.writer.used = self.start + added as usize * self.size;
            self.writer.items = self.items;
            self.writer.last = Last::Flat { at: self.at, size: self.size, count: self.count + added };
        }
    }
}

/// Reads the results of a chunk, also of one whose writer was killed. It trusts nothing that it reads.
pub struct ChunkReader<'a> {
    bytes: &'a [u8],
    /// Where the bytes not yet read begin.
    at: usize,
    /// Items not yet read.
    left: u32,
    run: Run<'a>,
}

/// The segment that is being read.
#[derive(Clone, Copy)]
enum Run<'a> {
    None,
    Flat { left: u32, size: usize },
    Archive(&'a [u8]),
    Failure { left: u32, status: Status, text: &'a [u8] },
}

impl Run<'_> {
    /// Runs that are not `None` have items.
    #[inline]
    fn of(left: u32, run: impl FnOnce(u32) -> Self) -> Self {
        if left == 0 { Run::None } else { run(left) }
    }
}

impl<'a> ChunkReader<'a> {
    /// Reads the first `done` items from `bytes`, which may go on behind the chunk. They begin where the
    /// chunk begins. The caller has made sure that `done` is not more than the chunk's items.
    pub fn new(bytes: &'a [u8], done: u32) -> Self {
        ChunkReader { bytes, at: 0, left: done, run: Run::None }
    }

    /// How many items there are still to read.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// The next item: its value or its failure. The outer error means that the bytes are no chunk; then
    /// there is no item after it.
    pub fn next<T: Payload>(&mut self) -> Option<Result<Result<T>>> {
        if self.left == 0 {
            return None;
        }
        let item = self.read::<T>();
        match item {
            Ok(_) => self.left -= 1,
            Err(_) => self.left = 0,
        }
        Some(item)
    }

    fn read<T: Payload>(&mut self) -> Result<Result<T>> {
        let run = self.current(takes::<T>)?;
        match run {
            Run::None => unreachable!("`current` gives none"),
            Run::Flat { left, size } => {
                let value = take::<T>(self.advance(size)?)?;
                self.run = Run::of(left - 1, |left| Run::Flat { left, size });
                Ok(Ok(value))
            }
            Run::Archive(archive) => {
                self.run = Run::None;
                Ok(take::<T>(archive))
            }
            Run::Failure { left, status, text } => {
                self.run = Run::of(left - 1, |left| Run::Failure { left, status, text });
                Ok(Err(status.error(text)))
            }
        }
    }

    /// If flat values are next, appends the whole run of them to `out`: how many.
    pub fn read_flat_into<T: Payload>(&mut self, out: &mut Vec<T>) -> Result<u32> {
        if self.left == 0 || !is_flat::<T>() {
            return Ok(0);
        }
        let read = self.read_run(out);
        match read {
            Ok(count) => self.left -= count,
            Err(_) => self.left = 0,
        }
        read
    }

    fn read_run<T: Payload>(&mut self, out: &mut Vec<T>) -> Result<u32> {
        let Run::Flat { left, size } = self.current(takes::<T>)? else { return Ok(0) };
        let len = (left as usize).checked_mul(size).ok_or_else(|| cut(self.at, usize::MAX))?;
        take_flat(self.advance(len)?, left as usize, out)?;
        self.run = Run::None;
        Ok(left)
    }

    /// The next items that are equally long and lie side by side, or that failed in the same way. As with
    /// [`next`](Self::next), there is no item after an error.
    pub(crate) fn next_bytes(&mut self) -> Option<Result<BytesRun<'a>>> {
        if self.left == 0 {
            return None;
        }
        let run = self.read_bytes();
        match &run {
            Ok(run) => self.left -= run.count,
            Err(_) => self.left = 0,
        }
        Some(run)
    }

    fn read_bytes(&mut self) -> Result<BytesRun<'a>> {
        let run = self.current(|_| true)?;
        self.run = Run::None;
        Ok(match run {
            Run::None => unreachable!("`current` gives none"),
            Run::Flat { left, size } => {
                let len = (left as usize).checked_mul(size).ok_or_else(|| cut(self.at, usize::MAX))?;
                BytesRun { count: left, values: Ok((self.advance(len)?, size)) }
            }
            Run::Archive(bytes) => BytesRun { count: 1, values: Ok((bytes, bytes.len())) },
            Run::Failure { left, status, text } => BytesRun { count: left, values: Err(status.error(text)) },
        })
    }

    /// The run that the next item is in. `takes` says whether the reader takes flat values of a size.
    fn current(&mut self, takes: fn(usize) -> bool) -> Result<Run<'a>> {
        while let Run::None = self.run {
            self.run = self.segment(takes)?;
        }
        Ok(self.run)
    }

    fn segment(&mut self, takes: fn(usize) -> bool) -> Result<Run<'a>> {
        self.at = align(self.at);
        let at = self.at;
        let header = self.advance(HEADER)?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (kind, count) = (word(0), word(4));
        let len = u64::from(word(8)) | u64::from(word(12)) << 32;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        // An open run, and a last segment that was counted before `done`, go as far as `done`.
        let count = count.min(self.left);
        if kind == FLAT {
            if !takes(len) {
                return Err(wrong(at, format_args!("values of {len} bytes")));
            }
            return Ok(Run::of(count, |left| Run::Flat { left, size: len }));
        }
        let data = self.advance(len)?;
        match Status::from_u32(kind) {
            Some(Status::Value) => Ok(Run::Archive(data)),
            None | Some(Status::Chunk) => Err(wrong(at, format_args!("kind {kind:#x}"))),
            Some(status) => Ok(Run::of(count, |left| Run::Failure { left, status, text: data })),
        }
    }

    fn advance(&mut self, len: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| cut(self.at, len))?;
        let data = &self.bytes[self.at..end];
        self.at = end;
        Ok(data)
    }
}

/// Some results of a chunk, as bytes.
pub(crate) struct BytesRun<'a> {
    /// How many they are.
    pub count: u32,
    /// Their bytes and the size of each, or why there are none.
    pub values: Result<(&'a [u8], usize)>,
}

/// Whether values of this type are flat and so long.
fn takes<T: Payload>(size: usize) -> bool {
    is_flat::<T>() && size == size_of::<T>()
}

#[cold]
fn cut(at: usize, len: usize) -> Error {
    Error::corrupted(format!("results end before byte {at} + {len}"))
}

#[cold]
fn wrong(at: usize, what: std::fmt::Arguments<'_>) -> Error {
    Error::corrupted(format!("results have a segment at {at} with {what}"))
}
