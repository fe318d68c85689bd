//! Workers that leave after so many tasks, and pools inside of workers.

use super::{is_alive, pool};
use libtest_mimic::Trial;
use ringpool::{Context, Pool};
use ringpool_tests::{eventually, in_contexts, test};
use std::collections::HashMap;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![];
    tests.extend(in_contexts("workers leave after so many tasks", max_tasks));
    tests.push(test("a chunk is one task", chunks_count_once));
    tests.push(test("tasks that fail count, too", failures_count));
    tests.push(test("many replacements under load", replacements_under_load));
    tests.extend(in_contexts("a pool outlives the thread that made it", made_by_a_thread));
    tests.extend(in_contexts("a pool inside a worker", nested));
    tests.push(test("a pool inside a worker that is terminated", nested_terminated));
    tests
}

/// How often each value occurs.
fn count(pids: impl IntoIterator<Item = u32>) -> HashMap<u32, usize> {
    let mut counts = HashMap::new();
    pids.into_iter().for_each(|pid| *counts.entry(pid).or_default() += 1);
    counts
}

fn max_tasks(context: Context) {
    for limit in [1, 3] {
        let pool = Pool::builder().processes(2).max_tasks_per_child(limit).context(context).start().unwrap();
        let results: Vec<_> = (0..20_u64)
            .map(|i| pool.apply_async(|x: u64| (x * x, std::process::id()), (i,)).unwrap())
            .collect();
        let mut pids = vec![];
        for (i, result) in (0..).zip(&results) {
            let (square, pid) = result.get().unwrap();
            assert_eq!(square, i * i);
            pids.push(pid);
        }
        let counts = count(pids);
        assert!(counts.values().all(|&tasks| tasks <= limit as usize), "limit {limit}: {counts:?}");
        assert!(counts.len() >= 20 / limit as usize);
        pool.close();
        pool.join().unwrap();
        assert!(!counts.into_keys().any(is_alive));
    }
}

fn chunks_count_once() {
    let pool = Pool::builder().processes(2).max_tasks_per_child(2).start().unwrap();
    let pids = pool.map_async(|_: u32| std::process::id(), 0..100, Some(10)).unwrap().get().unwrap();
    let counts = count(pids.chunks(10).map(|chunk| {
        assert!(chunk.iter().all(|pid| *pid == chunk[0]), "a chunk stays together: {chunk:?}");
        chunk[0]
    }));
    assert!(counts.values().all(|&chunks| chunks <= 2), "{counts:?}");
    assert!(counts.len() >= 5);
}

fn failures_count() {
    let pool = Pool::builder().processes(1).max_tasks_per_child(1).start().unwrap();
    let mut pids = vec![];
    for _ in 0..5 {
        let error = pool.apply(|| -> u32 { panic!("{}", std::process::id()) }, ()).unwrap_err();
        let ringpool::ErrorKind::Panicked { message, .. } = error.kind() else { panic!("{error:?}") };
        pids.push(message.parse().unwrap());
    }
    assert_eq!(count(pids).len(), 5);
}

fn replacements_under_load() {
    let pool = Pool::builder().processes(3).max_tasks_per_child(2).slots(16).start().unwrap();
    std::thread::scope(|threads| {
        for thread in 0..4_u64 {
            let pool = &pool;
            threads.spawn(move || {
                let items = || (0..60).map(|i| 1000 * thread + i);
                assert_eq!(
                    pool.map_async(|x: u64| x + 1, items(), Some(1)).unwrap().get().unwrap(),
                    items().map(|x| x + 1).collect::<Vec<_>>()
                );
                let large = pool.imap(|x: u64| vec![x; 1000], items(), 1).unwrap();
                assert!(items().zip(large).all(|(x, result)| result.unwrap() == vec![x; 1000]));
            });
        }
    });
    assert_eq!(pool.processes(), 3);
    eventually("all places are taken again", Duration::from_secs(30), || pool.worker_pids().len() == 3);
}

fn made_by_a_thread(context: Context) {
    let made = std::thread::spawn(move || {
        let pool = pool(context);
        let pids = pool.worker_pids();
        (pool, pids)
    });
    let (pool, pids) = made.join().unwrap();
    // Workers whose parent thread's end were theirs would be dead by then, and perhaps replaced.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(pool.map(|x: u64| x + 1, 0..100).unwrap().len(), 100);
    assert_eq!(pool.worker_pids(), pids);
    assert!(pids.into_iter().all(is_alive));
}

/// A task that uses a pool of its own.
fn sum_of_squares(context: u32, items: Vec<u64>) -> Result<(u64, bool), ringpool::TaskError> {
    let context = [Context::Fork, Context::Spawn, Context::ForkServer][context as usize];
    let pool = Pool::builder().processes(2).context(context).start()?;
    let squares = pool.map(|x: u64| x * x, items)?;
    let in_worker = pool.apply(ringpool::is_worker, ())?;
    pool.close();
    pool.join()?;
    Ok((squares.iter().sum(), in_worker && ringpool::is_worker()))
}

fn nested(context: Context) {
    let pool = pool(context);
    for inner in 0..3 {
        let results = pool.starmap(sum_of_squares, vec![(inner, vec![1, 2, 3]); 2]).unwrap();
        assert_eq!(results, [(14, true); 2], "{context:?} around {inner}");
    }
    // And the outer pool's memory is still what its tasks see.
    let mut slice = pool.alloc::<u64>(10).unwrap();
    slice.fill(2);
    let twice = |slice: &ringpool::ArchivedSharedSlice<u64>| -> Result<u64, ringpool::TaskError> {
        let inner = Pool::new(1)?;
        let one = inner.apply(|x: u64| x, (1,))?;
        drop(inner);
        Ok(slice.iter().sum::<u64>() + one)
    };
    assert_eq!(pool.apply(twice, (slice.share(),)).unwrap(), 21);
}

fn nested_terminated() {
    let pool = pool(Context::Fork);
    let sign = ringpool_tests::signs::Sign::new();
    let task = |path: String| -> Result<(), ringpool::TaskError> {
        let inner = Pool::new(2)?;
        for pid in inner.worker_pids() {
            ringpool_tests::signs::note(&path, &pid.to_string());
        }
        inner.apply(|| std::thread::sleep(Duration::from_secs(100)), ())?;
        Ok(())
    };
    let result = pool.apply_async(task, (sign.path(),)).unwrap();
    eventually("the inner pool is there", Duration::from_secs(30), || sign.count() == 2);
    drop(pool);
    assert!(result.get().unwrap_err().is_closed());
    let pids: Vec<u32> = sign.notes().iter().map(|pid| pid.parse().unwrap()).collect();
    eventually("the inner workers die with their pool's process", Duration::from_secs(30), || {
        !pids.iter().copied().any(is_alive)
    });
}
