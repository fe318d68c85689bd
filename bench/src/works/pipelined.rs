//! Many tasks on their way at once; the time for each.

use super::{Case, Outcome, Scale, Work, cases, warm};
use crate::contestants::{Contestant, Numbers};
use crate::record::{Fields, median};
use serde_json::json;
use std::time::{Duration, Instant};

/// How many tasks are on their way.
pub const WINDOW: usize = 512;

/// `pipelined`.
pub const WORK: Work = Work {
    name: "pipelined",
    about: "a u64 task while 512 are on their way",
    metric: "per_task_ns",
    base: "ring-spin",
    cases: |contestant, scale| match contestant.numbers {
        Some(_) => cases(scale.pick(&[1, 2], &[1, 2, 8], &[1, 2, 8]), &[0]),
        None => Vec::new(),
    },
    run,
};

/// Nanoseconds for each of so many tasks, which must all have been done.
pub fn stream(pool: &mut dyn Numbers, tasks: u64, window: usize) -> Result<f64, &'static str> {
    let start = Instant::now();
    let sum = pool.stream(tasks, window);
    let taken = start.elapsed();
    if sum == tasks * (tasks + 1) / 2 {
        Ok(taken.as_nanos() as f64 / tasks as f64)
    } else {
        Err("a wrong sum of results")
    }
}

fn run(contestant: &Contestant, case: Case, scale: Scale) -> Outcome {
    let mut pool = warm(contestant, case.workers, scale)?;
    let pool = pool.as_mut();
    let time = Duration::from_millis(scale.pick(5, 250, 500));
    // As many as take a tenth of that, so that there are some to take the median of.
    let mut tasks = scale.pick(1000, 2000, 2000);
    loop {
        let each = stream(pool, tasks, WINDOW)?;
        if each * tasks as f64 * 15.0 > time.as_nanos() as f64 {
            break;
        }
        tasks *= 2;
    }
    let begin = Instant::now();
    let mut streams = Vec::new();
    while begin.elapsed() < time || streams.len() < 3 {
        streams.push(stream(pool, tasks, WINDOW)?);
    }
    let mut fields = Fields::new();
    fields.insert("streams".into(), json!(streams.len()));
    fields.insert("tasks".into(), json!(tasks));
    fields.insert("per_task_ns".into(), json!(median(streams)));
    Ok(fields)
}
