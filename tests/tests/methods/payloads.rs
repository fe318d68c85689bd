//! Payloads of all sizes, and slices in shared memory.

use super::pool;
use libtest_mimic::Trial;
use ringpool::{ArchivedSharedSlice, Context, ErrorKind, SharedSlice};
use ringpool_tests::signs::{Sign, wait_for_note};
use ringpool_tests::{in_contexts, test};
use std::collections::{BTreeMap, HashMap};

/// Around every limit where bytes move elsewhere, and far beyond.
const SIZES: [usize; 22] = [
    0,
    1,
    7,
    8,
    9,
    15,
    16,
    17,
    31,
    63,
    64,
    65,
    127,
    128,
    129,
    511,
    513,
    4096,
    65_537,
    1 << 20,
    (2 << 20) + 1,
    5 << 20,
];

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![];
    tests.extend(in_contexts("bytes of all sizes", sizes));
    tests.push(test("64 MiB there and back", huge));
    tests.push(test("nested payloads", nested));
    tests.extend(in_contexts("shared slices", shared));
    tests.push(test("shared slices: writing again", writing_again));
    tests.push(test("shared slices: inside other payloads", inside));
    tests.push(test("shared slices: where they cannot go", wrong_way));
    tests.push(test("shared slices: empty ones", empty));
    tests.push(test("shared slices: the task keeps them", kept));
    tests
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn sizes(context: Context) {
    let pool = pool(context);
    for len in SIZES {
        let sent = bytes(len);
        let back = pool.apply(echo, (sent.clone(),)).unwrap();
        assert!(back == sent, "{len} bytes");
        let view = pool.apply_async(echo, (sent.clone(),)).unwrap().view().unwrap();
        assert!(**view == *sent, "{len} bytes, viewed");
    }
    // All of them in one chunk, and as text.
    let all: Vec<Vec<u8>> = SIZES[..19].iter().map(|&len| bytes(len)).collect();
    assert!(pool.map_async(echo, all.clone(), Some(19)).unwrap().get().unwrap() == all);
    for len in SIZES {
        let sent = "ab".repeat(len / 2);
        assert!(pool.apply(|text: String| text, (sent.clone(),)).unwrap() == sent);
    }
}

fn huge() {
    let pool = pool(Context::Fork);
    let sent = bytes(64 << 20);
    assert!(pool.apply(echo, (sent.clone(),)).unwrap() == sent);
    let numbers: Vec<u64> = (0..8 << 20).collect();
    let result = pool.apply_async(|n: Vec<u64>| n, (numbers.clone(),)).unwrap();
    assert!(result.get().unwrap() == numbers);
}

fn nested() {
    type Deep = Vec<Option<(String, Vec<Vec<u16>>)>>;
    let pool = pool(Context::Fork);
    let deep: Deep = (0..200)
        .map(|i| (i % 3 != 0).then(|| (format!("{i}").repeat(i), vec![vec![i as u16; i % 7]; i % 5])))
        .collect();
    assert_eq!(pool.apply(|d: Deep| d, (deep.clone(),)).unwrap(), deep);
    let map: HashMap<String, BTreeMap<u32, f64>> =
        (0..50).map(|i| (i.to_string(), (0..i).map(|k| (k, f64::from(k) / 2.0)).collect())).collect();
    assert_eq!(pool.apply(|m: HashMap<String, BTreeMap<u32, f64>>| m, (map.clone(),)).unwrap(), map);
}

fn sum(slice: &ArchivedSharedSlice<u64>) -> u64 {
    slice.iter().sum()
}

fn shared(context: Context) {
    let pool = pool(context);
    let mut slice = pool.alloc::<u64>(100_000).unwrap();
    assert!(slice.iter().all(|&x| x == 0) && slice.len() == 100_000);
    for (i, x) in slice.iter_mut().enumerate() {
        *x = i as u64;
    }
    let slice = slice.share();
    let whole: u64 = (0..100_000).sum();
    assert_eq!(pool.apply(sum, (slice.clone(),)).unwrap(), whole);
    // By value: a copy of the task's own.
    assert_eq!(pool.apply(|s: SharedSlice<u64>| s.iter().sum::<u64>(), (slice.clone(),)).unwrap(), whole);
    // Many tasks, each with its part.
    let part = |slice: &ArchivedSharedSlice<u64>, from: u32, to: u32| -> u64 {
        slice[from as usize..to as usize].iter().sum()
    };
    let parts = pool.starmap(part, (0..100).map(|i| (slice.clone(), i * 1000, (i + 1) * 1000))).unwrap();
    assert_eq!(parts.iter().sum::<u64>(), whole);
    let parts = pool.starmap_async(part, (0..100).map(|i| (slice.clone(), i, i + 1)), Some(1)).unwrap();
    assert_eq!(parts.get().unwrap(), (0..100).collect::<Vec<_>>());
    assert_eq!(slice[99_999], 99_999);
    // Other types.
    let mut floats = pool.alloc::<[f32; 2]>(10).unwrap();
    floats[3] = [1.5, 2.5];
    let pair = |s: &ArchivedSharedSlice<[f32; 2]>| s[3][0] + s[3][1];
    assert_eq!(pool.apply(pair, (floats.share(),)).unwrap(), 4.0);
}

fn writing_again() {
    let pool = pool(Context::Fork);
    let mut slice = pool.alloc::<u64>(1000).unwrap();
    for round in 1..=5 {
        slice.fill(round);
        let share = slice.share();
        assert_eq!(pool.apply(sum, (share.clone(),)).unwrap(), 1000 * round);
        let other = share.clone();
        let share = share.try_into_mut().expect_err("there is another clone");
        drop(other);
        slice = share.try_into_mut().expect("nobody else has it");
        assert_eq!(slice[0], round, "the values are still there");
    }
}

/// Reads a slice's first and last value once it may.
fn ends(gate: String, slice: &ArchivedSharedSlice<u64>) -> (u64, u64) {
    wait_for_note(&gate);
    (slice[0], slice[slice.len() - 1])
}

fn kept() {
    let pool = pool(Context::Fork);
    let gate = Sign::new();
    let mut slice = pool.alloc::<u64>(10_000).unwrap();
    slice.fill(77);
    let share = slice.share();
    let result = pool.apply_async(ends, (gate.path(), share.clone())).unwrap();
    let share = share.try_into_mut().expect_err("a task uses it");
    drop(share);
    // What could take its place, if it were free.
    for _ in 0..20 {
        let mut other = pool.alloc::<u64>(10_000).unwrap();
        other.fill(5);
        drop(other.share());
    }
    gate.open();
    assert_eq!(result.get().unwrap(), (77, 77));
}

fn inside() {
    let pool = pool(Context::Fork);
    let make = |value: u64| {
        let mut slice = pool.alloc::<u64>(100).unwrap();
        slice.fill(value);
        slice.share()
    };
    let several: Vec<SharedSlice<u64>> = (1..=10).map(make).collect();
    let total =
        |many: &ringpool::rkyv::Archived<Vec<SharedSlice<u64>>>| many.iter().map(|s| s[99]).sum::<u64>();
    assert_eq!(pool.apply(total, (several.clone(),)).unwrap(), 55);
    assert_eq!(pool.map(sum, several).unwrap(), (1..=10).map(|x| 100 * x).collect::<Vec<u64>>());
    let maybe = |s: Option<SharedSlice<u64>>| s.map(|s| s[0]);
    assert_eq!(pool.apply(maybe, (Some(make(3)),)).unwrap(), Some(3));
    assert_eq!(pool.apply(maybe, (None,)).unwrap(), None);
}

fn wrong_way() {
    let (one, other) = (pool(Context::Fork), pool(Context::Fork));
    let slice = one.alloc::<u64>(10).unwrap().share();
    // Back from a task, which has a copy only.
    let back = one.apply(|s: SharedSlice<u64>| s, (slice.clone(),)).unwrap_err();
    assert!(matches!(back.kind(), ErrorKind::Payload { .. }), "{back:?}");
    // To another pool.
    let view = other.apply(sum, (slice.clone(),)).unwrap_err();
    assert!(view.to_string().contains("the pool that made it"), "{view}");
    let value = other.apply(|s: SharedSlice<u64>| s.len() as u64, (slice.clone(),)).unwrap_err();
    assert!(matches!(value.kind(), ErrorKind::Payload { .. }), "{value:?}");
    assert_eq!(one.apply(sum, (slice,)).unwrap(), 0);
    // More than an address space.
    let error = one.alloc::<u64>(usize::MAX / 4).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Invalid { .. }), "{error:?}");
}

fn empty() {
    let pool = pool(Context::Fork);
    let slice = pool.alloc::<u64>(0).unwrap();
    assert!(slice.is_empty());
    let share = slice.share();
    assert_eq!(pool.apply(sum, (share.clone(),)).unwrap(), 0);
    assert_eq!(pool.apply(|s: SharedSlice<u64>| s.len() as u64, (share.clone(),)).unwrap(), 0);
    assert!(share.try_into_mut().is_ok());
}
