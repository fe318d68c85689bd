//! Counting what comes of tasks, by many threads at once.

use crate::proof::Proof;
use ringpool::{AsyncResult, Error, Payload};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A wait that takes longer than this has hung: nothing here takes a tenth of it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What came of tasks so far.
#[derive(Default)]
pub struct Tally {
    delivered: AtomicU64,
    lost: AtomicU64,
    hung: AtomicU64,
    deaths: AtomicU64,
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

impl Tally {
    /// An outcome that came: the value of a call, which is right or wrong, or its error.
    ///
    /// The death of the worker is an outcome to be expected. Any other error counts as a lost task.
    pub fn outcome<R>(&self, outcome: Result<R, Error>, right: impl FnOnce(&R) -> bool) {
        match outcome {
            Ok(value) if right(&value) => add(&self.delivered, 1),
            Ok(_) => self.lose(1, "a wrong value"),
            Err(error) if error.is_worker_died() => {
                add(&self.delivered, 1);
                add(&self.deaths, 1);
            }
            Err(error) if error.is_timeout() => {
                eprintln!("hung: {error}");
                add(&self.hung, 1);
            }
            Err(error) => self.lose(1, &error.to_string()),
        }
    }

    /// Waits for a result, not for ever, and counts what came of it.
    pub fn get<R: Payload>(&self, result: &AsyncResult<R>, right: impl FnOnce(&R) -> bool) {
        self.outcome(result.get_timeout(PATIENCE), right);
    }

    /// Tasks whose outcome was right.
    pub fn deliver(&self, tasks: u64) {
        add(&self.delivered, tasks);
    }

    /// Tasks whose outcome was missing, wrong or there twice.
    pub fn lose(&self, tasks: u64, why: &str) {
        if tasks > 0 {
            eprintln!("{tasks} lost: {why}");
        }
        add(&self.lost, tasks);
    }

    /// Waits that did not end in time.
    pub fn hang(&self, waits: u64) {
        add(&self.hung, waits);
    }

    /// How many tasks failed because their worker died.
    pub fn deaths(&self) -> u64 {
        self.deaths.load(Ordering::Relaxed)
    }

    /// How many outcomes came.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// How many tasks were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// As a proof of this kind, to which kills and leaks are to be added.
    pub fn proof(&self, kind: impl Into<String>) -> Proof {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Proof {
            runs: 1,
            delivered: count(&self.delivered),
            lost: count(&self.lost),
            hung: count(&self.hung),
            ..Proof::of(kind)
        }
    }
}
