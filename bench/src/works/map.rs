//! Maps of a slice into a `Vec`, in default chunks.

use super::{Case, Outcome, Scale, Work, cases, histogram, quantiles};
use crate::contestants::{Contestant, Job};
use crate::tasks::{compute, inc};
use serde_json::json;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// `map`.
pub const TRIVIAL: Work = Work {
    name: "map",
    about: "a map over u64 that adds one",
    metric: "p50_ns",
    base: "rayon",
    cases: all,
    run: |contestant, case, scale| run(contestant, case, scale, Job::Trivial),
};

/// `map-1us`.
pub const COMPUTE: Work = Work {
    name: "map-1us",
    about: "a map over u64 that computes for a microsecond each",
    metric: "p50_ns",
    base: "rayon",
    cases: all,
    run: |contestant, case, scale| run(contestant, case, scale, Job::Compute),
};

fn all(contestant: &Contestant, scale: Scale) -> Vec<Case> {
    match contestant.maps {
        Some(_) => cases(&[1, 2], &[scale.pick(1000, 1_000_000, 1_000_000)]),
        None => Vec::new(),
    }
}

fn run(contestant: &Contestant, case: Case, scale: Scale, job: Job) -> Outcome {
    let mut pool = (contestant.maps.ok_or("it does not do this")?)(case.workers)?;
    let items: Vec<u64> = (0..case.size as u64).collect();
    let f = match job {
        Job::Trivial => inc,
        Job::Compute => compute,
    };
    let mut map = |items: &[u64]| {
        let start = Instant::now();
        let results = black_box(pool.map(job, black_box(items)));
        let taken = start.elapsed();
        let some = (0..results.len()).step_by(items.len().div_ceil(16).max(1));
        let right = results.len() == items.len() && { some }.all(|i| results[i] == f(items[i]));
        right.then_some(taken).ok_or("a wrong result")
    };
    let begin = Instant::now();
    let warm = Duration::from_millis(scale.pick(0, 100, 100));
    // Long maps need not be repeated to be warm.
    let part = &items[..items.len() / 10];
    while begin.elapsed() < warm {
        map(part)?;
    }
    if matches!(job, Job::Trivial) {
        map(&items)?;
    }
    let time = Duration::from_millis(scale.pick(0, 150, 300));
    let mut times = histogram();
    let begin = Instant::now();
    while begin.elapsed() < time || times.is_empty() {
        times.saturating_record(map(&items)?.as_nanos() as u64);
    }
    let mut fields = quantiles(&times);
    let each = times.value_at_quantile(0.5) as f64 / case.size as f64;
    fields.insert("per_task_ns".into(), json!(each));
    Ok(fields)
}
