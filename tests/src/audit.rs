//! Auditing pools after whatever a test has done to them.

use crate::{eventually, procs};
use ringpool::Pool;
use ringpool::audit::Audit;
use std::time::{Duration, Instant};

/// How long a pool may take until nothing is on its way any more.
const QUIET: Duration = Duration::from_secs(10);

fn nothing(_: u8) {}

/// Audits a pool that works, or not; panics with all violations if there are any.
#[track_caller]
pub fn expect_sound(pool: &Pool) -> Audit {
    let audit = pool.audit().expect("an audit of an own pool");
    assert!(audit.is_clean(), "{audit}");
    audit
}

/// Waits until nothing is on its way in the pool, then audits it; panics with all violations if there are any.
///
/// Results that were never asked for are taken out of their slots. Blocks that the client still holds are in
/// the audit that is returned: what is right there, only the test knows.
#[track_caller]
pub fn expect_clean(pool: &Pool) -> Audit {
    let start = Instant::now();
    loop {
        let audit = expect_sound(pool);
        if audit.is_quiescent() || !audit.running {
            return audit;
        }
        assert!(start.elapsed() < QUIET, "tasks are still on their way after {QUIET:?}\n{audit}");
        // Whoever waits takes everybody's results. If the pool is closed, `join` does.
        let _ = pool.map(nothing, [0]);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The pool is whole again: as many running workers as it was made with, they work, and an audit finds
/// nothing wrong and nothing that workers still hold.
///
/// # Panics
///
/// If it is not so within a while.
#[track_caller]
pub fn expect_repaired(pool: &Pool) -> Audit {
    expect_full_strength(pool);
    let doubled = pool.map(|x: u64| 2 * x, 0..100u64).expect("a map after the faults");
    assert!(doubled.into_iter().eq((0..200).step_by(2)));
    expect_whole(pool)
}

/// There are as many running workers as the pool was made with.
///
/// # Panics
///
/// If it is not so within a while.
#[track_caller]
pub fn expect_full_strength(pool: &Pool) {
    eventually("all workers are replaced", Duration::from_secs(20), || {
        let pids = pool.worker_pids();
        pids.len() == pool.processes() && pids.iter().all(|&pid| procs::runs(pid))
    });
}

/// The same where workers may still die: nothing is asked of them.
///
/// # Panics
///
/// If it is not so within a while.
#[track_caller]
pub fn expect_whole(pool: &Pool) -> Audit {
    expect_full_strength(pool);
    let audit = expect_clean(pool);
    assert_eq!(audit.blocks.workers, 0, "workers hold blocks:\n{audit}");
    audit
}
