//! What pools might leave behind: processes, descriptors, mappings, files, and shared memory.

use crate::procs;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// What this process had of the system at some moment.
pub struct Before {
    descriptors: usize,
    processes: usize,
    mappings: usize,
    files: usize,
}

fn now() -> Before {
    let own = format!("-{}-", std::process::id());
    let in_temp = std::fs::read_dir(std::env::temp_dir()).expect("a directory for temporary files").flatten();
    let in_temp = in_temp.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let ours = |name: &String| name.contains("ringpool") && name.contains(&own);
    Before {
        descriptors: descriptors(std::process::id()),
        // Zombies included: a pool waits for its children.
        processes: procs::descendants(std::process::id()).len(),
        mappings: memory_of(std::process::id()).len(),
        files: procs::shm().iter().filter(|name| ours(name)).count() + in_temp.filter(|n| ours(n)).count(),
    }
}

impl Before {
    /// Remembers what there is.
    pub fn now() -> Self {
        now()
    }

    /// How many things are left that were not there, when they have had time to go.
    pub fn left_over(&self) -> u64 {
        let start = Instant::now();
        loop {
            let now = now();
            let pairs = [
                (now.descriptors, self.descriptors, "descriptors"),
                (now.processes, self.processes, "processes"),
                (now.mappings, self.mappings, "memories"),
                (now.files, self.files, "files"),
            ];
            let more: usize = pairs.iter().map(|(now, before, _)| now.saturating_sub(*before)).sum();
            if more == 0 {
                return 0;
            }
            if start.elapsed() > Duration::from_secs(10) {
                for (now, before, what) in pairs.iter().filter(|(now, before, _)| now > before) {
                    eprintln!("{what}: there were {before}, there are {now}");
                }
                return more as u64;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// How many descriptors a process has open; 0 if it is gone.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.flatten().count())
}

/// The names of the pools' memories that a process has open or mapped. A name belongs to one pool.
pub fn memory_of(pid: u32) -> BTreeSet<String> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let open = links.map(|target| target.to_string_lossy().into_owned());
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let mapped = maps.lines().filter_map(|line| Some(line[line.find("/memfd:")?..].to_owned()));
    open.chain(mapped).filter(|name| name.starts_with("/memfd:ringpool-")).collect()
}

/// Processes that hold any of these memories, by a descriptor or a mapping.
pub fn holders(memory: &BTreeSet<String>) -> Vec<u32> {
    let pids = procs::all().into_iter().map(|(pid, _)| pid);
    pids.filter(|&pid| !memory_of(pid).is_disjoint(memory)).collect()
}

/// Bytes that a pool's memories take in this machine, as the descriptors of process `pid` see it.
pub fn committed(pid: u32) -> u64 {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut seen = BTreeSet::new();
    let blocks = entries.filter_map(|entry| {
        use std::os::unix::fs::MetadataExt;
        let name = std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        let file = std::fs::metadata(entry.path()).ok()?;
        (name.starts_with("/memfd:ringpool-") && seen.insert(name)).then(|| file.blocks())
    });
    512 * blocks.sum::<u64>()
}

/// A figure of `/proc/meminfo` in bytes, such as `Shmem`: shared memory of the whole machine.
pub fn meminfo(what: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let line = text.lines().find(|line| line.starts_with(&format!("{what}:"))).expect("such a line");
    1024 * line.split_whitespace().nth(1).expect("a figure").parse::<u64>().expect("a number")
}
