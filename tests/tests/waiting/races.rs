//! Round trips at the edge of sleep: a task comes just when a worker parks, a result just when the client
//! goes to sleep.
//!
//! A wake-up that is lost does not lose the task: back-stops end the wait, and show as time. The worker's
//! is a second, and the client that polls sets no timer of its own; so a wait of half a second is one that
//! only a back-stop ended. The client's timer starts at one millisecond, which on a busy machine is
//! no time at all: such waits are counted and printed. Built with the feature `crash`, these tests run
//! without back-stops: there a wake-up that is lost is a wait that never ends. They do so a second time without
//! stealing, since a client with few tasks uses the same slots again and again, and an old hint in another worker's
//! window makes up for nearly every wake-up that is lost.

use crate::{double, long_test, pool_of};
use libtest_mimic::Trial;
use ringpool::Pool;
use ringpool_tests::expect_repaired;
use ringpool_tests::proof::{Extent, Proof};
use ringpool_tests::random::{Random, busy_wait};
use std::time::{Duration, Instant};

/// Of a test with so many workers.
type Body = fn(usize);

pub fn tests() -> Vec<Trial> {
    let all: [(&str, Body); 5] = [
        ("a_task_comes_when_workers_park", polled),
        ("a_call_comes_behind_a_call", called),
        ("a_result_comes_when_the_client_sleeps", slept_for),
        ("a_stream_at_the_edge_of_sleep", streamed),
        ("waits_that_time_out", timed_out),
    ];
    let ways: &[&str] = if cfg!(feature = "crash") { &["", ", without stealing"] } else { &[""] };
    let mut tests = Vec::new();
    for (index, way) in ways.iter().enumerate() {
        for (name, body) in all {
            for workers in [1, 2, 4] {
                tests.push(race(format!("{name}::{workers}{way}"), index == 0, move || body(workers)));
            }
        }
    }
    tests
}

#[cfg_attr(not(feature = "crash"), expect(unused_variables, reason = "everything is as it is for users"))]
fn race(name: String, stealing: bool, body: impl FnOnce() + Send + 'static) -> Trial {
    long_test(name, move || {
        #[cfg(feature = "crash")]
        {
            ringpool::crash::set_timers(false);
            ringpool::crash::set_stealing(stealing);
        }
        body();
    })
}

/// Both sides wait awake for some 50 microseconds before they sleep, and for a few only if they may crash:
/// pauses go to either side of that.
const EDGE: u64 = if cfg!(feature = "crash") { 20 } else { 200 };
/// Only a worker's limit ends a wait that takes so long.
const LOST: Duration = Duration::from_millis(500);

/// Round trips of each of the fifteen tests: a million in all.
fn rounds() -> u64 {
    Extent::now().pick(1_700, 12_000, 84_000)
}

#[derive(Default)]
struct Latencies {
    all: Vec<Duration>,
    wrong: u64,
}

impl Latencies {
    fn add(&mut self, start: Instant, right: bool) {
        self.all.push(start.elapsed());
        self.wrong += u64::from(!right);
    }

    fn report(mut self, kind: &str, workers: usize, pool: &Pool) {
        expect_repaired(pool);
        self.all.sort_unstable();
        let longer = |limit: Duration| self.all.iter().filter(|&&latency| latency >= limit).count();
        let [ms1, ms20, lost] = [Duration::from_millis(1), Duration::from_millis(20), LOST].map(longer);
        println!(
            "{kind}, {workers} workers: median {:?}, most {:?}; {ms1} took over 1 ms, {ms20} over 20 ms",
            self.all[self.all.len() / 2],
            self.all[self.all.len() - 1],
        );
        let mut proof = Proof::of(format!("waiting: {kind}, {workers} workers"));
        proof.runs = self.all.len() as u64;
        proof.delivered = proof.runs - self.wrong;
        proof.lost = self.wrong;
        proof.hung = lost as u64;
        proof.report();
    }
}

/// The client submits after a pause in which workers go to sleep, and polls: no timer of its own can end
/// what the submission should have ended.
fn polled(workers: usize) {
    let pool = pool_of(workers);
    let mut random = Random::new(workers as u64);
    let mut latencies = Latencies::default();
    for i in 0..rounds() {
        busy_wait(random.micros(EDGE));
        let burst = 1 + random.below(4) / 3 * random.below(4);
        let start = Instant::now();
        let results: Vec<_> = (0..burst).map(|_| pool.apply_async(double, (i,)).expect("a slot")).collect();
        for result in results {
            while !result.ready() {
                std::thread::yield_now(); // the machine may have fewer CPUs than this test has processes
            }
            latencies.add(start, result.get().is_ok_and(|value| value == 2 * i));
        }
    }
    latencies.report("polled", workers, &pool);
}

/// One call right behind the other, and now and then several: who ended the last one is not woken for the next.
fn called(workers: usize) {
    let pool = pool_of(workers);
    let mut random = Random::new(50 + workers as u64);
    let mut latencies = Latencies::default();
    for i in 0..rounds() {
        busy_wait(random.micros(EDGE) * (random.below(4) / 3) as u32);
        let start = Instant::now();
        let beside = (random.below(8) == 0).then(|| pool.apply_async(double, (i,)).expect("a slot"));
        latencies.add(start, pool.apply(double, (i,)).is_ok_and(|value| value == 2 * i));
        if let Some(beside) = beside {
            latencies.add(start, beside.get().is_ok_and(|value| value == 2 * i));
        }
    }
    latencies.report("called", workers, &pool);
}

fn take(micros: u64) -> u64 {
    busy_wait(Duration::from_micros(micros));
    micros
}

/// The task takes as long as the client is about to be awake.
fn slept_for(workers: usize) {
    let pool = pool_of(workers);
    let mut random = Random::new(10 + workers as u64);
    let mut latencies = Latencies::default();
    for _ in 0..rounds() {
        let time = random.below(EDGE);
        let start = Instant::now();
        let result = pool.apply_async(take, (time,)).expect("a slot");
        busy_wait(random.micros(EDGE / 8));
        latencies.add(start, result.get().is_ok_and(|value| value == time));
    }
    latencies.report("slept for", workers, &pool);
}

/// A stream whose items and whose reader both take their time.
fn streamed(workers: usize) {
    let pool = pool_of(workers);
    let mut random = Random::new(20 + workers as u64);
    let mut latencies = Latencies::default();
    let mut times = Random::new(30 + workers as u64);
    let items = (0..rounds()).map(move |_| times.below(EDGE));
    let stream = pool.imap_unordered(take, items, 1).expect("a stream").buffersize(2 * workers);
    let mut start = Instant::now();
    for result in stream {
        latencies.add(start, result.is_ok());
        busy_wait(random.micros(EDGE / 2));
        start = Instant::now();
    }
    assert_eq!(latencies.all.len() as u64, rounds(), "as many results as items");
    latencies.report("streamed", workers, &pool);
}

/// Waits that end in time-outs, again and again, until the result is there.
fn timed_out(workers: usize) {
    let pool = pool_of(workers);
    let mut random = Random::new(40 + workers as u64);
    let mut latencies = Latencies::default();
    for _ in 0..rounds() {
        let time = random.below(EDGE);
        let start = Instant::now();
        let result = pool.apply_async(take, (time,)).expect("a slot");
        while !result.wait(Some(random.micros(EDGE))) {}
        latencies.add(start, result.get().is_ok_and(|value| value == time));
    }
    latencies.report("waited for with time-outs", workers, &pool);
}
