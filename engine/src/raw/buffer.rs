//! Input that is made in shared memory, and not copied.

use super::items::{Trailer, count_in};
use crate::client::{Args, ArgsBlock, Client, Terms};
use crate::error::{Error, Result};
use crate::sys::Lent;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Memory that workers can read, to be filled and handed to tasks without a copy.
///
/// It can be given to any number of tasks. They see what it holds when they run, so it must not be changed before
/// they are done: [`bytes_mut`](Self::bytes_mut) gives nothing as long as that may be so.
pub struct Buffer {
    block: Arc<ArgsBlock>,
    size: usize,
    /// The size of the items that the trailer behind the buffer tells of.
    items: Mutex<Option<usize>>,
    pool: u64,
}

impl Buffer {
    pub(super) fn new(client: &Arc<Client>, terms: &Terms, size: usize) -> Result<Self> {
        if size > isize::MAX as usize - 1024 {
            return Err(Error::invalid(format!("{size} bytes are more than an address space")));
        }
        // There is room for what makes it a block of items.
        let block = client.with_memory_on(terms, || client.arena.take(Trailer::block_len(size)))?;
        Ok(Buffer { block: Arc::new(block), size, items: Mutex::default(), pool: client.segment.pool_id() })
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.size
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// Where it begins: aligned to 128 bytes. What it holds at first is not specified.
    ///
    /// Whoever writes through this makes sure that no task that was given the buffer is still to run, or running:
    /// such a task would see bytes change under it.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.block.ptr()
    }

    /// Lets children that are forked by the C library's `fork` find the buffer where it is: as a private copy that shows
    /// what the buffer holds until the child writes to it. Without this they have nothing there.
    pub fn lend(&self) -> Result<Lending> {
        Ok(Lending { _lent: self.block.lend()?, _block: self.block.clone() })
    }

    /// Its bytes, unless a task has it.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        let size = self.size;
        Some(&mut Arc::get_mut(&mut self.block)?.bytes_mut()[..size])
    }

    /// Where workers find it: [`buffer_at`](super::buffer_at).
    pub fn offset(&self) -> u64 {
        self.block.offset()
    }

    /// Its memory, to be kept by a task that refers to it.
    pub(super) fn kept(&self, client: &Client) -> Result<Arc<ArgsBlock>> {
        self.check_pool(client)?;
        Ok(self.block.clone())
    }

    fn check_pool(&self, client: &Client) -> Result<()> {
        if self.pool == client.segment.pool_id() {
            return Ok(());
        }
        Err(Error::invalid("a buffer can be sent only to workers of the pool that made it"))
    }

    /// Its first `len` bytes as arguments.
    pub(super) fn args(&self, client: &Client, len: usize) -> Result<Args> {
        self.check_pool(client)?;
        if len > self.size {
            return Err(Error::invalid(format!("a buffer of {} bytes has no {len}", self.size)));
        }
        Ok(Args::of_block(self.block.clone(), len))
    }

    /// All of it as items of this size, which can be had as often as wanted, and how many they are.
    pub(super) fn items(&self, client: &Client, item_size: usize) -> Result<(impl Fn() -> Args, usize)> {
        self.check_pool(client)?;
        let count = count_in(self.size, item_size)?;
        let len = Trailer::block_len(self.size);
        let mut known = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != Some(item_size) {
            if known.is_some() && Arc::strong_count(&self.block) > 1 {
                return Err(Error::invalid(
                    "the buffer is in use as items of another size: wait for the tasks that have it",
                ));
            }
            // SAFETY: behind the buffer itself, where nobody but this function writes, under a lock, and only
            // while no task has items of this buffer: the block is that long.
            let end = unsafe {
                let start = self.block.ptr().as_ptr().add(self.size);
                std::slice::from_raw_parts_mut(start, len - self.size)
            };
            Trailer::of_array(item_size, count).write(end);
            *known = Some(item_size);
        }
        Ok((move || Args::of_block(self.block.clone(), len), count))
    }
}

/// A buffer that children find: [`Buffer::lend`].
pub struct Lending {
    _lent: Lent,
    _block: Arc<ArgsBlock>,
}

impl std::fmt::Debug for Lending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lending").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("size", &self.size).finish_non_exhaustive()
    }
}
