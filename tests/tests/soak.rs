//! One pool, a hundred million tasks: it takes no more memory, no more descriptors and no more time in the
//! last tenth than in the first.

use libtest_mimic::Trial;
use ringpool::{AsyncResult, Pool};
use ringpool_tests::leftovers::{self, Before};
use ringpool_tests::proof::Extent;
use ringpool_tests::random::Random;
use ringpool_tests::tally::{PATIENCE, Tally};
use ringpool_tests::{expect_repaired, test_within};
use std::time::{Duration, Instant};

const TENTHS: u64 = 10;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn double(x: u64) -> u64 {
    2 * x
}

/// Words, because of bytes each would be checked for itself, slowly where nothing is optimized.
fn echo(words: Vec<u64>) -> Vec<u64> {
    words
}

/// How many tasks of which kind a tenth has.
struct Mix {
    /// Items of maps, in chunks.
    mapped: u64,
    /// Tiny tasks one by one, by streams and by batches.
    streamed: u64,
    batched: u64,
    /// Echoes of so many bytes.
    echoed: [(u64, u64); 4],
    /// Round trips of which the time is taken, one after the other.
    sampled: u64,
}

impl Mix {
    /// A percent has 1 KiB, a tenth of that 64 KiB, some have 1 MiB and a few 16 MiB.
    fn of(tasks: u64) -> Self {
        let echoed = [
            (tasks / 100, KIB),
            (tasks / 1000, 64 * KIB),
            ((tasks / 100_000).max(2), MIB),
            ((tasks / 1_000_000).max(1), 16 * MIB),
        ];
        let [sampled, batched, streamed] = [tasks / 1000, tasks / 20, tasks / 10];
        let large: u64 = echoed.iter().map(|(tasks, _)| tasks).sum();
        Mix { mapped: tasks - large - sampled - batched - streamed, streamed, batched, echoed, sampled }
    }
}

/// What the pool takes of the system after a tenth.
#[derive(Clone, Copy, Debug)]
struct Use {
    /// Memory of their own, in bytes.
    client: u64,
    workers: u64,
    /// Shared memory of the pool.
    shared: u64,
    descriptors: usize,
    /// The median of the round trips.
    latency: Duration,
    /// All of the tenth.
    took: Duration,
}

/// Resident memory of a process that is not shared.
fn own_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("such a line");
    KIB * line.split_whitespace().next().expect("a figure").parse::<u64>().expect("a number")
}

fn run_tenth(pool: &Pool, tally: &Tally, mix: &Mix, random: &mut Random) -> Use {
    let start = Instant::now();
    map(pool, tally, mix.mapped);
    stream(pool, tally, mix.streamed);
    for first in (0..mix.batched).step_by(500) {
        batch(pool, tally, first..mix.batched.min(first + 500));
    }
    for (tasks, size) in mix.echoed {
        echo_all(pool, tally, tasks, size, random);
    }
    let mut latencies: Vec<Duration> = (0..mix.sampled).map(|i| round_trip(pool, tally, i)).collect();
    latencies.sort_unstable();
    let pids = pool.worker_pids();
    // What the allocator keeps for the next large vector has not leaked.
    #[cfg(target_env = "gnu")]
    // SAFETY: gives free memory of the heap back, and touches nothing else.
    unsafe {
        libc::malloc_trim(0)
    };
    Use {
        client: own_memory(std::process::id()),
        workers: pids.iter().map(|&pid| own_memory(pid)).sum(),
        shared: leftovers::committed(std::process::id()),
        descriptors: leftovers::descriptors(std::process::id())
            + pids.iter().map(|&pid| leftovers::descriptors(pid)).sum::<usize>(),
        latency: latencies[latencies.len() / 2],
        took: start.elapsed(),
    }
}

/// In maps of up to a quarter of a million items, in chunks of 500.
fn map(pool: &Pool, tally: &Tally, items: u64) {
    let mut first = 0;
    while first < items {
        let end = items.min(first + 250_000);
        match pool.map_async(double, first..end, Some(500)).expect("a map").get_timeout(PATIENCE) {
            Ok(values) => {
                let right = values.len() as u64 == end - first
                    && values.iter().zip(first..end).all(|(&value, item)| value == 2 * item);
                if right {
                    tally.deliver(end - first);
                } else {
                    tally.lose(end - first, "a map with wrong values");
                }
            }
            Err(error) => tally.outcome::<()>(Err(error), |()| true),
        }
        first = end;
    }
}

fn stream(pool: &Pool, tally: &Tally, items: u64) {
    let (mut sum, mut outcomes) = (0, 0);
    for result in pool.imap_unordered(double, 0..items, 1).expect("a stream") {
        tally.outcome(result, |&value| {
            sum += value;
            true
        });
        outcomes += 1;
    }
    tally.lose(items - outcomes, "a stream that ended early");
    tally.lose(u64::from(sum != items * (items - 1)), "a stream with a wrong value");
}

fn batch(pool: &Pool, tally: &Tally, items: std::ops::Range<u64>) {
    let results: Vec<_> =
        items.map(|item| (item, pool.apply_async(double, (item,)).expect("a slot"))).collect();
    for (item, result) in &results {
        tally.get(result, |&value| value == 2 * item);
    }
}

/// Up to sixteen of them are on their way at once, and 64 MiB.
fn echo_all(pool: &Pool, tally: &Tally, tasks: u64, size: u64, random: &mut Random) {
    let at_once = (64 * MIB / size).clamp(1, 16) as usize;
    let mut under_way: Vec<(Vec<u64>, AsyncResult<Vec<u64>>)> = Vec::new();
    for _ in 0..tasks {
        if under_way.len() == at_once {
            let (words, result) = under_way.swap_remove(random.below(at_once as u64) as usize);
            tally.get(&result, |value| *value == words);
        }
        // Sizes of both sides of the power of two, which is where classes of blocks meet.
        let len = size / 8 - random.below(8) + random.below(8);
        let words = vec![random.below(256); len as usize];
        let result = pool.apply_async(echo, (words.clone(),)).expect("a slot");
        under_way.push((words, result));
    }
    for (words, result) in under_way {
        tally.get(&result, |value| *value == words);
    }
}

fn round_trip(pool: &Pool, tally: &Tally, x: u64) -> Duration {
    let start = Instant::now();
    let result = pool.apply_async(double, (x,)).expect("a slot");
    tally.get(&result, |&value| value == 2 * x);
    start.elapsed()
}

fn soak() {
    let before = Before::now();
    let tally = Tally::default();
    let extent = Extent::now();
    let tasks: u64 = extent.pick(300_000, 10_000_000, 100_000_000);
    let mix = Mix::of(tasks / TENTHS);
    let mut random = Random::new(tasks);
    let pool = Pool::builder().processes(2).start().expect("a pool");
    let pids = pool.worker_pids();
    // Before the first tenth, so that it does not have the greatest needs still before it.
    run_tenth(&pool, &tally, &Mix::of(30_000), &mut random);
    let tenths: Vec<Use> = (0..TENTHS)
        .map(|tenth| {
            let used = run_tenth(&pool, &tally, &mix, &mut random);
            println!("tenth {tenth}, in {:?}: {used:?}", used.took);
            used
        })
        .collect();
    assert_eq!(pool.worker_pids(), pids, "the same two workers did it all");
    expect_repaired(&pool);
    drop(pool);

    let (first, last) = (tenths[0], tenths[tenths.len() - 1]);
    // The allocators of all three processes keep some of what they had; what leaks a byte for each task
    // would be a hundred megabytes in the long form.
    let grown = |first: u64, last: u64| last > first + first / 4 + 16 * MIB;
    let mut proof = tally.proof(format!("soak: {tasks} tasks"));
    proof.leaked = before.left_over();
    for (what, first, last) in [
        ("the client's memory", first.client, last.client),
        ("the workers' memory", first.workers, last.workers),
        ("the shared memory", first.shared, last.shared),
    ] {
        if grown(first, last) {
            eprintln!("{what} has grown from {first} to {last} bytes");
            proof.leaked += 1;
        }
    }
    proof.leaked += last.descriptors.saturating_sub(first.descriptors) as u64;
    proof.report();
    if extent != Extent::Short {
        let most = 3 * first.latency + Duration::from_micros(50);
        assert!(last.latency <= most, "a round trip took {:?}, and takes {:?}", first.latency, last.latency);
    }
}

fn main() {
    ringpool::init();
    let limit = Duration::from_secs(Extent::now().pick(120, 300, 1800));
    let tests: Vec<Trial> = vec![test_within(limit, "a_hundred_million_tasks", soak)];
    ringpool_tests::run(tests)
}
