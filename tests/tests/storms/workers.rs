//! Workers are killed under many small tasks, of all methods and contexts.

use crate::{SOON, Wind, block, blow, double, storm, weather};
use libtest_mimic::Trial;
use ringpool::{Context, Payload, Pool, Task};
use ringpool_tests::proof::Extent;
use ringpool_tests::tally::{PATIENCE, Tally};
use ringpool_tests::{eventually, procs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    use Context::{Fork, ForkServer, Spawn};
    vec![
        storm("storm_with_retries", || single(Kind::new(Fork, 2, 14), double, double)),
        storm("storm_with_retries_and_blocks", || single(Kind::new(Fork, 2, 14), block, block)),
        storm("storm_without_retries", || single(Kind::new(Fork, 2, 0), double, double)),
        storm("storm_without_retries_and_blocks", || single(Kind::new(Fork, 3, 0), block, block)),
        storm("storm_with_eight_clients", || single(Kind::new(Fork, 3, 14).threads(8), block, block)),
        storm("storm_over_eight_workers", || single(Kind::new(Fork, 8, 14).threads(2), double, double)),
        storm("storm_over_one_worker", || single(Kind::new(Fork, 1, 0).pauses(2_000, 9_000), block, block)),
        storm("seldom_kills", || single(Kind::new(Fork, 2, 0).pauses(10_000, 40_000), double, double)),
        storm("storm_over_spawned_workers", || {
            single(Kind::new(Spawn, 2, 14).pauses(100, 20_000), block, block)
        }),
        storm("storm_over_a_fork_server", || single(Kind::new(ForkServer, 2, 14), block, block)),
        storm("storm_over_chunks", chunks),
        storm("all_sixteen_killed_at_once", all_sixteen_killed_at_once),
    ]
}

/// One kind of storm.
#[derive(Clone, Copy)]
struct Kind {
    context: Context,
    processes: usize,
    retries: u32,
    threads: usize,
    /// Between kills, in microseconds.
    pauses: (u64, u64),
}

impl Kind {
    fn new(context: Context, processes: usize, retries: u32) -> Self {
        Kind { context, processes, retries, threads: 1, pauses: (100, 900) }
    }

    fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// As seldom as leaves workers of this context the time to start at all.
    fn pauses(mut self, least: u64, most: u64) -> Self {
        self.pauses = (least, most);
        self
    }

    fn wind(self) -> Wind {
        let seldom = self.pauses.1 > 9_000;
        let kills = Extent::now().pick(35, 150, 650);
        Wind { kills: if seldom { kills / 2 } else { kills }, pauses: self.pauses }
    }
}

/// Submits tasks one by one, and counts what comes of each: by its result and by its callbacks.
fn single<R, M, F>(kind: Kind, f: F, expected: fn(u64) -> R)
where
    R: Payload + PartialEq + std::fmt::Debug,
    F: Task<(u64,), M, Value = R>,
{
    let settings = Pool::builder().processes(kind.processes).context(kind.context).retries(kind.retries);
    let Kind { context, processes, retries, threads, pauses: (_, most) } = kind;
    let name = format!(
        "{}, {context:?}, {processes} workers, {threads} clients, {retries} retries, every {most} us",
        std::any::type_name::<R>().rsplit("::").next().unwrap_or_default()
    );
    weather(&name, settings, |pool, tally| {
        let (called, submitted) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
        let kills = blow(pool, kind.wind(), |over| {
            std::thread::scope(|scope| {
                for _ in 0..kind.threads {
                    scope.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            batch(pool, tally, f, expected, &called);
                            submitted.fetch_add(100, Ordering::Relaxed);
                        }
                    });
                }
            });
        });
        // The callbacks are called after the results are there.
        eventually("all callbacks are called", SOON, || {
            called.load(Ordering::Relaxed) >= submitted.load(Ordering::Relaxed)
        });
        std::thread::sleep(Duration::from_millis(5));
        let twice = called.load(Ordering::Relaxed) - submitted.load(Ordering::Relaxed);
        tally.lose(twice, "delivered more than once");
        if kind.retries == 0 {
            assert!(tally.deaths() <= kills, "a death costs one task at most");
        } else {
            // Fourteen kills in a row of the one worker that has it: not in this universe.
            assert_eq!(tally.deaths(), 0);
        }
        kills
    });
}

fn batch<R, M, F>(pool: &Pool, tally: &Tally, f: F, expected: fn(u64) -> R, called: &Arc<AtomicU64>)
where
    R: Payload + PartialEq,
    F: Task<(u64,), M, Value = R>,
{
    let count = |called: &AtomicU64| {
        called.fetch_add(1, Ordering::Relaxed);
    };
    let results: Vec<_> = (0..100)
        .map(|i| {
            let (good, bad) = (called.clone(), called.clone());
            let result = pool.apply_async(f, (i,)).expect("a slot");
            result.callback(move |_| count(&good)).error_callback(move |_| count(&bad))
        })
        .collect();
    for (i, result) in results.iter().enumerate() {
        tally.get(result, |value| *value == expected(i as u64));
    }
}

/// In chunks, and by streams: every item gives one outcome, at its place.
fn chunks() {
    let wind = Wind { kills: Extent::now().pick(40, 150, 650), pauses: (100, 900) };
    weather("maps, imaps and streams", Pool::builder().processes(3), |pool, tally| {
        blow(pool, wind, |over| {
            while !over.load(Ordering::Relaxed) {
                let mapped = pool.map_async(block, 0..500, Some(20)).expect("a map");
                if !mapped.wait(Some(PATIENCE)) {
                    tally.hang(1);
                }
                let mapped = mapped.get_each().expect("the pool lives");
                let streamed: Vec<_> = pool.imap(block, 0..500, 7).expect("a stream").collect();
                for results in [mapped, streamed] {
                    tally.lose(500 - results.len() as u64, "items without outcome");
                    for (i, result) in results.into_iter().enumerate() {
                        tally.outcome(result, |value| *value == block(i as u64));
                    }
                }
                unordered(pool, tally);
            }
        })
    });
}

/// A stream in the order of arrival: what comes is found in its value; each comes once.
fn unordered(pool: &Pool, tally: &Tally) {
    let mut seen = [0; 500];
    let mut outcomes = 0;
    for result in pool.imap_unordered(double, 0..500, 3).expect("a stream") {
        outcomes += 1;
        tally.outcome(result, |&value| {
            seen[value as usize / 2] += 1;
            seen[value as usize / 2] == 1
        });
    }
    tally.lose(500 - outcomes, "items without outcome");
}

fn slow_double(x: u64) -> u64 {
    std::thread::sleep(Duration::from_micros(500));
    2 * x
}

fn all_sixteen_killed_at_once() {
    let rounds = Extent::now().pick(5, 20, 60);
    weather("all sixteen at once", Pool::builder().processes(16).retries(14), |pool, tally| {
        let mut kills = 0;
        for _ in 0..rounds {
            let results: Vec<_> =
                (0..300).map(|i| pool.apply_async(slow_double, (i,)).expect("a slot")).collect();
            // Everybody has said that it is ready: this is no series of failed starts.
            let old = pool.worker_pids();
            kills += old.iter().filter(|&&pid| procs::kill(pid)).count() as u64;
            eventually("all are replaced", SOON, || {
                let now = pool.worker_pids();
                now.len() == 16 && !now.iter().any(|pid| old.contains(pid))
            });
            for (i, result) in results.iter().enumerate() {
                tally.get(result, |&value| value == 2 * i as u64);
            }
        }
        assert_eq!(tally.deaths(), 0, "fourteen retries are enough");
        kills
    });
}
