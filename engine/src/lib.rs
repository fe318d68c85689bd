#![doc = include_str!("../README.md")]
// Under loom only the parts that it checks are built.
#![cfg_attr(loom, allow(dead_code, unused_imports, missing_docs))]

#[cfg(not(any(target_os = "linux", loom)))]
compile_error!("ringpool needs Linux: memfd, pidfd and futexes shared between processes");

mod arena;
mod ring;
mod slot;
mod sync;
mod wake;

#[cfg(not(loom))]
mod attach;
#[cfg(not(loom))]
pub mod audit;
#[cfg(not(loom))]
mod chunk;
#[cfg(not(loom))]
mod client;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod launch;
#[cfg(not(loom))]
mod name_card;
#[cfg(all(not(loom), feature = "parts"))]
pub mod parts;
#[cfg(not(loom))]
mod payload;
#[cfg(not(loom))]
mod pool;
#[cfg(not(loom))]
pub mod raw;
#[cfg(not(loom))]
mod recovery;
#[cfg(not(loom))]
mod result_slice;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod shared_slice;
#[cfg(not(loom))]
mod supervisor;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
mod task;
#[cfg(not(loom))]
mod worker;

#[cfg(all(test, not(loom)))]
mod fuzz;
#[cfg(all(test, loom))]
mod loom_tests;

#[cfg(not(loom))]
mod api {
    pub use crate::attach::{Attached, Served, attach};
    pub use crate::error::{Error, ErrorKind, Exit, Result};
    pub use crate::launch::{Context, init, is_worker};
    pub use crate::payload::{Payload, Reply, rkyv};
    pub use crate::pool::{AsyncResult, Builder, IMap, MapResult, Pool, View};
    pub use crate::result_slice::ResultSlice;
    pub use crate::shared_slice::{ArchivedSharedSlice, Pod, SharedSlice, SliceMut};
    pub use crate::task::{Named, Output, Task, TaskError, fallible, named, plain, register};

    #[cfg(feature = "crash")]
    #[doc(hidden)]
    pub use crate::sync::crash;

    /// How many CPUs this process may use: what a pool's size is by default.
    pub fn usable_cpus() -> usize {
        crate::sys::usable_cpus()
    }
}
#[cfg(not(loom))]
pub use api::*;
