//! What the stepped worker has to do, and what may come of it.

use ringpool::{Error, ErrorKind, Exit, Pool, Result};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A wait that is longer than this has hung.
pub const HUNG: Duration = Duration::from_secs(20);

/// Numbers of one run end here: the counter of a number is its remainder.
pub const NUMBERS: u64 = 64;
/// Numbers of the work itself come first, those of other tasks from here.
pub const OTHERS: u64 = 32;

/// How often each task was begun, in memory that the pool's forks share with us.
fn counters() -> &'static [AtomicU32; NUMBERS as usize] {
    static COUNTERS: OnceLock<&'static [AtomicU32; NUMBERS as usize]> = OnceLock::new();
    COUNTERS.get_or_init(|| {
        let len = size_of::<[AtomicU32; NUMBERS as usize]>();
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: new memory at an address that the kernel chooses.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        // SAFETY: a page of zeros, which atomics may be; it is never unmapped.
        unsafe { &*memory.cast() }
    })
}

/// To be called before a pool is started, so that its workers share the counters; and before each run.
pub fn reset_counts() {
    counters().iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
}

/// How often the task of this number was begun.
pub fn count(number: u64) -> u32 {
    counters()[(number % NUMBERS) as usize].load(Ordering::Relaxed)
}

fn begin(number: u64) {
    counters()[(number % NUMBERS) as usize].fetch_add(1, Ordering::Relaxed);
}

/// The smallest task.
pub fn tiny(number: u64) -> u64 {
    begin(number);
    3 * number + 1
}

/// How many numbers an argument and a result of [`block`] have: 4 KiB, which lie in blocks.
const BLOCK: u64 = 512;

fn block(numbers: Vec<u64>) -> Vec<u64> {
    begin(numbers[0]);
    let mut numbers = numbers;
    numbers[0] = tiny_value(numbers[0]);
    numbers
}

fn tiny_value(number: u64) -> u64 {
    3 * number + 1
}

fn numbers(first: u64) -> Vec<u64> {
    (first..first + BLOCK).collect()
}

/// What came of one task.
#[derive(Debug)]
#[expect(dead_code, reason = "the texts are for the reader of a failure")]
pub enum Outcome {
    /// Its value.
    Right,
    /// The death of its worker.
    Died {
        /// How it died.
        end: Exit,
        /// Which process it was.
        pid: u32,
    },
    /// Nothing, for so long that nothing will.
    Hung,
    /// What never may come.
    Wrong(String),
}

impl Outcome {
    fn of<T: PartialEq + std::fmt::Debug>(result: Result<T>, expected: &T) -> Self {
        match result {
            Ok(value) if value == *expected => Outcome::Right,
            Ok(value) => Outcome::Wrong(format!("{value:?} instead of {expected:?}")),
            Err(error) => Outcome::failed(&error),
        }
    }

    fn failed(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::WorkerDied { end, pid, .. } => Outcome::Died { end: *end, pid: *pid },
            ErrorKind::Timeout { .. } => Outcome::Hung,
            _ => Outcome::Wrong(error.to_string()),
        }
    }
}

/// Waits for the result of [`tiny`].
pub fn outcome_of_tiny(result: &ringpool::AsyncResult<u64>, number: u64) -> Outcome {
    Outcome::of(result.get_timeout(HUNG), &tiny_value(number))
}

/// What the worker is stepped through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// One number to another, in the slot; its caller sleeps on the slot's word.
    Tiny,
    /// Several of these at once.
    Batch,
    /// Argument and result in blocks.
    Blocks,
    /// Items of a map that travel together; their caller sleeps on the sleep word.
    Chunk,
    /// An item of a stream; its caller sleeps on the sleep word.
    Stream,
}

impl Work {
    /// How many numbers it takes.
    pub fn len(self) -> u64 {
        match self {
            Work::Tiny | Work::Blocks | Work::Stream => 1,
            Work::Batch => 3,
            Work::Chunk => 8,
        }
    }

    /// Does it all with the numbers from `first`; an outcome for each. Calls `submitted` when the workers
    /// can begin.
    pub fn run(self, pool: &Pool, first: u64, submitted: impl FnOnce()) -> Vec<Outcome> {
        let all = first..first + self.len();
        match self {
            Work::Tiny | Work::Batch => {
                let results: Vec<_> = all.clone().map(|i| pool.apply_async(tiny, (i,))).collect();
                submitted();
                let outcomes = results.iter().zip(all).map(|(result, i)| match result {
                    Ok(result) => outcome_of_tiny(result, i),
                    Err(error) => Outcome::failed(error),
                });
                outcomes.collect()
            }
            Work::Blocks => {
                let mut expected = numbers(first);
                expected[0] = tiny_value(first);
                let result = pool.apply_async(block, (numbers(first),));
                submitted();
                vec![Outcome::of(result.and_then(|result| result.get_timeout(HUNG)), &expected)]
            }
            Work::Chunk => {
                let results = pool.map_async(tiny, all.clone(), Some(self.len() as usize));
                submitted();
                let results = results.and_then(|results| match results.wait(Some(HUNG)) {
                    true => results.get_each(),
                    false => Err(ErrorKind::Timeout { waited: HUNG }.into()),
                });
                match results {
                    Ok(results) if results.len() as u64 == self.len() => {
                        all.zip(results).map(|(i, result)| Outcome::of(result, &tiny_value(i))).collect()
                    }
                    Ok(results) => vec![Outcome::Wrong(format!("{} results", results.len()))],
                    Err(error) => vec![Outcome::failed(&error)],
                }
            }
            Work::Stream => {
                let results = pool.imap_unordered(tiny, [first], 1);
                submitted();
                let mut results = match results {
                    Ok(results) => results,
                    Err(error) => return vec![Outcome::failed(&error)],
                };
                let mut outcomes = Vec::new();
                while let Some(result) = results.next_timeout(HUNG) {
                    outcomes.push(Outcome::of(result, &tiny_value(first)));
                    if matches!(outcomes.last(), Some(Outcome::Hung)) {
                        break;
                    }
                }
                outcomes
            }
        }
    }
}
