//! Many threads that use one pool in all ways at once.

use libtest_mimic::Trial;
use ringpool::{ArchivedSharedSlice, Context, Pool, TaskError, named};
use ringpool_tests::{SetOnDrop, eventually, in_contexts, test};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let mut tests = in_contexts("eight threads", eight_threads);
    tests.push(test("named task under a flood of others", named_under_a_flood));
    tests.push(test("six threads map at once", six_threads_map));
    tests
}

const ROUNDS: u64 = 40;

/// Results of all sizes: in a slot's word, in the slot, in a block.
fn repeat(x: u64) -> Vec<u64> {
    vec![x; (x % 5 * x % 300) as usize]
}

fn even(x: u64) -> Result<u64, TaskError> {
    if x.is_multiple_of(2) { Ok(x) } else { Err(TaskError::msg(x)) }
}

fn eight_threads(context: Context) {
    // Fewer slots than tasks, so that threads wait for each other.
    let pool = Pool::builder().processes(3).slots(32).context(context).start().unwrap();
    std::thread::scope(|threads| {
        for thread in 0..8_u64 {
            let pool = &pool;
            threads.spawn(move || {
                for round in 0..ROUNDS {
                    use_pool(pool, thread + round, 1000 * thread + round);
                }
            });
        }
    });
    pool.close();
    pool.join().unwrap();
}

fn use_pool(pool: &Pool, which: u64, x: u64) {
    let items = x..x + 30;
    let serial: Vec<Vec<u64>> = items.clone().map(repeat).collect();
    match which % 8 {
        0 => assert_eq!(pool.apply(repeat, (x,)).unwrap(), repeat(x)),
        1 => {
            let results: Vec<_> = items.map(|x| pool.apply_async(repeat, (x,)).unwrap()).collect();
            let got: Vec<_> = results.iter().rev().map(|result| result.get().unwrap()).rev().collect();
            assert_eq!(got, serial);
        }
        2 => assert_eq!(pool.map(repeat, items).unwrap(), serial),
        3 => assert_eq!(pool.map_async(repeat, items, Some(1)).unwrap().get().unwrap(), serial),
        4 => {
            let got: Vec<_> = pool.imap(repeat, x.., 2).unwrap().take(30).map(Result::unwrap).collect();
            assert_eq!(got, serial);
        }
        5 => {
            let mut got: Vec<_> =
                pool.imap_unordered(repeat, items, 1).unwrap().map(Result::unwrap).collect();
            let mut serial = serial;
            got.sort_unstable();
            serial.sort_unstable();
            assert_eq!(got, serial);
        }
        6 => {
            let each = pool.map_async(even, items.clone(), Some(4)).unwrap().get_each().unwrap();
            for (x, result) in items.zip(each) {
                assert_eq!(result.ok(), x.is_multiple_of(2).then_some(x));
            }
            let (tell, told) = mpsc::channel();
            drop(pool.apply_async(repeat, (x,)).unwrap().callback(move |value| tell.send(value).unwrap()));
            assert_eq!(told.recv().unwrap(), repeat(x));
        }
        _ => {
            let mut slice = pool.alloc::<u64>(2000).unwrap();
            slice.fill(x);
            let sum = |slice: &ArchivedSharedSlice<u64>| slice.iter().sum::<u64>();
            let view = pool.apply_async(sum, (slice.share(),)).unwrap();
            assert_eq!(view.view().unwrap().to_native(), 2000 * x);
        }
    }
}

fn double(x: u64) -> u64 {
    2 * x
}

fn nap(x: u64) -> u64 {
    std::thread::sleep(Duration::from_micros(300));
    x
}

/// Tasks by name queue by themselves; the workers come to them however many others there are.
fn named_under_a_flood() {
    let pool = Pool::builder().processes(2).start().unwrap();
    let (flows, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut under_way = VecDeque::new();
            while !over.load(Ordering::Relaxed) {
                under_way.push_back(pool.apply_async(nap, (1,)).unwrap());
                if under_way.len() > 200 {
                    under_way.pop_front().unwrap().get().unwrap();
                    flows.store(true, Ordering::Relaxed);
                }
            }
        });
        let _end_of_flood = SetOnDrop(&over);
        eventually("the flood runs", Duration::from_secs(10), || flows.load(Ordering::Relaxed));
        for _ in 0..10 {
            let result = pool.apply_async(named::<(u64,), u64>("double"), (21,)).unwrap();
            let value = result.get_timeout(Duration::from_secs(30));
            assert_eq!(value.expect("its turn, while the flood goes on"), 42);
        }
    });
}

/// Every map has its own values, in the order of its items.
fn six_threads_map() {
    let pool = Pool::builder().processes(2).start().unwrap();
    std::thread::scope(|threads| {
        for thread in 0..6_u64 {
            let pool = &pool;
            threads.spawn(move || {
                for round in 0..300 {
                    let first = 100_000 * thread + 24 * round;
                    let serial: Vec<u64> = (first..first + 24).map(double).collect();
                    let result = pool.map_async(double, first..first + 24, Some(1)).unwrap();
                    assert_eq!(result.get().unwrap(), serial);
                }
            });
        }
    });
}
