//! The pool itself, by its public methods.

use super::{Bytes, Job, Maps, Numbers, Started};
use crate::tasks::{compute, inc, look, xor_shared, xor_view};
use ringpool::{AsyncResult, Pool, SharedSlice};
use std::collections::VecDeque;

/// `apply` for single calls.
pub struct Ringpool {
    pool: Pool,
    stream: fn(&Pool, u64, usize) -> u64,
}

/// Streams are made of `apply_async`.
pub fn apply_async(workers: usize) -> Started<dyn Numbers> {
    Ok(Box::new(Ringpool { pool: Pool::new(workers)?, stream: by_apply_async }))
}

/// Streams are `imap_unordered` with one item to a chunk.
pub fn imap_unordered(workers: usize) -> Started<dyn Numbers> {
    Ok(Box::new(Ringpool { pool: Pool::new(workers)?, stream: by_imap_unordered }))
}

fn by_apply_async(pool: &Pool, tasks: u64, window: usize) -> u64 {
    let get = |result: AsyncResult<u64>| result.get().expect("a result");
    let mut results = VecDeque::with_capacity(window);
    let mut sum = 0u64;
    for i in 0..tasks {
        if results.len() == window {
            sum = sum.wrapping_add(results.pop_front().map_or(0, get));
        }
        results.push_back(pool.apply_async(inc, (i,)).expect("a slot"));
    }
    results.into_iter().map(get).fold(sum, u64::wrapping_add)
}

fn by_imap_unordered(pool: &Pool, tasks: u64, window: usize) -> u64 {
    let results = pool.imap_unordered(inc, 0..tasks, 1).expect("a running pool").buffersize(window);
    results.map(|result| result.expect("a result")).fold(0, u64::wrapping_add)
}

impl Numbers for Ringpool {
    fn call(&mut self, x: u64) -> u64 {
        self.pool.apply(inc, (x,)).expect("a result")
    }

    fn stream(&mut self, tasks: u64, window: usize) -> u64 {
        (self.stream)(&self.pool, tasks, window)
    }
}

/// `map` over a slice, in default chunks.
pub fn map(workers: usize) -> Started<dyn Maps> {
    Ok(Box::new(Ringpool { pool: Pool::new(workers)?, stream: by_imap_unordered }))
}

impl Maps for Ringpool {
    fn map(&mut self, job: Job, items: &[u64]) -> Vec<u64> {
        let items = items.iter().copied();
        match job {
            Job::Trivial => self.pool.map(inc, items),
            Job::Compute => self.pool.map(compute, items),
        }
        .expect("results")
    }
}

/// A `Vec` as argument, the result looked at where it lies.
struct Vectors {
    pool: Pool,
    next: Vec<u8>,
}

/// Bytes as an argument like any other.
pub fn vectors(workers: usize, _: &[u8]) -> Started<dyn Bytes> {
    Ok(Box::new(Vectors { pool: Pool::new(workers)?, next: Vec::new() }))
}

impl Bytes for Vectors {
    fn load(&mut self, data: &[u8]) {
        self.next = data.to_vec();
    }

    fn echo(&mut self) -> u64 {
        let bytes = std::mem::take(&mut self.next);
        let result = self.pool.apply_view(xor_view, (bytes,));
        look(&result.expect("a result"))
    }
}

/// An argument that was made in the pool's memory.
struct Slices {
    // Before the pool, whose memory it is.
    data: SharedSlice<u8>,
    pool: Pool,
}

/// Bytes that lie in shared memory already.
pub fn slices(workers: usize, data: &[u8]) -> Started<dyn Bytes> {
    let pool = Pool::new(workers)?;
    let mut array = pool.alloc::<u8>(data.len())?;
    array.copy_from_slice(data);
    Ok(Box::new(Slices { data: array.share(), pool }))
}

impl Bytes for Slices {
    fn load(&mut self, _: &[u8]) {}

    fn echo(&mut self) -> u64 {
        let result = self.pool.apply_view(xor_shared, (self.data.clone(),));
        look(&result.expect("a result"))
    }
}
