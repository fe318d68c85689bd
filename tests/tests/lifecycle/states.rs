//! Running, closed, terminated, joined: what may be done when.

use super::{is_alive, pool};
use libtest_mimic::Trial;
use ringpool::{Context, Error, ErrorKind, Pool};
use ringpool_tests::signs::{Sign, note, wait_for_note};
use ringpool_tests::{eventually, in_contexts, test};
use std::time::Duration;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![];
    tests.extend(in_contexts("nothing new after close", after_close));
    tests.extend(in_contexts("nothing new after terminate", after_terminate));
    tests.push(test("join before close", join_too_early));
    tests.push(test("ends in any order, any number of times", any_order));
    tests.extend(in_contexts("close and join finish all work", finish));
    tests.push(test("several threads join", join_together));
    tests.push(test("submitting while another thread closes", close_race));
    tests.extend(in_contexts("terminate fails what is pending", terminate_pending));
    tests.push(test("terminate ends those who wait", terminate_waiters));
    tests.push(test("terminate ends those who wait for room", terminate_submitters));
    tests.push(test("terminate while another thread joins", terminate_joining));
    tests.extend(in_contexts("drop terminates", drop_terminates));
    tests.push(test("results outlive the pool", results_outlive));
    tests.push(test("dropped by another thread", drop_elsewhere));
    tests.push(test("dropped while unwinding", drop_unwinding));
    tests.push(test("many pools, one after the other and at once", many_pools));
    tests.push(test("a pool says what it is", debug));
    tests
}

fn add_one(x: u64) -> u64 {
    x + 1
}

/// All ways to hand in work.
fn try_everything(pool: &Pool) -> Vec<Error> {
    vec![
        pool.apply(add_one, (1,)).unwrap_err(),
        pool.apply_async(add_one, (1,)).unwrap_err(),
        pool.map(add_one, [1]).unwrap_err(),
        pool.map(add_one, []).unwrap_err(),
        pool.map_async(add_one, [1], Some(3)).unwrap_err(),
        pool.starmap(add_one, [(1,)]).unwrap_err(),
        pool.starmap_async(add_one, [(1,)], None).unwrap_err(),
        pool.imap(add_one, [1], 1).unwrap_err(),
        pool.imap_unordered(add_one, [1], 1).unwrap_err(),
    ]
}

fn after_close(context: Context) {
    let pool = pool(context);
    pool.close();
    for error in try_everything(&pool) {
        assert!(matches!(error.kind(), ErrorKind::Closed) && error.is_closed(), "{error:?}");
    }
    pool.join().unwrap();
    for error in try_everything(&pool) {
        assert!(matches!(error.kind(), ErrorKind::Closed), "{error:?}");
    }
}

fn after_terminate(context: Context) {
    let pool = pool(context);
    pool.terminate();
    for error in try_everything(&pool) {
        assert!(matches!(error.kind(), ErrorKind::Terminated) && error.is_closed(), "{error:?}");
    }
    pool.join().unwrap();
}

fn join_too_early() {
    let pool = pool(Context::Fork);
    let error = pool.join().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::StillRunning), "{error:?}");
    assert!(error.to_string().contains("close()"), "{error}");
    assert_eq!(pool.apply(add_one, (1,)).unwrap(), 2, "it does no harm");
}

fn any_order() {
    type Step = fn(&Pool);
    let close: Step = Pool::close;
    let terminate: Step = Pool::terminate;
    let join: Step = |pool| pool.join().unwrap();
    let orders: [&[Step]; 8] = [
        &[close, close, join, join],
        &[terminate, terminate, join, join],
        &[close, terminate, join],
        &[terminate, close, join, close],
        &[close, join, close, terminate, join],
        &[close, join, terminate, terminate],
        &[terminate, join, close, join, terminate],
        &[close, terminate, close, terminate, join, join, close],
    ];
    for (i, order) in orders.iter().enumerate() {
        let pool = pool(Context::Fork);
        let result = pool.apply_async(add_one, (1,)).unwrap();
        result.wait(None);
        order.iter().for_each(|step| step(&pool));
        assert!(pool.worker_pids().is_empty(), "order {i}");
        assert_eq!(result.get().unwrap(), 2);
        assert!(pool.apply(add_one, (1,)).unwrap_err().is_closed());
    }
}

fn finish(context: Context) {
    let done = Sign::new();
    let pool = pool(context);
    let pids = pool.worker_pids();
    let results: Vec<_> = (0..200)
        .map(|i| {
            let work = |path: String, i: u64| {
                note(&path, "done");
                vec![i; 100]
            };
            pool.apply_async(work, (done.path(), i)).unwrap()
        })
        .collect();
    let map = pool.map_async(add_one, 0..1000, None).unwrap();
    pool.close();
    pool.join().unwrap();
    assert_eq!(done.count(), 200);
    assert!(pool.worker_pids().is_empty() && !pids.into_iter().any(is_alive));
    // Fetched after all is over.
    for (i, result) in (0..).zip(&results) {
        assert_eq!((result.successful(), result.get().unwrap()), (Some(true), vec![i; 100]));
    }
    assert_eq!(map.get().unwrap(), (1..=1000).collect::<Vec<_>>());
}

fn join_together() {
    let pool = pool(Context::Fork);
    let gate = Sign::new();
    let busy = pool.apply_async(|gate: String| wait_for_note(&gate), (gate.path(),)).unwrap();
    pool.close();
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                pool.join().unwrap();
                assert_eq!(busy.successful(), Some(true), "join waits for all work");
            });
        }
        std::thread::sleep(Duration::from_millis(5));
        gate.open();
    });
}

/// Work is either refused or done, however close the race.
fn close_race() {
    for round in 0..100 {
        let pool = pool(Context::Fork);
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    loop {
                        match pool.apply_async(add_one, (1,)) {
                            Ok(result) => match result.get_timeout(LONG) {
                                Ok(value) => assert_eq!(value, 2),
                                Err(error) => assert!(error.is_closed(), "{error:?}"),
                            },
                            Err(error) => {
                                assert!(matches!(error.kind(), ErrorKind::Closed), "{error:?}");
                                break;
                            }
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_micros(200 * (round % 10)));
            pool.close();
            pool.join().unwrap();
        });
    }
}

fn is_terminated(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Terminated)
}

fn terminate_pending(context: Context) {
    let pool = pool(context);
    let gate = Sign::new();
    let done = pool.apply_async(add_one, (1,)).unwrap();
    done.wait(None);
    let wait = |gate: String, _: u64| wait_for_note(&gate);
    let pending: Vec<_> = (0..50).map(|i| pool.apply_async(wait, (gate.path(), i)).unwrap()).collect();
    let map = pool.starmap_async(wait, (0..50).map(|i| (gate.path(), i)), Some(7)).unwrap();
    let singles = pool.starmap_async(wait, (0..50).map(|i| (gate.path(), i)), Some(1)).unwrap();
    let pids = pool.worker_pids();
    pool.terminate();
    assert!(!pids.into_iter().any(is_alive), "when terminate returns the workers are dead");
    for result in &pending {
        let error = result.get().unwrap_err();
        assert!(is_terminated(&error), "{error:?}");
        assert_eq!((result.ready(), result.successful()), (true, Some(false)));
    }
    for map in [map, singles] {
        assert!(is_terminated(&map.get().unwrap_err()));
        let each = map.get_each().unwrap();
        assert_eq!(each.len(), 50);
        assert!(each.iter().all(|one| one.as_ref().is_err_and(is_terminated)), "{each:?}");
    }
    assert_eq!(done.get().unwrap(), 2, "what is done stays done");
    pool.join().unwrap();
}

fn terminate_waiters() {
    let pool = pool(Context::Fork);
    let gate = Sign::new();
    let wait = |gate: String| wait_for_note(&gate);
    let (a, b) =
        (pool.apply_async(wait, (gate.path(),)).unwrap(), pool.map_async(wait, [gate.path()], None).unwrap());
    let mut c = pool.imap(wait, [gate.path(), gate.path()], 1).unwrap();
    std::thread::scope(|threads| {
        let a = threads.spawn(|| a.get().unwrap_err());
        let b = threads.spawn(|| b.get().unwrap_err());
        let c = threads.spawn(move || c.next().unwrap().unwrap_err());
        std::thread::sleep(Duration::from_millis(20));
        pool.terminate();
        for waiter in [a, b, c] {
            assert!(is_terminated(&waiter.join().unwrap()));
        }
    });
}

fn terminate_submitters() {
    let pool =
        Pool::builder().processes(1).slots(2).arena_reserve(4 << 20).arena_quota(4 << 20).start().unwrap();
    let gate = Sign::new();
    let wait = |gate: String, _: Vec<u8>| wait_for_note(&gate);
    let large = pool.apply_async(wait, (gate.path(), vec![0; 2 << 20])).unwrap();
    std::thread::scope(|threads| {
        // One waits for memory, two for slots, of which one is left.
        let memory = threads.spawn(|| pool.apply(wait, (gate.path(), vec![0; 2 << 20])).unwrap_err());
        let slots =
            [(); 2].map(|()| threads.spawn(|| pool.apply(|| std::thread::sleep(LONG), ()).unwrap_err()));
        std::thread::sleep(Duration::from_millis(20));
        pool.terminate();
        for submitter in slots.into_iter().chain([memory]) {
            let error = submitter.join().unwrap();
            assert!(is_terminated(&error), "{error:?}");
        }
    });
    assert!(is_terminated(&large.get().unwrap_err()));
}

fn terminate_joining() {
    let pool = pool(Context::Fork);
    let gate = Sign::new();
    let busy = pool.apply_async(|gate: String| wait_for_note(&gate), (gate.path(),)).unwrap();
    pool.close();
    std::thread::scope(|threads| {
        threads.spawn(|| pool.join().unwrap());
        std::thread::sleep(Duration::from_millis(20));
        pool.terminate();
    });
    assert!(is_terminated(&busy.get().unwrap_err()));
}

fn drop_terminates(context: Context) {
    let pool = pool(context);
    let gate = Sign::new();
    let wait = |gate: String| wait_for_note(&gate);
    let results: Vec<_> = (0..100).map(|_| pool.apply_async(wait, (gate.path(),)).unwrap()).collect();
    let pids = pool.worker_pids();
    assert_eq!(pids.len(), 2);
    drop(pool);
    assert!(!pids.into_iter().any(is_alive));
    assert!(results.iter().all(|result| is_terminated(&result.get().unwrap_err())));
}

fn results_outlive() {
    let pool = pool(Context::Fork);
    let large = pool.apply_async(|n: u32| vec![7_u8; n as usize], (1 << 20,)).unwrap();
    let map = pool.map_async(|x: u32| x.to_string(), 0..100, None).unwrap();
    let slice = pool.alloc::<u32>(100).unwrap();
    let mut results = pool.imap(|x: u32| x, 0.., 1).unwrap();
    assert_eq!(results.next().unwrap().unwrap(), 0);
    assert!(large.wait(None) && map.wait(None));
    drop(pool);
    assert!(large.get().unwrap().iter().all(|&b| b == 7));
    assert_eq!(large.view().unwrap().len(), 1 << 20);
    assert_eq!(map.get().unwrap()[99], "99");
    assert_eq!(slice.share().iter().sum::<u32>(), 0);
    // What was submitted before is there or failed; in either case it ends.
    let rest: Vec<_> = results.collect();
    assert!(is_terminated(rest.last().unwrap().as_ref().unwrap_err()), "{rest:?}");
    // Late callbacks have nobody left to run them in time, but do not hang or crash.
    drop(large.callback(drop));
}

fn drop_elsewhere() {
    let pool = pool(Context::Fork);
    let pids = pool.worker_pids();
    let used = std::thread::spawn(move || {
        let sum = pool.map(add_one, 0..100).unwrap().iter().sum::<u64>();
        (pool, sum)
    });
    let (pool, sum) = used.join().unwrap();
    assert_eq!(sum, 5050);
    // The thread that used it is gone, the workers are not.
    assert_eq!(pool.apply(add_one, (1,)).unwrap(), 2);
    assert_eq!(pool.worker_pids(), pids);
    std::thread::spawn(move || drop(pool)).join().unwrap();
    assert!(!pids.into_iter().any(is_alive));

    // Made by a thread that is gone.
    let pool = std::thread::spawn(|| super::pool(Context::Fork)).join().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(pool.map(add_one, 0..100).unwrap().len(), 100);
}

fn drop_unwinding() {
    let pool = pool(Context::Fork);
    let pids = pool.worker_pids();
    let run = move || {
        let _result = pool.apply_async(|| std::thread::sleep(LONG), ()).unwrap();
        std::panic::resume_unwind(Box::new("on purpose"));
    };
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
    assert!(!pids.into_iter().any(is_alive));
}

fn many_pools() {
    for _ in 0..20 {
        assert_eq!(pool(Context::Fork).apply(add_one, (1,)).unwrap(), 2);
    }
    let pools: Vec<Pool> = (0..6).map(|i| pool([Context::Fork, Context::ForkServer][i % 2])).collect();
    for (i, pool) in (0..).zip(&pools) {
        assert_eq!(pool.map(add_one, [i; 10]).unwrap(), [i + 1; 10]);
    }
    let pids: Vec<u32> = pools.iter().flat_map(Pool::worker_pids).collect();
    assert_eq!(pids.len(), 12);
    drop(pools);
    eventually("all workers are gone", LONG, || !pids.iter().copied().any(is_alive));
}

fn debug() {
    let pool = pool(Context::Fork);
    assert_eq!(format!("{pool:?}"), "Pool { state: \"running\", processes: 2 }");
    pool.close();
    assert!(format!("{pool:?}").contains("closed"));
    pool.terminate();
    assert!(format!("{pool:?}").contains("terminated"));
    let gate = Sign::new();
    let pool = super::pool(Context::Fork);
    let result = pool.apply_async(|gate: String| wait_for_note(&gate), (gate.path(),)).unwrap();
    assert!(format!("{result:?}").contains("pending"));
    gate.open();
    result.wait(None);
    assert!(format!("{result:?}").contains("done"));
}
