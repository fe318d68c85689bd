//! Which instructions a sweep stops at, and in which order.

use ringpool_tests::proof::Extent;
use std::time::{Duration, Instant, SystemTime};

/// Says where samples begin, so that a run can be repeated.
const OFFSET: &str = "RINGPOOL_STEPS_OFFSET";

/// The numbers below `count`, each once, in an order whose every beginning is spread evenly: a sweep that is
/// cut short by its deadline is a sample.
pub struct Plan {
    count: u64,
    stride: u64,
    next: u64,
    given: u64,
    deadline: Instant,
}

impl Plan {
    /// Begins at an offset of its own in each run, and says at which.
    pub fn new(kind: &str, count: u64, limit: Duration) -> Self {
        let clock =
            || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let offset = match std::env::var(OFFSET) {
            Ok(text) => text.parse().expect("a number in RINGPOOL_STEPS_OFFSET"),
            Err(_) => clock() % count,
        };
        println!("{kind}: {count} instructions, from {OFFSET}={offset}");
        Plan {
            count,
            stride: stride(count),
            next: offset % count,
            given: 0,
            deadline: Instant::now() + limit,
        }
    }

    /// How many of the numbers have been given.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Whether all have been.
    pub fn is_complete(&self) -> bool {
        self.given == self.count
    }
}

impl Iterator for Plan {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.is_complete() || Instant::now() > self.deadline {
            return None;
        }
        let number = self.next;
        self.next = (self.next + self.stride) % self.count;
        self.given += 1;
        Some(number)
    }
}

/// About the golden section of `count`, and without a common divisor: then multiples fall into the largest
/// gap each time, and none twice.
fn stride(count: u64) -> u64 {
    let golden = (count as f64 * 0.618) as u64;
    (golden.max(1)..).find(|&stride| divisor(stride, count) == 1).expect("there is a prime")
}

fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// How long one kind of sweep may take; a full one ends earlier, when all is done.
pub fn limit() -> Duration {
    Duration::from_millis(Extent::now().pick(1_000, 3_000, 40_000))
}

/// How often the way is recorded: it is not always the same, for others act meanwhile.
pub fn recordings() -> u32 {
    Extent::now().pick(1, 3, 3)
}
