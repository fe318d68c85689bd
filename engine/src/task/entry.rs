//! The code that stands between bytes and a function: reads arguments, calls, writes the result.

use std::ptr::NonNull;

use super::{Arguments, Convert, Invoke, Panic, catch};
use crate::chunk::ChunkWriter;
use crate::error::{Error, ErrorKind, Result};
use crate::payload::{Payload, Reply, Room, view, view_items};
use crate::sync::AtomicU32;

/// Runs one function with archived arguments. It never unwinds.
pub type Entry = for<'c, 'a> fn(&'c mut Call<'a>) -> Return;

/// What an [`Entry`] works with.
pub struct Call<'a> {
    /// The archive of the arguments; nobody writes to it during the call.
    pub args: &'a [u8],
    /// What the arguments are.
    pub shape: Shape,
    /// Bytes behind the items of an archived `Vec` that are of no item, if the items are flat.
    pub padding: usize,
    /// Where the result goes; after the call, where it is.
    pub room: Room<'a>,
    /// Called before the first item begins, with how many items are run as one from then on, which is 1 but for
    /// functions that take a whole chunk; not used by [`Shape::One`].
    pub on_begin: &'a dyn Fn(u32),
    /// Told each item's number in the chunk before the item begins; not used by [`Shape::One`].
    pub on_item: Option<&'a dyn Fn(u32)>,
    /// Counts the items whose results are completely written; not used by [`Shape::One`].
    pub done: &'a AtomicU32,
}

/// What the arguments of a [`Call`] are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One call: the archive of `(A, B, ..)`.
    One,
    /// One call of `f(item)` for each of these items of an archived `Vec<A>`. For functions of more
    /// than one parameter this is the same as `Tuples`.
    Items {
        /// The first item.
        first: u32,
        /// The item after the last.
        end: u32,
    },
    /// One call of `f(a, b, ..)` for each of these items of an archived `Vec<(A, B, ..)>`.
    Tuples {
        /// The first item.
        first: u32,
        /// The item after the last.
        end: u32,
    },
}

/// What the bytes that a call left behind mean. The numbers are part of the format of shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Status {
    /// The archive of the task's value.
    Value = 1,
    /// The task returned `Err`: its text.
    Failed = 2,
    /// The task panicked: place, a zero byte, message.
    Panicked = 3,
    /// The arguments cannot be read: the reason.
    BadArgs = 4,
    /// The result needs more memory than there is: bytes needed, used, and the quota (three little-endian `u64`).
    NoSpace = 5,
    /// The function is not known here: its name, or what is known of it.
    UnknownFunction = 6,
    /// The results of several items; see [`ChunkReader`](crate::chunk::ChunkReader).
    Chunk = 7,
    /// The task's value cannot be archived: the reason.
    BadValue = 8,
    /// The task was not run because its words in shared memory do not agree: which.
    Corrupted = 9,
    /// The task failed with a code: the code (a little-endian `i32`), and its text.
    FailedWith = 10,
}

/// What a call left behind in its [room](Call::room). It fits into registers.
#[derive(Clone, Copy, Debug)]
pub struct Return {
    /// What the bytes mean.
    pub status: Status,
    /// How many they are.
    pub used: usize,
}

impl Return {
    /// Leaves only a text behind. If there is no room for it all, as much as fits.
    #[cold]
    pub fn text(status: Status, text: &[u8], room: &mut Room<'_>) -> Return {
        write_text(status, text, room)
    }
}

impl Status {
    /// The status with this number.
    pub const fn from_u32(number: u32) -> Option<Status> {
        Some(match number {
            1 => Status::Value,
            2 => Status::Failed,
            3 => Status::Panicked,
            4 => Status::BadArgs,
            5 => Status::NoSpace,
            6 => Status::UnknownFunction,
            7 => Status::Chunk,
            8 => Status::BadValue,
            9 => Status::Corrupted,
            10 => Status::FailedWith,
            _ => return None,
        })
    }

    /// The error that a call left behind as this status with these bytes.
    #[cold]
    pub fn error(self, bytes: &[u8]) -> Error {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Status::Failed => ErrorKind::Failed { message: text(bytes) }.into(),
            Status::Panicked => {
                let (place, message) = match bytes.iter().position(|&byte| byte == 0) {
                    Some(zero) => (&bytes[..zero], &bytes[zero + 1..]),
                    None => (&b"unknown"[..], bytes),
                };
                ErrorKind::Panicked { message: text(message), place: text(place) }.into()
            }
            Status::BadArgs => Error::payload(format!("the arguments cannot be read: {}", text(bytes))),
            // A text if the worker could not know the numbers.
            Status::NoSpace => match bytes.as_chunks::<8>() {
                (&[needed, used, quota], []) => ErrorKind::ArenaFull {
                    needed: u64::from_le_bytes(needed),
                    used: u64::from_le_bytes(used),
                    quota: u64::from_le_bytes(quota),
                }
                .into(),
                _ => Error::payload(format!("the result does not fit: {}", text(bytes))),
            },
            Status::UnknownFunction => {
                Error::function(format!("the worker does not know the function: {}", text(bytes)))
            }
            Status::BadValue => Error::payload(format!("the result cannot be sent: {}", text(bytes))),
            Status::Corrupted => Error::corrupted(text(bytes)),
            Status::FailedWith => match bytes.split_first_chunk::<4>() {
                Some((&code, message)) => {
                    ErrorKind::FailedWith { code: i32::from_le_bytes(code), message: text(message) }.into()
                }
                None => Error::corrupted("a task failed with a code that is not there"),
            },
            Status::Value | Status::Chunk => Error::corrupted(format!("{self:?} is no failure")),
        }
    }
}

/// The error that a call left behind as the status with this number, which may be none.
#[cold]
pub(crate) fn failure(status: u32, bytes: &[u8]) -> Error {
    match Status::from_u32(status) {
        Some(status) => status.error(bytes),
        None => Error::corrupted(format!("a call ended with the status {status}")),
    }
}

/// The text that a failed call left behind, on one line.
#[cold]
pub(crate) fn failure_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', ": ")
}

/// What the bytes of [`Status::NoSpace`] are.
pub(crate) type Numbers = [u8; 24];

/// How an error that arose while a result was written is told: [`Status::NoSpace`] or `other`.
#[cold]
pub(crate) fn describe(error: &Error, other: Status) -> (Status, Vec<u8>) {
    match error.kind() {
        &ErrorKind::ArenaFull { needed, used, quota } => {
            let mut numbers: Numbers = [0; 24];
            for (place, number) in numbers.as_chunks_mut::<8>().0.iter_mut().zip([needed, used, quota]) {
                *place = number.to_le_bytes();
            }
            (Status::NoSpace, numbers.to_vec())
        }
        kind => (other, kind.to_string().into_bytes()),
    }
}

#[cold]
pub(crate) fn panic_text(panic: &Panic) -> Vec<u8> {
    [panic.place.as_bytes(), b"\0", panic.message.as_bytes()].concat()
}

#[cold]
#[inline(never)]
pub(crate) fn write_text(status: Status, text: &[u8], room: &mut Room<'_>) -> Return {
    // Half a text tells more than none.
    let _ = room.reserve(0, text.len());
    let text = &text[..text.len().min(room.span.cap)];
    room.span.copy_in(0, text);
    Return { status, used: text.len() }
}

/// The entry of `f`. It stays good for as long as the program runs.
pub(crate) fn code<F, Args, V, C>(_: &F) -> Entry
where
    Args: Arguments,
    F: Invoke<Args, V>,
    C: Convert<F::Return>,
{
    const {
        assert!(
            size_of::<F>() == 0,
            "a task captures nothing: pass what the closure captures as arguments, and name the function \
             itself instead of a function pointer"
        );
    }
    entry::<F, Args, V, C>
}

/// Only [`code`] hands this out, to whoever has an `F`.
fn entry<F, Args, V, C>(call: &mut Call<'_>) -> Return
where
    Args: Arguments,
    F: Invoke<Args, V>,
    C: Convert<F::Return>,
{
    // SAFETY: an `F` has no bytes (asserted in `code`), so a dangling pointer is one; it is `Copy` and
    // `Send`, and one existed when `code` was called, so using another here is nothing its author
    // could have forbidden.
    let f: &F = unsafe { NonNull::dangling().as_ref() };
    match call.shape {
        Shape::One => one::<Args, C, _>(call, |args| f.invoke(args)),
        Shape::Items { first, end } => {
            chunk::<Args::Item, C, _>(call, first, end, |item| f.invoke_item(item))
        }
        Shape::Tuples { first, end } => chunk::<Args, C, _>(call, first, end, |args| f.invoke(args)),
    }
}

/// How the middle of a call ended.
enum End {
    Value(usize),
    Failed(String),
    BadArgs(Error),
    Unwritten(Error),
}

#[inline]
fn one<Args, C, R>(call: &mut Call<'_>, f: impl Fn(&Args::Archived) -> Result<R>) -> Return
where
    Args: Payload,
    C: Convert<R>,
{
    let (args, room) = (call.args, &mut call.room);
    let end = catch(|| {
        let mut returned = match view::<Args>(args) {
            Ok(args) => f(args),
            Err(error) => return End::BadArgs(error),
        };
        let returned = match &mut returned {
            Ok(returned) => returned,
            Err(error) => return End::BadArgs(error.clone()),
        };
        match C::look(returned) {
            Ok(value) => match Reply::put(value, room) {
                Ok(used) => End::Value(used),
                Err(error) => End::Unwritten(error),
            },
            Err(message) => End::Failed(message),
        }
    });
    match end {
        Ok(End::Value(used)) => Return { status: Status::Value, used },
        Ok(End::Failed(message)) => write_text(Status::Failed, message.as_bytes(), room),
        Ok(End::BadArgs(error)) => write_text(Status::BadArgs, error.to_string().as_bytes(), room),
        Ok(End::Unwritten(error)) => {
            let (status, text) = describe(&error, Status::BadValue);
            write_text(status, &text, room)
        }
        Err(panic) => write_text(Status::Panicked, &panic_text(&panic), room),
    }
}

fn chunk<Item, C, R>(
    call: &mut Call<'_>,
    first: u32,
    end: u32,
    f: impl Fn(&Item::Archived) -> Result<R>,
) -> Return
where
    Item: Payload,
    C: Convert<R>,
{
    let bad = |text: String, room| write_text(Status::BadArgs, text.as_bytes(), room);
    // Checking runs code of the item's type, so it may panic as well.
    let items = match catch(|| view_items::<Item>(call.args, first, end)) {
        Ok(Ok(items)) => items,
        Ok(Err(error)) => return bad(error.to_string(), &mut call.room),
        Err(panic) => return bad(panic.message, &mut call.room),
    };
    let Call { room, done, on_begin, on_item, .. } = call;
    let on_item = *on_item;
    if let Err(error) = ChunkWriter::reserve::<<C::Reply as Reply>::Value>(room, items.len()) {
        let (status, text) = describe(&error, Status::BadValue);
        return write_text(status, &text, room);
    }
    let mut writer = ChunkWriter::new(room, done);
    let run = |index: u32, item: &Item::Archived| {
        if let Some(on_item) = on_item {
            on_item(index);
        }
        match f(item).map(C::convert) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(message)) => Err((Status::Failed, message)),
            Err(error) => Err((Status::BadArgs, error.to_string())),
        }
    };
    on_begin(1);
    // A panic ends one round of this; the next begins behind its item.
    loop {
        // The item that is run by itself, if it is one: its value may panic once more, when it is dropped.
        let mut single = None;
        let outcome = catch(|| {
            while let Some(rest @ [_, ..]) = items.get(writer.items() as usize..) {
                single = None;
                if let Some((status, text)) = C::Reply::push_all(rest, &run, &mut writer) {
                    writer.push_failure(status, text.as_bytes());
                    continue;
                }
                let Some(item) = items.get(writer.items() as usize) else { break };
                single = Some(writer.items());
                match run(writer.items(), item) {
                    Ok(value) => Reply::push(value, &mut writer),
                    Err((status, text)) => writer.push_failure(status, text.as_bytes()),
                }
            }
        });
        let Err(panic) = outcome else { break };
        // A value whose drop panics is already written; it counts.
        if single.is_none_or(|index| index == writer.items()) {
            writer.push_failure(Status::Panicked, &panic_text(&panic));
        }
    }
    Return { status: Status::Chunk, used: writer.finish() }
}
