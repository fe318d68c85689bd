//! How Python's objects travel: plain ones by a few bytes each, others by pickle, large buffers beside them.
//!
//! A value is a tag and what belongs to it, in native byte order:
//!
//! | tag | what follows |
//! | --- | --- |
//! | `NONE`, `TRUE`, `FALSE` | nothing |
//! | `INT`, `FLOAT`, `NUMPY_INT`, `NUMPY_FLOAT` | 8 bytes |
//! | `STR`, `BYTES`, `BYTEARRAY` | length (4), then as many bytes |
//! | `TUPLE`, `LIST` | count (4), values |
//! | `SHORT_TUPLE` | count (1), values |
//! | `DICT` | count (4), keys and values in turn |
//! | `FAR_BYTES`, `FAR_BYTEARRAY` | where (16) |
//! | `PICKLE` | count of buffers (4), length (8), buffers, as many bytes |
//! | `RAISED` | two values: the text of a traceback, and what [`describe`](crate::pickle::Pickle::describe) made of the exception |
//! | `FORWARD` | where (8) the value is, behind a large part that is there already |
//! | `LOCAL` | a token (8): the client knows what went wrong |
//!
//! A buffer of a pickle is `NEAR`, length (8) and the bytes, or `FAR` and where (16). *Where* is an offset and a
//! length: in the pool's buffer memory on the way to a worker, behind the value itself on the way back.
//!
//! Pickle decides what an object is whenever two references to one mutable object could be told from two objects:
//! lists, dictionaries and byte arrays are written plainly only if nothing but their container refers to them.

mod decode;
mod encode;

pub(crate) use decode::{Answer, Decoder, Fetch};
pub(crate) use encode::{Encoder, RawBuffer, Store};

pub(crate) const NONE: u8 = 0;
pub(crate) const TRUE: u8 = 1;
pub(crate) const FALSE: u8 = 2;
pub(crate) const INT: u8 = 3;
pub(crate) const FLOAT: u8 = 4;
pub(crate) const STR: u8 = 5;
pub(crate) const BYTES: u8 = 6;
pub(crate) const BYTEARRAY: u8 = 7;
pub(crate) const TUPLE: u8 = 8;
pub(crate) const LIST: u8 = 9;
pub(crate) const DICT: u8 = 10;
pub(crate) const FAR_BYTES: u8 = 11;
pub(crate) const FAR_BYTEARRAY: u8 = 12;
pub(crate) const PICKLE: u8 = 13;
pub(crate) const RAISED: u8 = 14;
pub(crate) const LOCAL: u8 = 15;
pub(crate) const SHORT_TUPLE: u8 = 16;
pub(crate) const FORWARD: u8 = 17;
pub(crate) const NUMPY_INT: u8 = 18;
pub(crate) const NUMPY_FLOAT: u8 = 19;

pub(crate) const NEAR: u8 = 0;
pub(crate) const FAR: u8 = 1;

/// From so many bytes on a buffer travels beside the value, and is mapped where it arrives: below, a copy is cheaper.
pub(crate) const LARGE: usize = 64 << 10;
