//! `imap` and `imap_unordered`.

use super::pool;
use libtest_mimic::Trial;
use ringpool::{Context, ErrorKind, Pool, TaskError};
use ringpool_tests::signs::{Sign, wait_for_note};
use ringpool_tests::{in_contexts, test};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);
const CHUNKSIZES: [usize; 4] = [1, 3, 64, 1_000_000];

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![];
    tests.extend(in_contexts("imap", ordered));
    tests.extend(in_contexts("imap_unordered", unordered));
    tests.extend(in_contexts("imap with failing items", failing));
    tests.extend(in_contexts("next_timeout", timeout));
    tests.push(test("unordered results come as they are ready", as_ready));
    tests.push(test("an infinite input is read no further than buffersize", lazy));
    tests.push(test("buffersize holds from the start", lazy_from_the_start));
    tests.push(test("dropped half-way", dropped));
    tests.push(test("dropped half-way: the arguments' memory comes back", dropped_memory));
    tests.push(test("payloads and results that fill both arenas", full_arenas));
    tests.push(test("inputs that panic", panicking_input));
    tests.push(test("several iterations at once", several));
    tests.push(test("the results of one iteration are the input of another", nested));
    tests.push(test("a chunk size of 0 for imap", no_chunksize));
    tests.push(test("closed half-way", closed));
    tests.push(test("join with an iteration half-way", joined));
    tests.push(test("terminated half-way", terminated));
    tests
}

fn words(x: u32) -> String {
    format!("{x}, ").repeat(x as usize % 40)
}

fn ordered(context: Context) {
    let pool = pool(context);
    for len in [0, 1, 15, 301] {
        let serial: Vec<String> = (0..len).map(words).collect();
        for chunksize in CHUNKSIZES {
            let mut results = pool.imap(words, 0..len, chunksize).unwrap();
            let got: Vec<String> = results.by_ref().map(Result::unwrap).collect();
            assert_eq!(got, serial, "{len} items, chunk size {chunksize}");
            assert!(
                results.next().is_none() && results.next_timeout(Duration::ZERO).is_none(),
                "over is over"
            );
        }
    }
}

fn unordered(context: Context) {
    let pool = pool(context);
    for len in [0, 1, 15, 301] {
        let mut serial: Vec<String> = (0..len).map(words).collect();
        serial.sort_unstable();
        for chunksize in CHUNKSIZES {
            let results = pool.imap_unordered(words, 0..len, chunksize).unwrap();
            let mut got: Vec<String> = results.map(Result::unwrap).collect();
            got.sort_unstable();
            assert_eq!(got, serial, "{len} items, chunk size {chunksize}");
        }
    }
}

fn failing(context: Context) {
    let pool = pool(context);
    let check = |x: u32| match x % 5 {
        2 => Err(TaskError::msg(x)),
        4 => panic!("{x}"),
        _ => Ok(x),
    };
    for chunksize in CHUNKSIZES {
        let mut count = 0;
        for (x, result) in pool.imap(check, 0..100, chunksize).unwrap().enumerate() {
            match (x % 5, result) {
                (2, Err(error)) => assert!(error.is_task_error(), "{error:?}"),
                (4, Err(error)) => assert!(error.is_panic(), "{error:?}"),
                (_, Ok(value)) => assert_eq!(value as usize, x),
                (_, other) => panic!("item {x} gave {other:?}"),
            }
            count += 1;
        }
        assert_eq!(count, 100);
        let results: Vec<_> = pool.imap_unordered(check, 0..100, chunksize).unwrap().collect();
        assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 60);
        assert_eq!(results.len(), 100);
    }
}

/// Waits at item 3.
fn gated(item: (String, u32)) -> u32 {
    if item.1 == 3 {
        wait_for_note(&item.0);
    }
    item.1
}

fn timeout(context: Context) {
    let pool = pool(context);
    let gate = Sign::new();
    let mut results = pool.imap(gated, (0..6).map(|x| (gate.path(), x)), 1).unwrap();
    for x in 0..3 {
        assert_eq!(results.next_timeout(LONG).unwrap().unwrap(), x);
    }
    for _ in 0..2 {
        assert!(results.next_timeout(Duration::from_millis(10)).unwrap().unwrap_err().is_timeout());
    }
    gate.open();
    for x in 3..6 {
        assert_eq!(results.next_timeout(LONG).unwrap().unwrap(), x);
    }
    assert!(results.next_timeout(LONG).is_none());
}

fn as_ready() {
    let pool = pool(Context::Fork);
    let gate = Sign::new();
    let mut results = pool.imap_unordered(gated, [3, 0, 1, 2].map(|x| (gate.path(), x)), 1).unwrap();
    let first: Vec<u32> = results.by_ref().take(3).map(Result::unwrap).collect();
    assert_eq!(first.iter().sum::<u32>(), 3, "all but the one that waits: {first:?}");
    gate.open();
    assert_eq!(results.next().unwrap().unwrap(), 3);
    assert!(results.next().is_none());
}

fn lazy() {
    let pool = pool(Context::Fork);
    // (chunk size, buffer size asked for, most items that may be outstanding)
    for (chunksize, buffersize, most) in [
        (1, None, 16),
        (7, None, 7 * 16),
        (1, Some(1), 1),
        (1, Some(5), 5),
        (4, Some(10), 10),
        (4, Some(2), 4),
    ] {
        let read = Cell::new(0_u64);
        let input = (0_u64..).inspect(|_| read.set(read.get() + 1));
        let mut results = pool.imap(|x: u64| x + 1, input, chunksize).unwrap();
        if let Some(items) = buffersize {
            results = results.buffersize(items);
        }
        for returned in 0..200 {
            assert!(
                read.get() <= returned + most,
                "{} items read for {returned} results: chunk size {chunksize}, buffer size {buffersize:?}",
                read.get()
            );
            assert_eq!(results.next().unwrap().unwrap(), returned + 1);
        }
        let before = read.get();
        drop(results);
        assert_eq!(read.get(), before, "no item is read for nobody");
    }
    // The default lets all workers work.
    let read = Cell::new(0_u64);
    let mut results = pool.imap(|x: u64| x, (0_u64..).inspect(|_| read.set(read.get() + 1)), 1).unwrap();
    results.next().unwrap().unwrap();
    assert!(read.get() > 2);
}

fn lazy_from_the_start() {
    let pool = pool(Context::Fork);
    let read = Cell::new(0);
    let input = (0_u32..).inspect(|_| read.set(read.get() + 1));
    let results = pool.imap(|x: u32| x, input, 1).unwrap().buffersize(3);
    assert_eq!(read.get(), 3, "as many as may be outstanding, and no more");
    drop(results);
}

fn dropped() {
    let pool = pool(Context::Fork);
    for chunksize in [1, 5] {
        let (gate, started) = (Sign::new(), Sign::new());
        let task = |gate: String, started: String| {
            ringpool_tests::signs::note(&started, "started");
            wait_for_note(&gate);
        };
        let read = Cell::new(0);
        let input = (0..1_000_000).map(|_| {
            read.set(read.get() + 1);
            (gate.path(), started.path())
        });
        let both = move |paths: (String, String)| task(paths.0, paths.1);
        let mut results = pool.imap_unordered(both, input, chunksize).unwrap();
        assert!(results.next_timeout(Duration::from_millis(10)).unwrap().unwrap_err().is_timeout());
        ringpool_tests::eventually("both workers are busy", LONG, || started.count() >= 2);
        let before = read.get();
        drop(results);
        gate.open();
        assert_eq!(pool.map(words, 0..10).unwrap().len(), 10, "the pool is free for other work");
        assert_eq!(read.get(), before);
        // Two tasks were running; those that waited were taken back.
        assert!(started.count() <= 2 * chunksize, "{} items of a dropped iteration ran", started.count());
    }
}

fn dropped_memory() {
    let pool = Pool::builder().processes(1).arena_reserve(8 << 20).arena_quota(8 << 20).start().unwrap();
    for round in 0..5 {
        let hold = Sign::new();
        // Each argument has 2 MiB of the 8 for itself. The first task waits with its own.
        let input = (0..).map(|_| (hold.path(), vec![7_u8; 2_000_000]));
        let wait = |item: (String, Vec<u8>)| {
            wait_for_note(&item.0);
            item.1.len() as u64
        };
        let results = pool.imap(wait, input, 1).unwrap().buffersize(3);
        drop(results);
        hold.open();
        let room = pool.alloc::<u8>(6 << 20);
        assert!(room.is_ok(), "round {round}: {:?}", room.err());
    }
}

/// The iteration must not wait for room that only its own results can make.
fn full_arenas() {
    let pool = Pool::builder().processes(1).arena_reserve(4 << 20).arena_quota(4 << 20).start().unwrap();
    let input = (0..12_u8).map(|i| vec![i; 2_000_000]);
    for (i, result) in (0..).zip(pool.imap(|bytes: Vec<u8>| bytes, input.clone(), 1).unwrap()) {
        assert!(result.unwrap() == vec![i; 2_000_000]);
    }
    let results = pool.imap_unordered(|bytes: Vec<u8>| bytes, input, 1).unwrap();
    assert_eq!(results.map(|result| u32::from(result.unwrap()[0])).sum::<u32>(), 66);
}

fn panicking_input() {
    let pool = pool(Context::Fork);
    for chunksize in [1, 4] {
        for bad in [0, 5, 40] {
            let input = (0..100_u32).inspect(|&x| assert!(x != bad, "the input ends badly"));
            let got = Cell::new(0);
            let run = || {
                for result in pool.imap(|x: u32| x, input, chunksize).unwrap() {
                    assert_eq!(result.unwrap(), got.get());
                    got.set(got.get() + 1);
                }
            };
            let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"the input ends badly"));
            assert!(got.get() <= bad);
            assert_eq!(pool.apply(|x: u32| x, (bad,)).unwrap(), bad);
        }
    }
    // Such an iteration can be gone on with: its input says what comes next.
    let mut calls = 0;
    let input = std::iter::from_fn(|| {
        calls += 1;
        assert!(calls != 20, "once");
        (calls < 30).then_some(calls)
    });
    let mut results = pool.imap(|x: u32| x, input, 1).unwrap();
    let mut values = vec![];
    let mut panics = 0;
    loop {
        match catch_unwind(AssertUnwindSafe(|| results.next())) {
            Ok(Some(value)) => values.push(value.unwrap()),
            Ok(None) => break,
            Err(_) => panics += 1,
        }
    }
    assert_eq!(panics, 1);
    assert_eq!(values, (1..30).filter(|&x| x != 20).collect::<Vec<_>>());
    drop(results);
    // No iteration is left that a closing pool would wait for.
    pool.close();
    pool.join().unwrap();
}

fn several() {
    let pool = pool(Context::Fork);
    let a = pool.imap(|x: u32| x, 0.., 1).unwrap();
    let b = pool.imap(|x: u32| 2 * x, 0.., 3).unwrap();
    let mut c = pool.imap_unordered(|x: u32| x, 0..150, 2).unwrap();
    for (i, (a, b)) in (0..100).zip(a.zip(b)) {
        assert_eq!((a.unwrap(), b.unwrap()), (i, 2 * i));
        c.next().unwrap().unwrap();
    }
    assert_eq!(c.count(), 50);
}

fn nested() {
    let pool = pool(Context::Fork);
    let halves = pool.imap(|x: u32| x / 2, 0.., 2).unwrap().map(Result::unwrap);
    let texts = pool.imap(|x: u32| x.to_string(), halves, 1).unwrap();
    let texts: Vec<String> = texts.take(100).map(Result::unwrap).collect();
    assert_eq!(texts, (0..100).map(|x| (x / 2).to_string()).collect::<Vec<_>>());
}

fn no_chunksize() {
    let pool = pool(Context::Fork);
    for error in [pool.imap(words, 0..3, 0).unwrap_err(), pool.imap_unordered(words, 0..3, 0).unwrap_err()] {
        assert!(matches!(error.kind(), ErrorKind::Invalid { .. }), "{error:?}");
    }
}

/// A closed pool goes on with iterations that were started before.
fn closed() {
    for chunksize in [1, 3] {
        let pool = pool(Context::Fork);
        let mut results = pool.imap(|x: u32| x, 0..200, chunksize).unwrap();
        for x in 0..5 {
            assert_eq!(results.next().unwrap().unwrap(), x);
        }
        pool.close();
        assert!(matches!(pool.imap(words, 0..3, 1).unwrap_err().kind(), ErrorKind::Closed));
        assert_eq!(results.map(Result::unwrap).collect::<Vec<_>>(), (5..200).collect::<Vec<_>>());
        pool.join().unwrap();
    }
}

/// What is submitted is done; the iteration, which lives on this very thread, must not be waited for.
fn joined() {
    let pool = pool(Context::Fork);
    let mut results = pool.imap(|x: u32| x, 0.., 1).unwrap();
    assert_eq!(results.next().unwrap().unwrap(), 0);
    pool.close();
    pool.join().unwrap();
    let mut next = 1;
    let last = loop {
        match results.next().unwrap() {
            Ok(value) => assert_eq!(value, next),
            Err(error) => break error,
        }
        next += 1;
    };
    assert!(matches!(last.kind(), ErrorKind::Closed), "{last:?}");
    assert!(next > 1, "work that was submitted is done");
    assert!(results.next().is_none());
}

fn terminated() {
    let pool = pool(Context::Fork);
    let gate = Sign::new();
    let mut results = pool.imap(gated, (0..100).map(|x| (gate.path(), x)), 1).unwrap();
    for x in 0..3 {
        assert_eq!(results.next().unwrap().unwrap(), x);
    }
    pool.terminate();
    let rest: Vec<_> = results.by_ref().collect();
    assert!(!rest.is_empty());
    let last = rest.last().unwrap().as_ref().unwrap_err();
    assert!(matches!(last.kind(), ErrorKind::Terminated), "{last:?}");
    assert!(results.next().is_none());
}
