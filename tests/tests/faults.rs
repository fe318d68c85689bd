//! Workers, templates and whole pools that die or stop at bad moments.

#[path = "faults/chunks.rs"]
mod chunks;
#[path = "faults/deaths.rs"]
mod deaths;
#[path = "faults/launching.rs"]
mod launching;
#[path = "faults/parents.rs"]
mod parents;
#[path = "faults/stops.rs"]
mod stops;

use ringpool::{Context, Error, ErrorKind, Exit, Pool};
use ringpool_tests::{actor, audit, procs};
use std::time::Duration;

/// For conditions that come true within milliseconds, on a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(10);

fn pool_of(processes: usize, context: Context) -> Pool {
    Pool::builder().processes(processes).context(context).start().expect("a pool")
}

fn double(x: u64) -> u64 {
    2 * x
}

/// What an error says about the death of a worker.
struct Death {
    end: Exit,
    pid: u32,
    function: String,
    attempt: u32,
}

#[track_caller]
fn death(error: &Error) -> Death {
    match error.kind() {
        ErrorKind::WorkerDied { end, pid, function, attempt, .. } => {
            Death { end: *end, pid: *pid, function: function.clone(), attempt: *attempt }
        }
        other => panic!("expected the death of a worker, got {other:?}"),
    }
}

/// The pool has as many running workers as it was made with, and they work.
#[track_caller]
fn expect_full_strength(pool: &Pool) {
    audit::expect_full_strength(pool);
    let doubled = pool.map(double, 0..100u64).expect("a map after the faults");
    assert!(doubled.into_iter().eq((0..100).map(double)));
}

fn main() {
    procs::no_core_files();
    ringpool::init();
    actor::play(&[("holder", parents::holder)]);
    let mut tests = deaths::tests();
    tests.extend(chunks::tests());
    tests.extend(launching::tests());
    tests.extend(stops::tests());
    tests.extend(parents::tests());
    ringpool_tests::run(tests)
}
