//! procspawn's `Pool`: fresh runs of the program, behind two socket pairs for each task.
//!
//! With its default features but `backtrace`, which would cost more.

use super::{Bytes, Numbers, Started};
use crate::tasks::{inc, look, xor};
use procspawn::{JoinHandle, Pool};
use std::collections::VecDeque;

struct Procspawn {
    pool: Pool,
    next: Vec<u8>,
}

fn start(workers: usize) -> Result<Procspawn, procspawn::SpawnError> {
    // The workers would be told to do a turn, and their output would be ours.
    let pool = Pool::builder(workers).disable_stdin().disable_stdout().build()?;
    Ok(Procspawn { pool, next: Vec::new() })
}

/// For streams and calls of numbers.
pub fn numbers(workers: usize) -> Started<dyn Numbers> {
    Ok(Box::new(start(workers)?))
}

impl Numbers for Procspawn {
    fn call(&mut self, x: u64) -> u64 {
        self.pool.spawn(x, inc).join().expect("a result")
    }

    fn stream(&mut self, tasks: u64, window: usize) -> u64 {
        let get = |handle: JoinHandle<u64>| handle.join().expect("a result");
        let mut handles = VecDeque::with_capacity(window);
        let mut sum = 0u64;
        for i in 0..tasks {
            if handles.len() == window {
                sum = sum.wrapping_add(handles.pop_front().map_or(0, get));
            }
            handles.push_back(self.pool.spawn(i, inc));
        }
        handles.into_iter().map(get).fold(sum, u64::wrapping_add)
    }
}

/// For bytes.
pub fn bytes(workers: usize, _: &[u8]) -> Started<dyn Bytes> {
    Ok(Box::new(start(workers)?))
}

impl Bytes for Procspawn {
    fn load(&mut self, data: &[u8]) {
        self.next = data.to_vec();
    }

    fn echo(&mut self) -> u64 {
        let bytes = std::mem::take(&mut self.next);
        look(&self.pool.spawn(bytes, |bytes| xor(&bytes)).join().expect("a result"))
    }
}

impl Drop for Procspawn {
    fn drop(&mut self) {
        self.pool.kill();
    }
}
