//! Starts and initializers that fail.

use crate::hired::{Hired, PLAIN, Plan, Trouble, Way};
use crate::{SOON, builder, double, in_ways, pool};
use libtest_mimic::Trial;
use ringpool::raw::{self, Service};
use ringpool::{ErrorKind, Exit, Pool};
use ringpool_tests::leftovers::Before;
use ringpool_tests::signs::{Sign, note};
use ringpool_tests::{audit, eventually, procs, test};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const REFUSES: Plan = Plan {
    name: "refuses",
    initialize: |path| {
        note(path, "called");
        Err("not here".to_owned())
    },
    ..PLAIN
};

/// The same, and does not end by itself.
const LINGERS: Plan =
    Plan { name: "lingers", after: |_| std::thread::sleep(Duration::from_secs(600)), ..REFUSES };

const PANICS: Plan = Plan { name: "panics", initialize: |_| panic!("not now"), ..PLAIN };

const NOTES: Plan = Plan {
    name: "notes",
    initialize: |path| {
        note(path, "called");
        Ok(())
    },
    ..PLAIN
};

const LEAVES: Plan = Plan {
    name: "leaves",
    // SAFETY: ends this process.
    before: |_| unsafe { libc::_exit(3) },
    ..PLAIN
};

pub const PLANS: [&Plan; 5] = [&REFUSES, &LINGERS, &PANICS, &NOTES, &LEAVES];

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for trouble in [Trouble::Fails, Trouble::Panics, Trouble::FailsLate] {
        tests.extend(in_ways(&format!("cannot start::{trouble:?}"), move |way| cannot_start(way, trouble)));
        tests.extend(in_ways(&format!("cannot replace::{trouble:?}"), move |way| {
            cannot_replace(way, trouble)
        }));
    }
    tests.push(test("cannot replace the last", cannot_replace_the_last));
    tests.extend(in_ways("an initializer is called once", initialized_once));
    tests.extend(in_ways("an initializer fails", initializer_fails));
    tests.extend(in_ways("an initializer panics", initializer_panics));
    tests.extend(in_ways("all leave before they serve", leave_early));
    tests.push(test("one ends at once", ends_at_once));
    tests.push(test("a fork comes back", comes_back));
    tests.push(test("a seat of nobody's", nobodys_seat));
    tests
}

fn cannot_start(way: Way, trouble: Trouble) {
    let before = Before::now();
    let notes = Sign::new();
    let hired = Hired::new(way, NOTES, &notes.path());
    hired.plot([None, None, Some(trouble)]);
    let error = builder(5, &hired).start().unwrap_err();
    let ErrorKind::Start { message } = error.kind() else { panic!("{error:?}") };
    let expected = match trouble {
        Trouble::Fails => "no hands",
        Trouble::Panics => "no heads",
        _ => "no memory of what was done",
    };
    assert!(message.contains(expected), "{message}");
    let asked = hired.log().ended.clone();
    assert_eq!(asked.len(), 2, "those before it are gone, and none came after it");
    assert!(asked.iter().all(|&(_, pid, exit)| procs::stat(pid).is_none() && exit.is_some()));
    if trouble == Trouble::FailsLate {
        let late = hired.pids()[2];
        eventually("the one that nobody knew of ends, too", SOON, || !procs::runs(late));
        raw::Launcher::exit_of(&mut hired.clone(), 3, late);
    }
    hired.expect_all_ended();
    drop(notes);
    assert_eq!(before.left_over(), 0);
}

fn cannot_replace(way: Way, trouble: Trouble) {
    let before = Before::now();
    let notes = Sign::new();
    let hired = Hired::new(way, NOTES, &notes.path());
    let pool = pool(2, &hired);
    eventually("all are initialized", SOON, || notes.count() == 2);
    hired.plot([Some(trouble); 3]);
    let victim = hired.pid_of(1);
    assert!(procs::kill(victim));
    eventually("it has been tried again", SOON, || hired.log().plot.is_empty());
    assert_eq!(pool.map(double, 0..100u64).unwrap()[99], 198);
    eventually("it is replaced at last", SOON, || pool.worker_pids().len() == 2);
    audit::expect_full_strength(&pool);
    pool.close();
    pool.join().unwrap();
    if trouble == Trouble::FailsLate {
        let asked: Vec<u32> = hired.log().ended.iter().map(|&(_, pid, _)| pid).collect();
        for late in hired.pids().into_iter().filter(|pid| !asked.contains(pid)) {
            eventually("those that nobody knew of end, too", SOON, || !procs::runs(late));
            raw::Launcher::exit_of(&mut hired.clone(), 1, late);
        }
        let mut log = hired.log();
        log.started.iter_mut().for_each(|started| started.worker = 0);
        log.ended.iter_mut().for_each(|(worker, ..)| *worker = 0);
    }
    hired.expect_all_ended();
    drop(pool);
    drop(notes);
    assert_eq!(before.left_over(), 0);
}

fn cannot_replace_the_last() {
    let hired = Hired::plain(Way::Forks);
    let pool = pool(1, &hired);
    assert_eq!(pool.apply(double, (1,)).unwrap(), 2);
    hired.plot([Some(Trouble::Fails)]);
    assert!(procs::kill(hired.pid_of(1)));
    eventually("it has been tried", SOON, || hired.log().plot.is_empty());
    let error = pool.apply(double, (1,)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Start { message } if message == "no hands"), "{error:?}");
}

fn initialized_once(way: Way) {
    let notes = Sign::new();
    let hired = Hired::new(way, NOTES, &notes.path());
    let pool = pool(3, &hired);
    eventually("all are initialized", SOON, || notes.count() == 3);
    assert_eq!(pool.map(double, 0..1000u64).unwrap().len(), 1000);
    assert!(procs::kill(hired.pid_of(3)));
    eventually("its successor is, too", SOON, || notes.count() == 4);
    pool.close();
    pool.join().unwrap();
    assert_eq!(notes.count(), 4);
}

#[track_caller]
fn expect_initializer_error(pool: &Pool, hired: &Hired, text: &str) {
    for _ in 0..2 {
        let error = pool.apply(double, (1,)).unwrap_err();
        let ErrorKind::Initializer { worker, pid, message } = error.kind() else { panic!("{error:?}") };
        assert_eq!(hired.pid_of(*worker), *pid);
        assert!(message.contains(text), "{message}");
    }
    pool.close();
    pool.join().unwrap();
    hired.expect_all_ended();
}

fn initializer_fails(way: Way) {
    let before = Before::now();
    let notes = Sign::new();
    for _ in 0..10 {
        let hired = Hired::new(way, REFUSES, &notes.path());
        expect_initializer_error(&pool(1, &hired), &hired, "not here");
        assert_eq!(hired.pids().len(), 1, "nobody tries again");
    }
    assert_eq!(notes.count(), 10);
    let hired = Hired::new(way, REFUSES, &notes.path());
    expect_initializer_error(&pool(3, &hired), &hired, "not here");
    let hired = Hired::new(way, LINGERS, &notes.path());
    expect_initializer_error(&pool(2, &hired), &hired, "not here");
    drop(notes);
    assert_eq!(before.left_over(), 0);
}

fn initializer_panics(way: Way) {
    let hired = Hired::new(way, PANICS, "");
    expect_initializer_error(&pool(1, &hired), &hired, "not now");
}

fn leave_early(way: Way) {
    let before = Before::now();
    let hired = Hired::new(way, LEAVES, "");
    let pool = pool(2, &hired);
    let error = pool.apply(double, (1,)).unwrap_err();
    let ErrorKind::Start { message } = error.kind() else { panic!("{error:?}") };
    assert!(message.contains("left with exit code 3"), "{message}");
    drop(pool);
    hired.expect_all_ended();
    assert_eq!(before.left_over(), 0);
}

fn ends_at_once() {
    let before = Before::now();
    let hired = Hired::plain(Way::Forks);
    hired.plot([None, Some(Trouble::EndsAtOnce)]);
    let pool = pool(2, &hired);
    eventually("it is replaced", SOON, || hired.log().started.len() == 3);
    audit::expect_full_strength(&pool);
    assert_eq!(hired.exit_of(hired.pids()[1]), Some(Exit::Code(3)));
    pool.close();
    pool.join().unwrap();
    hired.expect_all_ended();
    drop(pool);
    assert_eq!(before.left_over(), 0);
}

fn comes_back() {
    let before = Before::now();
    let hired = Hired::plain(Way::Forks);
    hired.plot([None, Some(Trouble::ComesBack)]);
    let pool = pool(2, &hired);
    eventually("it is replaced", SOON, || hired.log().started.len() == 3);
    audit::expect_full_strength(&pool);
    assert_eq!(hired.exit_of(hired.pids()[1]), Some(Exit::Code(1)));
    drop(pool);
    hired.expect_all_ended();
    assert_eq!(before.left_over(), 0);
}

fn nobodys_seat() {
    let refused = |prepare: fn(UnixStream)| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        prepare(theirs);
        // SAFETY: the child uses the allocator, which libc repairs, and leaves.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let initialize = Box::new(|| Ok(()));
            let served = raw::serve(OwnedFd::from(ours), Service { initialize, around: &|task| task() });
            // SAFETY: as above.
            unsafe { libc::_exit(if served.is_err() { 7 } else { 8 }) };
        }
        let mut status = 0;
        // SAFETY: `status` may be written.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status:#x}");
    };
    refused(drop);
    refused(|theirs| {
        use std::io::Write;
        (&theirs).write_all(b"hello").unwrap();
    });
    refused(|theirs| {
        use std::io::Write;
        (&theirs).write_all(b"W12345678").unwrap();
        std::mem::forget(theirs); // it is there, and does not pass its memory
    });
}
