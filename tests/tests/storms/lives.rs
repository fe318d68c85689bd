//! Workers are killed at the edges of their lives: while they are replaced, and in the initializer.

use crate::{Wind, blow, double, storm, weather};
use libtest_mimic::Trial;
use ringpool::{Context, Pool};
use ringpool_tests::journal::{Journal, note};
use ringpool_tests::proof::Extent;
use ringpool_tests::random::{Random, busy_wait};
use ringpool_tests::{SetOnDrop, procs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    vec![
        storm("while_workers_are_replaced", || replaced(Context::Fork, (200, 3_000))),
        storm("while_spawned_workers_are_replaced", || replaced(Context::Spawn, (1_000, 40_000))),
        storm("in_the_initializer", in_the_initializer),
    ]
}

/// Each worker leaves after three tasks, if it gets so far.
fn replaced(context: Context, pauses: (u64, u64)) {
    let kills = Extent::now().pick(30, 120, 450);
    let kills = if context == Context::Spawn { kills / 2 } else { kills };
    let settings = Pool::builder().processes(3).context(context).max_tasks_per_child(3).retries(2);
    weather(&format!("three tasks per worker, {context:?}"), settings, |pool, tally| {
        blow(pool, Wind { kills, pauses }, |over| {
            while !over.load(Ordering::Relaxed) {
                let single: Vec<_> =
                    (0..30).map(|i| pool.apply_async(double, (i,)).expect("a slot")).collect();
                let chunks = pool.map_async(double, 0..60, Some(5)).expect("a map");
                for (i, result) in single.iter().enumerate() {
                    tally.get(result, |&value| value == 2 * i as u64);
                }
                let mapped = chunks.get_each().expect("the pool lives");
                tally.lose(60 - mapped.len() as u64, "items without outcome");
                for (i, result) in mapped.into_iter().enumerate() {
                    tally.outcome(result, |&value| value == 2 * i as u64);
                }
            }
        })
    });
}

/// Takes 2 ms and says who is in it.
fn initialize(journal: String) {
    note(&journal, std::process::id().into());
    busy_wait(Duration::from_millis(2));
}

/// Every second worker, about, dies in its initializer or right after it; the others, and the tasks, pay
/// no heed. Were all of them killed, the pool would rightly say that workers cannot be started.
fn in_the_initializer() {
    let most = Extent::now().pick(40, 120, 400);
    let journal = Journal::default();
    let settings = Pool::builder().processes(3).initializer(initialize, (journal.path(),)).retries(14);
    weather("in the initializer", settings, |pool, tally| {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let _over = SetOnDrop(&over);
                kill_initializing(pool, &journal, most)
            });
            while !over.load(Ordering::Relaxed) {
                let results: Vec<_> =
                    (0..30).map(|i| pool.apply_async(double, (i,)).expect("a slot")).collect();
                for (i, result) in results.iter().enumerate() {
                    tally.get(result, |&value| value == 2 * i as u64);
                }
            }
            killer.join().expect("the killer panics never")
        })
    });
}

fn kill_initializing(pool: &Pool, journal: &Journal, most: u64) -> u64 {
    let mut random = Random::new(most);
    let (mut seen, mut kills) = (0, 0);
    while kills < most {
        let notes = journal.notes();
        for &pid in &notes[seen..] {
            if random.below(2) == 0 {
                std::thread::sleep(random.micros(2_500));
                kills += u64::from(procs::kill(pid as u32));
            }
        }
        if notes.len() == seen {
            // Nobody is being born: make room for a successor.
            let pids = pool.worker_pids();
            if let Some(&pid) = pids.first() {
                kills += u64::from(procs::kill(pid));
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        seen = notes.len();
    }
    kills
}
