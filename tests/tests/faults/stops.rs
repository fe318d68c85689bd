//! Workers that are stopped, not dead: whatever they hold is theirs, and everything else goes on.

use crate::{SOON, death, double, expect_full_strength, pool_of};
use libtest_mimic::Trial;
use ringpool::{Context, Exit, Pool};
use ringpool_tests::journal::{Journal, note};
use ringpool_tests::{eventually, in_contexts, procs, test};
use rustix::process::Signal;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![
        test("stopped_in_a_task", stopped_in_a_task),
        test("stopped_while_idle", stopped_while_idle),
        test("stopped_then_killed", stopped_then_killed),
        test("all_stopped_at_random_moments", all_stopped_at_random_moments),
        test("terminate_with_a_stopped_worker", terminate_with_a_stopped_worker),
        test("launch_given_up_by_a_stopped_template", launch_given_up_by_a_stopped_template),
    ];
    let with_template = in_contexts("terminate_with_a_stopped_template", terminate_with_a_stopped_template);
    tests.extend(with_template.into_iter().filter(|test| !test.name().ends_with("Spawn")));
    tests
}

fn wait_and_double(journal: String, x: u64) -> u64 {
    note(&journal, std::process::id().into());
    std::thread::sleep(Duration::from_millis(300));
    2 * x
}

#[track_caller]
fn stop(pid: u32) {
    assert!(procs::signal(pid, Signal::STOP));
    eventually("the process stops", SOON, || procs::is_stopped(pid));
}

/// Starts a task of 300 ms and stops its worker in it.
fn stop_in_a_task(pool: &Pool) -> (u32, ringpool::AsyncResult<u64>) {
    let journal = Journal::default();
    let result = pool.apply_async(wait_and_double, (journal.path(), 21)).unwrap();
    eventually("the task runs", SOON, || !journal.notes().is_empty());
    let pid = journal.notes()[0] as u32;
    stop(pid);
    (pid, result)
}

fn stopped_in_a_task() {
    let pool = pool_of(2, Context::Fork);
    let (pid, held) = stop_in_a_task(&pool);
    // Much longer than its task takes: the stopped worker's time passes for the others, too.
    let others: Vec<_> = (0..500).map(|i| pool.apply_async(double, (i,)).unwrap()).collect();
    for (i, result) in others.iter().enumerate() {
        assert_eq!(result.get().unwrap(), 2 * i as u64);
    }
    assert!(held.get_timeout(Duration::from_millis(400)).unwrap_err().is_timeout());
    assert!(pool.worker_pids().contains(&pid), "stopped is not dead");
    assert!(procs::signal(pid, Signal::CONT));
    assert_eq!(held.get().unwrap(), 42);
    assert!(pool.worker_pids().contains(&pid));
}

fn stopped_while_idle() {
    let pool = pool_of(2, Context::Fork);
    for _ in 0..5 {
        expect_full_strength(&pool);
        std::thread::sleep(Duration::from_millis(5)); // they park
        let pid = pool.worker_pids()[0];
        stop(pid);
        // The wake-ups for some of these go to the one that cannot wake.
        for i in 0..20 {
            assert_eq!(pool.apply(double, (i,)).unwrap(), 2 * i);
        }
        assert!(pool.map(double, 0..200u64).unwrap().into_iter().eq((0..200).map(double)));
        assert!(procs::signal(pid, Signal::CONT));
    }
}

fn stopped_then_killed() {
    let pool = pool_of(2, Context::Fork);
    let (pid, held) = stop_in_a_task(&pool);
    assert!(procs::kill(pid));
    let death = death(&held.get().unwrap_err());
    assert_eq!((death.end, death.pid), (Exit::Signal(libc::SIGKILL), pid));
    expect_full_strength(&pool);
}

/// Wherever a worker is when it stops, the other one finishes all that the stopped one does not run.
fn all_stopped_at_random_moments() {
    let pool = pool_of(3, Context::Fork);
    let pids = pool.worker_pids();
    for round in 0..40 {
        let results: Vec<_> = (0..200).map(|i| pool.apply_async(double, (i,)).unwrap()).collect();
        std::thread::sleep(Duration::from_micros(round * 23));
        for &pid in &pids[..2] {
            assert!(procs::signal(pid, Signal::STOP));
        }
        // Each of the two holds one task at most.
        eventually("all but what is held is done", SOON, || {
            results.iter().filter(|result| !result.ready()).count() <= 2
        });
        for &pid in &pids[..2] {
            assert!(procs::signal(pid, Signal::CONT));
        }
        for (i, result) in results.iter().enumerate() {
            assert_eq!(result.get().unwrap(), 2 * i as u64);
        }
    }
    let mut now = pool.worker_pids();
    now.sort_unstable();
    let mut before = pids.clone();
    before.sort_unstable();
    assert_eq!(now, before, "nobody was declared dead");
}

fn terminate_with_a_stopped_worker() {
    let pool = pool_of(2, Context::Fork);
    let (pid, held) = stop_in_a_task(&pool);
    pool.terminate();
    assert!(!procs::runs(pid));
    assert!(held.get().unwrap_err().is_closed());
}

/// The one template of the one pool, stopped.
fn stop_the_template() -> u32 {
    let [template] = procs::templates()[..] else { panic!("not one template") };
    stop(template);
    template
}

/// More than the supervisor waits for a template's answer.
const PAST_THE_LAUNCH_LIMIT: Duration = Duration::from_secs(6);

/// The template finds what was asked of it when it goes on. No worker comes of it that the pool does not
/// know: it would sit in a place that was given to another one.
fn launch_given_up_by_a_stopped_template() {
    let pool = pool_of(2, Context::Fork);
    expect_full_strength(&pool);
    let template = stop_the_template();
    assert!(procs::kill(pool.worker_pids()[0]));
    let given_up = Instant::now() + PAST_THE_LAUNCH_LIMIT;
    while Instant::now() < given_up {
        assert_eq!(pool.apply(double, (21,)).unwrap(), 42, "the other worker goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(procs::signal(template, Signal::CONT));
    expect_full_strength(&pool);
    let known_are_all = || {
        let of_pool = procs::descendants(std::process::id()).into_iter();
        let mut workers: Vec<u32> =
            of_pool.filter(|&pid| procs::runs(pid) && !procs::templates().contains(&pid)).collect();
        let mut known = pool.worker_pids();
        workers.sort_unstable();
        known.sort_unstable();
        workers == known && known.len() == 2
    };
    eventually("the pool knows all workers", SOON, known_are_all);
    // Two in one place would write over each other's results.
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let pool = &pool;
            threads.spawn(move || {
                for x in (thread..2000).step_by(4) {
                    assert_eq!(pool.apply(repeat, (x,)).unwrap(), repeat(x));
                }
            });
        }
    });
    assert!(known_are_all(), "and nobody came or went since");
}

fn repeat(x: u64) -> Vec<u64> {
    vec![x; 1000]
}

/// Nobody waits for the template's word on each of the workers.
fn terminate_with_a_stopped_template(context: Context) {
    let pool = pool_of(4, context);
    expect_full_strength(&pool);
    stop_the_template();
    let pids = procs::descendants(std::process::id());
    assert_eq!(pids.len(), 5, "a template and four workers");
    pool.terminate();
    eventually("all are gone", SOON, || !pids.iter().any(|&pid| procs::runs(pid)));
}
