//! A hardened pool in peace: it does all that others do.

use libtest_mimic::Trial;
use ringpool::{ArchivedSharedSlice, ErrorKind, Exit, Pool};
use ringpool_tests::test;

pub fn tests() -> Vec<Trial> {
    vec![
        test("hardened_values_of_all_sizes", values_of_all_sizes),
        test("hardened_chunk_keeps_what_is_finished", chunk_keeps_what_is_finished),
        test("hardened_task_is_tried_again", task_is_tried_again),
    ]
}

fn pool() -> Pool {
    Pool::builder().processes(2).hardened(true).arena_reserve(256 << 20).start().unwrap()
}

fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn four(a: u64, b: u64, c: u64, d: u64) -> (u64, u64, u64, u64, u64) {
    (a, b, c, d, a ^ b ^ c ^ d)
}

fn three(a: u64, b: u64, c: u64) -> u64 {
    a ^ b ^ c
}

fn sum(slice: &ArchivedSharedSlice<u64>) -> u64 {
    slice.iter().sum()
}

fn fail(message: String) -> u64 {
    panic!("{message}")
}

fn values_of_all_sizes() {
    let pool = pool();
    // Around what fits into slots, size classes, and beyond what shares an extent.
    for len in (0..70).chain([500, 513, 4096, 1 << 20, (1 << 20) + 1, 5 << 20]) {
        let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let result = pool.apply_async(echo, (bytes.clone(),)).unwrap();
        assert_eq!(result.get().unwrap(), bytes, "{len}");
        assert_eq!(result.view().unwrap().as_slice(), bytes);
    }
    assert_eq!(pool.apply(three, (1, 2, 4)).unwrap(), 7, "all that a slot holds");
    assert_eq!(pool.apply(four, (1, 2, 4, 8)).unwrap(), (1, 2, 4, 8, 15), "more than a slot holds");
    let mut slice = pool.alloc::<u64>(1000).unwrap();
    slice.fill(3);
    assert_eq!(pool.apply(sum, (slice.share(),)).unwrap(), 3000);
    let error = pool.apply(fail, ("so it is".repeat(20),)).unwrap_err();
    assert!(error.is_panic(), "{error}");
    assert!(
        pool.map(echo, (0..100).map(|i| vec![i; i as usize]))
            .unwrap()
            .iter()
            .all(|b| b.iter().all(|x| usize::from(*x) == b.len()))
    );
    let streamed: Vec<u64> = pool.imap(|x: u64| x + 1, 0..500, 7).unwrap().map(Result::unwrap).collect();
    assert!(streamed.into_iter().eq(1..=500));
}

/// So large that the chunk's block is a run of extents.
fn large_unless_deadly(x: u64) -> Vec<u64> {
    if x == 4 {
        std::process::abort();
    }
    vec![x; 100_000]
}

fn chunk_keeps_what_is_finished() {
    let pool = pool();
    let results = pool.map_async(large_unless_deadly, 0..7, Some(7)).unwrap().get_each().unwrap();
    for (x, result) in (0..).zip(results) {
        match result {
            Ok(values) => assert_eq!(values, vec![x; 100_000]),
            Err(error) => {
                let end = Exit::Signal(libc::SIGABRT);
                assert!(matches!(error.kind(), ErrorKind::WorkerDied { end: e, .. } if *e == end), "{error}");
                assert_eq!(x, 4, "only this one failed");
            }
        }
    }
}

fn die_once(journal: String) -> u64 {
    ringpool_tests::journal::note(&journal, 1);
    if ringpool_tests::journal::notes(&journal).len() == 1 {
        std::process::abort();
    }
    7
}

fn task_is_tried_again() {
    let journal = ringpool_tests::journal::Journal::default();
    let pool = Pool::builder().processes(2).hardened(true).retries(1).start().unwrap();
    assert_eq!(pool.apply(die_once, (journal.path(),)).unwrap(), 7);
    assert_eq!(journal.notes().len(), 2);
}
