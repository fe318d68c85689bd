//! Values as bytes that other processes can use where they lie: rkyv archives.
//!
//! An archive is checked once and then used in place, or copied out as the value it came from.
//! Checking protects against bugs and torn data. It is no sandbox: processes of one pool trust each
//! other, and nobody may write to an archive while someone looks at it.

mod reply;
mod writer;

use std::any::type_name;
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, needs_drop};

use rkyv::api::deserialize_using;
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::de::Pool;
use rkyv::primitive::ArchivedUsize;
use rkyv::rancor::{BoxedError, Failure, Source, Strategy};
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::ser::sharing::Share;
use rkyv::ser::{Serializer, WriterExt};
use rkyv::validation::archive::ArchiveValidator;
use rkyv::validation::shared::SharedValidator;
use rkyv::validation::{ArchiveContextExt, Validator};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Deserialize, Place, Portable, Serialize};

pub use rkyv;

pub use self::reply::Reply;
pub use self::writer::{Grow, PayloadWriter, Room, Span};
use crate::error::{Error, Result};

/// The largest alignment of an archive: what every payload's first byte has at least.
pub(crate) const ALIGN: usize = 16;

/// A value that can go from one process to another.
///
/// Numbers, strings, tuples, arrays and the usual collections can; so can every type that derives
/// rkyv's three traits. Nobody implements this trait by hand.
///
/// Two things to know about archives: by default `usize` is stored in 32 bits and larger values are
/// cut, so use `u64`; and one payload may have at most 2 GiB - 1. The feature `pointer_width_64` of
/// rkyv lifts both, for all programs that share a pool.
///
/// ```
/// use ringpool::rkyv::{Archive, Deserialize, Serialize};
///
/// #[derive(Archive, Serialize, Deserialize)]
/// #[rkyv(crate = ringpool::rkyv)] // unless the program depends on rkyv itself
/// struct Reading {
///     sensor: String,
///     values: Vec<f64>,
/// }
///
/// fn is_payload<T: ringpool::Payload>() {}
/// is_payload::<Reading>();
/// is_payload::<Vec<(u32, Option<Reading>)>>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent to another process",
    label = "not a payload",
    note = "derive `rkyv::Archive`, `rkyv::Serialize` and `rkyv::Deserialize` for it; references and types \
            with lifetimes cannot be payloads"
)]
pub trait Payload:
    Sized
    + 'static
    + Archive<Archived: PayloadArchived<Self>>
    + for<'g, 'a> Serialize<HighSerializer<PayloadWriter<'g>, ArenaHandle<'a>, Failure>>
{
}

// So that a type which is none is told the note above, and not a bound of rkyv's.
#[diagnostic::do_not_recommend]
impl<T> Payload for T where
    T: Sized
        + 'static
        + Archive<Archived: PayloadArchived<T>>
        + for<'g, 'a> Serialize<HighSerializer<PayloadWriter<'g>, ArenaHandle<'a>, Failure>>
{
}

/// The archived form of a [`Payload`]: it can be checked and turned back into a `T`.
///
/// Checking is asked for with both error types of rkyv: `Failure` says only yes or no and is fast,
/// `BoxedError` says what is wrong.
#[diagnostic::on_unimplemented(
    message = "the archived form `{Self}` of `{T}` cannot be checked or read back",
    note = "derive `rkyv::Archive`, `rkyv::Serialize` and `rkyv::Deserialize` for `{T}`"
)]
pub trait PayloadArchived<T>:
    Portable
    + for<'v> CheckBytes<HighValidator<'v, Failure>>
    + for<'v> CheckBytes<HighValidator<'v, BoxedError>>
    + Deserialize<T, HighDeserializer<Failure>>
{
}

#[diagnostic::do_not_recommend]
impl<T, A> PayloadArchived<T> for A where
    A: Portable
        + for<'v> CheckBytes<HighValidator<'v, Failure>>
        + for<'v> CheckBytes<HighValidator<'v, BoxedError>>
        + Deserialize<T, HighDeserializer<Failure>>
{
}

/// Whether the bytes of a `T` are its archive, so that writing it is a copy.
#[inline]
pub const fn is_flat<T: Payload>() -> bool {
    T::COPY_OPTIMIZATION.is_enabled()
        && size_of::<T>() == size_of::<T::Archived>()
        && align_of::<T::Archived>() <= ALIGN
}

/// The bytes of a flat value, which are its archive.
#[inline]
pub(crate) fn flat_bytes<T: Payload>(value: &T) -> Option<&[u8]> {
    // SAFETY: the type's author attests with COPY_OPTIMIZATION that no byte of a `T` is uninitialized.
    const { is_flat::<T>() }
        .then(|| unsafe { std::slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>()) })
}

const fn check_align<T: Payload>() {
    assert!(
        align_of::<T::Archived>() <= ALIGN,
        "a payload's archived form may be aligned to 16 bytes at most"
    );
}

/// Writes `value` to `first`, or where `grow` moves it to. Returns the memory and the archive's length.
///
/// After an error the memory that lives is known to `grow` alone; see [`Room`].
#[inline]
pub(crate) fn put<T: Payload>(value: &T, first: Span, grow: &mut dyn Grow) -> Result<(Span, usize)> {
    put_after(value, first, 0, grow)
}

/// Like [`put`], from `base` on (a multiple of 16); returns where the archive ends.
#[inline]
pub(crate) fn put_after<T: Payload>(
    value: &T,
    span: Span,
    base: usize,
    grow: &mut dyn Grow,
) -> Result<(Span, usize)> {
    const { check_align::<T>() };
    // The short way: no serializer, no scratch memory.
    if let Some(bytes) = flat_bytes(value)
        && base <= span.cap
        && bytes.len() <= span.cap - base
    {
        span.copy_in(base, bytes);
        return Ok((span, base + bytes.len()));
    }
    serialize(value, span, base, grow)
}

/// Writes the archive of a `Vec` that holds `items`.
pub(crate) fn put_items<T: Payload>(items: &[T], first: Span, grow: &mut dyn Grow) -> Result<(Span, usize)> {
    put_items_after(items, first, 0, grow)
}

/// Like [`put_items`], from `base` on (a multiple of 16); returns where the archive ends.
pub(crate) fn put_items_after<T: Payload>(
    items: &[T],
    span: Span,
    base: usize,
    grow: &mut dyn Grow,
) -> Result<(Span, usize)> {
    const { check_align::<T>() };
    serialize(&Items(items), span, base, grow)
}

/// Whether [`put_flat_items`] takes values of this type.
pub(crate) const fn is_plain<T: Payload>() -> bool {
    is_flat::<T>() && !needs_drop::<T>()
}

/// Bytes of the archive of a `Vec` of so many flat values, at most.
pub(crate) fn flat_items_len<T: Payload>(items: usize) -> usize {
    items.saturating_mul(size_of::<T>()).saturating_add(2 * ALIGN)
}

/// Writes the archive of a `Vec` that holds the next `most` of `items`, or all if there are fewer, each where
/// it is to lie. Returns how many they are and the archive's length.
///
/// Only for [plain](is_plain) ones, and if `span` has room for the [whole](flat_items_len). After an error
/// none has been taken.
pub(crate) fn put_flat_items<T: Payload, I: Iterator<Item = T>>(
    items: &mut I,
    most: usize,
    span: Span,
) -> Result<(usize, usize)> {
    const { check_align::<T>() };
    assert!(is_plain::<T>() && flat_items_len::<T>(most) <= span.cap);
    PayloadWriter::check_reach(flat_items_len::<T>(most))?;
    // By way of a buffer: a copy of some size writes faster to memory that another core has read last than
    // item after item does.
    let mut buffer = Buffer([MaybeUninit::uninit(); BUFFER]);
    let at_once = (BUFFER / size_of::<T>().max(1)).max(1);
    let direct = size_of::<T>() > BUFFER;
    let start = span.ptr.as_ptr().cast::<T>();
    let mut count = 0;
    loop {
        // SAFETY: there is room for `most` items; and for `at_once` in the buffer unless it is not used.
        let place = if direct { unsafe { start.add(count) } } else { buffer.0.as_mut_ptr().cast::<T>() };
        let wanted = at_once.min(most - count);
        let mut taken = 0;
        while taken < wanted {
            let Some(item) = items.next() else { break };
            // SAFETY: see `place`; the span says that its memory may be written.
            unsafe { place.add(taken).write_unaligned(item) };
            taken += 1;
        }
        if !direct {
            // SAFETY: so many items lie in the buffer, and there is room for them behind the first `count`.
            unsafe {
                let to = start.add(count).cast::<MaybeUninit<u8>>();
                to.copy_from_nonoverlapping(buffer.0.as_ptr(), taken * size_of::<T>());
            }
        }
        count += taken;
        if taken < wanted || count == most {
            break;
        }
    }
    let (_, len) = put_behind::<T>(count, span, &mut Full)?;
    Ok((count, len))
}

/// Completes the archive of a `Vec` whose `count` flat items lie at the start of the span. Returns its length.
pub(crate) fn put_lying_items<T: Payload>(count: usize, room: &mut Room<'_>) -> Result<usize> {
    const { check_align::<T>() };
    assert!(is_flat::<T>() && count.saturating_mul(size_of::<T>()) <= room.span.cap);
    put_behind::<T>(count, room.span, room).map(|(_, used)| used)
}

fn put_behind<T: Payload>(count: usize, span: Span, grow: &mut dyn Grow) -> Result<(Span, usize)> {
    let mut writer = PayloadWriter::behind(span, count * size_of::<T>(), grow);
    // Without a serializer, as there is nothing else to write.
    let aligned = WriterExt::<Failure>::align_for::<ArchivedVec<T::Archived>>(&mut writer);
    let value = Behind::<T>(count, PhantomData);
    // SAFETY: it is aligned, and the items begin where the resolver says.
    let resolve =
        |_| unsafe { WriterExt::<Failure>::resolve_aligned(&mut writer, &value, VecResolver::from_pos(0)) };
    match aligned.and_then(resolve) {
        Ok(_) => Ok(writer.written()),
        Err(_) => Err(writer.take_error().unwrap_or_else(unwritable::<Vec<T>>)),
    }
}

/// Bytes of items that are copied together.
const BUFFER: usize = 4096;

#[repr(C, align(64))]
struct Buffer([MaybeUninit<u8>; BUFFER]);

/// Memory that is as large as it can be.
struct Full;

impl Grow for Full {
    fn grow(&mut self, old: Span, _used: usize, needed: usize) -> Result<Span> {
        Err(Error::corrupted(format!("{needed} bytes were to go where {} fit", old.cap)))
    }
}

/// A `Vec` of so many items that are written already, from the start of the archive on.
struct Behind<T>(usize, PhantomData<T>);

impl<T: Archive> Archive for Behind<T> {
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.0, resolver, out);
    }
}

fn serialize<T>(value: &T, span: Span, base: usize, grow: &mut dyn Grow) -> Result<(Span, usize)>
where
    T: for<'g, 'a> Serialize<HighSerializer<PayloadWriter<'g>, ArenaHandle<'a>, Failure>>,
{
    let mut scratch = Scratch::take();
    let writer = PayloadWriter::new(span, base, grow);
    let mut serializer = Serializer::new(writer, scratch.acquire(), Share::new());
    match rkyv::api::serialize_using::<_, Failure>(value, &mut serializer) {
        Ok(_) => Ok(serializer.writer.written()), // where it is: a move would wait for its stores
        Err(_) => Err(serializer.writer.take_error().unwrap_or_else(|| unwritable::<T>())),
    }
}

#[cold]
fn unwritable<T>() -> Error {
    Error::payload(format!("a value of type {} refused to be archived", type_name::<T>()))
}

thread_local! {
    static SCRATCH: Cell<Option<Arena>> = const { Cell::new(None) };
}

/// This thread's scratch memory for serializers, out on loan. A `Serialize` that itself writes a payload
/// finds none there and gets its own.
struct Scratch(Option<Arena>);

impl Scratch {
    /// More than this is given back to the allocator after use.
    const KEEP: usize = 1 << 20;

    #[inline]
    fn take() -> Self {
        Scratch(SCRATCH.try_with(Cell::take).ok().flatten())
    }

    #[inline]
    fn acquire(&mut self) -> ArenaHandle<'_> {
        self.0.get_or_insert_with(Arena::new).acquire()
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut arena) = self.0.take()
            && arena.shrink() <= Self::KEEP
        {
            // The thread may be past its thread-locals; then the arena is just dropped.
            let _ = SCRATCH.try_with(|slot| slot.set(Some(arena)));
        }
    }
}

/// A slice that is archived like a `Vec`.
struct Items<'a, T>(&'a [T]);

impl<T: Archive> Archive for Items<'_, T> {
    type Archived = ArchivedVec<T::Archived>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(self.0.len(), resolver, out);
    }
}

impl<T, S> Serialize<S> for Items<'_, T>
where
    T: Serialize<S>,
    S: rkyv::rancor::Fallible + rkyv::ser::Allocator + rkyv::ser::Writer + ?Sized,
{
    fn serialize(&self, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::serialize_from_slice(self.0, serializer)
    }
}

/// The archive in `bytes`, checked. The bytes must end where the archive ends.
#[inline]
pub(crate) fn view<T: Payload>(bytes: &[u8]) -> Result<&T::Archived> {
    const { check_align::<T>() };
    match rkyv::access::<T::Archived, Failure>(bytes) {
        Ok(archived) => Ok(archived),
        Err(_) => Err(unreadable::<T>(bytes)),
    }
}

/// Some items of the archived `Vec<T>` in `bytes`. Only these are checked, so that many chunks can share
/// one large archive.
pub(crate) fn view_items<T: Payload>(bytes: &[u8], first: u32, end: u32) -> Result<&[T::Archived]> {
    const { check_align::<T>() };
    const { assert!(size_of::<ArchivedVec<T::Archived>>() == size_of::<<(isize, usize) as Archive>::Archived>()) };
    // An archived `Vec` is the distance from itself to its items, and how many they are.
    let root = view::<(isize, usize)>(bytes)?;
    let (distance, len) = (root.0.to_native() as isize, root.1.to_native() as usize);
    let (first, end) = (first as usize, end as usize);
    if first > end || end > len {
        return Err(Error::payload(format!("there are no items {first} to {end} among {len}")));
    }
    let root = bytes.as_ptr().wrapping_add(bytes.len() - size_of_val(root));
    let start = root.wrapping_offset(distance).cast::<T::Archived>();
    let items = std::ptr::slice_from_raw_parts(start.wrapping_add(first), end - first);
    if check_items::<_, Failure>(bytes, items).is_err() {
        let reason = match check_items::<_, BoxedError>(bytes, items) {
            Ok(()) => "the bytes changed while they were checked".to_string(),
            Err(error) => error.to_string(),
        };
        let name = type_name::<T>();
        return Err(Error::payload(format!("items {first} to {end} are no archives of {name}: {reason}")));
    }
    // SAFETY: the pointer was derived from `bytes`, and its target is inside of them and valid: just checked.
    Ok(unsafe { &*items })
}

fn check_items<A, E: Source>(bytes: &[u8], items: *const [A]) -> Result<(), E>
where
    A: for<'v> CheckBytes<HighValidator<'v, E>>,
{
    let mut context = Validator::new(ArchiveValidator::new(bytes), SharedValidator::new());
    let context = Strategy::<_, E>::wrap(&mut context);
    // SAFETY: `in_subtree` calls back only if `items` is aligned and lies in `bytes`.
    context.in_subtree(items, |context| unsafe { <[A]>::check_bytes(items, context) })
}

/// Checks once more, with words.
#[cold]
#[inline(never)]
fn unreadable<T: Payload>(bytes: &[u8]) -> Error {
    let reason = match rkyv::access::<T::Archived, BoxedError>(bytes) {
        Ok(_) => "the bytes changed while they were checked".to_string(),
        Err(error) => error.to_string(),
    };
    Error::payload(format!("{} bytes are no archive of {}: {reason}", bytes.len(), type_name::<T>()))
}

/// The value whose archive is in `bytes`.
#[inline]
pub(crate) fn take<T: Payload>(bytes: &[u8]) -> Result<T> {
    take_archived(view::<T>(bytes)?)
}

/// The value that was archived.
#[inline]
pub(crate) fn take_archived<T: Payload>(archived: &T::Archived) -> Result<T> {
    match rkyv::deserialize::<T, Failure>(archived) {
        Ok(value) => Ok(value),
        Err(_) => Err(untakeable::<T>()),
    }
}

/// Reads `bytes` as flat values, one after the other, and appends them to `out`.
pub(crate) fn take_flat<T: Payload>(bytes: &[u8], count: usize, out: &mut Vec<T>) -> Result<()> {
    assert!(is_flat::<T>());
    let first = bytes.as_ptr().cast::<T::Archived>();
    if !first.is_aligned() || count.checked_mul(size_of::<T>()) != Some(bytes.len()) {
        return Err(Error::corrupted(format!("{} bytes cannot hold {count} values", bytes.len())));
    }
    out.reserve(count);
    let before = out.len();
    // SAFETY: so many values of this size lie in `bytes`, aligned; a value's memory is as good as its own.
    let archived = unsafe { std::slice::from_raw_parts(first.cast::<MaybeUninit<T::Archived>>(), count) };
    take_each(bytes, archived, &mut out.spare_capacity_mut()[..count])?;
    // SAFETY: every place was written. After an early end the values are forgotten, and flat ones own
    // nothing that would leak.
    unsafe { out.set_len(before + count) };
    Ok(())
}

/// Checks and copies value by value. A function of its own, whose parameters cannot overlap: for numbers all
/// of it becomes one copy.
#[inline(never)]
fn take_each<T: Payload>(
    bytes: &[u8],
    archived: &[MaybeUninit<T::Archived>],
    out: &mut [MaybeUninit<T>],
) -> Result<()> {
    let mut context = Validator::new(ArchiveValidator::new(bytes), SharedValidator::new());
    let context = Strategy::<_, Failure>::wrap(&mut context);
    let mut pool = Pool::new();
    for (index, (archived, place)) in archived.iter().zip(out).enumerate() {
        // SAFETY: the pointer is aligned and its bytes are there.
        if unsafe { T::Archived::check_bytes(archived.as_ptr(), context) }.is_err() {
            let start = index * size_of::<T>();
            return Err(unreadable::<T>(&bytes[start..start + size_of::<T>()]));
        }
        // SAFETY: just checked.
        match deserialize_using::<T, _, Failure>(unsafe { archived.assume_init_ref() }, &mut pool) {
            Ok(value) => place.write(value),
            Err(_) => return Err(untakeable::<T>()),
        };
    }
    Ok(())
}

#[cold]
#[inline(never)]
fn untakeable<T>() -> Error {
    Error::payload(format!("a valid archive refused to become a {}", type_name::<T>()))
}

/// What two programs must have in common to read each other's archives: rkyv's version and the format
/// that its features choose.
pub(crate) fn format_fingerprint() -> u64 {
    const RKYV_MINOR: u64 = 8;
    // rkyv copies native numbers as they are if, and only if, archives have the machine's byte order.
    let native_order = <u32 as Archive>::COPY_OPTIMIZATION.is_enabled();
    let little = native_order == cfg!(target_endian = "little");
    let align = align_of::<<u64 as Archive>::Archived>() as u64;
    RKYV_MINOR << 32 | (size_of::<ArchivedUsize>() as u64) << 16 | align << 8 | u64::from(little)
}
