//! Storms: workers, whole pools, or both are killed at random moments, many times a second, while others
//! wait for results.

#[path = "storms/clients.rs"]
mod clients;
#[path = "storms/lives.rs"]
mod lives;
#[path = "storms/memory.rs"]
mod memory;
#[path = "storms/odd_tasks.rs"]
mod odd_tasks;
#[path = "storms/parents.rs"]
mod parents;
#[path = "storms/payloads.rs"]
mod payloads;
#[path = "storms/workers.rs"]
mod workers;

use libtest_mimic::Trial;
use ringpool::{Builder, Pool};
use ringpool_tests::leftovers::Before;
use ringpool_tests::random::Random;
use ringpool_tests::tally::Tally;
use ringpool_tests::{SetOnDrop, actor, expect_repaired, procs, test_within};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// For conditions that come true within milliseconds, on a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(10);

/// What one storm may take in its long form.
const LIMIT: Duration = Duration::from_secs(300);

fn double(x: u64) -> u64 {
    2 * x
}

/// 4 KiB, with the argument all over.
fn block(x: u64) -> Vec<u64> {
    vec![x; 512]
}

/// How hard it blows: so many kills, with pauses of so many microseconds.
#[derive(Clone, Copy)]
struct Wind {
    kills: u64,
    pauses: (u64, u64),
}

/// Kills random workers of `pool` while `work` is done, which ends when its argument says so: when all
/// kills have been made. Returns how many there were.
fn blow(pool: &Pool, wind: Wind, work: impl FnOnce(&AtomicBool)) -> u64 {
    let (over, given_up) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let _over = SetOnDrop(&over);
            let mut random = Random::new(wind.kills);
            let mut kills = 0;
            while kills < wind.kills && !given_up.load(Ordering::Relaxed) {
                let pids = pool.worker_pids();
                if !pids.is_empty() {
                    let victim = pids[random.below(pids.len() as u64) as usize];
                    kills += u64::from(procs::kill(victim));
                }
                let (least, most) = wind.pauses;
                std::thread::sleep(Duration::from_micros(least + random.below(most - least)));
            }
            kills
        });
        let _end = SetOnDrop(&given_up); // if `work` panics, the killer is not to go on
        work(&over);
        given_up.store(true, Ordering::Relaxed);
        killer.join().expect("the killer panics never")
    })
}

/// Starts a pool, lets `storm` rage over it, and checks that all is well again and nothing is left. `storm`
/// counts outcomes and returns the number of kills.
fn weather(kind: &str, settings: Builder, storm: impl FnOnce(&Pool, &Tally) -> u64) {
    let before = Before::now();
    let tally = Tally::default();
    let pool = settings.start().expect("a pool");
    let kills = storm(&pool, &tally);
    expect_repaired(&pool);
    pool.close();
    pool.join().expect("a closed pool");
    drop(pool);
    let mut proof = tally.proof(format!("storms: {kind}"));
    proof.kills = kills;
    proof.leaked = before.left_over();
    proof.report();
}

/// A storm, as a test.
fn storm(name: &str, body: impl FnOnce() + Send + 'static) -> Trial {
    test_within(LIMIT, name, body)
}

fn main() {
    procs::no_core_files();
    ringpool::init();
    actor::play(&[("client", clients::client), ("holder", parents::holder)]);
    let mut tests = workers::tests();
    tests.extend(payloads::tests());
    tests.extend(lives::tests());
    tests.extend(odd_tasks::tests());
    tests.extend(clients::tests());
    tests.extend(parents::tests());
    tests.extend(memory::tests());
    ringpool_tests::run(tests)
}
