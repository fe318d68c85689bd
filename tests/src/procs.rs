//! Looking at processes through `/proc`, and signalling those that this program started.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::time::Duration;

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Debug)]
pub struct Stat {
    /// The command's name, cut to 15 bytes.
    pub name: String,
    /// `R`, `S`, `T`, `Z` and so on.
    pub state: char,
    /// The parent's id.
    pub parent: u32,
    /// CPU time used, in clock ticks.
    pub ticks: u64,
    /// When it started: with the id, a name that is not used twice.
    pub started: u64,
}

/// `None` if there is no such process, not even a zombie.
pub fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = text.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        name: head.split_once('(')?.1.to_owned(),
        state: fields.first()?.chars().next()?,
        parent: u32::try_from(number(4)?).ok()?,
        ticks: number(14)? + number(15)?,
        started: number(22)?,
    })
}

/// Whether the process executes: zombies do not.
pub fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Whether the process is stopped by a signal.
pub fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state == 'T')
}

/// CPU time that the threads of a process have used, to the nanosecond: ticks are counted by samples, which
/// miss a process that runs for some microseconds at a time.
pub fn cpu_time(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let text = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    Duration::from_nanos(text.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum())
}

/// How often a process has gone to sleep.
pub fn sleeps(pid: u32) -> u64 {
    sleeps_in(&std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())
}

fn sleeps_in(status: &str) -> u64 {
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// How often threads of a process have gone to sleep, but for the calling one.
pub fn sleeps_of_others(pid: u32) -> u64 {
    let own = rustix::thread::gettid().as_raw_nonzero().to_string();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let others = threads.filter(|thread| thread.file_name().to_str() != Some(&own));
    let text = others.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
    text.map(|text| sleeps_in(&text)).sum()
}

/// All processes.
pub fn all() -> Vec<(u32, Stat)> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Children of a process, zombies included.
pub fn children(parent: u32) -> Vec<(u32, Stat)> {
    all().into_iter().filter(|(_, stat)| stat.parent == parent).collect()
}

/// Children, their children, and so on.
pub fn descendants(ancestor: u32) -> Vec<u32> {
    let all = all();
    let mut found = vec![ancestor];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|&(pid, _)| pid));
        next += 1;
    }
    found.split_off(1)
}

/// What a template calls itself, as far as the kernel keeps it.
pub const TEMPLATE: &str = "ringpool-templa";

/// The running template processes of this program's pools.
pub fn templates() -> Vec<u32> {
    let of_us = children(std::process::id()).into_iter();
    of_us.filter(|(_, stat)| stat.name == TEMPLATE && stat.state != 'Z').map(|(pid, _)| pid).collect()
}

fn is_ours(pid: u32) -> bool {
    let mut pid = pid;
    for _ in 0..4 {
        match stat(pid) {
            Some(stat) if stat.parent == std::process::id() => return true,
            Some(stat) if stat.parent > 1 => pid = stat.parent,
            _ => return false,
        }
    }
    false
}

/// Signals a process if it is a child or grandchild of this one; whether it was.
///
/// Ids go to other processes after death: the descriptor is opened first, the look at the parents
/// follows, and the signal goes to the descriptor.
pub fn signal(pid: u32, signal: Signal) -> bool {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(handle) = pidfd_open(raw, PidfdFlags::empty()) else { return false };
    is_ours(pid) && pidfd_send_signal(&handle, signal).is_ok()
}

/// SIGKILLs a child or grandchild of this process; whether it was one.
pub fn kill(pid: u32) -> bool {
    signal(pid, Signal::KILL)
}

/// What lies in `/dev/shm`, sorted.
pub fn shm() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").expect("/dev/shm");
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// No core files: tasks that crash on purpose would write one each.
pub fn no_core_files() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads the struct, and changes nothing but this process's limit.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
}
