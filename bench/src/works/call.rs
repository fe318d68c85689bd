//! One task at a time, each waited for, one at once after the other; every one of them timed.

use super::{Case, Outcome, Scale, Work, cases, histogram, quantiles, warm};
use crate::contestants::Contestant;
use std::time::{Duration, Instant};

/// `call`.
pub const WORK: Work = Work {
    name: "call",
    about: "one u64 task and its result, everybody awake",
    metric: "p50_ns",
    base: "ring-spin",
    cases: |contestant, scale| match contestant.numbers {
        Some(_) => cases(scale.pick(&[1, 2], &[1, 2, 8], &[1, 2, 8]), &[0]),
        None => Vec::new(),
    },
    run,
};

fn run(contestant: &Contestant, case: Case, scale: Scale) -> Outcome {
    let mut pool = warm(contestant, case.workers, scale)?;
    let mut times = histogram();
    let time = Duration::from_millis(scale.pick(2, 200, 400));
    let begin = Instant::now();
    let mut x = 0u64;
    while begin.elapsed() < time {
        for _ in 0..16 {
            let start = Instant::now();
            let result = pool.call(x);
            let taken = start.elapsed();
            if result != x + 1 {
                return Err("a wrong result".into());
            }
            times.saturating_record(taken.as_nanos() as u64);
            x += 1;
        }
    }
    drop(pool);
    Ok(quantiles(&times))
}
