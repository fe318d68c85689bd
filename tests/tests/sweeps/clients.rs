//! The process of a pool killed or stopped at every access of the thread that makes and uses it, and of
//! the thread that reaps. With it go its workers, its memory and its name.

use crate::work::{everything, take_a_few};
use crate::{SWEEP, Steps, watched};
use libtest_mimic::Trial;
use ringpool::crash::{self, Blow, Rehearsal};
use ringpool::{Pool, named};
use ringpool_tests::actor::{Actor, troupe};
use ringpool_tests::functions::{self, SHOUT};
use ringpool_tests::proof::Proof;
use ringpool_tests::{eventually, procs, test_within};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    vec![
        test_within(SWEEP, "client_killed", || killed("makes", 37)),
        test_within(SWEEP, "client_killed_while_it_reaps", || killed("reaps", 61)),
        test_within(SWEEP, "client_killed_with_a_guest", || killed("has a guest", 97)),
        test_within(SWEEP, "client_stopped", stopped),
    ]
}

fn die() {
    // SAFETY: a signal to ourselves.
    unsafe { libc::raise(libc::SIGKILL) };
}

/// The actor: a pool that is made, used and ended. Struck while it `makes` and uses the pool, while it
/// `reaps` a worker, or while a `guest` is with it.
pub fn client(args: &[String]) {
    let [part, at, blow, name] = args else { panic!("{args:?}") };
    let at: u64 = at.parse().expect("a number");
    let blow = if blow == "Kill" { Blow::Kill } else { Blow::Stop };
    crash::set_timers(blow == Blow::Stop);
    functions::register_all("").expect("functions");
    if part == "makes" {
        crash::arm(at, blow);
    }
    let mut builder = Pool::builder().processes(2);
    if !name.is_empty() {
        builder = builder.name(name);
    }
    let pool = builder.start().expect("a pool");
    let mut guest = None;
    match part.as_str() {
        "reaps" => {
            crash::plan_reap(Rehearsal::InPlace(at, blow));
            assert!(pool.apply(die, ()).is_err());
        }
        "has a guest" => {
            let mut actor = Actor::start("guest", &[name]);
            assert_eq!(actor.line(), "joined");
            guest = Some(actor);
            crash::arm(at, blow);
            for _ in 0..4 {
                let shouted = pool.apply(named::<(String,), String>(SHOUT), ("hey".to_owned(),));
                assert_eq!(shouted.expect("a result"), "HEY");
            }
        }
        _ => {}
    }
    let mut tally = everything(&pool);
    take_a_few(&pool, &mut tally);
    assert_eq!(tally.deaths, 0);
    pool.close();
    pool.join().expect("a pool that was closed");
    crash::arm(0, blow);
    drop(guest);
}

/// The actor: works for the pool of this name until it ends.
pub fn guest(args: &[String]) {
    let [name] = args else { panic!("{args:?}") };
    functions::register_all("").expect("functions");
    let attached = ringpool::attach(name).expect("the pool is there");
    println!("joined");
    let _ = attached.serve(); // whatever has become of the pool
}

fn name_of(at: u64) -> String {
    // Some pools have no name.
    if at.is_multiple_of(3) { String::new() } else { format!("sweep-{}-{at}", std::process::id()) }
}

/// All that a client had is gone.
fn expect_nothing_left(name: &str) {
    eventually("its processes are gone", Duration::from_secs(20), || troupe().is_empty());
    let card = format!("ringpool.{name}");
    let gone = || name.is_empty() || !procs::shm().contains(&card);
    eventually("its name is gone", Duration::from_secs(20), gone);
}

fn killed(part: &str, stride: u64) {
    let mut proof = Proof::of(format!("crash sweep: client that {part}"));
    let mut steps = Steps::new(stride, stride / 5, stride / 12);
    while let Some(at) = steps.next() {
        let name =
            if part == "has a guest" { format!("sweep-{}-{at}", std::process::id()) } else { name_of(at) };
        let hit = watched(&format!("client that {part}, killed at access {at}"), || {
            let mut actor = Actor::start("client", &[part, &at.to_string(), "Kill", &name]);
            let status = actor.wait();
            let hit = status.signal() == Some(libc::SIGKILL);
            assert!(hit || status.success(), "access {at}: {status}");
            expect_nothing_left(&name);
            hit
        });
        steps.hit(hit);
        proof.runs += 1;
        proof.kills += u64::from(hit);
    }
    proof.report();
}

fn stopped() {
    let mut proof = Proof::of("stop sweep: client");
    let mut steps = Steps::new(97, 19, 3);
    while let Some(at) = steps.next() {
        let name = name_of(at);
        let hit = watched(&format!("client stopped at access {at}"), || {
            let mut actor = Actor::start("client", &["makes", &at.to_string(), "Stop", &name]);
            let pid = actor.pid();
            eventually("it is stopped, or has ended", Duration::from_secs(20), || {
                procs::is_stopped(pid) || !procs::runs(pid)
            });
            let hit = procs::is_stopped(pid);
            if hit {
                std::thread::sleep(Duration::from_millis(3)); // its workers go on as far as they can
                assert!(procs::is_stopped(pid));
                if at.is_multiple_of(2) {
                    assert!(procs::kill(pid), "killed while stopped");
                } else {
                    assert!(procs::signal(pid, Signal::CONT));
                }
            }
            let status = actor.wait();
            let killed = hit && at.is_multiple_of(2);
            assert!(if killed { !status.success() } else { status.success() }, "access {at}: {status}");
            expect_nothing_left(&name);
            hit
        });
        steps.hit(hit);
        proof.runs += 1;
        proof.kills += u64::from(hit);
    }
    proof.report();
}
