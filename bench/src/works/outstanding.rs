//! What a task costs in streams of few and of many.

use super::pipelined::{WINDOW, stream};
use super::{Case, Outcome, Scale, Work, cases, warm};
use crate::contestants::Contestant;
use crate::record::{Fields, median};
use serde_json::json;
use std::time::{Duration, Instant};

/// `outstanding`.
pub const WORK: Work = Work {
    name: "outstanding",
    about: "a u64 task in a stream of so many",
    metric: "per_task_ns",
    base: "ring-spin",
    cases: |contestant, scale| {
        let sizes = [1000, 10_000, 100_000, 1_000_000, 10_000_000];
        let sizes = scale.pick(&sizes[..2], &sizes[..4], &sizes[..]);
        if contestant.long_streams { cases(&[1, 2], sizes) } else { Vec::new() }
    },
    run,
};

fn run(contestant: &Contestant, case: Case, scale: Scale) -> Outcome {
    let mut pool = warm(contestant, case.workers, scale)?;
    let pool = pool.as_mut();
    // A pool has as many slots by default. An iterator has its buffer.
    let window = if contestant.name == "ringpool" { 1024 } else { WINDOW };
    stream(pool, 2000, window)?;
    let time = Duration::from_millis(scale.pick(0, 60, 100));
    let begin = Instant::now();
    let mut streams = Vec::new();
    while begin.elapsed() < time || streams.is_empty() {
        streams.push(stream(pool, case.size as u64, window)?);
    }
    let mut fields = Fields::new();
    fields.insert("streams".into(), json!(streams.len()));
    fields.insert("window".into(), json!(window));
    fields.insert("per_task_ns".into(), json!(median(streams)));
    Ok(fields)
}
