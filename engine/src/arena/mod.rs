//! Payload memory: each process allocates from its own region, others only give blocks back.
//!
//! A region is cut into extents of 2 MiB. An extent serves blocks of one size class, or belongs to a
//! run of extents that is one large block. The only shared state of a block is its word; which class
//! an extent has is written by the region's owner before it hands out the first block.

mod block;
#[cfg(not(loom))]
mod class;
#[cfg(not(loom))]
mod region;

pub(crate) use block::{Adoption, BlockHandle, BlockWord};
#[cfg(not(loom))]
pub(crate) use class::{Class, EXTENT, LARGEST, WORDS_PER_EXTENT};
#[cfg(not(loom))]
pub(crate) use region::{Block, Region, used_extents};
