//! The process that made a pool is killed, again and again, whatever its pool is doing: a second later
//! nothing of the pool is left.

use crate::{double, storm};
use libtest_mimic::Trial;
use ringpool::{Context, Pool};
use ringpool_tests::CONTEXTS;
use ringpool_tests::actor::{Actor, troupe, wait_for_the_end};
use ringpool_tests::eventually;
use ringpool_tests::leftovers::{self, Before};
use ringpool_tests::procs;
use ringpool_tests::proof::{Extent, Proof};
use ringpool_tests::random::Random;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Trial> {
    vec![storm("parents_are_killed", parents_are_killed)]
}

/// Words of a large payload: 64 MiB, but in the short form.
fn large() -> usize {
    Extent::now().pick(2 << 20, 8 << 20, 8 << 20)
}

fn spin_for_ever() {
    loop {
        std::hint::spin_loop();
    }
}

fn sleep_long() {
    std::thread::sleep(Duration::from_secs(600));
}

fn echo(words: Vec<u64>) -> Vec<u64> {
    words
}

/// What the pool does when its process is killed.
const DEEDS: [&str; 4] = ["idle", "busy", "streaming", "large"];

/// The actor: makes a pool, has it work, and says that it does.
pub fn holder(args: &[String]) {
    let [context, name, deed] = args else { panic!("{args:?}") };
    let context = CONTEXTS.into_iter().find(|c| format!("{c:?}") == *context).expect("a context");
    let mut settings = Pool::builder().processes(2).context(context);
    if !name.is_empty() {
        settings = settings.name(name);
    }
    let pool = settings.start().expect("a pool");
    assert_eq!(pool.apply(double, (4,)).expect("a result"), 8);
    match deed.as_str() {
        "idle" => println!("ready"),
        "busy" => {
            let _ = pool.apply_async(sleep_long, ()).expect("a slot");
            let _ = pool.apply_async(spin_for_ever, ()).expect("a slot");
            println!("ready");
        }
        "streaming" => {
            println!("ready");
            let failed = pool.imap_unordered(double, 0.., 1).expect("a stream").find(Result::is_err);
            panic!("it ended: {failed:?}");
        }
        "large" => {
            let held = pool.apply_async(echo, (vec![3; large()],)).expect("a slot");
            held.wait(None);
            println!("ready");
            loop {
                let _ = pool.apply(echo, (vec![4; large()],)).expect("a result");
            }
        }
        other => panic!("nobody does {other}"),
    }
    wait_for_the_end();
}

fn parents_are_killed() {
    let before = Before::now();
    let mut proof = Proof::of("storms: parents");
    let mut random = Random::new(1);
    let shared_before = leftovers::meminfo("Shmem");
    let mut larges = 0;
    let mut slowest = Duration::ZERO;
    for round in 0..Extent::now().pick(20, 50, 200) {
        let deed = DEEDS[round % 4];
        let context = [Context::Fork, Context::Fork, Context::ForkServer, Context::Spawn][round / 4 % 4];
        let named = round % 3 == 1;
        let name = if named { format!("parents-{}-{round}", std::process::id()) } else { String::new() };
        let mut parent = Actor::start("holder", &[&format!("{context:?}"), &name, deed]);
        assert_eq!(parent.line(), "ready", "{context:?} {deed}");
        let memory = leftovers::memory_of(parent.pid());
        assert!(!memory.is_empty() && troupe().len() >= 3, "the look finds what there is");
        std::thread::sleep(random.micros(10_000));
        let _ = parent.kill();
        let start = Instant::now();
        let left = || {
            let names = procs::shm().into_iter().filter(|card| named && card.contains(&name)).count();
            troupe().len() + leftovers::holders(&memory).len() + names
        };
        while left() > 0 && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        slowest = slowest.max(start.elapsed());
        proof.leaked += left() as u64;
        proof.runs += 1;
        proof.kills += 1;
        larges += u64::from(deed == "large");
    }
    println!("the slowest was gone after {slowest:?}");
    // Other programs' memory comes and goes, so this is no exact figure; but half of what the killed pools
    // had would be a lot.
    let most = (larges * 8 * large() as u64).max(256 << 20);
    eventually("shared memory is given back", Duration::from_secs(60), || {
        leftovers::meminfo("Shmem") < shared_before + most
    });
    proof.leaked += before.left_over();
    proof.report();
}
