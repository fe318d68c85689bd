//! A pool's own process is killed after each instruction of one call: nothing of it stays.
//!
//! The manager, a process without threads, forks one victim after the other. It adopts what victims leave
//! behind and waits for it: the kernel itself says when nothing is left.

use crate::plan::{self, Plan};
use crate::tracer::Tracee;
use crate::way::{Reached, Way};
use crate::work::HUNG;
use libtest_mimic::Trial;
use ringpool::Pool;
use ringpool_tests::actor::Actor;
use ringpool_tests::procs;
use ringpool_tests::proof::{Extent, Proof};
use std::time::{Duration, Instant};

/// The system call that a victim makes after its call, and at no other time.
const END: libc::c_long = libc::SYS_getppid;

pub fn tests() -> Vec<Trial> {
    let test = |name: &'static str, named, asleep| {
        let path = format!("client::{}", name.replace(", ", "::").replace(' ', "_"));
        crate::stepping_test(path, move || sweep(name, named, asleep))
    };
    let mut tests = vec![test("nameless pool", false, false), test("named pool, caller asleep", true, true)];
    if Extent::now() != Extent::Short {
        tests.push(test("named pool", true, false));
        tests.push(test("nameless pool, caller asleep", false, true));
    }
    tests
}

/// The actor: forks a victim whenever it is told to, and says so when all is gone that it left.
pub fn manager(args: &[String]) {
    let [name] = args else { panic!("{args:?}") };
    // SAFETY: makes this process the parent of orphans below it; no memory is involved.
    let adopts = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    assert_eq!(adopts, 0);
    while told().is_some() {
        // SAFETY: this process has one thread.
        let child = unsafe { libc::fork() };
        if child == 0 {
            victim(name);
        }
        assert!(child > 0, "{}", std::io::Error::last_os_error());
        println!("gone {}", wait_for_all(child));
    }
}

/// Waits until this process has no children any more; the status of `child`, which is one of them.
fn wait_for_all(child: i32) -> i32 {
    let (mut status, mut of_child) = (0, 0);
    loop {
        // SAFETY: writes the status; nobody else keeps account of this process's children.
        match unsafe { libc::wait(&raw mut status) } {
            pid if pid == child => of_child = status,
            pid if pid > 0 => {}
            _ => return of_child,
        }
    }
}

/// The next byte on the standard input; `None` at its end.
fn told() -> Option<u8> {
    let mut byte = 0_u8;
    // Not through a buffer: the byte after it may be meant for another process.
    // SAFETY: reads one byte into a byte.
    let read = unsafe { libc::read(libc::STDIN_FILENO, (&raw mut byte).cast(), 1) };
    (read == 1).then_some(byte)
}

fn nap(milliseconds: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(milliseconds));
    milliseconds + 1
}

/// One call between two marks: the wait in `told`, and a system call.
fn victim(name: &str) -> ! {
    let mut builder = Pool::builder().processes(2).retries(14);
    if !name.is_empty() {
        builder = builder.name(name);
    }
    let pool = crate::on_one_cpu(|| builder.start()).expect("a pool");
    assert_eq!(pool.apply(nap, (0,)).expect("a value"), 1);
    let workers = pool.worker_pids();
    println!("{} {} {}", std::process::id(), workers[0], workers[1]);
    let Some(milliseconds) = told() else { std::process::exit(0) };
    let value = pool.apply_async(nap, (milliseconds.into(),)).and_then(|result| result.get());
    // SAFETY: returns a number.
    unsafe { libc::syscall(END) };
    assert_eq!(value.expect("a value"), u64::from(milliseconds) + 1);
    println!("done");
    std::process::exit(0) // without a goodbye to the pool
}

/// How long the task sleeps while the caller's way is recorded, which takes some time; and while it is
/// followed.
const NAPS: [u8; 2] = [100, 5];

fn sweep(kind: &str, named: bool, asleep: bool) {
    let name = if named { format!("steps-{}", std::process::id()) } else { String::new() };
    let naps = if asleep { NAPS } else { [0, 0] };
    let manager = Actor::start("manager", &[&name]);
    let proof = Proof::of(format!("single step: client, {kind}"));
    let mut stage = Stage { manager, name, proof, longest: Duration::ZERO };
    let ways = (0..plan::recordings()).filter_map(|_| stage.once(None, naps[0]));
    // Longer ones are those of callers that woke up more often from a longer nap.
    let way = ways.min_by_key(Way::len).expect("a recorded way");
    let mut plan = Plan::new(kind, way.len() + 1, plan::limit());
    for n in plan.by_ref() {
        stage.once(Some((&way, n)), naps[1]);
    }
    let (tried, all) = (plan.given(), way.len() + 1);
    println!("{kind}: {tried} of {all} instructions, all gone within {:?}", stage.longest);
    stage.proof.report();
}

/// After this time it is worth a line what is still left of a victim.
const SLOW: Duration = Duration::from_millis(300);

/// The manager, and what came of its victims.
struct Stage {
    manager: Actor,
    name: String,
    proof: Proof,
    /// How long it took until nothing was left of a victim, at most.
    longest: Duration,
}

impl Stage {
    /// Has one victim make its call. Kills it on this way, or records its way.
    fn once(&mut self, aim: Option<(&Way, u64)>, nap: u8) -> Option<Way> {
        self.proof.runs += 1;
        self.manager.tell(&[nap]);
        let line = self.manager.line();
        let pids: Vec<u32> = line.split(' ').map(|pid| pid.parse().expect("a process id")).collect();
        let template = procs::stat(pids[1]).expect("a worker").parent;
        let left: Vec<_> = [template, pids[1], pids[2]]
            .into_iter()
            .map(|pid| (pid, procs::stat(pid).expect("a process of the pool").started))
            .collect();

        let mut victim = match hold_waiting(pids[0]) {
            Ok(victim) => victim,
            Err(error) => panic!("{error}: {:?}, {}", procs::stat(pids[0]), self.manager.line()),
        };
        if aim.is_none_or(|(_, n)| n > 0) {
            self.manager.tell(&[nap]); // its first instruction takes this
        }
        let is_end = |victim: &Tracee| victim.enters(END).is_some();
        let (way, reached) = match aim {
            None => (Some(Way::record(&mut victim, u64::MAX, is_end)), Reached::End),
            Some((way, n)) => (None, way.follow(&mut victim, n, is_end)),
        };
        let killed = Instant::now();
        let status = match reached {
            Reached::Place => {
                let address = victim.address();
                victim.kill();
                self.proof.kills += 1;
                self.expect_gone(&left, || {
                    format!("{:?}, killed at {}", aim.map(|(_, n)| n), crate::place(address))
                });
                self.longest = self.longest.max(killed.elapsed());
                libc::SIGKILL
            }
            Reached::End => {
                victim.release();
                match self.manager.line().as_str() {
                    "done" => self.proof.delivered += 1,
                    other => {
                        eprintln!("a victim that was spared says {other:?}");
                        self.proof.lost += 1;
                    }
                }
                self.expect_gone(&left, || "not killed".to_owned());
                0
            }
        };
        assert_eq!(self.manager.line(), format!("gone {status}"));
        way
    }

    /// No process of the pool is left, and no file.
    fn expect_gone(&mut self, pids: &[(u32, u64)], place: impl Fn() -> String) {
        let is_left = |&&(pid, started): &&(u32, u64)| {
            procs::stat(pid).is_some_and(|stat| stat.started == started && !matches!(stat.state, 'Z' | 'X'))
        };
        let start = Instant::now();
        let mut slow = false;
        while pids.iter().any(|process| is_left(&process)) && start.elapsed() < HUNG {
            if !slow && start.elapsed() > SLOW {
                slow = true; // a busy machine, or a death that nobody has noticed at once
                let left: Vec<_> = pids.iter().filter(is_left).map(|&(pid, _)| procs::stat(pid)).collect();
                println!("{}: after {SLOW:?} there are still {left:?}", place());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        for &(pid, _) in pids.iter().filter(is_left) {
            eprintln!("{}: process {pid} is left: {:?}", place(), procs::stat(pid));
            self.proof.leaked += 1;
            procs::kill(pid);
        }
        if !self.name.is_empty() && procs::shm().iter().any(|file| file.contains(&self.name)) {
            eprintln!("{}: a file is left of {:?}", place(), self.name);
            self.proof.leaked += 1;
        }
    }
}

/// Stops a victim where it waits to be told to go on.
fn hold_waiting(pid: u32) -> std::io::Result<Tracee> {
    let start = Instant::now();
    loop {
        let victim = Tracee::seize(pid)?;
        let registers = victim.registers();
        if registers.orig_rax as libc::c_long == libc::SYS_read && registers.rdi == 0 {
            return Ok(victim);
        }
        assert!(start.elapsed() < HUNG, "victim {pid} does not wait");
        drop(victim);
        std::thread::sleep(Duration::from_micros(50));
    }
}
