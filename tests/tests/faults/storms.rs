//! Workers are killed at random moments, many times a second, while others wait for results.

use crate::{SOON, death, double, expect_full_strength, pool_of};
use libtest_mimic::Trial;
use ringpool::{Context, Payload, Pool, Task};
use ringpool_tests::{eventually, procs, test};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Trial> {
    vec![
        test("storm_with_retries", || storm(Context::Fork, 2, 14, 1, double, double)),
        test("storm_with_retries_and_blocks", || storm(Context::Fork, 2, 14, 1, block, block)),
        test("storm_without_retries", || storm(Context::Fork, 2, 0, 1, double, double)),
        test("storm_without_retries_and_blocks", || storm(Context::Fork, 3, 0, 1, block, block)),
        test("storm_with_eight_clients", || storm(Context::Fork, 3, 14, 8, block, block)),
        test("storm_over_eight_workers", || storm(Context::Fork, 8, 14, 2, double, double)),
        test("storm_over_spawned_workers", || storm(Context::Spawn, 2, 14, 1, block, block)),
        test("storm_over_a_fork_server", || storm(Context::ForkServer, 2, 14, 1, block, block)),
        test("storm_over_chunks", storm_over_chunks),
        test("all_sixteen_killed_at_once", all_sixteen_killed_at_once),
    ]
}

/// How long a storm blows.
const STORM: Duration = Duration::from_millis(2500);

/// 4 KiB, with the argument all over.
fn block(x: u64) -> Vec<u64> {
    vec![x; 512]
}

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Kills random workers until `over`; returns how many. Every few hundred microseconds, or as seldom as
/// leaves workers of this context the time to start at all.
fn kill_until(pool: &Pool, context: Context, over: &AtomicBool) -> usize {
    let pause = if context == Context::Spawn { 20_000 } else { 800 };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut kills = 0;
    while !over.load(Ordering::Relaxed) {
        let pids = pool.worker_pids();
        if !pids.is_empty() {
            let victim = pids[random.below(pids.len() as u64) as usize];
            kills += usize::from(procs::kill(victim));
        }
        std::thread::sleep(Duration::from_micros(100 + random.below(pause)));
    }
    kills
}

/// Submits tasks for the time of a storm, and counts what comes of each.
fn storm<R, M, F>(
    context: Context,
    processes: usize,
    retries: u32,
    threads: usize,
    f: F,
    expected: fn(u64) -> R,
) where
    R: Payload + PartialEq + std::fmt::Debug,
    F: Task<(u64,), M, Value = R>,
{
    let pool = Pool::builder().processes(processes).context(context).retries(retries).start().unwrap();
    let over = AtomicBool::new(false);
    let (called, deaths, submitted) =
        (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0), AtomicUsize::new(0));
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_until(&pool, context, &over));
        let clients: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let start = Instant::now();
                    while start.elapsed() < STORM {
                        let results: Vec<_> = (0..100)
                            .map(|i| {
                                let count = |called: &Arc<AtomicUsize>| {
                                    called.fetch_add(1, Ordering::Relaxed);
                                };
                                let (good, bad) = (called.clone(), called.clone());
                                pool.apply_async(f, (i,))
                                    .unwrap()
                                    .callback(move |_| count(&good))
                                    .error_callback(move |_| count(&bad))
                            })
                            .collect();
                        submitted.fetch_add(results.len(), Ordering::Relaxed);
                        for (i, result) in results.iter().enumerate() {
                            match result.get() {
                                Ok(value) => assert_eq!(value, expected(i as u64)),
                                Err(error) => {
                                    assert_eq!(death(&error).attempt, retries + 1);
                                    deaths.fetch_add(1, Ordering::Relaxed);
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        over.store(true, Ordering::Relaxed);
        let kills = killer.join().unwrap();
        for result in results {
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        }
        kills
    });
    expect_full_strength(&pool);
    pool.close();
    pool.join().unwrap(); // callbacks have run
    let submitted = submitted.into_inner();
    assert!(kills > 50, "only {kills} workers were killed");
    assert_eq!(called.load(Ordering::Relaxed), submitted, "each outcome is delivered once");
    if retries == 0 {
        assert!(deaths.into_inner() <= kills, "a death costs one task at most");
    } else {
        // Fourteen kills in a row of the one worker that has it: not in this universe.
        assert_eq!(deaths.into_inner(), 0);
    }
}

/// In chunks, and by streams: every item gives one outcome, at its place.
fn storm_over_chunks() {
    let pool = pool_of(3, Context::Fork);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| kill_until(&pool, Context::Fork, &over));
        let start = Instant::now();
        let work = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while start.elapsed() < STORM {
                let mapped = pool.map_async(block, 0..500, Some(20)).unwrap().get_each().unwrap();
                let streamed: Vec<_> = pool.imap(block, 0..500, 7).unwrap().collect();
                for results in [mapped, streamed] {
                    assert_eq!(results.len(), 500);
                    for (i, result) in results.into_iter().enumerate() {
                        match result {
                            Ok(value) => assert_eq!(value, block(i as u64)),
                            Err(error) => assert_eq!(death(&error).attempt, 1),
                        }
                    }
                }
                let mut seen = [0; 500];
                let mut deaths = 0;
                for result in pool.imap_unordered(double, 0..500, 3).unwrap() {
                    match result {
                        Ok(value) => seen[value as usize / 2] += 1,
                        Err(error) => deaths += usize::from(error.is_worker_died()),
                    }
                }
                assert!(seen.iter().all(|&times| times <= 1), "delivered twice");
                assert_eq!(seen.iter().sum::<usize>() + deaths, 500);
            }
        }));
        over.store(true, Ordering::Relaxed);
        assert!(killer.join().unwrap() > 50);
        if let Err(panic) = work {
            std::panic::resume_unwind(panic);
        }
    });
    expect_full_strength(&pool);
}

fn slow_double(x: u64) -> u64 {
    std::thread::sleep(Duration::from_micros(500));
    2 * x
}

fn all_sixteen_killed_at_once() {
    let pool = Pool::builder().processes(16).retries(14).start().unwrap();
    let results: Vec<_> = (0..1000).map(|i| pool.apply_async(slow_double, (i,)).unwrap()).collect();
    for _ in 0..10 {
        // Everybody has said that it is ready: this is no series of failed starts.
        let old = pool.worker_pids();
        for &pid in &old {
            procs::kill(pid);
        }
        eventually("all are replaced", SOON, || {
            let now = pool.worker_pids();
            now.len() == 16 && !now.iter().any(|pid| old.contains(pid))
        });
    }
    for (i, result) in results.iter().enumerate() {
        assert_eq!(result.get().unwrap(), 2 * i as u64);
    }
    expect_full_strength(&pool);
}
