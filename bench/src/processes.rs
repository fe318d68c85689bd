//! What the kernel says of processes.

use std::fs::{read_dir, read_to_string};

/// Field `number`, as `proc_pid_stat(5)` counts them, of a process; from the third on.
fn stat(pid: u32, number: usize) -> Option<u64> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number - 3)?.parse().ok()
}

/// Everything that a process has started and that those have started, if the links still exist.
pub fn descendants(of: u32) -> Vec<u32> {
    let Ok(entries) = read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u64)> = pids.filter_map(|pid| Some((pid, stat(pid, 4)?))).collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == u64::from(parent)).map(|(pid, _)| pid));
        next += 1;
    }
    found.split_off(1)
}

/// Page faults that needed no disk.
pub fn minor_faults(pid: u32) -> u64 {
    stat(pid, 10).unwrap_or(0)
}

fn kilobytes(line: &str, key: &str) -> Option<u64> {
    let rest = line.strip_prefix(key)?.strip_prefix(':')?;
    Some(rest.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// Resident bytes, each page divided by the number of processes that map it.
pub fn resident(pid: u32) -> u64 {
    let rollup = read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    rollup.lines().find_map(|line| kilobytes(line, "Pss")).unwrap_or(0)
}

/// The same, of mappings that are shared for writing only.
pub fn shared(pid: u32) -> u64 {
    let smaps = read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut counts = false;
    let mut sum = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some(range), Some(rights)) if range.contains('-') && rights.len() == 4 => {
                counts = rights.ends_with('s');
            }
            _ if counts => sum += kilobytes(line, "Pss").unwrap_or(0),
            _ => {}
        }
    }
    sum
}

/// Nanoseconds of CPU that a thread has used.
fn cpu(pid: u32, thread: u32) -> u64 {
    let schedstat = read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).unwrap_or_default();
    schedstat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// What a thread has used so far.
pub struct Used {
    process: u32,
    thread: u32,
    ns: u64,
}

/// All other threads of this process, and all of those that it has started.
pub fn cpu_of_others() -> Vec<Used> {
    let me = std::process::id();
    let threads = |process: u32| {
        let threads = read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        threads.filter_map(move |entry| Some((process, entry.file_name().to_str()?.parse::<u32>().ok()?)))
    };
    let all = std::iter::once(me).chain(descendants(me)).flat_map(threads);
    let others = all.filter(|&thread| thread != (me, me));
    others.map(|(process, thread)| Used { process, thread, ns: cpu(process, thread) }).collect()
}

/// What each has used since then, with its name; those that have used nothing are left out.
pub fn since(then: &[Used]) -> Vec<(String, u64)> {
    let used = cpu_of_others().into_iter().filter_map(|now| {
        let before = then.iter().find(|one| (one.process, one.thread) == (now.process, now.thread));
        let ns = now.ns - before.map_or(0, |one| one.ns);
        let name = read_to_string(format!("/proc/{}/task/{}/comm", now.process, now.thread));
        let place = if now.process == std::process::id() { "client" } else { "worker" };
        (ns > 0).then(|| (format!("{place}/{}", name.unwrap_or_default().trim()), ns))
    });
    used.collect()
}
