//! Workers killed at every access from their first to their last: while they join, work and leave.

use crate::work::{Tally, everything, expect_repaired, flood, give_up, starve, take_a_few};
use crate::{SWEEP, Steps, blows, watched};
use libtest_mimic::Trial;
use ringpool::Pool;
use ringpool::crash::{self, Blow};
use ringpool_tests::proof::Proof;
use ringpool_tests::test_within;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let sweep = |name: &str, setting: Setting| {
        test_within(SWEEP, format!("worker_killed::{name}"), move || sweep(setting))
    };
    let plain = Setting { processes: 2, retries: 0, tasks: 0, hardened: false, work: Work::Everything };
    vec![
        sweep("the_only_one", Setting { processes: 1, ..plain }),
        sweep("one_of_two", plain),
        sweep("one_of_two_with_retries", Setting { retries: 3, ..plain }),
        sweep("of_a_hardened_pool", Setting { hardened: true, ..plain }),
        sweep("who_leaves_after_three_tasks", Setting { tasks: 3, ..plain }),
        sweep("one_of_three", Setting { processes: 3, retries: 3, tasks: 5, ..plain }),
        sweep("in_a_flood", Setting { processes: 1, work: Work::Flood, ..plain }),
        sweep("while_it_waits_for_memory", Setting { processes: 1, retries: 3, work: Work::Starve, ..plain }),
        sweep("while_it_gives_up", Setting { processes: 1, retries: 3, work: Work::GiveUp, ..plain }),
        sweep("of_an_iteration_that_is_dropped", Setting { work: Work::TakeAFew, ..plain }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    processes: usize,
    retries: u32,
    /// After so many tasks a worker leaves; 0 for never.
    tasks: u64,
    hardened: bool,
    work: Work,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    Everything,
    Flood,
    Starve,
    GiveUp,
    TakeAFew,
}

/// What each worker does first.
fn initialize(name: String) {
    assert_eq!(name, "a sweep, with arguments that do not fit into a slot");
}

fn sweep(setting: Setting) {
    crash::set_timers(false);
    let Setting { processes, retries, tasks, hardened, work } = setting;
    let what = if hardened { "hardened, " } else { "" };
    let mut proof = Proof::of(format!(
        "crash sweep: worker of {processes}, {what}{retries} retries, {tasks} tasks each, {work:?}"
    ));
    // These repeat themselves, and are long.
    let long = matches!(work, Work::Flood | Work::Starve);
    let mut steps = if long { Steps::new(97, 23, 5) } else { Steps::new(23, 4, 1) };
    while let Some(at) = steps.next() {
        let before = blows();
        let deaths =
            watched(&format!("worker killed at access {at}, {setting:?}"), || run(setting, at, &mut proof));
        let hit = blows() - before;
        steps.hit(hit > 0);
        assert!(hit <= 1 && deaths <= hit, "{deaths} tasks died of {hit} kills at access {at}");
        assert!(setting.retries == 0 || deaths == 0, "{deaths} tasks died although they may be run again");
        proof.runs += 1;
        proof.kills += hit;
    }
    crash::set_timers(true);
    proof.report();
}

/// One pool, whose first worker dies at its `at`-th access; returns how many tasks died.
fn run(setting: Setting, at: u64, proof: &mut Proof) -> u64 {
    crash::plan_birth(1, 0, at, Blow::Kill);
    let name = "a sweep, with arguments that do not fit into a slot".to_owned();
    let mut builder = Pool::builder()
        .processes(setting.processes)
        .retries(setting.retries)
        .hardened(setting.hardened)
        .slots(64)
        .arena_quota(4 << 20)
        .patience(Duration::from_millis(if setting.work == Work::GiveUp { 5 } else { 60_000 }))
        .initializer(initialize, (name,));
    if setting.tasks > 0 {
        builder = builder.max_tasks_per_child(setting.tasks);
    }
    let pool = builder.start().expect("a pool");
    let mut tally = Tally::default();
    match setting.work {
        Work::Everything => tally = everything(&pool),
        Work::Flood => flood(&pool, &mut tally),
        Work::Starve => starve(&pool, &mut tally),
        Work::GiveUp => give_up(&pool, &mut tally),
        Work::TakeAFew => take_a_few(&pool, &mut tally),
    }
    crash::plan_birth(0, 0, 0, Blow::Kill);
    expect_repaired(&pool);
    pool.close();
    pool.join().expect("a pool that was closed");
    proof.delivered += tally.delivered;
    tally.deaths
}
