//! What the test programs share: a harness that lets workers in first, and deadlines for everything.

pub mod actor;
pub mod audit;
pub mod functions;
pub mod journal;
pub mod leftovers;
pub mod procs;
pub mod random;
pub mod signs;
pub mod tally;
pub mod wind;

pub use audit::expect_repaired;
use libtest_mimic::{Arguments, Failed, Trial};
use ringpool::Context;
pub use ringpool_proof as proof;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long one test may take before the whole program is killed: a hang is a failure.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// All ways to start workers.
pub const CONTEXTS: [Context; 3] = [Context::Fork, Context::Spawn, Context::ForkServer];

/// A test by this name.
pub fn test(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Trial {
    test_within(DEADLINE, name, body)
}

/// A test that may take longer than others.
pub fn test_within(limit: Duration, name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let (finished, wait) = std::sync::mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            if wait.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("a test took longer than {limit:?}: hung");
                std::process::abort();
            }
        });
        let result = catch_unwind(AssertUnwindSafe(body));
        drop(finished);
        let _ = watchdog.join();
        result.map_err(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "a panic without text".to_owned());
            Failed::from(text)
        })
    })
}

/// One test for each context.
pub fn in_contexts(name: &str, body: impl Fn(Context) + Clone + Send + 'static) -> Vec<Trial> {
    CONTEXTS
        .into_iter()
        .map(|context| {
            let body = body.clone();
            test(format!("{name}::{context:?}"), move || body(context))
        })
        .collect()
}

/// Runs the tests, one at a time: the machine is small and they count its processes.
pub fn run(tests: Vec<Trial>) -> ! {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, tests).exit()
}

/// Waits until `condition` holds; panics with `what` if it does not in time.
pub fn eventually(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sets a flag when dropped: scoped threads that heed it end, however the test ends.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
