//! Audits the pools of a running program: `ringpool-fsck <name|pid>`.

use ringpool::audit::{self, Audit};
use std::io::Write;
use std::process::ExitCode;

const HELP: &str = "\
Usage: ringpool-fsck <NAME|PID>

Checks the shared memory of ringpool's pools against their invariants, read-only, while they run or are
stopped. Prints a summary of each pool and every violation on a line of its own.

  NAME  the pool that was started with this name (a number is taken for a process id)
  PID   the pools of this process: those that it made, or that it works for

Exit code: 0 nothing is wrong; 1 violations were found; 2 there was nothing to check.
";

fn audits(target: &str) -> ringpool::Result<Vec<Audit>> {
    match target.parse() {
        Ok(pid) => audit::by_pid(pid),
        Err(_) => audit::by_name(target).map(|audit| vec![audit]),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    // A reader that has gone needs no report; the exit code is for somebody else.
    let mut out = std::io::stdout().lock();
    let target = match &arguments[..] {
        [one] if one == "--help" || one == "-h" => {
            let _ = out.write_all(HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        [one] if !one.starts_with('-') => one,
        other => {
            eprintln!(
                "ringpool-fsck: got the arguments {other:?}; it takes one, a pool's name or a process id\n\n{HELP}"
            );
            return ExitCode::from(2);
        }
    };
    match audits(target) {
        Ok(audits) => {
            for audit in &audits {
                let _ = writeln!(out, "{audit}");
            }
            ExitCode::from(u8::from(!audits.iter().all(Audit::is_clean)))
        }
        Err(error) => {
            eprintln!("ringpool-fsck: {error}");
            ExitCode::from(2)
        }
    }
}
