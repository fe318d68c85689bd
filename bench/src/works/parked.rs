//! The first call after everybody has gone to sleep.

use super::{Case, Outcome, Scale, Work, cases, histogram, quantiles, warm};
use crate::contestants::{Contestant, Kind, Probe};
use crate::machine::PingPong;
use crate::shm::{cpus, pin};
use std::time::{Duration, Instant};

/// `parked`.
pub const WORK: Work = Work {
    name: "parked",
    about: "one u64 task after 20 ms of rest",
    metric: "p50_ns",
    base: "futex",
    cases: |contestant, scale| match contestant.probe {
        Some(Probe::Futex | Probe::PinnedFutex) => cases(&[1], &[0]),
        // Who polls never rests.
        None if contestant.numbers.is_some() && contestant.parks => {
            let all = [1, 2];
            // Peers that take long to start are asked for both in records only.
            let both = contestant.kind != Kind::Processes || scale == Scale::Full;
            cases(if both { &all } else { &all[..1] }, &[0])
        }
        _ => Vec::new(),
    },
    run,
};

fn run(contestant: &Contestant, case: Case, scale: Scale) -> Outcome {
    match contestant.probe {
        None => {
            let mut pool = warm(contestant, case.workers, scale)?;
            measure(scale, || pool.call(1) == 2)
        }
        Some(probe) => {
            let other = match (probe, &cpus()[..]) {
                (Probe::PinnedFutex, &[mine, other, ..]) => {
                    pin(mine);
                    Some(other)
                }
                (Probe::PinnedFutex, _) => return Err("there is one CPU".into()),
                _ => None,
            };
            let mut pair = PingPong::start(true, other)?;
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(scale.pick(1, 50, 100)) {
                pair.round_trip();
            }
            measure(scale, || {
                pair.round_trip();
                true
            })
        }
    }
}

fn measure(scale: Scale, mut call: impl FnMut() -> bool) -> Outcome {
    let mut times = histogram();
    for _ in 0..scale.pick(2, 30, 45) {
        std::thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        let right = call();
        let taken = start.elapsed();
        if !right {
            return Err("a wrong result".into());
        }
        times.saturating_record(taken.as_nanos() as u64);
    }
    Ok(quantiles(&times))
}
