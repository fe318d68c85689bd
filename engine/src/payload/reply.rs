//! What tasks return.

use super::{Payload, Room, put};
use crate::chunk::ChunkWriter;
use crate::error::Result;

/// What can be sent as the value of a task: every [`Payload`], as itself, and a
/// [`ResultSlice`](crate::ResultSlice), as a `Vec`. Nobody implements this trait by hand.
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
    fn put(&mut self, room: &mut Room<'_>) -> Result<usize>;

    /// Adds it to the results of a chunk.
    #[doc(hidden)]
    fn push(self, writer: &mut ChunkWriter<'_, '_>);

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
    fn put(&mut self, room: &mut Room<'_>) -> Result<usize> {
        put(self, room.span, room).map(|(_, used)| used)
    }

    #[inline]
    fn push(self, writer: &mut ChunkWriter<'_, '_>) {
        writer.push(&self);
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
