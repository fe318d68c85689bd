//! Whatever the input and the settings: every method gives what the same function gives without a pool.

use libtest_mimic::Trial;
use proptest::collection::{btree_map, hash_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use ringpool::rkyv::{self, Archive};
use ringpool::{Context, Payload, Pool, Task, TaskError};
use ringpool_tests::test;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

fn main() {
    ringpool::init();
    ringpool_tests::run(tests())
}

fn tests() -> Vec<Trial> {
    vec![
        test("numbers", || check(40, any::<u64>(), mix)),
        test("nothing", || check(20, Just(()), |(): ()| ())),
        test("texts", || check(40, ".{0,40}", reverse)),
        test("tuples", || check(40, any::<Mixed>(), turn)),
        test("nested collections", || check(40, nested(), flatten)),
        test("maps", || check(30, hash_map(any::<u16>(), ".{0,8}", 0..12), invert)),
        test("own types", || check(40, shape(), mirror)),
        test("values that fail to be results", || {
            check(30, any::<i32>(), |x: i32| x.checked_mul(3).ok_or("too large".to_owned()))
        }),
        test("failures at any place", failures),
        test("several arguments", several_arguments),
        test("payloads of any size", sizes),
        test("slices of any size", slices),
    ]
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() })
}

/// Pools of all kinds. Starting one for each case would take most of the time.
fn pools() -> Vec<Pool> {
    let builder = |processes, context| Pool::builder().processes(processes).context(context);
    [
        builder(1, Context::Fork),
        builder(2, Context::Spawn),
        builder(3, Context::ForkServer).retries(3),
        builder(5, Context::Fork).slots(2),
        builder(16, Context::Fork).retries(14),
        builder(2, Context::Fork).max_tasks_per_child(5),
        builder(4, Context::ForkServer).max_tasks_per_child(1).slots(8),
    ]
    .map(|builder| builder.start().unwrap())
    .into()
}

/// Which pool, how large the chunks are, and whether a chunk size is given to `map` at all.
fn settings() -> impl Strategy<Value = (usize, usize, bool)> {
    (0..7_usize, prop_oneof![Just(1), 1..20_usize, Just(1000)], any::<bool>())
}

/// All methods against the serial result.
fn check<T, R, M, F>(cases: u32, item: impl Strategy<Value = T>, f: F)
where
    T: Payload + Clone + Debug,
    R: Payload + PartialEq + Debug,
    F: Fn(T) -> R + Task<(T,), M, Value = R>,
{
    let pools = pools();
    let input = (settings(), vec(item, 0..60));
    let result = runner(cases).run(&input, |((pool, chunksize, given), items)| {
        let pool = &pools[pool];
        let serial: Vec<R> = items.iter().cloned().map(f).collect();
        let input = || items.iter().cloned();

        let results: Vec<_> = input().take(10).map(|item| pool.apply_async(f, (item,)).unwrap()).collect();
        for (result, right) in results.iter().zip(&serial).rev() {
            prop_assert_eq!(&result.get().unwrap(), right);
        }
        if let Some(item) = input().next() {
            prop_assert_eq!(&pool.apply(f, (item,)).unwrap(), &serial[0]);
        }
        let chunks = given.then_some(chunksize);
        prop_assert_eq!(&pool.map(f, input()).unwrap(), &serial);
        prop_assert_eq!(&pool.map_async(f, input(), chunks).unwrap().get().unwrap(), &serial);
        let each = pool.map_async(f, input(), chunks).unwrap().get_each().unwrap();
        prop_assert_eq!(&each.into_iter().map(Result::unwrap).collect::<Vec<_>>(), &serial);
        let tuples = input().map(|item| (item,));
        prop_assert_eq!(&pool.starmap_async(f, tuples, chunks).unwrap().get().unwrap(), &serial);
        let ordered = pool.imap(f, input(), chunksize).unwrap();
        prop_assert_eq!(&ordered.map(Result::unwrap).collect::<Vec<_>>(), &serial);
        let narrow = pool.imap(f, input(), chunksize).unwrap().buffersize(1);
        prop_assert_eq!(&narrow.map(Result::unwrap).collect::<Vec<_>>(), &serial);

        // In another order, so each result is struck off.
        let mut left = serial;
        for result in pool.imap_unordered(f, input(), chunksize).unwrap() {
            let result = result.unwrap();
            let place = left.iter().position(|right| *right == result);
            prop_assert!(place.is_some(), "{result:?} is the result of no item");
            left.swap_remove(place.unwrap());
        }
        prop_assert!(left.is_empty(), "nothing came for {left:?}");
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn mix(x: u64) -> u64 {
    x.rotate_left(17) ^ 0x9e37_79b9_7f4a_7c15
}

fn reverse(text: String) -> String {
    text.chars().rev().collect()
}

type Mixed = (u8, i16, Option<char>, [i32; 3], (bool, u128));

fn turn((a, b, c, d, e): Mixed) -> ((u128, bool), [i32; 3], Option<char>, i16, u8) {
    ((e.1, e.0), [d[2], d[1], d[0]], c, b, a)
}

type Nested = Vec<Option<(String, Vec<Vec<u16>>)>>;

fn nested() -> impl Strategy<Value = Nested> {
    vec(proptest::option::of((".{0,12}", vec(vec(any::<u16>(), 0..5), 0..4))), 0..6)
}

fn flatten(nested: Nested) -> (Vec<String>, Vec<u16>) {
    let (texts, numbers): (Vec<_>, Vec<_>) = nested.into_iter().flatten().unzip();
    (texts, numbers.into_iter().flatten().flatten().collect())
}

fn invert(map: HashMap<u16, String>) -> BTreeMap<String, Vec<u16>> {
    let mut inverted: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    map.into_iter().for_each(|(key, text)| inverted.entry(text).or_default().push(key));
    inverted.values_mut().for_each(|keys| keys.sort_unstable());
    inverted
}

#[derive(Archive, rkyv::Serialize, rkyv::Deserialize, Clone, PartialEq, Debug)]
#[rkyv(crate = ringpool::rkyv)]
enum Shape {
    Nothing,
    Circle { name: String, radius: i64 },
    Group(Vec<Point>, Option<Box<Point>>, BTreeMap<u8, Point>),
}

#[derive(Archive, rkyv::Serialize, rkyv::Deserialize, Clone, PartialEq, Debug)]
#[rkyv(crate = ringpool::rkyv)]
struct Point {
    x: i32,
    y: i32,
}

fn point() -> impl Strategy<Value = Point> {
    (any::<i32>(), any::<i32>()).prop_map(|(x, y)| Point { x, y })
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Nothing),
        (".{0,10}", any::<i64>()).prop_map(|(name, radius)| Shape::Circle { name, radius }),
        (
            vec(point(), 0..8),
            proptest::option::of(point().prop_map(Box::new)),
            btree_map(any::<u8>(), point(), 0..4)
        )
            .prop_map(|(a, b, c)| Shape::Group(a, b, c)),
    ]
}

fn mirror(shape: Shape) -> Shape {
    let turn = |Point { x, y }| Point { x: y, y: x };
    match shape {
        Shape::Nothing => Shape::Circle { name: "nothing".to_owned(), radius: -1 },
        Shape::Circle { name, radius } if radius % 2 == 0 => Shape::Circle { name: reverse(name), radius },
        Shape::Circle { .. } => Shape::Nothing,
        Shape::Group(points, single, map) => Shape::Group(
            points.into_iter().rev().map(turn).collect(),
            single.map(|point| Box::new(turn(*point))),
            map.into_iter().map(|(key, point)| (key, turn(point))).collect(),
        ),
    }
}

/// What a task shall do.
fn act(what: u8) -> Result<u8, TaskError> {
    match what {
        0 => Err(TaskError::msg("an error")),
        1 => panic!("a panic"),
        other => Ok(other),
    }
}

fn failures() {
    let pools = pools();
    let input = (settings(), vec(0..12_u8, 0..60));
    let result = runner(40).run(&input, |((pool, chunksize, given), items)| {
        let pool = &pools[pool];
        let chunks = given.then_some(chunksize);
        let agrees = |what: u8, result: &ringpool::Result<u8>| match (what, result) {
            (0, Err(error)) => error.is_task_error() && error.to_string().ends_with("an error"),
            (1, Err(error)) => error.is_panic() && error.to_string().ends_with("a panic"),
            (_, Ok(value)) => *value == what && what > 1,
            (_, Err(_)) => false,
        };
        let map = pool.map_async(act, items.clone(), chunks).unwrap();
        let each = map.get_each().unwrap();
        prop_assert_eq!(each.len(), items.len());
        prop_assert!(items.iter().zip(&each).all(|(&what, result)| agrees(what, result)), "{:?}", each);
        match (items.iter().find(|&&what| what < 2), map.get()) {
            (None, Ok(values)) => prop_assert_eq!(&values, &items),
            (Some(&what), Err(error)) => prop_assert!(agrees(what, &Err(error)), "the first one counts"),
            (first, result) => prop_assert!(false, "{first:?} gave {result:?}"),
        }
        let results: Vec<_> = pool.imap(act, items.clone(), chunksize).unwrap().collect();
        prop_assert_eq!(results.len(), items.len());
        prop_assert!(items.iter().zip(&results).all(|(&what, result)| agrees(what, result)), "{:?}", results);
        let unordered = pool.imap_unordered(act, items.clone(), chunksize).unwrap();
        let failed = unordered.filter(Result::is_err).count();
        prop_assert_eq!(failed, items.iter().filter(|&&what| what < 2).count());
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn several_arguments() {
    let pools = pools();
    let join = |a: String, b: Option<i64>, c: Vec<bool>, d: u8| (format!("{a}{b:?}{c:?}"), d);
    let item = (".{0,9}", any::<Option<i64>>(), vec(any::<bool>(), 0..9), any::<u8>());
    let result = runner(40).run(&(settings(), vec(item, 0..60)), |((pool, chunksize, given), items)| {
        let pool = &pools[pool];
        let serial: Vec<_> = items.iter().cloned().map(|(a, b, c, d)| join(a, b, c, d)).collect();
        let chunks = given.then_some(chunksize);
        prop_assert_eq!(&pool.starmap(join, items.clone()).unwrap(), &serial);
        prop_assert_eq!(&pool.starmap_async(join, items.clone(), chunks).unwrap().get().unwrap(), &serial);
        if let Some(item) = items.first() {
            prop_assert_eq!(&pool.apply(join, item.clone()).unwrap(), &serial[0]);
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// Mostly small ones, many at the limits of blocks, a few up to 64 MiB.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        20 => 0..300_usize,
        20 => (4..20_u32, -9..9_i64).prop_map(|(power, off)| ((1_i64 << power) + off) as usize),
        8 => 100_000..3_000_000_usize,
        1 => (1..=64_usize).prop_map(|mib| mib << 20),
    ]
}

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8)) as u8 ^ seed).collect()
}

fn sizes() {
    let pools = pools();
    // `prop_assert_eq` would print megabytes.
    let result = runner(80).run(&(0..7_usize, len(), any::<u8>()), |(pool, len, seed)| {
        let pool = &pools[pool];
        let sent = bytes(len, seed);
        let twice = |bytes: Vec<u8>, check: u64| {
            let sum = bytes.iter().step_by(97).map(|&b| u64::from(b)).sum::<u64>();
            (bytes, sum + check)
        };
        let (back, sum) = pool.apply(twice, (sent.clone(), 1)).unwrap();
        prop_assert!(back == sent);
        prop_assert_eq!(sum, 1 + sent.iter().step_by(97).map(|&b| u64::from(b)).sum::<u64>());
        let view = pool.apply_async(|bytes: Vec<u8>| bytes, (sent.clone(),)).unwrap().view().unwrap();
        prop_assert!(**view == *sent);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn slices() {
    let pools = pools();
    let result = runner(60).run(&(0..7_usize, 0..200_000_usize, any::<u32>()), |(pool, len, seed)| {
        let pool = &pools[pool];
        let mut slice = pool.alloc::<u32>(len).unwrap();
        prop_assert!(slice.iter().all(|&x| x == 0), "all zeros at first");
        (0..len).for_each(|i| slice[i] = seed.wrapping_mul(i as u32));
        let slice = slice.share();
        let part = |slice: &ringpool::ArchivedSharedSlice<u32>, from: u32, to: u32| {
            slice[from as usize..to as usize].to_vec()
        };
        let cuts = [0, len / 3, len / 2, len];
        let parts =
            pool.starmap(part, cuts.windows(2).map(|c| (slice.clone(), c[0] as u32, c[1] as u32))).unwrap();
        prop_assert!(parts.concat() == *slice);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
