//! The door for other languages: functions that are found by name and work on bytes.
//!
//! The rest of this crate finds functions by their types. A binding has no types to offer: it has a name, some
//! bytes, and a function that is known when the program runs. This module knows nothing of any language.
//!
//! **The contract.** What travels is the task's input and its output, byte for byte, and nothing else. A
//! [`Function`] over bytes sees its input where it lies, aligned to 16 bytes, and writes its output where it will
//! be read. A function of Rust that was [registered](crate::register) with its types sees the same bytes as
//! the rkyv archive of its arguments, and its output is the archive of its value. For numbers, and structures and
//! tuples of them without padding, an archive is the value as it lies in memory: so
//!
//! | this | called like this | is |
//! | --- | --- | --- |
//! | `register("add", \|a: u64, b: u64\| a + b)` | [`Caller::apply`] with the 16 bytes of two `u64` | 8 bytes, their sum |
//! | [`register`]`("add", ..)` over 16 bytes | `apply(named::<(u64, u64), u64>("add"), (1, 2))` | 3 |
//!
//! A `String` or a `Vec` is not its bytes, but an archive that refers to them. Who wants plain bytes of any
//! length in Rust, too, registers a [`Function`] and calls it with a [`Caller`].
//!
//! ```
//! # ringpool::init();
//! use ringpool::{Pool, raw};
//!
//! raw::register("upper", raw::Function::new(|input, output| output.write(&input.to_ascii_uppercase())))?;
//! let pool = Pool::new(1)?;
//! let upper = raw::Name::new("upper")?;
//! assert_eq!(&*pool.raw().apply(upper, &b"quiet"[..])?, b"QUIET");
//! # Ok::<(), ringpool::Error>(())
//! ```
//!
//! Items of a `map` travel in chunks. Items of [one size](Array) lie side by side, so a function of Rust over such
//! items can be mapped, too; items of any size are seen by functions over bytes only. And
//! [`Function::array`] is called once for a chunk, with all its items.

mod buffer;
mod caller;
mod claimed;
mod feed;
mod items;
mod iter;
mod launch;
mod map;
mod name;
mod private;
mod queue;
mod results;
mod stream;
mod task;

pub use buffer::Buffer;
pub use caller::{Caller, Input, Pending};
pub use claimed::{Claimed, claim};
pub use feed::MapFeed;
pub use items::Array;
pub use iter::{Iter, Order, Source};
pub use launch::{Launcher, Service, serve};
pub use map::MapPending;
pub use name::Name;
pub use private::{Private, buffer_at};
pub use queue::Queue;
pub use results::{Bytes, Results};
pub use task::{Batch, Chunk, Failure, Function, Output, register};
