//! The pool's process is killed: its workers go, too, even if another child of it lives on, which has nothing of the pool.

use crate::SOON;
use crate::hired::{Hired, PLAIN, Plan, WAYS, Way};
use libtest_mimic::Trial;
use ringpool::Pool;
use ringpool_tests::actor::{Actor, wait_for_the_end};
use ringpool_tests::leftovers::memory_of;
use ringpool_tests::signs::{Sign, note, wait_for_note};
use ringpool_tests::{eventually, procs, test};
use std::time::Duration;

/// Never gets through its initializer.
const STUCK: Plan = Plan {
    name: "stuck",
    initialize: |path| {
        note(path, "begun");
        std::thread::sleep(Duration::from_secs(600));
        Ok(())
    },
    ..PLAIN
};

/// Serves when the pool's process is gone.
const LATE: Plan = Plan {
    name: "late",
    before: |path| {
        while std::os::unix::process::parent_id() == read_parent(path) {
            std::thread::sleep(Duration::from_millis(1));
        }
    },
    ..PLAIN
};

pub const PLANS: [&Plan; 2] = [&STUCK, &LATE];

/// The first note says who the pool's process is.
fn read_parent(path: &str) -> u32 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().and_then(|line| line.parse().ok()).unwrap_or(0)
}

const WHEN: [&str; 5] = ["idle", "working", "initializing", "starting", "executes"];

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for way in WAYS {
        for when in WHEN {
            tests.push(test(format!("the pool's process is killed::{when}::{way:?}"), move || {
                gone(way, when)
            }));
        }
    }
    tests
}

fn sleep_long() {
    std::thread::sleep(Duration::from_secs(600));
}

fn spin_for_ever() {
    loop {
        std::hint::spin_loop();
    }
}

/// Forks a process that has nothing to do with the pool, and waits for a note.
fn bystander(path: &str) -> u32 {
    // SAFETY: the child uses the allocator, which libc repairs, and the file system.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        wait_for_note(path);
        // SAFETY: ends it at once.
        unsafe { libc::_exit(0) };
    }
    u32::try_from(pid).expect("a child")
}

/// The actor: makes a pool, and a child, and is killed.
pub fn holder(args: &[String]) {
    let [way, when, notes, gate] = args else { panic!("{args:?}") };
    let way = WAYS.into_iter().find(|known| format!("{known:?}") == *way).expect("a way");
    let plan = match when.as_str() {
        "initializing" => STUCK,
        "starting" => LATE,
        _ => PLAIN,
    };
    if plan.name == LATE.name {
        note(notes, &std::process::id().to_string());
    }
    let hired = Hired::new(way, plan, notes);
    let pool = Pool::builder().processes(3).launcher(hired.clone()).start().expect("a pool");
    if plan.name == PLAIN.name {
        assert_eq!(pool.apply(crate::double, (4,)).expect("a result"), 8);
    }
    if when == "working" {
        let _ = pool.apply_async(sleep_long, ()).expect("a task");
        let _ = pool.apply_async(spin_for_ever, ()).expect("a task");
    }
    // By the thread that has started the workers, and by one that has not.
    let others =
        [bystander(gate), std::thread::scope(|scope| scope.spawn(|| bystander(gate)).join().unwrap())];
    let words: Vec<String> = others.into_iter().chain(hired.pids()).map(|pid| pid.to_string()).collect();
    println!("{}", words.join(" "));
    wait_for_the_end();
    if when == "executes" {
        use std::os::unix::process::CommandExt;
        panic!("{}", std::process::Command::new("sleep").arg("600").exec());
    }
}

fn gone(way: Way, when: &str) {
    let (notes, gate) = (Sign::new(), Sign::new());
    let mut parent = Actor::start("holder", &[&format!("{way:?}"), when, &notes.path(), &gate.path()]);
    let line = parent.line();
    let pids: Vec<u32> = line.split(' ').map(|pid| pid.parse().expect("a process id")).collect();
    let started: Vec<_> = pids.iter().map(|&pid| procs::stat(pid).expect("it runs").started).collect();
    assert_eq!(pids.len(), 5, "{line}");
    let runs = |at: usize| {
        procs::stat(pids[at]).is_some_and(|stat| stat.state != 'Z' && stat.started == started[at])
    };
    assert!((0..5).all(runs));
    let have_nothing = || memory_of(pids[0]).is_empty() && memory_of(pids[1]).is_empty();
    eventually("the others have got through their forks", SOON, have_nothing);
    assert!(!memory_of(parent.pid()).is_empty());
    if when == "initializing" {
        eventually("all are in their initializers", SOON, || notes.count() == 3);
    }
    match when {
        "executes" => parent.close_input(),
        _ => drop(parent.kill()),
    }
    eventually("the workers are gone", SOON, || !(2..5).any(runs));
    assert!(runs(0) && runs(1), "the others have not been touched");
    gate.open();
    eventually("the others are gone when they are let go", SOON, || !(0..2).any(runs));
}
