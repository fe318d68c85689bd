//! What a worker is to do: one call, or those of a chunk, as bytes.
//!
//! ```text
//! number of the function (5) | place of its definition (4) | kind (1) | what the kind says
//! ```

use crate::codec::Encoder;
use crate::function::{Definition, NAME};
use crate::memory::ClientStore;
use crate::pickle::Pickle;
use crate::pool::Engine;
use engine::raw::Buffer;
use pyo3::prelude::*;
use std::sync::Arc;

/// A value: a tuple of arguments.
pub(crate) const CALL: u8 = 0;
/// A value: the one argument.
pub(crate) const ITEM: u8 = 1;
/// A value: all arguments.
pub(crate) const STAR: u8 = 2;
/// Values, one for each item of a chunk.
pub(crate) const EACH: u8 = 3;
/// A value: a sequence of the items of a chunk.
pub(crate) const MANY: u8 = 4;
/// Start (8) and step (8): the items of a chunk are numbers.
pub(crate) const NUMBERS: u8 = 7;
/// In addition to `EACH` and `MANY`: each item holds all arguments.
pub(crate) const STARRED: u8 = 0x80;
/// A token (8): the worker sends it back. The client knows what went wrong.
pub(crate) const ECHO: u8 = 5;
/// A value: a tuple of a tuple of arguments and a mapping of named ones.
pub(crate) const CALL_NAMED: u8 = 6;

/// Bytes in front of what the kind says.
pub(crate) const HEAD: usize = NAME + 1;

/// The beginning of a call.
#[inline]
pub(crate) fn head(definition: &Definition, kind: u8) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..NAME].copy_from_slice(&definition.head);
    head[NAME] = kind;
    head
}

/// A call that only comes back.
pub(crate) fn echo(token: u64) -> [u8; HEAD + 8] {
    let mut call = [0; HEAD + 8];
    call[NAME] = ECHO;
    call[HEAD..].copy_from_slice(&token.to_ne_bytes());
    call
}

/// A call as bytes, and what it refers to.
#[derive(Default)]
pub(crate) struct Message {
    pub bytes: Vec<u8>,
    pub keep: Vec<Arc<Buffer>>,
}

impl Message {
    fn keep_definition(&mut self, definition: &Definition) {
        if !definition.lasting {
            self.keep.push(definition.buffer.clone());
        }
    }

    /// A call with arguments.
    pub(crate) fn call(
        engine: &Engine,
        definition: &Definition,
        args: &Bound<'_, PyAny>,
        kwds: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mut message = Message { bytes: Vec::with_capacity(64), keep: Vec::new() };
        message.bytes.extend_from_slice(&head(definition, if kwds.is_some() { CALL_NAMED } else { CALL }));
        let mut store = ClientStore::new(&engine.hasty, &engine.memories);
        let mut encoder = Encoder { pickle: &engine.pickle, out: &mut message.bytes, store: &mut store };
        match kwds {
            None => encoder.arguments(args)?,
            Some(kwds) => encoder.named_arguments(args, kwds)?,
        }
        message.keep = store.keep;
        message.keep_definition(definition);
        Ok(message)
    }

    /// A call with one item.
    pub(crate) fn item(
        engine: &Engine,
        definition: &Definition,
        item: &Bound<'_, PyAny>,
        star: bool,
    ) -> PyResult<Self> {
        let mut store = ClientStore::new(&engine.hasty, &engine.memories);
        let bytes = item_call(&engine.pickle, definition, item, star, &mut store)?;
        let mut message = Message { bytes, keep: store.keep };
        message.keep_definition(definition);
        Ok(message)
    }
}

/// The bytes of a call with one item; what these refer to is in the store.
pub(crate) fn item_call(
    pickle: &Pickle,
    definition: &Definition,
    item: &Bound<'_, PyAny>,
    star: bool,
    store: &mut ClientStore<'_>,
) -> PyResult<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&head(definition, if star { STAR } else { ITEM }));
    Encoder { pickle, out: &mut out, store }.value(item)?;
    Ok(out)
}
