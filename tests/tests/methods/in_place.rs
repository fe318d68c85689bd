//! Results that tasks make where they will lie.

use super::pool;
use libtest_mimic::Trial;
use ringpool::{Context, ErrorKind, Pod, Pool, ResultSlice, TaskError, fallible};
use ringpool_tests::audit::expect_whole;
use ringpool_tests::{in_contexts, test};
use std::cell::RefCell;

pub fn tests() -> Vec<Trial> {
    let mut tests = in_contexts("in place: of all sizes", sizes);
    tests.extend(in_contexts("in place: in the worker's memory", where_they_are));
    tests.push(test("in place: shorter than planned", shorter));
    tests.push(test("in place: one of several", several));
    tests.push(test("in place: after failures", failures));
    tests.push(test("in place: inside of results", fallible_ones));
    tests.push(test("in place: items of a map", items));
    tests.push(test("in place: in a hardened pool", hardened));
    tests.push(test("in place: in other threads", other_threads));
    tests.push(test("in place: kept beyond the task", kept));
    tests.push(test("in place: beyond the quota", beyond_the_quota));
    tests.push(test("in place: without a pool", without_a_pool));
    tests.push(test("in place: held by who looks", held));
    tests.push(test("slices that are not zeroed", unset));
    tests
}

/// Around every limit where bytes move elsewhere.
const SIZES: [u64; 20] =
    [0, 1, 2, 4, 5, 8, 31, 32, 33, 40, 60, 64, 500, 512, 513, 8192, 131_072, (1 << 18) - 4, 1 << 18, 700_000];

fn squares(len: u64) -> ResultSlice<u64> {
    ResultSlice::new(len as usize, |items| {
        for (item, x) in items.iter_mut().zip(0..) {
            *item = x * x;
        }
    })
}

fn are_squares(items: &[u64], len: u64) -> bool {
    items.iter().copied().eq((0..len).map(|x| x * x))
}

fn sizes(context: Context) {
    let pool = pool(context);
    for len in SIZES {
        assert!(are_squares(&pool.apply(squares, (len,)).unwrap(), len), "{len}");
        let result = pool.apply_async(squares, (len,)).unwrap();
        assert!(are_squares(result.view().unwrap().as_slice(), len), "{len}, in place");
        let bytes = pool.apply(|len: u64| ResultSlice::new(len as usize, |b: &mut [u8]| b.fill(7)), (len,));
        assert_eq!(bytes.unwrap(), vec![7; len as usize]);
    }
    let triples = |len: u32| {
        ResultSlice::new(len as usize, |items: &mut [[f32; 3]]| {
            items.iter_mut().enumerate().for_each(|(i, item)| *item = [i as f32, 1.0, 0.5]);
        })
    };
    let back = pool.apply(triples, (1000,)).unwrap();
    assert!(back.into_iter().eq((0..1000).map(|i| [i as f32, 1.0, 0.5])));
    expect_whole(&pool);
}

/// Whether these lie in a pool's payload memory.
fn is_shared<T: Pod>(items: &[T]) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let address = items.as_ptr() as usize;
    let line = maps.lines().find(|line| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        (usize::from_str_radix(start, 16).unwrap()..usize::from_str_radix(end, 16).unwrap())
            .contains(&address)
    });
    line.is_some_and(|line| line.contains("ringpool-data"))
}

/// The first item says whether the task wrote it in shared memory, and where it was in its block.
fn place(len: u64) -> ResultSlice<u64> {
    ResultSlice::new(len as usize, |items| {
        items.fill(0);
        (items[0], items[1]) = (is_shared(items).into(), items.as_ptr() as u64 % 4096);
    })
}

fn where_they_are(context: Context) {
    let pool = pool(context);
    for len in [100, 10_000, 1_000_000] {
        let result = pool.apply_async(place, (len,)).unwrap();
        let view = result.view().unwrap();
        let items = view.as_slice();
        assert_eq!((items.len() as u64, items[0]), (len, 1), "made in shared memory");
        assert!(is_shared(items), "and looked at in shared memory");
        assert_eq!(items[1], items.as_ptr() as u64 % 4096, "not moved within its page");
    }
    // Short ones travel in the slot.
    assert_eq!(pool.apply(place, (2,)).unwrap()[0], 0);
}

fn shorter() {
    fn evens(numbers: Vec<u64>) -> ResultSlice<u64> {
        ResultSlice::up_to(numbers.len(), |out| {
            let mut len = 0;
            for number in numbers.iter().filter(|&number| number % 2 == 0) {
                out[len] = *number;
                len += 1;
            }
            len
        })
    }
    fn too_many(_: u64) -> ResultSlice<u64> {
        ResultSlice::up_to(1000, |_| 1001)
    }
    let pool = pool(Context::Fork);
    for len in SIZES {
        let result = pool.apply(evens, ((0..len).collect(),)).unwrap();
        assert!(result.into_iter().eq((0..len).step_by(2)), "{len}");
    }
    assert!(pool.apply(too_many, (0,)).unwrap_err().is_panic());
    expect_whole(&pool);
}

fn several() {
    /// Makes as many as it returns items, and returns one of them.
    fn one_of(count: u64, which: u64) -> ResultSlice<u64> {
        let all = (0..count).map(|i| ResultSlice::new(1000 + i as usize, |items| items.fill(i)));
        let mut all: Vec<ResultSlice<u64>> = all.collect();
        all.iter_mut().for_each(|slice| slice.edit(|items| items[0] += 100));
        all.swap_remove(which as usize)
    }
    fn none(len: u64) -> u64 {
        squares(len).edit(|items| items.iter().sum())
    }
    let pool = pool(Context::Fork);
    for which in 0..5 {
        let mut right = vec![which; 1000 + which as usize];
        right[0] += 100;
        assert_eq!(pool.apply(one_of, (5, which)).unwrap(), right);
    }
    assert_eq!(pool.apply(none, (2000,)).unwrap(), (0..2000).map(|x| x * x).sum::<u64>());
    expect_whole(&pool);
}

fn failures() {
    fn panics(when: u32) -> ResultSlice<u64> {
        let result = ResultSlice::new(100_000, |_| assert!(when != 0, "while it is filled"));
        assert!(when != 1, "when it is filled");
        result
    }
    fn fails(_: u32) -> Result<ResultSlice<u64>, TaskError> {
        let _result = squares(100_000);
        Err(TaskError::msg("on second thoughts"))
    }
    let pool = pool(Context::Fork);
    for when in 0..2 {
        assert!(pool.apply(panics, (when,)).unwrap_err().is_panic());
    }
    match pool.apply(fails, (0,)).unwrap_err().kind() {
        ErrorKind::Failed { message } => assert_eq!(message, "on second thoughts"),
        other => panic!("{other:?}"),
    }
    expect_whole(&pool);
}

fn fallible_ones() {
    fn checked(len: u64) -> Result<ResultSlice<u64>, TaskError> {
        if len > 1000 { Err(TaskError::msg("too long")) } else { Ok(squares(len)) }
    }
    fn parsed(text: String) -> Result<ResultSlice<u64>, std::num::ParseIntError> {
        text.parse().map(squares)
    }
    fn told(len: u64) -> Result<ResultSlice<u64>, String> {
        if len > 1000 { Err(format!("{len} is too long")) } else { Ok(squares(len)) }
    }
    let pool = pool(Context::Fork);
    assert!(are_squares(&pool.apply(checked, (900,)).unwrap(), 900));
    assert!(pool.apply(checked, (1001,)).is_err());
    assert!(are_squares(&pool.apply(parsed, ("800".to_owned(),)).unwrap(), 800));
    assert!(pool.apply(parsed, ("eight".to_owned(),)).is_err());
    assert!(are_squares(&pool.apply(fallible(told), (700,)).unwrap(), 700));
    assert!(pool.apply(fallible(told), (1001,)).is_err());
    assert!(are_squares(&pool.apply(ringpool::plain(squares), (600,)).unwrap(), 600));
}

fn items() {
    let pool = pool(Context::Fork);
    for chunksize in [None, Some(1), Some(7), Some(100)] {
        let results = pool.map_async(squares, 0..100, chunksize).unwrap().get().unwrap();
        for (len, result) in (0..100).zip(results) {
            assert!(are_squares(&result, len), "{len} in chunks of {chunksize:?}");
        }
    }
    let streamed = pool.imap(squares, 0..300, 9).unwrap();
    assert!(streamed.zip(0..).all(|(result, len)| are_squares(&result.unwrap(), len)));
    expect_whole(&pool);
}

fn hardened() {
    let pool = Pool::builder().processes(2).hardened(true).start().unwrap();
    for len in SIZES {
        let result = pool.apply_async(squares, (len,)).unwrap();
        assert!(are_squares(result.view().unwrap().as_slice(), len), "{len}");
    }
    expect_whole(&pool);
}

fn other_threads() {
    /// Made, worked on and dropped there; what comes back is made here.
    fn threads(len: u64) -> ResultSlice<u64> {
        let sum = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(move || {
                        squares(len).edit(|items| {
                            assert!(!is_shared(items));
                            items.iter().sum::<u64>()
                        })
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
        });
        // Threads may help to fill it.
        ResultSlice::new(len as usize, |items| {
            let (front, back) = items.split_at_mut(items.len() / 2);
            std::thread::scope(|scope| {
                scope.spawn(|| front.fill(sum));
                scope.spawn(|| back.fill(sum + 1));
            });
        })
    }
    let pool = pool(Context::Fork);
    let sum = 4 * (0..1000).map(|x| x * x).sum::<u64>();
    let result = pool.apply(threads, (1000,)).unwrap();
    assert_eq!(result, [vec![sum; 500], vec![sum + 1; 500]].concat());
    expect_whole(&pool);
}

thread_local! {
    static KEPT: RefCell<Option<ResultSlice<u64>>> = const { RefCell::new(None) };
}

fn kept() {
    fn keep(len: u64) {
        KEPT.set(Some(squares(len)));
    }
    fn change(_: u64) -> u64 {
        KEPT.with_borrow_mut(|kept| {
            kept.as_mut().unwrap().edit(|items| {
                items[0] += 1;
                items.iter().sum()
            })
        })
    }
    fn send(_: u64) -> Result<ResultSlice<u64>, TaskError> {
        KEPT.take().ok_or(TaskError::msg("it is gone"))
    }
    let pool = Pool::new(1).unwrap();
    pool.apply(keep, (10_000,)).unwrap();
    let sum: u64 = (0..10_000).map(|x| x * x).sum();
    let mut others = Vec::new();
    for round in 1..=20 {
        // Others get other memory.
        others.push(pool.apply_async(squares, (10_000,)).unwrap());
        assert_eq!(pool.apply(change, (0,)).unwrap(), sum + round);
    }
    let result = pool.apply_async(send, (0,)).unwrap();
    assert_eq!(result.view().unwrap().as_slice()[0], 20);
    assert!(others.iter().all(|other| are_squares(other.view().unwrap().as_slice(), 10_000)));
    assert!(pool.apply(send, (0,)).is_err());
    expect_whole(&pool);
    // Its worker ends with one; that harms nobody.
    pool.apply(keep, (10_000,)).unwrap();
    pool.close();
    pool.join().unwrap();
}

fn beyond_the_quota() {
    let pool = Pool::builder().processes(1).arena_reserve(4 << 20).arena_quota(4 << 20).start().unwrap();
    let error = pool.apply(squares, (1 << 20,)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ArenaFull { .. }), "{error:?}");
    assert!(are_squares(&pool.apply(squares, (1 << 18,)).unwrap(), 1 << 18));
    expect_whole(&pool);
}

fn without_a_pool() {
    let mut result = squares(1000);
    assert_eq!((result.len(), result.is_empty()), (1000, false));
    result.edit(|items| assert!(are_squares(items, 1000) && !is_shared(items)));
    assert!(squares(0).is_empty());
}

/// A result that somebody looks at is not written over by those that come after it.
fn held() {
    let pool = Pool::new(1).unwrap();
    let constant = |x: u64| ResultSlice::new(50_000, move |items: &mut [u64]| items.fill(x));
    let mut views = Vec::new();
    for x in 0..200_u64 {
        views.push((x, pool.apply_async(constant, (x,)).unwrap().view().unwrap()));
        if x % 3 == 0 {
            views.swap_remove((x as usize * 7) % views.len());
        }
    }
    assert!(views.iter().all(|(x, view)| view.as_slice().iter().all(|item| item == x)));
    drop(views);
    expect_whole(&pool);
}

fn unset() {
    let pool = Pool::new(1).unwrap();
    for len in [0, 1, 100, 1 << 20] {
        let mut slice = pool.alloc_unset::<u32>(len).unwrap();
        slice.fill(9);
        assert_eq!(slice.len(), len);
        let sum =
            pool.apply(|s: &ringpool::ArchivedSharedSlice<u32>| s.iter().sum::<u32>(), (slice.share(),));
        assert_eq!(sum.unwrap(), 9 * len as u32);
        // The other kind is zero, whatever was there.
        assert!(pool.alloc::<u32>(len).unwrap().iter().all(|&item| item == 0));
    }
}
