//! `ringpool._native`: the engine as Python sees it.
//!
//! A call is [encoded](codec) into bytes, which the [engine](::engine) carries to a worker; there [`worker`] decodes
//! it, calls the function, and encodes what comes of it. Nothing but bytes and shared memory passes between the two.

mod answer;
mod call;
mod codec;
mod error;
mod fed;
mod function;
mod imap;
mod inline;
mod launch;
mod map;
mod memory;
mod overflow;
mod pickle;
mod pool;
mod result;
mod wait;
mod worker;

/// Everything of the package that is in machine code.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::imap::IMapIterator;
    #[pymodule_export]
    use crate::map::MapResult;
    #[pymodule_export]
    use crate::memory::{Memory, View, worker_memory};
    #[pymodule_export]
    use crate::pool::Engine;
    #[pymodule_export]
    use crate::result::ApplyResult;
    #[pymodule_export]
    use crate::worker::serve;
}
