//! `cargo xtask test`, the check of the project; `cargo xtask prove`, its long proofs; and `cargo xtask
//! versus`, its measurements. And `cargo xtask install`, which puts the C library where C compilers find it.

mod c;
mod checks;
mod conformance;
mod examples;
mod install;
mod prove;
mod python;
mod run;

use checks::STEPS;
use prove::PROOFS;
use run::{Job, cargo};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: cargo xtask test  [--list | --only NAME]
       cargo xtask prove [--list | [--quick] [--only NAME]]
       cargo xtask versus [--smoke | --quick] [--rounds N] [--only WORK].. [--contestant NAME]..
       cargo xtask plots FILE
       cargo xtask install --prefix DIR";

fn list<'a>(names: impl Iterator<Item = &'a str>) -> ExitCode {
    names.for_each(|name| println!("{name}"));
    ExitCode::SUCCESS
}

fn unknown(name: &str, of: &str) -> ExitCode {
    eprintln!("there is no step {name:?}; cargo xtask {of} --list shows all");
    ExitCode::from(2)
}

/// Runs the side-by-side runner, which has time limits of its own for each turn.
fn measure(arguments: &[&str]) -> ExitCode {
    let versus = cargo("run --quiet --release --package ringpool-bench --bin versus --");
    let versus = arguments.iter().fold(versus, |command, argument| command.arg(argument));
    match Job::new(Duration::from_secs(4 * 3600)).and_then(|job| job.run(versus)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let quick = arguments.contains(&"--quick");
    match arguments[..] {
        ["test"] => checks::test(STEPS),
        ["test", "--list"] => list(STEPS.iter().map(|step| step.name)),
        ["test", "--only", name] => match STEPS.iter().position(|step| step.name == name) {
            Some(index) => checks::test(&STEPS[index..=index]),
            None => unknown(name, "test"),
        },
        ["prove"] | ["prove", "--quick"] => prove::prove(PROOFS, quick),
        ["prove", "--list"] => list(PROOFS.iter().map(|proof| proof.name)),
        ["prove", "--only", name]
        | ["prove", "--quick", "--only", name]
        | ["prove", "--only", name, "--quick"] => match PROOFS.iter().position(|proof| proof.name == name) {
            Some(index) => prove::prove(&PROOFS[index..=index], quick),
            None => unknown(name, "prove"),
        },
        ["versus", ..] => measure(&arguments[1..]),
        ["install", "--prefix", prefix] => {
            let job = Job::new(Duration::from_secs(1800));
            match job.and_then(|job| install::install(&job, std::path::Path::new(prefix))) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        ["plots", file] => measure(&["--plots", file]),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
