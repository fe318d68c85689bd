//! Killing workers at random moments.

use crate::random::Random;
use crate::{SetOnDrop, procs};
use ringpool::Pool;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How hard it blows.
#[derive(Clone, Copy)]
pub struct Wind {
    /// How many kills.
    pub kills: u64,
    /// The shortest and the longest pause between two of them, in microseconds.
    pub pauses: (u64, u64),
}

/// Kills random workers of `pool` while `work` is done, which ends when its argument says so: when all
/// kills have been made. Returns how many there were.
///
/// # Panics
///
/// If `work` does.
pub fn blow(pool: &Pool, wind: Wind, work: impl FnOnce(&AtomicBool)) -> u64 {
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
