//! Rayon's thread pool: `install` for a call, `scope` and `spawn` for streams, parallel iterators for maps.

use super::{Bytes, Job, Maps, Numbers, Started};
use crate::tasks::{compute, inc, look, xor};
use rayon::prelude::*;

struct Rayon {
    threads: rayon::ThreadPool,
    results: Vec<u64>,
    next: Vec<u8>,
}

fn start(workers: usize) -> Result<Rayon, rayon::ThreadPoolBuildError> {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(workers).build()?;
    Ok(Rayon { threads, results: Vec::new(), next: Vec::new() })
}

/// For streams and calls of numbers.
pub fn numbers(workers: usize) -> Started<dyn Numbers> {
    Ok(Box::new(start(workers)?))
}

impl Numbers for Rayon {
    fn call(&mut self, x: u64) -> u64 {
        self.threads.install(|| inc(std::hint::black_box(x)))
    }

    fn stream(&mut self, tasks: u64, window: usize) -> u64 {
        self.results.resize(window, 0);
        let mut sum = 0u64;
        let mut done = 0;
        while done < tasks {
            // A scope has no sliding window; this one is refilled when it is empty.
            let round = (tasks - done).min(window as u64);
            let results = &mut self.results[..round as usize];
            self.threads.scope(|scope| {
                for (i, result) in (done..).zip(results.iter_mut()) {
                    scope.spawn(move |_| *result = inc(i));
                }
            });
            sum = results.iter().fold(sum, |sum, &result| sum.wrapping_add(result));
            done += round;
        }
        sum
    }
}

/// For maps of slices.
pub fn maps(workers: usize) -> Started<dyn Maps> {
    Ok(Box::new(start(workers)?))
}

impl Maps for Rayon {
    fn map(&mut self, job: Job, items: &[u64]) -> Vec<u64> {
        match job {
            Job::Trivial => self.threads.install(|| items.par_iter().map(|&x| inc(x)).collect()),
            Job::Compute => self.threads.install(|| items.par_iter().map(|&x| compute(x)).collect()),
        }
    }
}

/// For bytes: the `Vec` is borrowed, not moved.
pub fn bytes(workers: usize, _: &[u8]) -> Started<dyn Bytes> {
    Ok(Box::new(start(workers)?))
}

impl Bytes for Rayon {
    fn load(&mut self, data: &[u8]) {
        self.next = data.to_vec();
    }

    fn echo(&mut self) -> u64 {
        let bytes = std::mem::take(&mut self.next);
        look(&self.threads.install(|| xor(&bytes)))
    }
}
