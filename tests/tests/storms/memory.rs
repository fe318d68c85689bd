//! A worker that its control group's memory limit kills is a worker that was killed.

use crate::{LIMIT, SOON, double};
use libtest_mimic::{Completion, Failed, Trial};
use ringpool::{ErrorKind, Exit, Pool};
use ringpool_tests::proof::{Extent, Proof};
use ringpool_tests::{eventually, expect_repaired, procs, test_within};
use std::path::PathBuf;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    const NAME: &str = "killed_for_its_memory";
    match Group::new() {
        Ok(group) => vec![test_within(LIMIT, NAME, move || killed_for_its_memory(&group))],
        Err(why) => vec![Trial::ignorable_test(NAME, move || {
            Ok::<_, Failed>(Completion::ignored_with(format!("no memory control group of our own: {why}")))
        })],
    }
}

const ALLOWED: u64 = 48 << 20;

/// A memory control group of our own, removed when dropped.
struct Group(PathBuf);

impl Group {
    fn new() -> Result<Self, String> {
        let ours = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let of = |controller: &str| {
            ours.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let found = fields.next()?.split(',').any(|name| name == controller);
                let path = fields.next()?.trim_start_matches('/');
                found.then(|| path.to_owned())
            })
        };
        let name = format!("ringpool-test-{}", std::process::id());
        // Version 1 mounts the controller by itself; in version 2 there is one tree for all.
        let (group, limit) = match of("memory") {
            Some(path) => {
                (PathBuf::from("/sys/fs/cgroup/memory").join(path).join(name), "memory.limit_in_bytes")
            }
            None => {
                let path = of("").ok_or("this process is in no group")?;
                (PathBuf::from("/sys/fs/cgroup").join(path).join(name), "memory.max")
            }
        };
        std::fs::create_dir(&group).map_err(|e| format!("{}: {e}", group.display()))?;
        let group = Group(group);
        group.write(limit, &ALLOWED.to_string())?;
        if limit == "memory.max" {
            let _ = group.write("memory.swap.max", "0"); // there may be no swap
        }
        Ok(group)
    }

    fn write(&self, file: &str, text: &str) -> Result<(), String> {
        let path = self.0.join(file);
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It fails while a process is in it that is just dying.
        for _ in 0..100 {
            match std::fs::remove_dir(&self.0) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                _ => return,
            }
        }
    }
}

/// Uses so many bytes of its own memory.
fn use_memory(bytes: u64) -> u64 {
    let mut memory = vec![0u8; bytes as usize];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    memory.iter().map(|&byte| u64::from(byte)).sum()
}

/// A result of so many bytes: of the pool's memory, and of its own before.
fn large(bytes: u64) -> Vec<u8> {
    vec![1; bytes as usize]
}

fn killed_for_its_memory(group: &Group) {
    let mut proof = Proof::of("storms: out of memory");
    let pool = Pool::builder().processes(2).start().expect("a pool");
    for round in 0..Extent::now().pick(4, 10, 40) {
        let pids = pool.worker_pids();
        for pid in &pids {
            group.write("cgroup.procs", &pid.to_string()).expect("our worker into our group");
        }
        assert_eq!(pool.apply(use_memory, (1 << 20,)).expect("so much is allowed"), 256);
        let error = if round % 2 == 0 {
            pool.apply(use_memory, (4 * ALLOWED,)).expect_err("so much is not")
        } else {
            pool.apply(large, (4 * ALLOWED,)).expect_err("so much is not")
        };
        match error.kind() {
            ErrorKind::WorkerDied { end, pid, .. } => {
                assert_eq!(*end, Exit::Signal(libc::SIGKILL));
                assert!(pids.contains(pid));
            }
            other => panic!("expected the death of a worker, got {other:?}"),
        }
        proof.runs += 1;
        proof.kills += 1;
        proof.delivered += 2;
        // The other one goes, too, so that both of the next round are new.
        for &pid in &pids {
            proof.kills += u64::from(procs::kill(pid));
        }
        eventually("both are replaced", SOON, || {
            let now = pool.worker_pids();
            now.len() == 2 && !now.iter().any(|pid| pids.contains(pid))
        });
        assert_eq!(pool.apply(double, (21,)).expect("outside of the group all is well"), 42);
    }
    expect_repaired(&pool);
    drop(pool);
    let in_group = std::fs::read_to_string(group.0.join("cgroup.procs")).expect("our group");
    proof.leaked += in_group.lines().count() as u64;
    proof.report();
}
