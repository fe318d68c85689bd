//! What the machine is, and what it does just now.

use crate::record::Fields;
use crate::shm::{Child, Shared, cpus, futex_wait, futex_wake, pin};
use serde_json::json;
use std::hint::spin_loop;
use std::io::Result;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A cache line that goes there and back in less has not left a chip's shared cache.
const NEAR_NS: f64 = 160.0;

/// What stands before the results: on which machine, with what, when.
pub fn describe() -> Fields {
    let mut fields = Fields::new();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    };
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    fields.insert("machine".into(), json!(of("model name")));
    fields.insert(
        "cpu_family_model_stepping".into(),
        json!([of("cpu family"), of("model"), of("stepping")].join("/")),
    );
    fields.insert("cpus".into(), json!(cpus().len()));
    fields.insert("memory_gib".into(), json!(memory.unwrap_or(0) >> 20));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    fields.insert("kernel".into(), json!(kernel.trim()));
    fields.insert("virtual".into(), json!(cpuinfo.contains(" hypervisor")));
    fields.insert("rustc".into(), json!(output("rustc", &["--version"])));
    let commit = output("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
    fields.insert("commit".into(), json!(commit));
    fields.insert("date".into(), json!(now("%Y-%m-%dT%H:%M:%SZ")));
    fields
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The time of day in UTC, as `strftime` formats it.
pub fn now(format: &str) -> String {
    let format = std::ffi::CString::new(format).expect("no zero in it");
    let mut text = [0u8; 64];
    // SAFETY: all pointers are to locals that live through the calls, and the length is that of `text`.
    let len = unsafe {
        let seconds = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&seconds, &mut parts);
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &parts)
    };
    String::from_utf8_lossy(&text[..len]).into_owned()
}

/// Two processes that answer each other in one word of shared memory.
pub struct PingPong {
    // Before the memory that it uses.
    child: Child,
    shared: Shared,
    turn: u32,
    parks: bool,
}

impl PingPong {
    /// With `parks` both sleep while they wait, or else both spin. `cpu` is for the other process.
    pub fn start(parks: bool, cpu: Option<usize>) -> Result<Self> {
        let shared = Shared::new(4096)?;
        // SAFETY: an atomic.
        let word: &AtomicU32 = unsafe { shared.at(0) };
        let child = Child::fork(|| {
            if let Some(cpu) = cpu {
                pin(cpu);
            }
            for turn in (1u32..).step_by(2) {
                await_turn(word, turn, parks);
                word.store(turn + 1, Ordering::Release);
                if parks {
                    futex_wake(word);
                }
            }
        })?;
        Ok(PingPong { child, shared, turn: 0, parks })
    }

    /// There and back.
    pub fn round_trip(&mut self) {
        // SAFETY: an atomic.
        let word: &AtomicU32 = unsafe { self.shared.at(0) };
        word.store(self.turn + 1, Ordering::Release);
        if self.parks {
            futex_wake(word);
        }
        self.turn += 2;
        await_turn(word, self.turn, self.parks);
    }

    /// The other process.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }
}

fn await_turn(word: &AtomicU32, turn: u32, parks: bool) {
    loop {
        let now = word.load(Ordering::Acquire);
        if now == turn {
            return;
        }
        if parks {
            futex_wait(word, now);
        } else {
            spin_loop();
        }
    }
}

/// Runs `f` pinned to a CPU, and lets the thread go again.
pub fn pinned<R: Send>(cpu: usize, f: impl FnOnce() -> R + Send) -> R {
    // A thread of its own, because what a pin did cannot be undone everywhere.
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            pin(cpu);
            f()
        });
        thread.join().expect("no panic")
    })
}

/// Nanoseconds for one cache line to go to another CPU and back, over some milliseconds. `None` with one CPU.
pub fn line_ns() -> Option<f64> {
    let cpus = cpus();
    let (&mine, &other) = (cpus.first()?, cpus.get(1)?);
    pinned(mine, || {
        let mut pair = PingPong::start(false, Some(other)).ok()?;
        (0..2000).for_each(|_| pair.round_trip()); // until the other process runs where it is to
        const TRIPS: u32 = 2000;
        let best = (0..5).map(|_| {
            let start = Instant::now();
            (0..TRIPS).for_each(|_| pair.round_trip());
            start.elapsed().as_nanos() as f64 / f64::from(TRIPS)
        });
        let mut best: Vec<f64> = best.collect();
        best.sort_by(f64::total_cmp);
        Some(best[best.len() / 2])
    })
}

/// What CPUs are that were near at the one time and far at the other.
pub const MOVED: &str = "moved";

/// Where the two CPUs are that a line took so long between before a turn, and after it.
pub fn regime(before: f64, after: f64) -> &'static str {
    match (before < NEAR_NS, after < NEAR_NS) {
        (true, true) => "near",
        (false, false) => "far",
        _ => MOVED,
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn nanos(f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_nanos() as f64
}

/// Everything that is probed once in a round.
pub fn probe() -> Result<Fields> {
    let mut fields = Fields::new();
    let mut add = |name: &str, value: f64| fields.insert(name.into(), json!((value * 10.0).round() / 10.0));
    if let Some(line_ns) = line_ns() {
        add("line_round_trip_ns", line_ns);
    }
    let futex = |mut pair: PingPong| {
        std::thread::sleep(Duration::from_millis(20)); // until the two are where they will be
        (0..100).for_each(|_| pair.round_trip());
        middle((0..500).map(|_| nanos(|| pair.round_trip())).collect())
    };
    add("futex_unpinned_ns", futex(PingPong::start(true, None)?));
    if let [mine, other, ..] = cpus()[..] {
        add("futex_pinned_ns", pinned(mine, || PingPong::start(true, Some(other)).map(futex))?);
    }
    let mut forks = Vec::new();
    for _ in 0..20 {
        let mut child = None;
        forks.push(nanos(|| child = Some(Child::fork(|| ()))));
        child.transpose()?;
    }
    add("fork_ns", middle(forks));
    for (name, len, times) in [("memcpy_1mib", 1 << 20, 30), ("memcpy_16mib", 16 << 20, 5)] {
        let (from, to) = (vec![1u8; len], Shared::new(len)?);
        // SAFETY: both are so long, and apart.
        let copy = || unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.start(), len) };
        let times = middle((0..times).map(|_| nanos(copy)).collect());
        add(&format!("{name}_gb_per_s"), len as f64 / times);
    }
    Ok(fields)
}
