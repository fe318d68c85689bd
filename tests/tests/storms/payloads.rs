//! Workers are killed while they write and read large payloads, and while their memory grows.

use crate::{Wind, blow, double, storm, weather};
use libtest_mimic::Trial;
use ringpool::{Builder, Pool};
use ringpool_tests::leftovers;
use ringpool_tests::proof::Extent;
use ringpool_tests::random::Random;
use ringpool_tests::tally::Tally;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn tests() -> Vec<Trial> {
    vec![
        storm("large_results", large_results),
        storm("large_arguments", large_arguments),
        storm("growing_results", growing_results),
    ]
}

const LARGE: usize = 64 << 20;
/// Two large payloads for each process, and no third.
const QUOTA: u64 = 160 << 20;

fn bytes(fill: u8, len: u64) -> Vec<u8> {
    vec![fill; len as usize]
}

fn last(bytes: &<Vec<u8> as ringpool::rkyv::Archive>::Archived) -> u8 {
    bytes[bytes.len() - 1]
}

fn tight(quota: u64) -> Builder {
    Pool::builder().processes(2).arena_reserve(quota).arena_quota(quota)
}

/// Kills with pauses that let some of these payloads come through, of 10 to 60 ms each.
fn wind() -> Wind {
    Wind { kills: Extent::now().pick(15, 50, 400), pauses: (1_000, 60_000) }
}

/// Whatever dead workers held has come back: each place can hold as much as a fresh one.
fn expect_all_memory_back(pool: &Pool, quota: u64) {
    let most = quota * 3 / 4;
    for fill in 0..6 {
        let result = pool.apply(bytes, (fill, most)).expect("three quarters of the quota are free");
        assert!(result.len() as u64 == most && result[result.len() - 1] == fill);
    }
    assert_eq!(pool.apply(last, (bytes(9, most),)).expect("as many of the client's"), 9);
    let committed = leftovers::committed(std::process::id());
    // The control memory comes on top, and is small.
    assert!(committed <= 3 * quota + (64 << 20), "{committed} bytes for three quotas of {quota}");
}

fn large_results() {
    weather("64 MiB results", tight(QUOTA), |pool, tally| {
        let expected: Vec<u8> = bytes(7, LARGE as u64);
        let kills = blow(pool, wind(), |over| {
            while !over.load(Ordering::Relaxed) {
                let results =
                    [7, 7].map(|fill| pool.apply_async(bytes, (fill, LARGE as u64)).expect("a slot"));
                for result in results {
                    tally.get(&result, |value| *value == expected);
                }
            }
        });
        expect_all_memory_back(pool, QUOTA);
        kills
    });
}

fn large_arguments() {
    weather("64 MiB arguments", tight(QUOTA), |pool, tally| {
        let argument = bytes(9, LARGE as u64);
        let equal =
            |a: Vec<u8>| -> bool { a.len() == LARGE && a.iter().step_by(4096).all(|&byte| byte == 9) };
        let kills = blow(pool, wind(), |over| {
            while !over.load(Ordering::Relaxed) {
                let results = [0, 1].map(|_| pool.apply_async(equal, (argument.clone(),)).expect("a slot"));
                for result in results {
                    tally.get(&result, |&equal| equal);
                }
            }
        });
        expect_all_memory_back(pool, QUOTA);
        kills
    });
}

/// Results that are kept, each larger than the one before: workers keep taking extents that they never
/// had. Dropped, and again.
fn growing_results() {
    const QUOTA: u64 = 96 << 20;
    let wind = Wind { kills: Extent::now().pick(40, 150, 800), pauses: (300, 5_000) };
    weather("growing memory", tight(QUOTA), |pool, tally| {
        let kills = blow(pool, wind, |over| {
            let mut random = Random::new(3);
            while !over.load(Ordering::Relaxed) {
                grow_once(pool, tally, &mut random, over);
            }
        });
        expect_all_memory_back(pool, QUOTA);
        kills
    });
}

fn grow_once(pool: &Pool, tally: &Tally, random: &mut Random, over: &AtomicBool) {
    let mut kept = VecDeque::new();
    let mut held = 0;
    let mut len = 1000;
    // Up to 40 MiB kept of some 50 sizes: of every class of blocks, and runs of extents.
    while len < 8 << 20 && !over.load(Ordering::Relaxed) {
        let fill = random.below(256) as u8;
        kept.push_back((fill, len, pool.apply_async(bytes, (fill, len)).expect("a slot")));
        held += len;
        while held > 40 << 20 {
            let (fill, len, result) = kept.pop_front().expect("something is held");
            check(tally, fill, len, &result);
            held -= len;
        }
        if random.below(8) == 0 {
            tally.get(&pool.apply_async(double, (len,)).expect("a slot"), |&value| value == 2 * len);
        }
        len += len / 5;
    }
    for (fill, len, result) in kept {
        check(tally, fill, len, &result);
    }
}

fn check(tally: &Tally, fill: u8, len: u64, result: &ringpool::AsyncResult<Vec<u8>>) {
    tally.get(result, |value| {
        value.len() as u64 == len && value.iter().step_by(512).all(|&byte| byte == fill)
    });
}
