//! Many more workers than CPUs.

use crate::{double, long_test, pool_of};
use libtest_mimic::Trial;
use ringpool::Pool;
use ringpool_tests::journal::{self, Journal};
use ringpool_tests::leftovers::Before;
use ringpool_tests::proof::{Extent, Proof};
use ringpool_tests::random::busy_wait;
use ringpool_tests::tally::{PATIENCE, Tally};
use ringpool_tests::wind::{Wind, blow};
use ringpool_tests::{expect_repaired, procs};
use std::sync::atomic::Ordering;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    vec![
        long_test("a_crowd_does_all_work", a_crowd_does_all_work),
        long_test("a_crowd_in_a_storm", a_crowd_in_a_storm),
        long_test("no_herd", no_herd),
        long_test("all_come_for_long_tasks_behind_a_stream", all_come_behind_a_stream),
        long_test("an_idle_crowd_uses_no_cpu", an_idle_crowd_uses_no_cpu),
    ]
}

const CROWD: usize = 128;

fn crowd(retries: u32) -> Pool {
    Pool::builder().processes(CROWD).retries(retries).start().expect("a pool")
}

fn take_twenty(x: u64) -> u64 {
    busy_wait(Duration::from_micros(20));
    2 * x
}

fn all_methods(pool: &Pool, tally: &Tally, items: u64) {
    let single: Vec<_> =
        (0..items / 4).map(|i| pool.apply_async(take_twenty, (i,)).expect("a slot")).collect();
    let mapped = pool.map_async(double, 0..items, Some(3)).expect("a map");
    let mut sum = 0;
    for result in pool.imap_unordered(take_twenty, 0..items, 1).expect("a stream") {
        tally.outcome(result, |&value| {
            sum += value;
            true
        });
    }
    tally.lose(u64::from(sum != items * (items - 1)), "the stream's sum is wrong");
    for (i, result) in pool.imap(double, 0..items, 2).expect("a stream").enumerate() {
        tally.outcome(result, |&value| value == 2 * i as u64);
    }
    if !mapped.wait(Some(PATIENCE)) {
        tally.hang(1);
    }
    for (i, result) in mapped.get_each().expect("the pool lives").into_iter().enumerate() {
        tally.outcome(result, |&value| value == 2 * i as u64);
    }
    for (i, result) in single.iter().enumerate() {
        tally.get(result, |&value| value == 2 * i as u64);
    }
}

fn a_crowd_does_all_work() {
    let before = Before::now();
    let tally = Tally::default();
    let pool = crowd(0);
    for _ in 0..Extent::now().pick(1, 5, 40) {
        all_methods(&pool, &tally, 4000);
        std::thread::sleep(Duration::from_millis(5)); // they park
    }
    assert_eq!(tally.deaths(), 0);
    expect_repaired(&pool);
    drop(pool);
    let mut proof = tally.proof("waiting: 128 workers");
    proof.leaked = before.left_over();
    proof.report();
}

fn a_crowd_in_a_storm() {
    let before = Before::now();
    let tally = Tally::default();
    let pool = crowd(14);
    let wind = Wind { kills: Extent::now().pick(30, 150, 1000), pauses: (500, 8_000) };
    let kills = blow(&pool, wind, |over| {
        while !over.load(Ordering::Relaxed) {
            all_methods(&pool, &tally, 800);
        }
    });
    assert_eq!(tally.deaths(), 0);
    expect_repaired(&pool);
    drop(pool);
    let mut proof = tally.proof("waiting: 128 workers, killed");
    proof.kills = kills;
    proof.leaked = before.left_over();
    proof.report();
}

/// One task wakes one worker, or a few, not a hundred.
fn no_herd() {
    let pool = crowd(0);
    expect_repaired(&pool);
    std::thread::sleep(Duration::from_millis(300));
    let pids = pool.worker_pids();
    let sleeps = || -> u64 { pids.iter().map(|&pid| procs::sleeps(pid)).sum() };
    let tasks = Extent::now().pick(500, 2_000, 10_000);
    let before = sleeps();
    for i in 0..tasks {
        assert_eq!(pool.apply(double, (i,)).expect("a result"), 2 * i);
        busy_wait(Duration::from_micros(100)); // long enough for all to have parked again
    }
    let woken = sleeps() - before;
    println!("{woken} wake-ups for {tasks} single tasks");
    let mut proof = Proof::of("waiting: no herd");
    (proof.runs, proof.delivered) = (1, tasks);
    proof.report();
    assert!(woken <= 4 * tasks, "{woken} wake-ups for {tasks} tasks");
}

/// CPU time, which a busy machine does not stretch much. The bar is less than 0.5 % of one CPU for all 130 processes.
fn an_idle_crowd_uses_no_cpu() {
    let pool = crowd(0);
    expect_repaired(&pool);
    assert_eq!(pool.map(double, 0..1000u64).expect("a map").len(), 1000);
    std::thread::sleep(Duration::from_millis(2500)); // searches end, and the pool tidies up once
    let mut pids = procs::descendants(std::process::id());
    assert_eq!(pids.len(), CROWD + 1, "workers and a template");
    let used = |pids: &[u32]| -> Duration { pids.iter().map(|&pid| procs::cpu_time(pid)).sum() };
    let time = Duration::from_secs(Extent::now().pick(3, 6, 20));
    let before = used(&pids);
    // Of this process, only what is not the test itself: the supervisor is idle or it is not.
    let supervisor = || {
        let threads = std::fs::read_dir("/proc/self/task").expect("own threads").flatten();
        let named = threads.filter(|thread| {
            std::fs::read_to_string(thread.path().join("comm"))
                .is_ok_and(|name| name.trim_end() == "ringpool")
        });
        let text = named.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
        let nanos = text.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok());
        Duration::from_nanos(nanos.sum())
    };
    let supervisor_before = supervisor();
    std::thread::sleep(time);
    let workers = used(&pids) - before;
    let supervisor = supervisor() - supervisor_before;
    let share = (workers + supervisor).as_secs_f64() / time.as_secs_f64() * 100.0;
    println!(
        "{CROWD} idle workers: {share:.3} % of a CPU (workers {workers:?}, supervisor {supervisor:?} in {time:?})"
    );
    let mut proof = Proof::of("waiting: 128 idle workers");
    proof.runs = 1;
    pids.retain(|&pid| !procs::runs(pid));
    proof.lost = pids.len() as u64;
    proof.report();
    // In a build without optimization, on a machine whose caches others use, it is more.
    let most = Extent::now().pick(2.0, 0.5, 0.5);
    assert!(share < most, "{share:.3} % of a CPU");
}

/// Ends when all have begun.
fn meet(path: String, all: u64) {
    journal::note(&path, 0);
    while journal::notes(&path).len() < all as usize {
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Workers that a stream of tiny tasks does not need have naps, and are not woken meanwhile. What comes behind the
/// stream needs all of them at once.
fn all_come_behind_a_stream() {
    let pool = pool_of(8);
    for _ in 0..30 {
        for result in pool.imap_unordered(double, 0..30_000, 1).expect("a stream").buffersize(512) {
            result.expect("a result");
        }
        let journal = Journal::default();
        let meetings: Vec<_> =
            (0..8u64).map(|_| pool.apply_async(meet, (journal.path(), 8u64)).expect("a slot")).collect();
        for meeting in meetings {
            meeting.get().expect("everybody comes");
        }
    }
    expect_repaired(&pool);
}
