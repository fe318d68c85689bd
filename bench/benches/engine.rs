//! What a task costs, alone and among many, and what its bytes cost; beside threads and pipes.

use criterion::{BenchmarkId, Criterion, Throughput};
use ringpool::Pool;
use ringpool::parts::Parts;
use ringpool_bench::contestants::crossbeam::ThreadPool;
use ringpool_bench::contestants::pipe::PipeWorker;
use ringpool_bench::tasks::{inc, xor, xor_shared, xor_view};
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

const WORKERS: [usize; 2] = [1, 2];
/// How many tasks are on their way when they are pipelined.
const OUTSTANDING: usize = 512;
const ITEMS: u64 = 1_000_000;

fn pool(workers: usize) -> Pool {
    Pool::new(workers).expect("a pool starts")
}

fn rayon(workers: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(workers).build().expect("threads start")
}

/// One task at a time, each waited for.
fn round_trip(c: &mut Criterion) {
    let mut group = c.benchmark_group("round_trip");
    for workers in WORKERS {
        let pool = pool(workers);
        group.bench_function(BenchmarkId::new("ringpool", workers), |b| {
            b.iter(|| pool.apply(inc, (black_box(1),)).expect("a result"));
        });
    }
    let mut worker = PipeWorker::inc().expect("a process starts");
    group.bench_function(BenchmarkId::new("pipe", 1), |b| {
        b.iter(|| worker.call_inc(black_box(1)).expect("an answer"));
    });
    for workers in WORKERS {
        let threads = ThreadPool::new(workers, inc);
        group.bench_function(BenchmarkId::new("crossbeam", workers), |b| {
            b.iter(|| threads.apply(black_box(1)))
        });
    }
    for workers in WORKERS {
        let threads = rayon(workers);
        group.bench_function(BenchmarkId::new("rayon", workers), |b| {
            b.iter(|| threads.install(|| inc(black_box(1))));
        });
    }
}

/// Many tasks on their way; time for each.
fn pipelined(c: &mut Criterion) {
    let mut group = c.benchmark_group("pipelined");
    group.throughput(Throughput::Elements(1));
    for workers in WORKERS {
        let pool = pool(workers);
        group.bench_function(BenchmarkId::new("ringpool_apply_async", workers), |b| {
            b.iter_custom(|tasks| {
                let start = Instant::now();
                let mut results = VecDeque::with_capacity(OUTSTANDING);
                for i in 0..tasks {
                    if results.len() == OUTSTANDING {
                        get(&mut results);
                    }
                    results.push_back(pool.apply_async(inc, (i,)).expect("a slot"));
                }
                while !results.is_empty() {
                    get(&mut results);
                }
                start.elapsed()
            });
        });
        group.bench_function(BenchmarkId::new("ringpool_imap_unordered", workers), |b| {
            b.iter_custom(|tasks| {
                let start = Instant::now();
                let results = pool.imap_unordered(inc, 0..tasks, 1).expect("a running pool");
                for result in results.buffersize(OUTSTANDING) {
                    black_box(result.expect("a result"));
                }
                start.elapsed()
            });
        });
    }
    for workers in WORKERS {
        let threads = ThreadPool::new(workers, inc);
        group.bench_function(BenchmarkId::new("crossbeam", workers), |b| {
            b.iter_custom(|tasks| {
                let start = Instant::now();
                for i in 0..tasks {
                    if i >= OUTSTANDING as u64 {
                        black_box(threads.next_result());
                    }
                    threads.submit(i);
                }
                for _ in 0..tasks.min(OUTSTANDING as u64) {
                    black_box(threads.next_result());
                }
                start.elapsed()
            });
        });
    }
    for workers in WORKERS {
        let threads = rayon(workers);
        group.bench_function(BenchmarkId::new("rayon_spawn", workers), |b| {
            b.iter_custom(|tasks| {
                let mut results = [0; OUTSTANDING];
                let start = Instant::now();
                let mut done = 0;
                while done < tasks {
                    // A scope has no sliding window; this one is refilled when it is empty.
                    let round = (tasks - done).min(OUTSTANDING as u64);
                    threads.scope(|scope| {
                        for (i, result) in (done..done + round).zip(&mut results) {
                            scope.spawn(move |_| *result = inc(i));
                        }
                    });
                    done += round;
                }
                black_box(&results);
                start.elapsed()
            });
        });
    }
}

fn get(results: &mut VecDeque<ringpool::AsyncResult<u64>>) {
    if let Some(result) = results.pop_front() {
        black_box(result.get().expect("a result"));
    }
}

/// A million items in default chunks.
fn map(c: &mut Criterion) {
    use rayon::prelude::*;
    let mut group = c.benchmark_group("map_million");
    group.throughput(Throughput::Elements(ITEMS));
    for workers in WORKERS {
        let pool = pool(workers);
        group.bench_function(BenchmarkId::new("ringpool", workers), |b| {
            b.iter(|| pool.map(inc, 0..ITEMS).expect("results"));
        });
    }
    for workers in WORKERS {
        let threads = rayon(workers);
        group.bench_function(BenchmarkId::new("rayon_par_iter", workers), |b| {
            b.iter(|| threads.install(|| (0..ITEMS).into_par_iter().map(inc).collect::<Vec<u64>>()));
        });
    }
}

/// Bytes there, as many bytes back; one worker, one call at a time.
///
/// Making the bytes is not counted. Handing them over, working on them and letting go of both is.
fn echo(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo");
    let pool = pool(1);
    let threads = ThreadPool::new(1, |bytes: Vec<u8>| xor(&bytes));
    let mut worker = PipeWorker::xor().expect("a process starts");
    for size in [1 << 10, 64 << 10, 1 << 20, 16 << 20] {
        let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let last = data[size - 1] ^ 1;
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("ringpool", size), |b| {
            b.iter_custom(|calls| {
                timed(calls, &data, |bytes| {
                    let view = pool.apply_async(xor_view, (bytes,)).and_then(|r| r.view()).expect("a result");
                    assert_eq!(view[size - 1], last);
                })
            });
        });
        let mut shared = pool.alloc::<u8>(size).expect("memory");
        shared.copy_from_slice(&data);
        let shared = shared.share();
        group.bench_function(BenchmarkId::new("ringpool_shared", size), |b| {
            b.iter(|| {
                let result = pool.apply_async(xor_shared, (shared.clone(),));
                let view = result.and_then(|r| r.view()).expect("a result");
                assert_eq!(view[size - 1], last);
            });
        });
        group.bench_function(BenchmarkId::new("crossbeam", size), |b| {
            b.iter_custom(|calls| {
                timed(calls, &data, |bytes| assert_eq!(threads.apply(bytes)[size - 1], last))
            });
        });
        group.bench_function(BenchmarkId::new("pipe", size), |b| {
            b.iter_custom(|calls| {
                timed(calls, &data, |mut bytes| {
                    worker.call_xor(&mut bytes).expect("an answer");
                    assert_eq!(bytes[size - 1], last);
                })
            });
        });
    }
}

/// The time of `calls` calls, each with a copy of `data` of its own, without the copying.
fn timed(calls: u64, data: &[u8], mut call: impl FnMut(Vec<u8>)) -> Duration {
    (0..calls)
        .map(|_| {
            let bytes = data.to_vec();
            let start = Instant::now();
            call(bytes);
            start.elapsed()
        })
        .sum()
}

/// The parts of the protocol by themselves, in one process: no line leaves its core.
fn parts(c: &mut Criterion) {
    let mut parts = Parts::new().expect("memory");
    let mut group = c.benchmark_group("parts");
    for hints in [1_u32, 16] {
        group.throughput(Throughput::Elements(hints.into()));
        group.bench_function(BenchmarkId::new("ready_ring", hints), |b| {
            b.iter(|| parts.hints(black_box(hints)))
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("slot", |b| b.iter(|| parts.slot()));
    group.bench_function("completion_ring", |b| b.iter(|| parts.completion()));
    group.bench_function("notify_nobody", |b| b.iter(|| parts.notify()));
    for bytes in [1 << 10, 64 << 10, 1 << 20, 16 << 20] {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("arena_block", bytes), |b| {
            b.iter(|| parts.block(black_box(bytes)).expect("room"));
        });
    }
}

fn main() {
    ringpool::init();
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    parts(&mut criterion);
    round_trip(&mut criterion);
    pipelined(&mut criterion);
    map(&mut criterion);
    echo(&mut criterion);
    criterion.final_summary();
}
