//! `cargo xtask test`: the whole check of the project, step by step.

use crate::c;
use crate::conformance;
use crate::examples;
use crate::python;
use crate::run::{Job, cargo, root};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// One part of the check.
pub struct Step {
    pub name: &'static str,
    /// After so many seconds the step has failed, and its processes are killed.
    limit: u64,
    run: fn(&Job) -> Result<(), String>,
}

/// In the order in which they run: what is quick and finds much comes first.
pub const STEPS: &[Step] = &[
    Step { name: "fmt", limit: 60, run: |job| job.run(cargo("fmt --all -- --check")) },
    Step {
        name: "clippy",
        limit: 900,
        run: |job| job.run(cargo("clippy --workspace --all-targets -- -D warnings")),
    },
    Step {
        name: "rustdoc",
        limit: 900,
        run: |job| job.run(cargo("doc --workspace --no-deps").env("RUSTDOCFLAGS", "-D warnings")),
    },
    Step {
        name: "engine",
        limit: 1200,
        run: |job| job.run(cargo("test --package ringpool --features parts")),
    },
    Step { name: "loom", limit: 1800, run: loom },
    Step { name: "models", limit: 1200, run: |job| job.run(cargo("test --package ringpool-models")) },
    Step { name: "integration", limit: 1800, run: |job| job.run(cargo("test --package ringpool-tests")) },
    Step { name: "sweeps", limit: 1200, run: sweeps },
    Step { name: "bench", limit: 1800, run: bench },
    Step { name: "examples", limit: 900, run: examples::run },
    Step { name: "c", limit: 1800, run: c::run },
    Step { name: "valgrind", limit: 1800, run: c::valgrind },
    Step { name: "python", limit: 1800, run: python::run },
    Step { name: "conformance", limit: 1200, run: conformance::run },
];

/// Models of the lock-free parts, run in all interleavings with few preemptions.
fn loom(job: &Job) -> Result<(), String> {
    // Flags are part of what cargo compares, so a directory of its own saves compiling all anew.
    job.run(
        cargo("test --package ringpool --release --lib loom_tests")
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", root().join("target-loom"))
            .env("LOOM_MAX_PREEMPTIONS", "3"),
    )
}

/// Built with crash points, which are in no other build.
fn sweeps(job: &Job) -> Result<(), String> {
    let features = "--package ringpool-tests --features crash --test sweeps --test waiting";
    job.run(cargo(&format!("clippy {features} -- -D warnings")))?;
    job.run(cargo(&format!("test {features}")))
}

/// All that is measured, done once. One profile, so that everything is compiled once.
fn bench(job: &Job) -> Result<(), String> {
    job.run(cargo("bench --package ringpool-bench -- --test"))?;
    job.run(cargo("run --profile bench --package ringpool-bench --bin versus -- --smoke"))
}

pub fn test(steps: &[Step]) -> ExitCode {
    let mut times = Vec::new();
    let start = Instant::now();
    for step in steps {
        println!("\n===== {} =====", step.name);
        let begin = Instant::now();
        let result = Job::new(Duration::from_secs(step.limit)).and_then(|job| (step.run)(&job));
        let seconds = begin.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("===== {}: ok, {seconds:.1} s =====", step.name),
            Err(error) => {
                println!("===== {}: FAILED after {seconds:.1} s: {error} =====", step.name);
                println!("once more, this step alone: cargo xtask test --only {}", step.name);
                return ExitCode::FAILURE;
            }
        }
        times.push((step.name, seconds));
    }
    println!();
    for (name, seconds) in times {
        println!("{name:>12} {seconds:>7.1} s");
    }
    println!("{:>12} {:>7.1} s, all good", "together", start.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}
