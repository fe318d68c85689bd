//! Runs the examples. All are quick but the word count, which is compared with itself.

use crate::run::{Job, cargo, root};

pub fn run(job: &Job) -> Result<(), String> {
    job.run(cargo("build --package ringpool --examples"))?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("engine/examples")).map_err(|e| e.to_string())? {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    for name in names.iter().filter(|name| *name != "wordfreq") {
        job.run(cargo("run --quiet --package ringpool --example").arg(name))?;
    }
    word_counts(job)
}

/// All workers together must count what one process counts.
fn word_counts(job: &Job) -> Result<(), String> {
    let count = || cargo("run --quiet --package ringpool --example wordfreq -- engine/src --top 1000000");
    let serial = job.output(count().arg("--serial"))?;
    if serial.is_empty() {
        return Err("wordfreq printed nothing".to_owned());
    }
    for processes in ["1", "2", "5"] {
        if job.output(count().arg("--processes").arg(processes))? != serial {
            return Err(format!("wordfreq with {processes} processes differs from wordfreq --serial"));
        }
    }
    println!(
        "wordfreq: the same {} lines however it is run",
        serial.split(|&byte| byte == b'\n').count() - 1
    );
    Ok(())
}
