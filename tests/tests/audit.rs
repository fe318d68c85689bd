//! The auditor finds nothing wrong with pools that work, were stopped, or have seen deaths.

use libtest_mimic::Trial;
use ringpool::{Context, Pool, audit};
use ringpool_tests::audit::{expect_clean, expect_sound};
use ringpool_tests::{SetOnDrop, eventually, in_contexts, procs, test};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn double(x: u64) -> u64 {
    2 * x
}

fn bytes(len: u64) -> Vec<u8> {
    vec![len as u8; len as usize]
}

fn length(bytes: Vec<u8>) -> u64 {
    bytes.len() as u64
}

fn pool_of(processes: usize, context: Context) -> Pool {
    Pool::builder().processes(processes).context(context).retries(14).start().unwrap()
}

fn fresh(context: Context) {
    let pool = pool_of(3, context);
    let audit = expect_clean(&pool);
    assert_eq!((audit.processes.used, audit.slots.total, audit.blocks.arguments), (4, 1024, 0));
    assert_eq!(audit.creator_pid, std::process::id());
    assert!(audit.creator_lives && audit.running && audit.is_quiescent());
    assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
    expect_clean(&pool);
    pool.close();
    pool.join().unwrap();
    let audit = expect_clean(&pool);
    assert!(!audit.running);
    assert_eq!((audit.processes.live, audit.processes.free), (1, 3), "only the client is left");
}

/// Everything at once, until `over`.
fn keep_busy(pool: &Pool, over: &AtomicBool) {
    let mut round = 0;
    while !over.load(Ordering::Relaxed) {
        round += 1;
        let results: Vec<_> =
            (0..32).map(|i| pool.apply_async(bytes, (round * 7 % 50 * i * 100,)).unwrap()).collect();
        assert_eq!(pool.apply(length, (vec![1; 100_000],)).unwrap(), 100_000);
        assert!(pool.map(double, 0..500).unwrap().into_iter().eq((0..500).map(double)));
        let streamed = pool.imap_unordered(bytes, (0..50).map(|i| i * 5000), 3).unwrap();
        assert_eq!(streamed.filter(Result::is_ok).count(), 50);
        drop(results); // some are never asked for
    }
}

fn busy(context: Context) {
    let pool = pool_of(3, context);
    // A pool may be used before all of its workers are up.
    let is_up = || audit::by_pid(pool.worker_pids()[0]).is_ok();
    eventually("the worker has the pool", Duration::from_secs(20), is_up);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = SetOnDrop(&over);
        for _ in 0..2 {
            scope.spawn(|| keep_busy(&pool, &over));
        }
        for _ in 0..25 {
            expect_sound(&pool);
            for audit in audit::by_pid(pool.worker_pids()[0]).unwrap() {
                assert!(audit.is_clean(), "{audit}");
            }
        }
    });
    let audit = expect_clean(&pool);
    assert_eq!((audit.blocks.arguments, audit.blocks.results, audit.blocks.workers), (0, 0, 0), "{audit}");
}

fn storm(context: Context) {
    let pool = pool_of(3, context);
    let over = AtomicBool::new(false);
    let pause = if context == Context::Fork { 2 } else { 20 };
    std::thread::scope(|scope| {
        let _end = SetOnDrop(&over);
        scope.spawn(|| keep_busy_under_fire(&pool, &over));
        for round in 0..100 {
            for pid in pool.worker_pids().into_iter().skip(round % 3).take(1) {
                procs::kill(pid);
            }
            std::thread::sleep(Duration::from_millis(pause));
            if round % 10 == 0 {
                expect_sound(&pool);
            }
        }
    });
    eventually("all workers are replaced", SOON, || {
        let pids = pool.worker_pids();
        pids.len() == 3 && pids.iter().all(|&pid| procs::runs(pid))
    });
    let audit = expect_clean(&pool);
    assert_eq!((audit.blocks.arguments, audit.blocks.results, audit.blocks.workers), (0, 0, 0), "{audit}");
}

/// Items of chunks may fail: chunks are not retried for ever.
fn keep_busy_under_fire(pool: &Pool, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let results: Vec<_> = (0..32).map(|i| pool.apply_async(bytes, (i * 1000,)).unwrap()).collect();
        let _ = pool.map_async(bytes, (0..200).map(|i| i * 50), Some(20)).unwrap().get_each();
        assert_eq!(pool.apply(length, (vec![1; 100_000],)).unwrap(), 100_000);
        for result in results {
            let _ = result.get();
        }
    }
}

fn sleep(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Some workers sleep, some are in a task, one has hints in its window.
fn stopped(context: Context) {
    let pool = pool_of(3, context);
    let results: Vec<_> = (0..40).map(|_| pool.apply_async(sleep, (10,)).unwrap()).collect();
    let large = pool.apply_async(bytes, (300_000,)).unwrap();
    let pids = pool.worker_pids();
    eventually("all have joined", SOON, || pids.iter().all(|&pid| audit::by_pid(pid).is_ok()));
    for signal in [Signal::STOP, Signal::CONT] {
        pids.iter().for_each(|&pid| assert!(procs::signal(pid, signal)));
        eventually("they heed the signal", SOON, || {
            pids.iter().all(|&pid| procs::is_stopped(pid) == (signal == Signal::STOP))
        });
        let audit = expect_sound(&pool);
        assert_eq!(audit.processes.stopped, if signal == Signal::STOP { 3 } else { 0 });
        let outside = audit::by_pid(pids[0]).unwrap();
        assert!(outside.len() == 1 && outside[0].is_clean(), "{outside:?}");
    }
    assert_eq!(large.get().unwrap().len(), 300_000);
    results.iter().for_each(|result| result.get().unwrap());
    let audit = expect_clean(&pool);
    assert_eq!((audit.processes.stopped, audit.blocks.workers), (0, 0));
}

/// Blocks in the client's hands are counted.
fn holdings() {
    let pool = pool_of(2, Context::Fork);
    let view = pool.apply_async(bytes, (10_000,)).unwrap().view().unwrap();
    let slice = pool.alloc::<u64>(100_000).unwrap();
    let audit = expect_clean(&pool);
    assert_eq!((audit.blocks.arguments, audit.blocks.results, audit.blocks.workers), (1, 1, 0), "{audit}");
    drop((view, slice));
    let audit = expect_clean(&pool);
    assert_eq!((audit.blocks.arguments, audit.blocks.results, audit.blocks.workers), (0, 0, 0), "{audit}");
}

/// A process with several pools, one of them named.
fn several_pools() {
    let name = format!("audit-{}", std::process::id());
    let first = pool_of(1, Context::Fork);
    let second = Pool::builder().processes(1).name(&name).start().unwrap();
    let third = pool_of(1, Context::Spawn);
    let audits = audit::by_pid(std::process::id()).unwrap();
    assert_eq!(audits.len(), 3);
    let by_name = audit::by_name(&name).unwrap();
    assert_eq!(by_name.pool_id, second.audit().unwrap().pool_id);
    for pool in [&first, &second, &third] {
        let pool_id = expect_clean(pool).pool_id;
        assert!(audits.iter().any(|audit| audit.pool_id == pool_id && audit.is_clean()));
        // A worker works for one.
        let of_worker = audit::by_pid(pool.worker_pids()[0]).unwrap();
        assert_eq!(of_worker.iter().map(|audit| audit.pool_id).collect::<Vec<_>>(), [pool_id]);
    }
}

fn a_terminated_pool() {
    let pool = pool_of(2, Context::Fork);
    let _results: Vec<_> = (0..100).map(|_| pool.apply_async(sleep, (1000,)).unwrap()).collect();
    let large = pool.apply_async(length, (vec![0; 1 << 20],)).unwrap();
    pool.terminate();
    large.get().unwrap_err();
    let audit = expect_clean(&pool);
    assert!(!audit.running);
}

fn main() {
    ringpool::init();
    let mut tests: Vec<Trial> = Vec::new();
    tests.extend(in_contexts("fresh", fresh));
    tests.extend(in_contexts("busy", busy));
    tests.extend(in_contexts("storm", storm));
    tests.extend(in_contexts("stopped", stopped));
    tests.push(test("holdings", holdings));
    tests.push(test("several_pools", several_pools));
    tests.push(test("a_terminated_pool", a_terminated_pool));
    ringpool_tests::run(tests)
}
