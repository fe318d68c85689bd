//! Threads behind two unbounded crossbeam channels, one for jobs and one for results.

use super::{Bytes, Numbers, Started};
use crate::tasks::{inc, look, xor};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::thread::JoinHandle;

/// Threads that take calls of one function from a channel, and send results to another.
pub struct ThreadPool<A, R> {
    jobs: Option<Sender<A>>,
    results: Receiver<R>,
    threads: Vec<JoinHandle<()>>,
}

impl<A: Send + 'static, R: Send + 'static> ThreadPool<A, R> {
    /// So many threads for `f`.
    pub fn new(threads: usize, f: fn(A) -> R) -> Self {
        let (jobs, inbox) = unbounded::<A>();
        let (outbox, results) = unbounded();
        let threads = (0..threads)
            .map(|_| {
                let (inbox, outbox) = (inbox.clone(), outbox.clone());
                std::thread::spawn(move || {
                    for argument in inbox {
                        if outbox.send(f(argument)).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        ThreadPool { jobs: Some(jobs), results, threads }
    }

    /// Sends one call.
    pub fn submit(&self, argument: A) {
        self.jobs.as_ref().expect("open until dropped").send(argument).expect("threads live");
    }

    /// The next result, whichever it is.
    pub fn next_result(&self) -> R {
        self.results.recv().expect("threads live")
    }

    /// One call, waited for.
    pub fn apply(&self, argument: A) -> R {
        self.submit(argument);
        self.next_result()
    }
}

impl<A, R> Drop for ThreadPool<A, R> {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// For streams and calls of numbers.
pub fn numbers(workers: usize) -> Started<dyn Numbers> {
    Ok(Box::new(ThreadPool::new(workers, inc)))
}

impl Numbers for ThreadPool<u64, u64> {
    fn call(&mut self, x: u64) -> u64 {
        self.apply(x)
    }

    fn stream(&mut self, tasks: u64, window: usize) -> u64 {
        let mut sum = 0u64;
        for i in 0..tasks {
            if i >= window as u64 {
                sum = sum.wrapping_add(self.next_result());
            }
            self.submit(i);
        }
        (0..tasks.min(window as u64)).fold(sum, |sum, _| sum.wrapping_add(self.next_result()))
    }
}

/// Threads move `Vec`s, that is pointers.
struct Vectors {
    threads: ThreadPool<Vec<u8>, Vec<u8>>,
    next: Vec<u8>,
}

/// For bytes.
pub fn bytes(workers: usize, _: &[u8]) -> Started<dyn Bytes> {
    Ok(Box::new(Vectors { threads: ThreadPool::new(workers, |bytes| xor(&bytes)), next: Vec::new() }))
}

impl Bytes for Vectors {
    fn load(&mut self, data: &[u8]) {
        self.next = data.to_vec();
    }

    fn echo(&mut self) -> u64 {
        look(&self.threads.apply(std::mem::take(&mut self.next)))
    }
}
