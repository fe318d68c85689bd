//! Large payloads of the pool: what a call costs that hands one over, and whether memory is used again.

use super::{Case, Outcome, Scale, Work, cases, histogram, quantiles};
use crate::contestants::Contestant;
use crate::processes::{descendants, minor_faults};
use crate::tasks::{look, payload, xor, xor_shared, xor_view};
use ringpool::{ArchivedSharedSlice, Pool};
use serde_json::json;
use std::time::{Duration, Instant};

/// `touch`.
pub const TOUCH: Work = Work {
    name: "touch",
    about: "a task that reads two bytes of an array in shared memory; the result is a view",
    metric: "p50_ns",
    base: "ringpool",
    cases: |contestant, _| match contestant.name {
        "ringpool-shared" => cases(&[1], &[1 << 20, 64 << 20]),
        _ => Vec::new(),
    },
    run: touch,
};

/// `row`.
pub const ROW: Work = Work {
    name: "row",
    about: "payloads one after the other there and back; page faults of each",
    metric: "p50_ns",
    base: "ringpool",
    cases: |contestant, scale| match contestant.name {
        "ringpool" | "ringpool-shared" => cases(&[2], &[scale.pick(1 << 20, 64 << 20, 64 << 20)]),
        _ => Vec::new(),
    },
    run: row,
};

fn ends(bytes: &ArchivedSharedSlice<u8>) -> Vec<u8> {
    vec![bytes[0], bytes[bytes.len() - 1]]
}

fn touch(_: &Contestant, case: Case, scale: Scale) -> Outcome {
    let pool = Pool::new(case.workers)?;
    let data = payload(case.size);
    let mut array = pool.alloc::<u8>(data.len())?;
    array.copy_from_slice(&data);
    let array = array.share();
    let mut times = histogram();
    let warm = Duration::from_millis(scale.pick(0, 60, 100));
    let time = warm + Duration::from_millis(scale.pick(1, 150, 300));
    let begin = Instant::now();
    while begin.elapsed() < time {
        for _ in 0..16 {
            let start = Instant::now();
            let view = pool.apply_async(ends, (array.clone(),))?.view()?;
            let taken = start.elapsed();
            if view[..] != [data[0], data[data.len() - 1]] {
                return Err("a wrong result".into());
            }
            if begin.elapsed() >= warm {
                times.saturating_record(taken.as_nanos() as u64);
            }
        }
    }
    Ok(quantiles(&times))
}

/// Minor page faults so far, of this process and of all that it has started.
fn faults() -> (u64, u64) {
    let me = std::process::id();
    (minor_faults(me), descendants(me).into_iter().map(minor_faults).sum())
}

fn row(contestant: &Contestant, case: Case, scale: Scale) -> Outcome {
    keep_freed_memory();
    let pool = Pool::new(case.workers)?;
    let data = payload(case.size);
    let seen = look(&xor(&data));
    let mut counts = Vec::new();
    let mut times = histogram();
    // A worker's own memory counts, too, and they take turns as they like.
    for round in 0..scale.pick(3, 10, 14) {
        let (client, workers) = faults();
        let (taken, result) = if contestant.name == "ringpool" {
            let bytes = data.clone();
            let start = Instant::now();
            let view = pool.apply_async(xor_view, (bytes,))?.view()?;
            (start, look(&view))
        } else {
            let start = Instant::now();
            let mut array = pool.alloc::<u8>(data.len())?;
            array.copy_from_slice(&data);
            let view = pool.apply_async(xor_shared, (array.share(),))?.view()?;
            (start, look(&view))
        };
        let taken = taken.elapsed();
        if result != seen {
            return Err("a wrong result".into());
        }
        let now = faults();
        counts.push((now.0 - client, now.1 - workers));
        if round > 0 {
            times.saturating_record(taken.as_nanos() as u64);
        }
    }
    let mut fields = quantiles(&times);
    let later = &counts[1..];
    fields.insert("faults_client".into(), json!(counts.iter().map(|count| count.0).collect::<Vec<_>>()));
    fields.insert("faults_workers".into(), json!(counts.iter().map(|count| count.1).collect::<Vec<_>>()));
    fields.insert("later_faults_client".into(), json!(later.iter().map(|count| count.0).max()));
    fields.insert("later_faults_workers".into(), json!(later.iter().map(|count| count.1).max()));
    Ok(fields)
}

/// Tells the C library to keep what is freed: else a `Vec` of this size is fresh pages each time, and
/// the faults would be those of the task's and the caller's own `Vec`s.
fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: plain settings, made before there are other threads.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}
