//! What a pool costs that has nothing to do: memory and CPU time.

use super::{Case, Outcome, Scale, Work, cases, warm};
use crate::contestants::Contestant;
use crate::processes::{cpu_of_others, descendants, resident, shared, since};
use crate::record::Fields;
use crate::shm::Child;
use serde_json::json;
use std::time::Duration;

/// `idle`.
pub const WORK: Work = Work {
    name: "idle",
    about: "a pool that has worked and now rests",
    metric: "added_bytes",
    base: "ringpool",
    cases: |contestant, _| match contestant.name {
        "ringpool" | "ring-park" | "crossbeam" => cases(&[2], &[0]),
        _ => Vec::new(),
    },
    run,
};

/// Processes that a pool may have beside the client.
const MOST: usize = 8;

fn run(contestant: &Contestant, case: Case, scale: Scale) -> Outcome {
    // This process and so many forked children that only sleep: what processes cost by themselves.
    let mut bare = Vec::new();
    let mut children = Vec::new();
    for _ in 0..=MOST {
        std::thread::sleep(Duration::from_millis(2)); // until the last child sleeps
        bare.push(family(resident));
        // SAFETY: a plain system call; the child is killed in it.
        children.push(Child::fork(|| unsafe {
            libc::pause();
        })?);
    }
    drop(children);

    let mut pool = warm(contestant, case.workers, scale)?;
    pool.stream(scale.pick(1000, 100_000, 100_000), 512);
    if pool.call(1) != 2 {
        return Err("a wrong result".into());
    }
    std::thread::sleep(Duration::from_millis(10));
    let before = cpu_of_others();
    std::thread::sleep(Duration::from_millis(scale.pick(100, 3000, 3000)));
    let used = since(&before);
    let processes = descendants(std::process::id()).len();
    let all = family(resident);
    let base = *bare.get(processes).ok_or("it has more processes than expected")?;
    let mut fields = Fields::new();
    fields.insert("processes".into(), json!(processes));
    fields.insert("resident_bytes".into(), json!(all));
    fields.insert("bare_bytes".into(), json!(base));
    fields.insert("added_bytes".into(), json!(all.saturating_sub(base)));
    fields.insert("shared_bytes".into(), json!(family(shared)));
    fields.insert("cpu_ns".into(), json!(used.iter().map(|(_, ns)| ns).sum::<u64>()));
    fields.insert("cpu_of".into(), json!(used));
    Ok(fields)
}

/// A sum over this process and all that it has started.
fn family(f: impl Fn(u32) -> u64) -> u64 {
    let me = std::process::id();
    f(me) + descendants(me).into_iter().map(f).sum::<u64>()
}
