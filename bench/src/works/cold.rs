//! From nothing to the first result, and back to nothing.

use super::{Case, Outcome, Scale, Work, cases, histogram, quantiles};
use crate::contestants::{Contestant, Probe};
use crate::machine::PingPong;
use serde_json::json;
use std::time::{Duration, Instant};

/// `cold`.
pub const WORK: Work = Work {
    name: "cold",
    about: "start, one u64 task and its result; with the stop in a column of its own",
    metric: "p50_ns",
    base: "fork",
    cases: |contestant, _| match (contestant.probe, contestant.numbers) {
        (Some(Probe::Fork), _) | (None, Some(_)) => cases(&[2], &[0]),
        _ => Vec::new(),
    },
    run,
};

fn run(contestant: &Contestant, case: Case, scale: Scale) -> Outcome {
    let (mut starts, mut stops) = (histogram(), histogram());
    let time = Duration::from_millis(scale.pick(0, 250, 500));
    let begin = Instant::now();
    while starts.is_empty() || (begin.elapsed() < time && starts.len() < 40) {
        let start = Instant::now();
        let (started, stop) = match contestant.probe {
            // The least that workers cost: forks, and one question to one of them.
            Some(_) => {
                let children: Result<Vec<_>, _> =
                    (0..case.workers).map(|_| PingPong::start(true, None)).collect();
                let mut children = children?;
                children[0].round_trip();
                let started = start.elapsed();
                let stop = Instant::now();
                drop(children);
                (started, stop.elapsed())
            }
            None => {
                let mut pool = (contestant.numbers.ok_or("it does not do this")?)(case.workers)?;
                if pool.call(1) != 2 {
                    return Err("a wrong result".into());
                }
                let started = start.elapsed();
                let stop = Instant::now();
                drop(pool);
                (started, stop.elapsed())
            }
        };
        starts.saturating_record(started.as_nanos() as u64);
        stops.saturating_record(stop.as_nanos() as u64);
    }
    let mut fields = quantiles(&starts);
    fields.insert("stop_ns".into(), json!(stops.value_at_quantile(0.5)));
    Ok(fields)
}
