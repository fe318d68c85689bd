//! `cargo xtask prove`: the long forms of the tests that are to show that nothing hangs, leaks or is lost.
//!
//! Each program prints a line `proof|kind|runs|kills|delivered|lost|leaked|hung` for each thing that it
//! has shown; they are collected in one table.

use crate::run::{Cmd, Job, cargo, root};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// One program, or a few that belong together.
pub struct Proof {
    pub name: &'static str,
    /// After so many seconds it has failed, and its processes are killed.
    limit: u64,
    commands: fn() -> Vec<Cmd>,
}

/// In the order in which they run.
pub const PROOFS: &[Proof] = &[
    Proof {
        name: "models",
        limit: 3600,
        commands: || vec![cargo("test --release --package ringpool-models -- --nocapture --test-threads 1")],
    },
    Proof { name: "loom", limit: 3600, commands: || vec![loom()] },
    Proof {
        name: "sweeps",
        limit: 3600,
        commands: || {
            vec![cargo("test --package ringpool-tests --features crash --test sweeps -- --nocapture")]
        },
    },
    Proof { name: "steps", limit: 3600, commands: || vec![program("steps")] },
    Proof { name: "storms", limit: 3600, commands: || vec![program("storms")] },
    Proof { name: "corruption", limit: 3600, commands: || vec![fuzzers(false), program("corruption")] },
    Proof { name: "asan", limit: 3600, commands: || vec![fuzzers(true), corruption_under_asan()] },
    Proof { name: "waiting", limit: 3600, commands: || vec![program("waiting"), races()] },
    Proof { name: "soak", limit: 3600, commands: || vec![program("soak")] },
];

fn program(name: &str) -> Cmd {
    cargo(&format!("test --release --package ringpool-tests --test {name} -- --nocapture"))
}

/// The fuzzers are unit tests of the engine.
fn fuzzers(asan: bool) -> Cmd {
    match asan {
        false => cargo("test --release --package ringpool --lib fuzz -- --nocapture"),
        true => under_asan("--package ringpool --lib fuzz"),
    }
}

fn corruption_under_asan() -> Cmd {
    under_asan("--package ringpool-tests --test corruption")
}

/// With AddressSanitizer, whose run-time comes with the stable toolchain. Tests look at how workers end, so
/// it leaves their signals alone.
fn under_asan(what: &str) -> Cmd {
    let options = ["segv", "sigbus", "sigill", "sigfpe", "abort"].map(|signal| format!("handle_{signal}=0"));
    cargo(&format!("test --target x86_64-unknown-linux-gnu {what} -- --nocapture"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .env("CARGO_TARGET_DIR", root().join("target-asan"))
        .env("ASAN_OPTIONS", format!("detect_leaks=0:{}", options.join(":")))
        .env("RINGPOOL_PROOF", "quick") // it is slow, and what it sees shows early
}

/// Races of parking and submitting, without back-stops.
fn races() -> Cmd {
    cargo("test --release --package ringpool-tests --features crash --test waiting -- --nocapture")
}

fn loom() -> Cmd {
    cargo("test --package ringpool --release --lib loom_tests -- --nocapture")
        .env("RUSTFLAGS", "--cfg loom")
        .env("CARGO_TARGET_DIR", root().join("target-loom"))
        .env("LOOM_MAX_PREEMPTIONS", "3")
}

/// A line of the table.
struct Line {
    kind: String,
    /// Runs, kills, delivered, lost, leaked, hung.
    numbers: [u64; 6],
}

impl Line {
    /// The proof that a line of a test's output tells of; test harnesses put their own words before it.
    fn of(text: &str) -> Option<Self> {
        let (_, proof) = text.split_once("proof|")?;
        let mut fields = proof.split('|');
        let kind = fields.next()?.to_owned();
        let numbers: Vec<u64> = fields.map(|field| field.trim().parse().ok()).collect::<Option<_>>()?;
        Some(Line { kind, numbers: numbers.try_into().ok()? })
    }
}

impl Line {
    /// For programs that print no proofs: how many of their tests passed.
    fn of_tests(name: &str, output: &str) -> Option<Self> {
        let passed = output.lines().filter_map(|line| {
            let (_, tail) = line.split_once("test result: ok. ")?;
            tail.split_once(" passed")?.0.parse::<u64>().ok()
        });
        let passed: u64 = passed.sum();
        (passed > 0).then(|| Line { kind: format!("{name}: tests"), numbers: [passed, 0, 0, 0, 0, 0] })
    }
}

fn table(lines: &[Line]) {
    let width = lines.iter().map(|line| line.kind.chars().count()).max().unwrap_or(0).max(4);
    let heads = ["runs", "kills", "delivered", "lost", "leaked", "hung"];
    let row = |kind: &str, cells: [String; 6]| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>12}")).collect();
        println!("{kind:<width$}{}", cells.concat());
    };
    row("kind", heads.map(str::to_owned));
    let mut sums = [0; 6];
    for line in lines {
        row(&line.kind, line.numbers.map(|number| number.to_string()));
        sums.iter_mut().zip(line.numbers).for_each(|(sum, number)| *sum += number);
    }
    row("together", sums.map(|number| number.to_string()));
}

/// Runs the proofs, all of them even if some fail, and prints what they have shown.
pub fn prove(proofs: &[Proof], quick: bool) -> ExitCode {
    let extent = if quick { "quick" } else { "full" };
    let (mut lines, mut failures, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for proof in proofs {
        println!("\n===== {} =====", proof.name);
        let begin = Instant::now();
        let result = Job::new(Duration::from_secs(proof.limit)).and_then(|job| {
            (proof.commands)().into_iter().try_for_each(|command| {
                let mut text = Vec::new();
                let result = job.watch(command.env_unless_set("RINGPOOL_PROOF", extent), &mut text);
                let text = String::from_utf8_lossy(&text);
                let before = lines.len();
                lines.extend(text.lines().filter_map(Line::of));
                if lines.len() == before {
                    lines.extend(Line::of_tests(proof.name, &text));
                }
                result
            })
        });
        times.push((proof.name, begin.elapsed()));
        if let Err(error) = result {
            println!("===== {}: FAILED: {error} =====", proof.name);
            failures.push(format!("{}: {error}", proof.name));
            if error == crate::run::INTERRUPTED {
                break;
            }
        }
    }
    println!();
    table(&lines);
    println!();
    for (name, time) in times {
        println!("{name:>12} {:>7.1} s", time.as_secs_f64());
    }
    for failure in &failures {
        println!("FAILED {failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
