//! Functions over bytes, as a worker calls them.

use super::claimed::Claimed;
use super::items::Block;
use crate::chunk::ChunkWriter;
use crate::error::{Error, Result};
use crate::payload::Room;
use crate::task::{Call, Panic, Return, Shape, Status, catch, describe, panic_text, registry, write_text};
use std::ptr::NonNull;

/// Makes `function` known in this process as `name`, to be called by that name.
///
/// Workers know what was registered before they came into being: before the pool started, if they are forks, or
/// before [`init`](crate::init). A name has 1 to 63 bytes. Registering a function again changes nothing if both
/// have the same [identity](Function::identity); another function under the same name is an error.
pub fn register(name: &str, function: Function) -> Result<()> {
    registry::register_raw(name, function)
}

/// A function over bytes.
pub struct Function {
    run: Run,
    /// For chunks, if it does these by itself.
    chunks: Option<KeptChunks>,
    identity: Option<[usize; 4]>,
}

type Single<'f> = dyn Fn(&[u8], &mut Output<'_, '_>) -> Result<(), Failure> + 'f;
type Whole = dyn Fn(Batch<'_>) -> Result<(), Failure>;
type KeptSingle = Box<dyn Fn(&[u8], &mut Output<'_, '_>) -> Result<(), Failure> + Send + Sync>;
type KeptChunks = Box<dyn Fn(&mut Chunk<'_, '_>) + Send + Sync>;
type KeptWhole = Box<dyn Fn(Batch<'_>) -> Result<(), Failure> + Send + Sync>;

enum Run {
    /// Called for each input.
    Single(KeptSingle),
    /// Called for a chunk of inputs of one size, which have outputs of one size.
    Array { item: usize, value: usize, run: KeptWhole },
}

/// Why a function failed: a code, which is the function's own business, and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub code: i32,
    /// The text.
    pub message: String,
}

impl Failure {
    /// A failure with this code and text.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Failure { code, message: message.into() }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    /// Code 1, and the error's text.
    fn from(error: E) -> Self {
        Failure::new(1, error.to_string())
    }
}

/// What a function for whole chunks works on.
pub struct Batch<'a> {
    /// All inputs, side by side, aligned to 16 bytes unless the chunk begins within an array whose items are
    /// not; then to the items' own size.
    pub items: &'a [u8],
    /// How many inputs there are.
    pub count: usize,
    /// The size of each.
    pub item_size: usize,
    /// Room for so many outputs, side by side, aligned to 16 bytes. All of it has to be written.
    pub values: &'a mut [u8],
    /// The size of each output.
    pub value_size: usize,
}

impl Function {
    /// A function that is called with its input, and writes its output.
    pub fn new(
        run: impl Fn(&[u8], &mut Output<'_, '_>) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        Function { run: Run::Single(Box::new(run)), chunks: None, identity: None }
    }

    /// A function that is called once for each chunk of an array: items of `item_size` bytes in, values of
    /// `value_size` bytes out. If it fails, or its worker dies, all items of the chunk have failed. Called with a
    /// single input, it works on as many items as fit into that.
    pub fn array(
        item_size: usize,
        value_size: usize,
        run: impl Fn(Batch<'_>) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        let run = Run::Array { item: item_size, value: value_size, run: Box::new(run) };
        Function { run, chunks: None, identity: None }
    }

    /// Has `run` called once for a chunk of a map, in the place of the function itself for each item. It takes the
    /// items one by one, and gives each its output before it takes the next: if its worker dies, just that item has
    /// failed.
    pub fn chunks(self, run: impl Fn(&mut Chunk<'_, '_>) + Send + Sync + 'static) -> Self {
        Function { chunks: Some(Box::new(run)), ..self }
    }

    /// Says that all functions with these words are the same, so that they may be registered more than once.
    pub fn identity(self, words: [usize; 4]) -> Self {
        Function { identity: Some(words), ..self }
    }

    pub(crate) fn said_identity(&self) -> Option<[usize; 4]> {
        self.identity
    }

    /// Calls it, as an [`Entry`](crate::task::Entry) is called.
    pub(crate) fn call(&self, call: &mut Call<'_>) -> Return {
        match (call.shape, &self.run) {
            (Shape::One, Run::Single(run)) => one(call, run),
            (Shape::One, Run::Array { item, value, run }) => one(call, &|input, output| {
                let count = in_array(input.len(), *item)?;
                let bytes = count.checked_mul(*value).ok_or_else(|| too_many(count, *value))?;
                let values = output.reserve(bytes)?;
                run(Batch { items: input, count, item_size: *item, values, value_size: *value })?;
                output.commit(bytes)
            }),
            (Shape::Items { first, end } | Shape::Tuples { first, end }, _) => self.chunk(call, first, end),
        }
    }

    fn chunk(&self, call: &mut Call<'_>, first: u32, end: u32) -> Return {
        let bad = |error: Error, call: &mut Call<'_>| {
            write_text(Status::BadArgs, error.to_string().as_bytes(), &mut call.room)
        };
        let block = match Block::read(call.args, call.padding) {
            Ok(block) => block,
            Err(error) => return bad(error, call),
        };
        let count = match block.range(first, end) {
            Ok(count) => count,
            Err(error) => return bad(error, call),
        };
        if let Some(run) = &self.chunks {
            return taken(call, &block, first, count, run);
        }
        if block.whole().is_some() {
            return bad(Error::payload("the function cannot tell items in the chunk"), call);
        }
        match &self.run {
            Run::Single(run) => each(call, &block, first, count, run),
            Run::Array { item, value, run } => match block.items(first, count, *item) {
                Ok(items) => whole(call, items, count, [*item, *value], run),
                Err(error) => bad(error, call),
            },
        }
    }
}

fn in_array(bytes: usize, item: usize) -> Result<usize, Failure> {
    match bytes.checked_rem(item) {
        Some(0) => Ok(bytes / item),
        _ => Err(Failure::new(-1, format!("{bytes} bytes are no items of {item} bytes"))),
    }
}

fn too_many(count: usize, size: usize) -> Failure {
    Failure::new(-1, format!("{count} values of {size} bytes are more than an address space"))
}

/// One call, for the whole input.
fn one(call: &mut Call<'_>, run: &Single<'_>) -> Return {
    let mut output = Output::new(&mut call.room, 0);
    let written = write(run, call.args, &mut output);
    let used = output.end();
    match written {
        Ok(()) => Return { status: Status::Value, used },
        Err((status, text)) => write_text(status, &text, &mut call.room),
    }
}

/// A call for each item.
fn each(call: &mut Call<'_>, block: &Block<'_>, first: u32, count: u32, run: &Single<'_>) -> Return {
    let Call { room, done, on_begin, on_item, .. } = call;
    if let Err(error) = ChunkWriter::reserve_bytes(room, 0) {
        return no_room(room, &error);
    }
    let mut writer = ChunkWriter::new(room, done);
    on_begin(1);
    for index in 0..count {
        if let Some(on_item) = on_item {
            on_item(index);
        }
        match block.item(first + index) {
            Ok(item) => writer.push_written(|output| write(run, item, output)),
            Err(error) => writer.push_failure(Status::BadArgs, error.to_string().as_bytes()),
        }
    }
    Return { status: Status::Chunk, used: writer.finish() }
}

/// A chunk of a map, as a function [for chunks](Function::chunks) sees it.
pub struct Chunk<'c, 'g> {
    block: &'c Block<'c>,
    /// The item behind the last that was taken, and behind the last of all.
    next: u32,
    end: u32,
    /// The first of the chunk.
    first: u32,
    writer: ChunkWriter<'c, 'g>,
    on_item: Option<&'c dyn Fn(u32)>,
}

impl<'c, 'g> Chunk<'c, 'g> {
    /// All bytes, if they were [pushed as a whole](super::MapFeed::push_whole).
    pub fn whole(&self) -> Option<&'c [u8]> {
        self.block.whole()
    }

    /// Which items are still to be taken: the index of the first, and that behind the last.
    pub fn left(&self) -> (u32, u32) {
        (self.next, self.end)
    }

    /// The bytes of an item, if not.
    pub fn item(&self, index: u32) -> Option<&'c [u8]> {
        self.block.item(index).ok()
    }

    /// Takes the next item: its index among those that were pushed together. An item that has not got an output
    /// fails.
    #[inline]
    pub fn take(&mut self) -> Option<u32> {
        if self.next >= self.end {
            return None;
        }
        let index = self.next;
        self.settle();
        self.next += 1;
        if let Some(on_item) = self.on_item {
            on_item(index - self.first);
        }
        Some(index)
    }

    /// Lets the items that were taken and have no output fail.
    #[inline]
    fn settle(&mut self) {
        while self.writer.items() < self.next - self.first {
            self.writer
                .push_failure(Status::FailedWith, &told_failure(&Failure::new(-1, "it got no output")).1);
        }
    }

    /// Whether the item that was taken last waits for its output.
    #[inline]
    fn awaits(&self) -> bool {
        self.writer.items() < self.next - self.first
    }

    /// The output of the item that was taken last; at most 64 bytes.
    #[inline]
    pub fn put_short(&mut self, bytes: &[u8]) {
        if self.awaits() {
            self.writer.push_short(bytes);
        }
    }

    /// The same, of any length, written by a function.
    pub fn put(&mut self, write: impl FnOnce(&mut Output<'_, '_>) -> Result<(), Failure>) {
        if self.awaits() {
            self.writer.push_written(|output| {
                let ended = catch(|| write(output));
                if let Some(error) = output.error.take() {
                    return Err(describe(&error, Status::BadValue));
                }
                told(ended)
            });
        }
    }
}

/// One call, which takes the items of a chunk by itself.
fn taken(call: &mut Call<'_>, block: &Block<'_>, first: u32, count: u32, run: &KeptChunks) -> Return {
    let Call { room, done, on_begin, on_item, .. } = call;
    if let Err(error) = ChunkWriter::reserve_bytes(room, 0) {
        return no_room(room, &error);
    }
    let writer = ChunkWriter::new(room, done);
    on_begin(1);
    let mut chunk = Chunk { block, next: first, end: first + count, first, writer, on_item: *on_item };
    let ended = catch(|| run(&mut chunk));
    let (status, text) = match ended {
        Ok(()) => {
            (Status::FailedWith, told_failure(&Failure::new(-1, "the function took no notice of it")).1)
        }
        Err(panic) => (Status::Panicked, panic_text(&panic)),
    };
    for _ in chunk.writer.items()..count {
        chunk.writer.push_failure(status, &text);
    }
    Return { status: Status::Chunk, used: chunk.writer.finish() }
}

/// One call for all items of a chunk.
fn whole(call: &mut Call<'_>, items: &[u8], count: u32, [item, value]: [usize; 2], run: &Whole) -> Return {
    let expected = value.saturating_mul(count as usize);
    let Call { room, done, on_begin, on_item, .. } = call;
    if let Err(error) = ChunkWriter::reserve_bytes(room, expected) {
        return no_room(room, &error);
    }
    let mut writer = ChunkWriter::new(room, done);
    on_begin(count);
    let on_item = *on_item;
    let tell = |index| {
        if let Some(on_item) = on_item {
            on_item(index);
        }
    };
    tell(0);
    let make = |values: &mut [u8]| {
        let batch = Batch { items, count: count as usize, item_size: item, values, value_size: value };
        told(catch(|| run(batch)))
    };
    writer.push_together(count, value, make, || tell(count));
    Return { status: Status::Chunk, used: writer.finish() }
}

#[cold]
fn no_room(room: &mut Room<'_>, error: &Error) -> Return {
    let (status, text) = describe(error, Status::BadValue);
    write_text(status, &text, room)
}

/// Calls the function for one input.
#[inline]
fn write(run: &Single<'_>, input: &[u8], output: &mut Output<'_, '_>) -> Result<(), (Status, Vec<u8>)> {
    let ended = catch(|| run(input, output));
    // Had there been memory, the function might not have failed; and if it has not, something is missing.
    if let Some(error) = output.error.take() {
        return Err(describe(&error, Status::BadValue));
    }
    told(ended)
}

/// How the end of a function is told.
#[inline]
fn told(ended: Result<Result<(), Failure>, Panic>) -> Result<(), (Status, Vec<u8>)> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(failure)) => Err(told_failure(&failure)),
        Err(panic) => Err((Status::Panicked, panic_text(&panic))),
    }
}

#[cold]
fn told_failure(failure: &Failure) -> (Status, Vec<u8>) {
    (Status::FailedWith, [&failure.code.to_le_bytes()[..], failure.message.as_bytes()].concat())
}

/// Where a function writes its output: shared memory, except for the first few bytes.
///
/// Ask for as much as may be needed, write, say how much that was, and again if there is more.
pub struct Output<'o, 'g> {
    room: &'o mut Room<'g>,
    /// Where it ends, so far.
    end: usize,
    /// Bytes behind the end that the function may write.
    lent: usize,
    /// Why it got no memory, if that was the last thing that happened.
    error: Option<Error>,
}

impl<'o, 'g> Output<'o, 'g> {
    /// Writes from `start` on, to which the room reaches.
    pub(crate) fn new(room: &'o mut Room<'g>, start: usize) -> Self {
        Output { room, end: start, lent: 0, error: None }
    }

    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// At least `len` bytes to write, behind what has been committed; what they hold is not specified. The first
    /// ones are aligned to 16 bytes. Memory that was given out before is not valid any more.
    ///
    /// If there is no memory, the task fails with that reason whatever it returns, unless it asks again, for
    /// less, and gets it.
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Result<&mut [u8], Failure> {
        let needed = self.end.checked_add(len).filter(|&needed| needed <= isize::MAX as usize);
        let reserved = match needed {
            // What is asked for first is probably all that will be.
            Some(needed) if self.end == 0 => self.room.reserve_exactly(0, needed),
            // Outputs that follow each other in a chunk are many steps, too.
            Some(needed) => match self.room.reserve(self.end, needed) {
                Err(error) if error.is_arena_full() => self.room.reserve_exactly(self.end, needed),
                other => other,
            },
            None => Err(Error::payload(format!("{len} bytes more are more than an address space"))),
        };
        if let Err(error) = reserved {
            let failure = Failure::new(-1, error.to_string());
            self.lent = 0;
            self.error = Some(error);
            return Err(failure);
        }
        self.error = None;
        self.lent = len;
        Ok(self.room.span.bytes_mut(self.end, len))
    }

    /// Makes the first `len` of the bytes that were reserved part of the output.
    pub fn commit(&mut self, len: usize) -> Result<(), Failure> {
        if len > self.lent {
            return Err(Failure::new(
                -1,
                format!("{len} bytes are committed of {} that were reserved", self.lent),
            ));
        }
        self.end += len;
        self.lent -= len;
        Ok(())
    }

    /// Appends the first `len` bytes of memory that was [claimed](super::claim): without a copy if they are the first of
    /// the output of a call, as they are not in a chunk of several items. What the memory has beyond them is written
    /// next.
    ///
    /// Nobody may write to the memory from now on by a pointer that he has kept: others read it.
    pub fn adopt(&mut self, mut claimed: Claimed, len: usize) -> Result<(), Failure> {
        let all = claimed.len();
        let bytes = claimed.bytes_mut().and_then(|bytes| bytes.get(..len));
        let bytes =
            bytes.ok_or_else(|| Failure::new(-1, format!("{all} bytes were claimed, and not {len}")))?;
        // In a chunk the beginning of the room is not that of the output.
        if self.end > 0 || !self.room.adopt(NonNull::from(bytes).cast()) {
            return self.write(bytes);
        }
        claimed.note_adopted();
        self.error = None;
        self.lent = 0;
        self.end = len;
        Ok(())
    }

    /// Appends these bytes.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let room = self.reserve(bytes.len())?;
        match (<&mut [u8; 8]>::try_from(&mut *room), <[u8; 8]>::try_from(bytes)) {
            (Ok(room), Ok(word)) => *room = word, // the most common, without a call
            _ => room.copy_from_slice(bytes),
        }
        self.end += bytes.len();
        self.lent = 0;
        Ok(())
    }
}
