//! Hints that tell workers which slots are ready, and clients which are done.
//!
//! Nothing here is the truth: a hint may be lost, stale or repeated, and is used only by trying a
//! transition on the slot that it names. `README.md` beside this file has the protocol.

mod completion;
mod flag;
mod ready;
mod requeue;
mod window;

pub(crate) use completion::{CompletionControl, CompletionRing};
pub(crate) use flag::Flag;
pub(crate) use ready::{ReadyControl, ReadyRing};
pub(crate) use requeue::Requeue;
pub(crate) use window::{BATCH, Hint, Window};
