//! Waiting with the interpreter free for others, and an ear for Ctrl-C.

use pyo3::prelude::*;
use std::time::{Duration, Instant};

/// How long a thread waits before it looks for signals: the engine does not return from a wait because of one.
pub(crate) const SLICE: Duration = Duration::from_millis(50);

/// A time-out in seconds, as Python gives it: `None` is for ever, less than nothing is nothing.
pub(crate) fn deadline(timeout: Option<f64>) -> Option<Instant> {
    let seconds = timeout?;
    let duration = Duration::try_from_secs_f64(seconds.max(0.0)).ok()?; // more than the clock holds: for ever
    Instant::now().checked_add(duration)
}

/// Calls `wait` with a short time-out until it says that it is over, or the deadline passes: then `false`.
///
/// `wait` runs without the interpreter.
pub(crate) fn sliced(
    py: Python<'_>,
    deadline: Option<Instant>,
    wait: impl Fn(Duration) -> bool + Send + Sync,
) -> PyResult<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let slice = left.map_or(SLICE, |left| left.min(SLICE));
        if py.detach(|| wait(slice)) {
            return Ok(true);
        }
        py.check_signals()?;
        if left.is_some_and(|left| left <= slice) {
            return Ok(false);
        }
    }
}
