//! Ringpool beside other pools, all in turns in one run: `cargo xtask versus`.

use ringpool_bench::contestants::program;
use ringpool_bench::record::Run;
use ringpool_bench::works::Scale;
use ringpool_bench::{bars, plots, runner, tables};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: versus [--smoke | --quick] [--rounds N] [--only WORK].. [--contestant NAME]..
       versus --plots FILE";

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
    let rounds = rounds.unwrap_or(scale.pick(1, 3, 6));
    known.then_some(runner::Options { scale, rounds, works, contestants })
}

/// Records are of everything; what is run in parts lies beside the program.
fn path(options: &runner::Options) -> std::io::Result<Option<PathBuf>> {
    let directory = if options.scale == Scale::Smoke {
        return Ok(None);
    } else if options.works.is_empty() && options.contestants.is_empty() {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
    } else {
        std::env::current_exe()?.with_file_name("versus-parts")
    };
    std::fs::create_dir_all(&directory)?;
    let stem = ringpool_bench::machine::now("%Y-%m-%d-%H%M");
    let names = (1..).map(|number| if number == 1 { stem.clone() } else { format!("{stem}-{number}") });
    Ok(names.map(|name| directory.join(format!("{name}.jsonl"))).find(|path| !path.exists()))
}

fn versus(options: &runner::Options) -> std::io::Result<bool> {
    let path = path(options)?;
    let run = runner::run(options, path.as_deref())?;
    match path {
        Some(path) => show(&run, &path)?,
        None => tables::print(&run),
    }
    // One round of everything is a test that everything works.
    Ok(options.scale != Scale::Smoke || run.failures().next().is_none())
}

fn show(run: &Run, path: &Path) -> std::io::Result<()> {
    tables::print(run);
    bars::print(run);
    println!("\n{}", path.display());
    for picture in plots::draw(run, path)? {
        println!("{}", picture.display());
    }
    Ok(())
}

fn main() -> ExitCode {
    // Workers of these two enter here and never return.
    ringpool::init();
    procspawn::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let error = |error: &dyn std::fmt::Display| {
        eprintln!("{error}");
        ExitCode::FAILURE
    };
    let done = match arguments.split_first() {
        Some((first, rest)) if first == runner::TURN => runner::serve_turn(rest).map(|()| true),
        Some((first, rest)) if first == program::WORKER => program::serve(rest).map(|()| true),
        Some((first, [file])) if first == "--plots" => {
            let file = Path::new(file);
            let shown = Run::read(file).and_then(|run| show(&run, file));
            shown.map(|()| true).map_err(Into::into)
        }
        _ => match options(&arguments) {
            Some(options) => versus(&options).map_err(Into::into),
            None => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        },
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => error(&"not everything works"),
        Err(why) => error(&why),
    }
}
