//! Ringpool beside other pools, all in turns in one run: `cargo xtask versus`.

use ringpool_bench::contestants::program;
use ringpool_bench::works::Scale;
use ringpool_bench::{runner, tables};
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: versus [--smoke | --quick] [--rounds N] [--only WORK].. [--contestant NAME]..";

fn options(arguments: &[String]) -> Option<runner::Options> {
    let (mut scale, mut rounds) = (Scale::Full, None);
    let (mut works, mut contestants) = (Vec::new(), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--smoke" => scale = Scale::Smoke,
            "--quick" => scale = Scale::Quick,
            "--rounds" => rounds = Some(arguments.next()?.parse().ok()?),
            "--only" => works.push(arguments.next()?.clone()),
            "--contestant" => contestants.push(arguments.next()?.clone()),
            _ => return None,
        }
    }
    let known = works.iter().all(|name| ringpool_bench::works::find(name).is_some())
        && contestants.iter().all(|name| ringpool_bench::contestants::find(name).is_some());
    let rounds = rounds.unwrap_or(scale.pick(1, 3, 7));
    known.then_some(runner::Options { scale, rounds, works, contestants })
}

fn main() -> ExitCode {
    // Workers of these two enter here and never return.
    ringpool::init();
    procspawn::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let served = match arguments.split_first() {
        Some((first, rest)) if first == runner::TURN => Some(runner::serve_turn(rest)),
        Some((first, rest)) if first == program::WORKER => Some(program::serve(rest)),
        _ => None,
    };
    if let Some(result) = served {
        return match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let Some(options) = options(&arguments) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
    let path = results.join(ringpool_bench::machine::now("%Y-%m-%d-%H%M.jsonl"));
    let path = (options.scale != Scale::Smoke).then_some(path.as_path());
    let run = std::fs::create_dir_all(&results).and_then(|()| runner::run(&options, path));
    match run {
        Ok(run) => {
            tables::print(&run);
            if let Some(path) = path {
                println!("\n{}", path.display());
            }
            // One round of everything is a test that everything works.
            let good = options.scale != Scale::Smoke || run.failures().next().is_none();
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
