//! What tasks return.

use super::{Payload, Room, put};
use crate::chunk::ChunkWriter;
use crate::error::Result;

/// What can be sent as the value of a task: every [`Payload`], as itself, and a
/// [`ResultSlice`](crate::ResultSlice), as a `Vec`. Nobody implements this trait by hand.
///
/// It is for all types, so it has no methods: these would hide their own, such as `Vec::push`.
///
/// ```
/// # ringpool::init();
/// use ringpool::*;
/// let pool = Pool::new(1)?;
/// let mut values = Vec::new();
/// values.push(pool.apply(|x: u64| x + 1, (1,))?);
/// assert_eq!(values, [2]);
/// # Ok::<(), Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent to another process",
    label = "neither a payload nor a `ResultSlice`",
    note = "derive `rkyv::Archive`, `rkyv::Serialize` and `rkyv::Deserialize` for it; references and types \
            with lifetimes cannot be payloads"
)]
pub trait Reply: Sized {
    /// What the other side gets.
    type Value: Payload;

    /// Writes the archive to the start of `room`: how long it is.
    #[doc(hidden)]
    fn put(value: &mut Self, room: &mut Room<'_>) -> Result<usize>;

    /// Adds it to the results of a chunk.
    #[doc(hidden)]
    fn push(value: Self, writer: &mut ChunkWriter<'_, '_>);

    /// [`ChunkWriter::push_values`], if it can be done with values of this type.
    #[doc(hidden)]
    #[inline]
    fn push_all<I, E>(
        _items: &[I],
        _make: impl FnMut(u32, &I) -> Result<Self, E>,
        _writer: &mut ChunkWriter<'_, '_>,
    ) -> Option<E> {
        None
    }
}

impl<T: Payload> Reply for T {
    type Value = T;

    #[inline]
    fn put(value: &mut Self, room: &mut Room<'_>) -> Result<usize> {
        put(value, room.span, room).map(|(_, used)| used)
    }

    #[inline]
    fn push(value: Self, writer: &mut ChunkWriter<'_, '_>) {
        writer.push(&value);
    }

    #[inline]
    fn push_all<I, E>(
        items: &[I],
        make: impl FnMut(u32, &I) -> Result<T, E>,
        writer: &mut ChunkWriter<'_, '_>,
    ) -> Option<E> {
        writer.push_values(items, make)
    }
}
