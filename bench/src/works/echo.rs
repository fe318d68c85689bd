//! Bytes there, as many bytes back, all of them worked on and a byte of each cache line looked at.
//!
//! Making the argument is not timed. Handing it over, working on it, and letting go of both is.

use super::{Case, Outcome, Scale, Work, cases, histogram, quantiles};
use crate::contestants::Contestant;
use crate::tasks::{look, payload, xor};
use serde_json::json;
use std::time::{Duration, Instant};

/// `echo`.
pub const WORK: Work = Work {
    name: "echo",
    about: "bytes there, an XORed copy back and looked at",
    metric: "p50_ns",
    base: "ring-spin",
    cases: |contestant, scale| match contestant.bytes {
        Some(_) => {
            let all = [1 << 10, 64 << 10, 1 << 20, 16 << 20];
            cases(&[1], scale.pick(&all[1..3], &all, &all))
        }
        None => Vec::new(),
    },
    run,
};

fn run(contestant: &Contestant, case: Case, scale: Scale) -> Outcome {
    let data = payload(case.size);
    let seen = look(&xor(&data));
    let mut pool = (contestant.bytes.ok_or("it does not do this")?)(case.workers, &data)?;
    let mut call = || {
        pool.load(&data);
        let start = Instant::now();
        let result = pool.echo();
        let taken = start.elapsed();
        if result == seen { Ok(taken) } else { Err("a wrong result") }
    };
    let begin = Instant::now();
    let warm = Duration::from_millis(scale.pick(0, 60, 100));
    let least = if case.size > 1 << 20 { 3 } else { scale.pick(2, 100, 200) };
    let mut done = 0;
    while begin.elapsed() < warm || done < least {
        call()?;
        done += 1;
    }
    let time = Duration::from_millis(scale.pick(0, 150, 300));
    let mut times = histogram();
    let begin = Instant::now();
    while begin.elapsed() < time || times.len() < 5 {
        times.saturating_record(call()?.as_nanos() as u64);
    }
    let mut fields = quantiles(&times);
    let seconds = times.value_at_quantile(0.5) as f64 / 1e9;
    fields.insert("bytes_per_s".into(), json!((case.size as f64 / seconds).round()));
    Ok(fields)
}
