//! `map`, `starmap` and their asynchronous forms.

use super::pool;
use libtest_mimic::Trial;
use ringpool::{Context, ErrorKind};
use ringpool_tests::signs::{Sign, wait_for_note};
use ringpool_tests::{in_contexts, test};
use std::sync::mpsc;
use std::time::Duration;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);
const CHUNKSIZES: [Option<usize>; 5] = [None, Some(1), Some(3), Some(64), Some(1_000_000)];
const LENGTHS: [u32; 6] = [0, 1, 2, 7, 64, 501];

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![];
    tests.extend(in_contexts("map", map));
    tests.extend(in_contexts("starmap", starmap));
    tests.extend(in_contexts("map with failing items", failing));
    tests.extend(in_contexts("map with time-out", timeout));
    tests.push(test("a chunk runs in one worker, in order", chunks));
    tests.push(test("map of nothing", nothing));
    tests.push(test("a chunk size of 0", no_chunksize));
    tests.push(test("map callbacks", callbacks));
    tests.push(test("many maps at once", many));
    tests.push(test("inputs that panic", bad_inputs));
    tests.push(test("inputs that say wrongly how long they are", liars));
    tests.push(test("inputs that use the pool", inputs_that_call));
    tests
}

fn words(x: u32) -> String {
    format!("{x}, ").repeat(x as usize % 40)
}

fn check(x: u32) -> Result<u32, ringpool::TaskError> {
    match x % 10 {
        3 => Err(ringpool::TaskError::msg(format!("{x} fails"))),
        7 => panic!("{x} panics"),
        _ => Ok(x * 2),
    }
}

fn map(context: Context) {
    let pool = pool(context);
    for len in LENGTHS {
        let serial: Vec<String> = (0..len).map(words).collect();
        assert_eq!(pool.map(words, 0..len).unwrap(), serial);
        let flat: Vec<u64> = (0..len).map(|x| u64::from(x) * 3).collect();
        for chunksize in CHUNKSIZES {
            let result = pool.map_async(words, 0..len, chunksize).unwrap();
            assert_eq!((result.len(), result.is_empty()), (len as usize, len == 0));
            assert_eq!(result.get().unwrap(), serial, "{len} items, chunk size {chunksize:?}");
            assert_eq!(result.get().unwrap(), serial, "again");
            assert_eq!((result.ready(), result.successful()), (true, Some(true)));
            // Numbers travel as arrays.
            let numbers = pool.map_async(|x: u32| u64::from(x) * 3, 0..len, chunksize).unwrap();
            assert_eq!(numbers.get().unwrap(), flat, "{len} numbers, chunk size {chunksize:?}");
        }
    }
}

fn starmap(context: Context) {
    let pool = pool(context);
    let join = |a: String, b: u32, c: bool| format!("{a} {b} {c}");
    for len in LENGTHS {
        let items = || (0..len).map(|i| (words(i), i, i % 2 == 0));
        let serial: Vec<String> = items().map(|(a, b, c)| join(a, b, c)).collect();
        assert_eq!(pool.starmap(join, items()).unwrap(), serial);
        for chunksize in CHUNKSIZES {
            let result = pool.starmap_async(join, items(), chunksize).unwrap();
            assert_eq!(result.get().unwrap(), serial, "{len} items, chunk size {chunksize:?}");
        }
        // One argument, and none.
        let single = pool.starmap(|x: u32| x + 1, (0..len).map(|x| (x,))).unwrap();
        assert_eq!(single, (1..=len).collect::<Vec<_>>());
        assert_eq!(pool.starmap(|| 5_u8, vec![(); len as usize]).unwrap(), vec![5; len as usize]);
    }
}

fn failing(context: Context) {
    let pool = pool(context);
    for chunksize in CHUNKSIZES {
        let result = pool.map_async(check, 0..100, chunksize).unwrap();
        let first = result.get().unwrap_err();
        assert_eq!(first.to_string(), "the task failed: 3 fails", "chunk size {chunksize:?}");
        assert_eq!((result.ready(), result.successful()), (true, Some(false)));
        let each = result.get_each().unwrap();
        assert_eq!(each.len(), 100);
        for (x, one) in (0..).zip(each) {
            match (x % 10, one) {
                (3, Err(error)) => assert_eq!(error.to_string(), format!("the task failed: {x} fails")),
                (7, Err(error)) => {
                    let ErrorKind::Panicked { message, place } = error.kind() else { panic!("{error:?}") };
                    assert_eq!(*message, format!("{x} panics"));
                    assert!(place.contains("map.rs"), "{place}");
                }
                (_, Ok(value)) => assert_eq!(value, 2 * x),
                (_, other) => panic!("item {x} gave {other:?}"),
            }
        }
    }
    // The first item that fails counts, not the first to have failed.
    let error = pool
        .map_async(
            |x: u32| {
                std::thread::sleep(Duration::from_millis(u64::from(4 - x) * 5));
                assert!(x == 0, "item {x}");
                x
            },
            0..4,
            Some(1),
        )
        .unwrap()
        .get()
        .unwrap_err();
    assert!(error.is_panic() && error.to_string().ends_with("item 1"), "{error}");
}

fn timeout(context: Context) {
    let pool = pool(context);
    for chunksize in [Some(1), Some(3)] {
        let gate = Sign::new();
        let wait = |gate: String, x: u32| {
            if x == 5 {
                wait_for_note(&gate);
            }
            x
        };
        let result = pool.starmap_async(wait, (0..10).map(|x| (gate.path(), x)), chunksize).unwrap();
        assert!(result.get_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
        assert!(!result.wait(Some(Duration::ZERO)));
        assert_eq!((result.ready(), result.successful()), (false, None));
        gate.open();
        assert_eq!(result.get_timeout(LONG).unwrap(), (0..10).collect::<Vec<_>>());
        assert!(result.wait(None));
    }
}

fn chunks() {
    let pool = pool(Context::Fork);
    let order = |_: u32| {
        use std::sync::atomic::{AtomicU32, Ordering};
        static CALLS: AtomicU32 = AtomicU32::new(0);
        (std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed))
    };
    let calls = pool.map_async(order, 0..103, Some(10)).unwrap().get().unwrap();
    for chunk in calls.chunks(10) {
        for pair in chunk.windows(2) {
            assert_eq!(pair[1], (pair[0].0, pair[0].1 + 1));
        }
    }
}

fn nothing() {
    let pool = pool(Context::Fork);
    assert!(pool.map(words, []).unwrap().is_empty());
    let result = pool.map_async(words, [], Some(4)).unwrap();
    assert!(result.is_empty() && result.ready() && result.wait(Some(Duration::ZERO)));
    assert_eq!(result.successful(), Some(true));
    assert!(result.get_each().unwrap().is_empty());
    assert!(result.get_timeout(Duration::ZERO).unwrap().is_empty());
}

fn no_chunksize() {
    let pool = pool(Context::Fork);
    let error = pool.map_async(words, 0..3, Some(0)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Invalid { .. }), "{error:?}");
    assert!(error.to_string().contains("chunk size"), "{error}");
    assert!(pool.starmap_async(words, [(1,)], Some(0)).is_err());
}

fn callbacks() {
    let pool = pool(Context::Fork);
    let (tell, told) = mpsc::channel();
    for (len, chunksize) in [(1, Some(1)), (10, None), (100, Some(7))] {
        let (good, bad) = (tell.clone(), tell.clone());
        drop(
            pool.map_async(|x: u32| x + 1, 0..len, chunksize)
                .unwrap()
                .callback(move |values| good.send(Ok(values)).unwrap())
                .error_callback(move |error| bad.send(Err(error.to_string())).unwrap()),
        );
        assert_eq!(told.recv_timeout(LONG).unwrap(), Ok((1..=len).collect::<Vec<_>>()));
    }
    let (good, bad) = (tell.clone(), tell);
    drop(
        pool.map_async(check, 0..50, Some(5))
            .unwrap()
            .callback(move |values| good.send(Ok(values)).unwrap())
            .error_callback(move |error| bad.send(Err(error.to_string())).unwrap()),
    );
    assert_eq!(told.recv_timeout(LONG).unwrap(), Err("the task failed: 3 fails".to_owned()));
    pool.close();
    pool.join().unwrap();
    assert_eq!(told.try_iter().count(), 0, "each map has told of one thing only");
}

fn many() {
    let pool = pool(Context::Fork);
    let results: Vec<_> =
        (0..50_u32).map(|i| pool.map_async(|x: u32| x / 2, 0..20 * i, None).unwrap()).collect();
    for (i, result) in results.iter().enumerate().rev() {
        assert_eq!(result.get().unwrap(), (0..20 * i as u32).map(|x| x / 2).collect::<Vec<_>>());
    }
}

/// An input that panics costs nothing but its own call.
/// An iterator that says that it has so many items.
struct Says<I>(I, usize);

impl<I: Iterator> Iterator for Says<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.1, Some(self.1))
    }
}

fn note(path: String) {
    ringpool_tests::signs::note(&path, "started");
}

/// What has begun by then is done, and nothing else.
fn bad_inputs() {
    for known in [true, false] {
        let pool = pool(Context::Fork);
        let started = Sign::new();
        let items = (0..10).filter(|_| !known).chain((0..10).filter(|_| known)).map(|i| {
            assert!(i < 9, "the input ends badly");
            started.path()
        });
        let run = || match known {
            true => pool.map_async(note, Says(items, 10), Some(1)),
            false => pool.map_async(note, items, Some(1)),
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err());
        assert_eq!(pool.map(words, 0..3).unwrap().len(), 3);
        pool.close();
        pool.join().unwrap();
        assert!(started.count() <= if known { 9 } else { 0 }, "{} were started", started.count());
    }
}

fn liars() {
    let pool = pool(Context::Fork);
    for says in [0, 1, 2, 7, 50, 100, 1000] {
        for chunksize in CHUNKSIZES {
            let numbers = pool.map_async(|x: u64| x + 1, Says(0..50, says), chunksize).unwrap();
            assert_eq!(numbers.len(), 50, "{says}, {chunksize:?}");
            assert!(numbers.get().unwrap().into_iter().eq(1..51), "{says}, {chunksize:?}");
            let texts = pool.map_async(words, Says(0..50, says), chunksize).unwrap();
            assert!(texts.get().unwrap().into_iter().eq((0..50).map(words)), "{says}, {chunksize:?}");
        }
    }
}

/// Each item is the result of a call that is made when it is asked for.
fn inputs_that_call() {
    let pool = pool(Context::Fork);
    let items = (0..100_u64).map(|x| pool.apply(|x: u64| x * 2, (x,)).unwrap());
    assert!(pool.map(|x: u64| x + 1, items).unwrap().into_iter().eq((0..100).map(|x| 2 * x + 1)));
}
