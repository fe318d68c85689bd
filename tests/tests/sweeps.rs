//! A process is killed, or stopped, at its k-th access to shared memory, for every k.
//!
//! Needs the feature `crash`. No wait of the runs with kills is ended by a timer: a wake-up that is lost
//! shows as a hang.

#[path = "sweeps/clients.rs"]
mod clients;
#[path = "sweeps/coverage.rs"]
mod coverage;
#[path = "sweeps/reapers.rs"]
mod reapers;
#[path = "sweeps/slots.rs"]
mod slots;
#[path = "sweeps/stops.rs"]
mod stops;
#[path = "sweeps/work.rs"]
mod work;
#[path = "sweeps/workers.rs"]
mod workers;

use ringpool::crash;
use ringpool_tests::proof::Extent;
use ringpool_tests::{actor, procs};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// A run that takes longer hangs. Runs take some milliseconds.
const HANG: Duration = Duration::from_secs(30);
/// How long a sweep may take in all.
const SWEEP: Duration = Duration::from_secs(1800);
/// A sweep is over when so many blows in a row came too late to hit.
const LATE: u32 = 4;

/// Which accesses are tried: all, or each so-manieth from a start that differs from run to run.
struct Steps {
    next: u64,
    stride: u64,
    late: u32,
}

impl Steps {
    fn new(short: u64, quick: u64, full: u64) -> Self {
        let stride = Extent::now().pick(short, quick, full);
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| u64::from(now.subsec_nanos()));
        let first = 1 + now / 1000 % stride;
        println!("every {stride}. access from number {first} on");
        Steps { next: first, stride, late: 0 }
    }

    /// The next access to strike at; `None` if the last blows came too late.
    fn next(&mut self) -> Option<u64> {
        let at = self.next;
        self.next += self.stride;
        (self.late < LATE).then_some(at)
    }

    /// Whether the last blow hit.
    fn hit(&mut self, hit: bool) {
        self.late = if hit { 0 } else { self.late + 1 };
    }
}

/// Blows that have hit so far, in all processes.
fn blows() -> u64 {
    crash::sites().iter().map(|site| site.blows).sum()
}

/// Runs `body`; if it hangs, says what it was and ends the program.
fn watched<R>(what: &str, body: impl FnOnce() -> R) -> R {
    std::thread::scope(|scope| {
        let (finished, wait) = channel::<()>();
        scope.spawn(move || {
            if wait.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout) {
                eprintln!("hung: {what}");
                std::process::abort();
            }
        });
        let result = body();
        drop(finished);
        result
    })
}

fn main() {
    procs::no_core_files();
    if std::env::var_os(crash::SITES).is_none() {
        let file = std::env::temp_dir().join(format!("ringpool-sites-{}", std::process::id()));
        // SAFETY: the first lines of `main`: no other thread reads the environment.
        unsafe { std::env::set_var(crash::SITES, &file) };
    }
    ringpool::init();
    actor::play(&[("client", clients::client), ("guest", clients::guest)]);
    let mut tests = workers::tests();
    tests.extend(reapers::tests());
    tests.extend(clients::tests());
    tests.extend(stops::tests());
    tests.extend(slots::tests());
    tests.extend(coverage::tests()); // last: it looks at what the others have passed
    ringpool_tests::run(tests)
}
