//! The process that made the pool goes away: nothing of the pool stays.

use crate::SOON;
use libtest_mimic::Trial;
use ringpool::{Context, Pool};
use ringpool_tests::actor::{Actor, wait_for_the_end};
use ringpool_tests::{CONTEXTS, eventually, procs, test};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for context in CONTEXTS {
        for named in [false, true] {
            for end in ENDS.into_iter().filter(|&end| end != STOPPED || context != Context::Spawn) {
                let name = if named { "named" } else { "nameless" };
                tests.push(test(format!("parent_gone::{end}::{name}::{context:?}"), move || {
                    parent_gone(context, named, end);
                }));
            }
        }
    }
    tests
}

/// The template, whose end would be that of the workers, is stopped when the pool's process is killed.
const STOPPED: &str = "killed_beside_a_stopped_template";

/// Killed while the pool is idle or works; ended together with all its processes, as a service manager
/// does; ends without dropping the pool; exits in the middle of tasks; runs another program, which for the kernel
/// is no end.
const ENDS: [&str; 8] = [
    STOPPED,
    "killed_idle",
    "killed_working",
    "template_then_parent",
    "all_are_ended",
    "forgets",
    "exits",
    "executes",
];

fn sleep_long() {
    std::thread::sleep(Duration::from_secs(600));
}

fn spin_for_ever() {
    loop {
        std::hint::spin_loop();
    }
}

/// The actor: makes a pool, says that it is there, and ends as told.
pub fn holder(args: &[String]) {
    let [context, name, end] = args else { panic!("{args:?}") };
    let context = CONTEXTS.into_iter().find(|c| format!("{c:?}") == *context).expect("a context");
    let mut builder = Pool::builder().processes(2).context(context);
    if !name.is_empty() {
        builder = builder.name(name);
    }
    let pool = builder.start().expect("a pool");
    assert_eq!(pool.apply(crate::double, (4,)).expect("a result"), 8);
    if matches!(end.as_str(), "killed_working" | "exits" | "executes") {
        let _ = pool.apply_async(sleep_long, ()).expect("a task");
        let _ = pool.apply_async(spin_for_ever, ()).expect("a task");
    }
    if end == "template_then_parent" {
        // A replaced template must know all that the first one knew.
        let old = procs::templates();
        assert!(old.iter().all(|&template| procs::kill(template)));
        eventually("there is another template", SOON, || {
            let new = procs::templates();
            new.len() == old.len() && !new.iter().any(|pid| old.contains(pid))
        });
        crate::expect_full_strength(&pool);
    }
    let pids: Vec<String> = procs::descendants(std::process::id()).iter().map(u32::to_string).collect();
    println!("{}", pids.join(" "));
    wait_for_the_end();
    match end.as_str() {
        "forgets" => std::mem::forget(pool),
        "exits" => std::process::exit(0),
        "executes" => panic!("{}", Command::new("sleep").arg("600").exec()),
        _ => unreachable!("it is killed before"),
    }
}

fn parent_gone(context: Context, named: bool, end: &str) {
    let name = if named { format!("test-{}-{end}-{context:?}", std::process::id()) } else { String::new() };
    // Other programs' pools may come and go meanwhile: only what bears this name counts.
    let card = || procs::shm().contains(&format!("ringpool.{name}"));
    let mut parent = Actor::start("holder", &[&format!("{context:?}"), &name, end]);
    let line = parent.line();
    let pids: Vec<u32> = line.split(' ').map(|pid| pid.parse().expect("a process id")).collect();
    let started: Vec<_> = pids.iter().map(|&pid| procs::stat(pid).expect("it runs").started).collect();
    assert!(pids.len() >= 2 && pids.iter().all(|&pid| procs::runs(pid)), "{line}");
    assert_eq!(card(), named);
    if matches!(end, "forgets" | "exits") {
        assert!(parent.finish().success());
    } else if end == "executes" {
        parent.close_input();
    } else if end == STOPPED {
        let is_template = |pid: &&u32| procs::stat(**pid).is_some_and(|stat| stat.name == procs::TEMPLATE);
        let template = *pids.iter().find(is_template).expect("a template");
        // By its handle: it is nobody's child soon.
        let raw = Pid::from_raw(template as i32).expect("an id");
        let handle = pidfd_open(raw, PidfdFlags::empty()).expect("a handle");
        assert!(procs::signal(template, Signal::STOP));
        eventually("the template stops", SOON, || procs::is_stopped(template));
        parent.kill();
        eventually("the workers are gone", SOON, || {
            pids.iter().zip(&started).filter(|&(&pid, _)| pid != template).all(|(&pid, &started)| {
                procs::stat(pid).is_none_or(|stat| stat.state == 'Z' || stat.started != started)
            })
        });
        assert!(procs::is_stopped(template), "nothing has made it go on");
        pidfd_send_signal(&handle, Signal::CONT).expect("it is there");
    } else {
        if end == "all_are_ended" {
            // The answer does not matter: a worker may have gone with another's end already.
            for &pid in &pids {
                let _ = procs::signal(pid, Signal::TERM);
            }
        }
        parent.kill();
    }
    eventually("all processes of the pool are gone", SOON, || {
        pids.iter().zip(&started).all(|(&pid, &started)| {
            procs::stat(pid).is_none_or(|stat| stat.state == 'Z' || stat.started != started)
        })
    });
    eventually("its name is gone", SOON, || !card());
}
