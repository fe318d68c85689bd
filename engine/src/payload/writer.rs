//! Writing an archive straight into memory that may have to grow.

use std::fmt;
use std::ptr::NonNull;

use rkyv::primitive::FixedUsize;
use rkyv::rancor::Source;
use rkyv::ser::{Positional, Writer};

use crate::error::{Error, Result};

/// How far an archive's relative pointers reach: with 32-bit ones (rkyv's default) to 2 GiB - 1.
const REACH: usize =
    if FixedUsize::BITS >= usize::BITS { isize::MAX as usize } else { (1 << (FixedUsize::BITS - 1)) - 1 };

/// A piece of memory being written.
///
/// Whoever makes one, which only this crate can, promises this: the bytes are initialized and may be
/// written, and no one else reads or writes them until the holder of the span is finished, or has given it
/// to [`Grow::grow`] and got another. So everything that writes through a span is safe.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Where it begins: aligned to 16 bytes, or no one can read the payload.
    pub(crate) ptr: NonNull<u8>,
    /// How many bytes may be written.
    pub(crate) cap: usize,
}

impl Span {
    /// The writing relies on this, so it does not take the word of a [`Grow`].
    #[cold]
    fn check(self, needed: usize) -> Result<()> {
        if self.cap >= needed {
            return Ok(());
        }
        Err(Error::corrupted(format!("asked for {needed} bytes and got {}", self.cap)))
    }

    /// Copies `bytes` to `at`; they must fit.
    #[inline]
    pub(crate) fn copy_in(self, at: usize, bytes: &[u8]) {
        assert!(at <= self.cap && bytes.len() <= self.cap - at);
        // SAFETY: in bounds by the assertion, writable by the promise of spans, and `bytes` cannot
        // overlap it because no reference to a span's memory is handed out.
        unsafe { self.ptr.as_ptr().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

impl Span {
    /// Copies what was written at `at`, which must be that long.
    pub(crate) fn copy_out(self, at: usize, bytes: &mut [u8]) {
        assert!(at <= self.cap && bytes.len() <= self.cap - at);
        // SAFETY: in bounds by the assertion; initialized, and ours alone, by the promise of spans.
        unsafe { self.ptr.as_ptr().add(at).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
    }

    /// The `len` bytes at `at`, to be written in place; they must be there. The span is not used otherwise as
    /// long as they are.
    pub(crate) fn bytes_mut(&mut self, at: usize, len: usize) -> &mut [u8] {
        assert!(at <= self.cap && len <= self.cap - at);
        // SAFETY: in bounds by the assertion; initialized, and ours alone, by the promise of spans. This span is
        // borrowed as long as the slice lives, and whoever has a copy of it does not use it meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr().add(at), len) }
    }
}

/// Gives a payload that outgrows its memory more of it.
pub trait Grow {
    /// Returns memory of at least `needed` bytes (64-byte aligned) whose first `used` bytes are those
    /// of `old`. After success `old` is dead; after an error it is as it was.
    fn grow(&mut self, old: Span, used: usize, needed: usize) -> Result<Span>;

    /// Makes memory that the value's maker was lent, and that begins at `start`, that of the payload: its span.
    /// What was written elsewhere is forgotten. `None` if it is not from here.
    fn adopt(&mut self, _start: NonNull<u8>) -> Option<Span> {
        None
    }
}

/// A [`Grow`] that remembers the span that lives, for whoever must go on after a panic or an error.
pub struct Room<'g> {
    pub(crate) span: Span,
    grow: &'g mut dyn Grow,
}

impl<'g> Room<'g> {
    #[inline]
    pub(crate) fn new(span: Span, grow: &'g mut dyn Grow) -> Self {
        Room { span, grow }
    }

    /// Makes the span at least `needed` bytes large.
    #[inline]
    pub(crate) fn reserve(&mut self, used: usize, needed: usize) -> Result<()> {
        if needed <= self.span.cap {
            return Ok(());
        }
        let span = self.grow(self.span, used, larger(self.span.cap, needed))?;
        span.check(needed)
    }

    /// See [`Grow::adopt`]; whether it is the span now.
    pub(crate) fn adopt(&mut self, start: NonNull<u8>) -> bool {
        match self.grow.adopt(start) {
            Some(span) => self.span = span,
            None => return false,
        }
        true
    }
}

impl Grow for Room<'_> {
    #[cold]
    fn grow(&mut self, old: Span, used: usize, needed: usize) -> Result<Span> {
        self.span = self.grow.grow(old, used, needed)?;
        Ok(self.span)
    }
}

impl Room<'_> {
    /// [`reserve`](Self::reserve) of what is needed and no more, for who knows how much that will be.
    pub(crate) fn reserve_exactly(&mut self, used: usize, needed: usize) -> Result<()> {
        if needed <= self.span.cap {
            return Ok(());
        }
        let span = self.grow(self.span, used, needed)?;
        span.check(needed)
    }
}

/// Doubling keeps the copying linear; the slack spares small payloads the second step.
fn larger(cap: usize, needed: usize) -> usize {
    needed.saturating_add(256).max(cap.saturating_mul(2))
}

/// The rkyv writer over a [`Span`]: it grows instead of failing, never panics, and keeps the reason
/// when it cannot grow.
pub struct PayloadWriter<'g> {
    span: Span,
    /// Where this archive begins in the span; rkyv's positions count from here.
    base: usize,
    /// Where the next byte goes.
    used: usize,
    grow: &'g mut dyn Grow,
    error: Option<Error>,
}

impl<'g> PayloadWriter<'g> {
    /// Writes from `base` on; what is before it stays.
    #[inline]
    pub(crate) fn new(span: Span, base: usize, grow: &'g mut dyn Grow) -> Self {
        debug_assert!(base <= span.cap && base.is_multiple_of(16));
        PayloadWriter { span, base, used: base, grow, error: None }
    }

    /// Refuses archives that are too large for their pointers.
    pub(crate) fn check_reach(size: usize) -> Result<()> {
        if size > REACH { Err(too_large(size)) } else { Ok(()) }
    }

    /// Goes on behind the first `used` bytes, which are of the same archive.
    pub(crate) fn behind(span: Span, used: usize, grow: &'g mut dyn Grow) -> Self {
        debug_assert!(used <= span.cap);
        PayloadWriter { span, base: 0, used, grow, error: None }
    }

    /// The memory that was written, and where the writing ended.
    #[inline]
    pub(crate) fn written(&self) -> (Span, usize) {
        (self.span, self.used)
    }

    /// Why the last write was refused.
    pub(crate) fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, len: usize) -> Result<()> {
        let needed = self.used.checked_add(len).ok_or_else(|| too_large(usize::MAX))?;
        self.span = self.grow.grow(self.span, self.used, larger(self.span.cap, needed))?;
        self.span.check(needed)
    }

    #[cold]
    #[inline(never)]
    fn refuse<E: Source>(&mut self, error: Error) -> E {
        self.error = Some(error);
        E::new(Refused)
    }
}

#[cold]
fn too_large(size: usize) -> Error {
    Error::payload(format!(
        "a payload of at least {size} bytes is larger than an archive may be: {REACH} bytes \
         (rkyv's feature `pointer_width_64` in the whole program lifts this)"
    ))
}

impl Positional for PayloadWriter<'_> {
    #[inline]
    fn pos(&self) -> usize {
        self.used - self.base
    }
}

impl<E: Source> Writer<E> for PayloadWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        // rkyv would panic when it makes a pointer that does not reach.
        if bytes.len() > REACH - self.pos().min(REACH) {
            let size = self.pos().saturating_add(bytes.len());
            return Err(self.refuse(too_large(size)));
        }
        if bytes.len() > self.span.cap - self.used
            && let Err(error) = self.make_room(bytes.len())
        {
            return Err(self.refuse(error));
        }
        // SAFETY: `make_room` made sure that `bytes.len()` bytes fit behind `used`, and the span is ours
        // to write; the value being archived does not lie in it.
        unsafe {
            self.span.ptr.as_ptr().add(self.used).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
        self.used += bytes.len();
        Ok(())
    }
}

/// What rkyv hears; the real reason waits in the writer.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no room for the payload")
    }
}

impl std::error::Error for Refused {}
