//! The single-step sweep: a process is stepped through a task by `ptrace`, and killed after each of its
//! instructions in turn.

#[path = "steps/client.rs"]
mod client;
#[path = "steps/plan.rs"]
mod plan;
#[path = "steps/tracer.rs"]
mod tracer;
#[path = "steps/way.rs"]
mod way;
#[path = "steps/work.rs"]
mod work;
#[path = "steps/worker.rs"]
mod worker;

use libtest_mimic::Trial;
use ringpool_tests::{actor, procs, test_within};
use std::sync::OnceLock;
use std::time::Duration;

/// How long one kind may take before the program is killed: more than its share of a full proof.
const LIMIT: Duration = Duration::from_secs(600);

/// A test that needs single steps: skipped where the machine does not let us trace.
fn stepping_test(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Trial {
    test_within(LIMIT, name, body).with_ignored_flag(refusal().is_some())
}

fn refusal() -> Option<&'static str> {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    REFUSAL.get_or_init(tracer::refusal).as_deref()
}

/// Runs `f` as if the machine had one CPU: processes that it starts inherit that.
fn on_one_cpu<T>(f: impl FnOnce() -> T) -> T {
    let affinity = |set: Option<&libc::cpu_set_t>| {
        let size = size_of::<libc::cpu_set_t>();
        // SAFETY: a set of bits, all zeros.
        let mut old: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: reads and writes sets of the size that is given, of this thread.
        let results = unsafe {
            [
                libc::sched_getaffinity(0, size, &raw mut old),
                set.map_or(0, |set| libc::sched_setaffinity(0, size, set)),
            ]
        };
        assert_eq!(results, [0, 0], "CPU affinity: {}", std::io::Error::last_os_error());
        old
    };
    let all = affinity(None);
    // SAFETY: bits of a set that lives here; the number comes from the kernel.
    let one = unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut one);
        one
    };
    affinity(Some(&one));
    let value = f();
    affinity(Some(&all));
    value
}

/// An address in this program (or a fork of it) as `addr2line` wants it.
fn place(rip: u64) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let found = maps.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap_or(0));
        let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
        let file = fields.nth(2).unwrap_or("nameless memory");
        (start..end).contains(&rip).then(|| format!("{file}+{:#x}", rip - start + offset))
    });
    found.unwrap_or_else(|| format!("{rip:#x}"))
}

fn main() {
    procs::no_core_files();
    ringpool::init();
    actor::play(&[("manager", client::manager)]);
    if let Some(reason) = refusal() {
        eprintln!("skipped, for this machine does not let us trace other processes: {reason}");
    }
    let mut tests = worker::tests();
    tests.extend(client::tests());
    ringpool_tests::run(tests);
}
