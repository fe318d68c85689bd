//! The conformance suite: one table of cases, run by clients in three languages with workers in two.

use crate::c::compile_shared;
use crate::install::{install, target};
use crate::run::{Cmd, Job, cargo, program, root};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How long each client may run.
const LIMIT: Duration = Duration::from_secs(120);
/// The methods with types do not fit all cases; but many.
const TYPED: usize = 20;

/// What each case came to, by its name.
fn outcomes(text: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let text = String::from_utf8(text.to_vec()).map_err(|error| error.to_string())?;
    let mut outcomes = BTreeMap::new();
    for line in text.lines() {
        let (name, outcome) = line.split_once('\t').ok_or_else(|| format!("no case and outcome: {line}"))?;
        if outcomes.insert(name.to_owned(), outcome.to_owned()).is_some() {
            return Err(format!("two cases are called {name:?}"));
        }
    }
    Ok(outcomes)
}

fn run_client(client: Cmd) -> Result<BTreeMap<String, String>, String> {
    outcomes(&Job::new(LIMIT)?.output(client)?)
}

/// What differs, case by case.
fn compare(expected: &BTreeMap<String, String>, got: &BTreeMap<String, String>, some: bool) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, outcome) in got {
        match expected.get(name) {
            Some(wanted) if wanted == outcome => {}
            wanted => differences.push(format!("{name}: {outcome}, and not {wanted:?}")),
        }
    }
    if some && got.len() < TYPED {
        differences.push(format!("only {} cases were run", got.len()));
    }
    for name in expected.keys().filter(|name| !some && !got.contains_key(*name)) {
        differences.push(format!("{name}: was not run"));
    }
    differences
}

pub fn run(job: &Job) -> Result<(), String> {
    job.run(cargo("build --package ringpool-tests --bin conform"))?;
    let base = target().join("conformance");
    let prefix = base.join("prefix");
    install(job, &prefix)?;
    let (c, rust) = (base.join("client"), target().join("debug/conform"));
    compile_shared(job, &prefix, &root().join("tests/conformance/client.c"), &c)?;
    let (library, table) = (prefix.join("lib/libringpool.so"), root().join("tests/conformance/cases.txt"));
    let python = root().join("tests/conformance/client.py");

    let in_rust = |workers: &str, api: &str, worker: Option<&Path>| {
        worker.into_iter().fold(program(&rust).arg(&table).arg(workers).arg(api), Cmd::arg)
    };
    let in_c = |workers: &str, worker: Option<&Path>| {
        worker.into_iter().fold(program(&c).arg(&table).arg(workers), Cmd::arg)
    };
    let mut differences = Vec::new();
    for (workers, worker) in [("rust", rust.as_path()), ("c", c.as_path())] {
        let expected = run_client(in_rust(workers, "expected", None))?;
        let mut clients = vec![
            ("rust", in_rust(workers, "raw", Some(worker))),
            ("rust, typed", in_rust(workers, "typed", Some(worker))),
            ("c", in_c(workers, Some(worker))),
            ("python", program("python3").arg(&python).arg(&library).arg(&table).arg(workers).arg(worker)),
        ];
        // Without a program to run, workers are forks of the client, and speak its language.
        clients.push(match workers {
            "rust" => ("rust, forks", in_rust(workers, "raw", None)),
            _ => ("c, forks", in_c(workers, None)),
        });
        for (client, command) in clients {
            let got = run_client(command)?;
            println!("{} of {} cases: client {client}, workers {workers}", got.len(), expected.len());
            let found = compare(&expected, &got, client == "rust, typed");
            differences
                .extend(found.into_iter().map(|text| format!("{client} with workers in {workers}: {text}")));
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
}
