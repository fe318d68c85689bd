//! Turns: each contestant does each work in a process of its own, in an order that moves on with every
//! round, so that whatever else the machine does hits all alike.

use crate::contestants::{self, Contestant};
use crate::machine;
use crate::record::{Fields, Run};
use crate::works::{self, Case, Scale, Work};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The first argument of a process that does one turn.
pub const TURN: &str = "turn";

/// What to run.
pub struct Options {
    /// How much of each work.
    pub scale: Scale,
    /// How often.
    pub rounds: u64,
    /// Only these works, if any are named.
    pub works: Vec<String>,
    /// Only these contestants, if any are named.
    pub contestants: Vec<String>,
}

impl Options {
    fn turns(&self, work: &Work, round: u64) -> Vec<(&'static Contestant, Case)> {
        let wanted =
            |c: &&Contestant| self.contestants.is_empty() || self.contestants.iter().any(|n| n == c.name);
        let all = contestants::ALL.iter().filter(wanted);
        let turns = all.flat_map(|contestant| {
            let cases = (work.cases)(contestant, self.scale).into_iter();
            let cases = cases.filter(|case| case.workers <= contestant.most_workers);
            cases.map(move |case| (contestant, case))
        });
        let mut turns: Vec<_> = turns.collect();
        // Those of one case come one after the other; a stable sort keeps the contestants in order.
        turns.sort_by_key(|(_, case)| (case.size, case.workers));
        for group in turns.chunk_by_mut(|(_, one), (_, other)| one == other) {
            let shift = round as usize % group.len();
            group.rotate_left(shift);
        }
        turns
    }
}

/// Runs everything and writes each line to `path` as it comes.
pub fn run(options: &Options, path: Option<&Path>) -> std::io::Result<Run> {
    let mut run = Run { machine: machine::describe(), lines: Vec::new() };
    let mut file = path.map(File::create).transpose()?;
    let mut write = |fields: &Fields| match &mut file {
        Some(file) => writeln!(file, "{}", Value::Object(fields.clone())),
        None => Ok(()),
    };
    let rounds_of_compute = crate::tasks::rounds_of_a_microsecond();
    run.machine.insert("scale".into(), json!(options.scale.name()));
    run.machine.insert("rounds_of_compute".into(), json!(rounds_of_compute));
    write(&run.machine)?;
    for round in 0..options.rounds {
        let begin = Instant::now();
        let mut line = head("probe", "machine", Case { workers: 0, size: 0 }, round);
        line.extend(machine::probe()?);
        write(&line)?;
        run.lines.push(line);
        let mut line_ns = machine::line_ns();
        for work in works::ALL {
            if !options.works.is_empty() && !options.works.iter().any(|name| name == work.name) {
                continue;
            }
            for (contestant, case) in options.turns(work, round) {
                let mut line = head(work.name, contestant.name, case, round);
                let before = line_ns;
                let outcome = turn(work, contestant, case, options.scale, rounds_of_compute);
                line_ns = machine::line_ns();
                if let Some((before, after)) = before.zip(line_ns) {
                    line.insert("line_ns".into(), json!([before.round(), after.round()]));
                    line.insert("regime".into(), json!(machine::regime(before, after)));
                }
                match outcome {
                    Ok(fields) => line.extend(fields),
                    Err(error) => {
                        eprintln!(
                            "{} {} {} {}: {error}",
                            work.name, contestant.name, case.workers, case.size
                        );
                        line.insert("error".into(), json!(error));
                    }
                }
                write(&line)?;
                run.lines.push(line);
            }
        }
        eprintln!("round {} of {}: {:.0} s", round + 1, options.rounds, begin.elapsed().as_secs_f64());
    }
    Ok(run)
}

fn head(work: &str, contestant: &str, case: Case, round: u64) -> Fields {
    let mut line = Fields::new();
    line.insert("date".into(), json!(machine::now("%Y-%m-%dT%H:%M:%SZ")));
    line.insert("round".into(), json!(round));
    line.insert("work".into(), json!(work));
    line.insert("contestant".into(), json!(contestant));
    line.insert("workers".into(), json!(case.workers));
    line.insert("size".into(), json!(case.size));
    line
}

/// One turn in a process of its own, which is killed with all that it started when it is done or hangs.
fn turn(work: &Work, who: &Contestant, case: Case, scale: Scale, compute: u64) -> Result<Fields, String> {
    let deadline = Duration::from_secs(scale.pick(20, 40, 60));
    let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
    command.args([TURN, work.name, who.name, &case.workers.to_string(), &case.size.to_string()]);
    command.args([scale.name(), &compute.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    let out = child.stdout.take().ok_or("no pipe")?;
    let (sender, receiver) = mpsc::channel();
    // A line, not all there is: workers that are left behind may keep the pipe open.
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(out).read_line(&mut line);
        let _ = sender.send(line);
    });
    let line = receiver.recv_timeout(deadline);
    // The line is the last that a turn does. Its group lives at least until it has been waited for.
    // SAFETY: a plain system call; the group is that of our child.
    unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
    let _ = child.wait();
    let line = match line {
        Ok(line) => {
            let _ = reader.join();
            line
        }
        Err(_) => return Err(format!("not done within {deadline:?}")),
    };
    let fields: Fields = serde_json::from_str(&line).map_err(|_| "it ended without a result".to_owned())?;
    match fields.get("error") {
        Some(error) => Err(error.as_str().unwrap_or("unknown").to_owned()),
        None => Ok(fields),
    }
}

/// Does one turn in this process and prints its line.
pub fn serve_turn(arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: a plain system call. Nobody would read the line of a runner that is gone.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let [work, contestant, workers, size, scale, compute] = arguments else {
        return Err("a turn has six arguments".into());
    };
    let work = works::find(work).ok_or("no such work")?;
    let contestant = contestants::find(contestant).ok_or("no such contestant")?;
    let number = |text: &String| text.parse::<usize>().map_err(|e| e.to_string());
    let case = Case { workers: number(workers)?, size: number(size)? };
    let scale = Scale::parse(scale).ok_or("no such scale")?;
    crate::tasks::set_rounds(number(compute)? as u64);
    raise_descriptor_limit();
    let fields = (work.run)(contestant, case, scale).unwrap_or_else(|error| {
        let mut fields = Fields::new();
        fields.insert("error".into(), json!(error.to_string()));
        fields
    });
    println!("{}", Value::Object(fields));
    Ok(())
}

/// Some contestants need a few descriptors for each task.
fn raise_descriptor_limit() {
    // SAFETY: both calls get a structure that lives through them.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
