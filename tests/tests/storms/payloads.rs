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

/// Bytes: 64 MiB, but in the short form, which a build without optimization has to bear.
fn large() -> u64 {
    Extent::now().pick(16 << 20, 64 << 20, 64 << 20)
}

/// Two large payloads for each process, and no third.
fn quota() -> u64 {
    large() * 5 / 2
}

/// So many bytes, in words: of bytes each would be checked for itself.
fn words(fill: u64, bytes: u64) -> Vec<u64> {
    vec![fill; (bytes / 8) as usize]
}

fn last(words: Vec<u64>) -> u64 {
    words[words.len() - 1]
}

fn tight(quota: u64) -> Builder {
    Pool::builder().processes(2).arena_reserve(quota).arena_quota(quota)
}

/// Kills with pauses that let some of these payloads come through, of 10 to 60 ms each.
fn wind() -> Wind {
    Wind { kills: Extent::now().pick(15, 50, 250), pauses: (1_000, 60_000) }
}

/// Whatever dead workers held has come back: each place can hold as much as a fresh one.
fn expect_all_memory_back(pool: &Pool, quota: u64) {
    let most = quota * 3 / 4;
    // Several times, so that each worker has had its turn.
    for fill in 0..4 {
        let result = pool.apply(words, (fill, most)).expect("three quarters of the quota are free");
        assert_eq!(last(result), fill);
    }
    assert_eq!(pool.apply(last, (words(9, most),)).expect("as many of the client's"), 9);
    let committed = leftovers::committed(std::process::id());
    // The control memory comes on top, and is small.
    assert!(committed <= 3 * quota + (64 << 20), "{committed} bytes for three quotas of {quota}");
}

fn large_results() {
    let (large, quota) = (large(), quota());
    weather(&format!("results of {large} bytes"), tight(quota), |pool, tally| {
        let expected = words(7, large);
        let kills = blow(pool, wind(), |over| {
            while !over.load(Ordering::Relaxed) {
                let results = [7, 7].map(|fill| pool.apply_async(words, (fill, large)).expect("a slot"));
                for result in results {
                    tally.get(&result, |value| *value == expected);
                }
            }
        });
        expect_all_memory_back(pool, quota);
        kills
    });
}

fn large_arguments() {
    let (large, quota) = (large(), quota());
    weather(&format!("arguments of {large} bytes"), tight(quota), |pool, tally| {
        let argument = words(9, large);
        let sum = |words: Vec<u64>| words.iter().step_by(512).sum::<u64>();
        let kills = blow(pool, wind(), |over| {
            while !over.load(Ordering::Relaxed) {
                let results = [0, 1].map(|_| pool.apply_async(sum, (argument.clone(),)).expect("a slot"));
                for result in results {
                    tally.get(&result, |&value| value == 9 * large / 4096);
                }
            }
        });
        expect_all_memory_back(pool, quota);
        kills
    });
}

/// Results that are kept, each larger than the one before: workers keep taking extents that they never
/// had. Dropped, and again.
fn growing_results() {
    /// Room for what is kept, held by one worker, in blocks that are larger than what is in them.
    const QUOTA: u64 = 96 << 20;
    let wind = Wind { kills: Extent::now().pick(30, 150, 500), pauses: (300, 5_000) };
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
    let largest = Extent::now().pick(2 << 20, 8 << 20, 8 << 20);
    // Up to 40 MiB kept, of many sizes: of every class of blocks, and runs of extents.
    while len < largest && !over.load(Ordering::Relaxed) {
        let fill = random.below(256);
        kept.push_back((fill, len, pool.apply_async(words, (fill, len)).expect("a slot")));
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

fn check(tally: &Tally, fill: u64, len: u64, result: &ringpool::AsyncResult<Vec<u64>>) {
    tally.get(result, |value| *value == words(fill, len));
}
