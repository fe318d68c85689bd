//! Processes that work, end and are replaced.

use crate::hired::{Hired, PLAIN, Plan, Way};
use crate::{SOON, builder, double, in_ways, pool};
use libtest_mimic::Trial;
use ringpool::raw::Name;
use ringpool::{ErrorKind, Exit};
use ringpool_tests::leftovers::{self, Before};
use ringpool_tests::signs::{Sign, note};
use ringpool_tests::{audit, eventually, procs, test};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Has things to do when it has served.
const TIDY: Plan = Plan {
    name: "tidy",
    after: |path| {
        std::thread::sleep(Duration::from_millis(100));
        note(path, "tidied");
    },
    ..PLAIN
};

static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

const COUNTS: Plan = Plan {
    name: "counts",
    around: |task| {
        BEGUN.fetch_add(1, Ordering::Relaxed);
        task();
        task(); // which it should not
        ENDED.fetch_add(1, Ordering::Relaxed);
    },
    ..PLAIN
};

/// Does what a task says: nothing, or worse.
const MOODY: Plan = Plan {
    name: "moody",
    around: |task| match BEGUN.fetch_add(1, Ordering::Relaxed) {
        0 => {}
        1 => panic!("not in the mood"),
        2 => {
            task();
            panic!("not any more")
        }
        _ => task(),
    },
    ..PLAIN
};

pub const PLANS: [&Plan; 3] = [&TIDY, &COUNTS, &MOODY];

pub fn tests() -> Vec<Trial> {
    let mut tests = in_ways("work", work);
    tests.extend(in_ways("started by whom", started_by));
    tests.extend(in_ways("killed and replaced", killed));
    tests.extend(in_ways("left and replaced", left));
    tests.extend(in_ways("around", around));
    tests.extend(in_ways("around, in a mood", moody));
    tests.extend(in_ways("terminated", terminated));
    tests.push(test("several pools side by side", side_by_side));
    tests.push(test("memory of other pools", memory_of_others));
    tests.push(test("no name", no_name));
    tests
}

fn pid(_: u64) -> u32 {
    std::process::id()
}

fn die(how: String) {
    // SAFETY: ends this process.
    unsafe {
        match how.as_str() {
            "leave" => libc::_exit(7),
            _ => libc::raise(libc::SIGKILL),
        };
    }
}

fn sleep_long() {
    std::thread::sleep(Duration::from_secs(600));
}

fn work(way: Way) {
    let before = Before::now();
    let hired = Hired::plain(way);
    let pool = pool(3, &hired);
    assert_eq!(pool.apply(double, (21,)).unwrap(), 42);
    assert_eq!(&*pool.raw().apply(Name::new("upper").unwrap(), &b"quiet"[..]).unwrap(), b"QUIET");
    let large = vec![7u64; 100_000];
    assert_eq!(pool.apply(|v: Vec<u64>| v.iter().sum::<u64>(), (large,)).unwrap(), 700_000);
    let doubled = pool.map(double, 0..10_000u64).unwrap();
    assert!(doubled.into_iter().eq((0..10_000).map(double)));
    let mut pids = pool.worker_pids();
    pids.sort_unstable();
    let mut started = hired.pids();
    started.sort_unstable();
    assert_eq!(pids, started);
    assert!(pids.contains(&pool.apply(pid, (0,)).unwrap()));
    audit::expect_whole(&pool);
    pool.close();
    pool.join().unwrap();
    hired.expect_all_ended();
    assert!(pids.iter().all(|&pid| hired.exit_of(pid) == Some(Exit::Code(0))));
    drop(pool);
    assert_eq!(before.left_over(), 0);
}

fn started_by(way: Way) {
    let hired = Hired::plain(way);
    let me = std::thread::current().id();
    let pool = pool(3, &hired);
    let first = hired.log().started.clone();
    assert_eq!(first.iter().map(|started| started.worker).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(first.iter().all(|started| started.by == me && started.threads == first[0].threads));
    assert!(procs::kill(first[1].pid));
    eventually("it is replaced", SOON, || hired.log().started.len() == 4);
    let last = hired.log().started[3].clone();
    assert_eq!(last.worker, 2);
    assert!(last.by != me && last.threads.len() > first[0].threads.len(), "by the supervisor");
    pool.close();
    pool.join().unwrap();
}

fn killed(way: Way) {
    let before = Before::now();
    let hired = Hired::plain(way);
    let pool = builder(2, &hired).retries(1).start().unwrap();
    let ends = [("kill", Exit::Signal(libc::SIGKILL)), ("leave", Exit::Code(7))];
    for (how, expected) in ends {
        let error = pool.apply(die, (how.to_owned(),)).unwrap_err();
        let ErrorKind::WorkerDied { end, pid, attempt, .. } = error.kind() else { panic!("{error:?}") };
        assert_eq!((*end, *attempt), (expected, 2));
        assert_eq!(hired.exit_of(*pid), Some(expected));
    }
    // In a task, and idle.
    let asleep = pool.apply_async(sleep_long, ()).unwrap();
    assert!(!asleep.wait(Some(Duration::from_millis(20))));
    for _ in 0..5 {
        let old = pool.worker_pids();
        assert!(old.iter().all(|&pid| procs::kill(pid)));
        eventually("they are replaced", SOON, || {
            let new = pool.worker_pids();
            new.len() == 2 && !new.iter().any(|pid| old.contains(pid))
        });
    }
    assert!(asleep.get().unwrap_err().is_worker_died());
    audit::expect_full_strength(&pool);
    assert_eq!(pool.map(double, 0..100u64).unwrap().len(), 100);
    pool.close();
    pool.join().unwrap();
    hired.expect_all_ended();
    drop((asleep, pool));
    assert_eq!(before.left_over(), 0);
}

fn left(way: Way) {
    let notes = Sign::new();
    let hired = Hired::new(way, TIDY, &notes.path());
    let pool = builder(1, &hired).max_tasks_per_child(3).start().unwrap();
    let mut served = Vec::new();
    for task in 0..9 {
        served.push(pool.apply(pid, (task,)).unwrap());
    }
    served.dedup();
    assert_eq!(served.len(), 3);
    assert!(served.chunks(1).zip(hired.pids()).all(|(one, pid)| one[0] == pid));
    pool.close();
    pool.join().unwrap();
    hired.expect_all_ended();
    assert!(hired.pids().iter().all(|&pid| hired.exit_of(pid) == Some(Exit::Code(0))));
    assert_eq!(notes.count(), hired.pids().len(), "each could finish what it had to do");
}

fn counts(_: u64) -> (u64, u64) {
    (BEGUN.load(Ordering::Relaxed), ENDED.load(Ordering::Relaxed))
}

fn around(way: Way) {
    let hired = Hired::new(way, COUNTS, "");
    let pool = pool(1, &hired);
    for task in 0..5 {
        assert_eq!(pool.apply(counts, (task,)).unwrap(), (task + 1, task));
    }
    let chunks = pool.map_async(counts, 0..6u64, Some(3)).unwrap().get().unwrap();
    assert_eq!(chunks, [[(6, 5); 3], [(7, 6); 3]].concat(), "once for a chunk");
}

fn moody(way: Way) {
    let hired = Hired::new(way, MOODY, "");
    let pool = pool(1, &hired);
    let error = pool.apply(double, (1,)).unwrap_err();
    assert!(error.is_task_error() && error.to_string().contains("did not call"), "{error}");
    let error = pool.apply(double, (2,)).unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("not in the mood"), "{error}");
    assert_eq!(pool.apply(double, (3,)).unwrap(), 6);
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
    assert_eq!(hired.pids().len(), 1, "it lives");
}

fn terminated(way: Way) {
    let before = Before::now();
    let hired = Hired::plain(way);
    let pool = pool(3, &hired);
    let asleep = pool.apply_async(sleep_long, ()).unwrap();
    assert!(!asleep.wait(Some(Duration::from_millis(20))));
    assert!(procs::signal(hired.pid_of(2), Signal::STOP));
    eventually("it stops", SOON, || procs::is_stopped(hired.pid_of(2)));
    pool.terminate();
    assert!(!hired.pids().iter().any(|&pid| procs::runs(pid)));
    hired.expect_all_ended();
    assert!(matches!(asleep.get().unwrap_err().kind(), ErrorKind::Terminated));
    pool.join().unwrap();
    drop((asleep, pool));
    // One that is dropped while its processes are just coming up.
    drop(crate::pool(3, &hired));
    hired.expect_all_ended();
    assert_eq!(before.left_over(), 0);
}

fn side_by_side() {
    let before = Before::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..5 {
                    let hired = Hired::plain(Way::Forks);
                    let pool = pool(2, &hired);
                    assert_eq!(pool.apply(double, (round,)).unwrap(), 2 * round);
                    assert!(procs::kill(hired.pid_of(1)));
                    eventually("it is replaced", SOON, || hired.log().started.len() == 3);
                    assert_eq!(pool.map(double, 0..10u64).unwrap()[9], 18);
                    drop(pool);
                    hired.expect_all_ended();
                }
            });
        }
    });
    assert_eq!(before.left_over(), 0);
}

/// What one pool's workers inherit of another must not outlive that.
fn memory_of_others() {
    let hired = [Hired::plain(Way::Forks), Hired::plain(Way::Forks)];
    let first = pool(1, &hired[0]);
    let second = pool(1, &hired[1]);
    for (pool, hired) in [&first, &second].into_iter().zip(&hired) {
        assert_eq!(pool.apply(double, (1,)).unwrap(), 2);
        assert_eq!(leftovers::memory_of(hired.pid_of(1)).len(), 2, "its own, of one pool");
    }
    let both = leftovers::memory_of(std::process::id());
    assert_eq!(both.len(), 4);
    drop(first);
    let gone: BTreeSet<String> = &both - &leftovers::memory_of(std::process::id());
    assert_eq!(gone.len(), 2);
    assert_eq!(leftovers::holders(&gone), [0u32; 0]);
    drop(second);
}

fn no_name() {
    let error = builder(1, &Hired::plain(Way::Forks)).name("launched").start().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Invalid { .. }), "{error:?}");
}
