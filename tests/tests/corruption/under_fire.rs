//! Runs clients under fire, each in a process of its own, with a watchdog: a crash, a panic, a hang and a
//! wrong value are failures, and the seed brings them back.

use libtest_mimic::Trial;
use ringpool_tests::actor::Actor;
use ringpool_tests::proof::{Extent, Proof};
use ringpool_tests::{procs, test_within};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long one client may take in all.
const LIMIT: Duration = Duration::from_secs(100);

pub fn tests() -> Vec<Trial> {
    let extent = Extent::now();
    let run = |kind: &'static str, pool: &'static str, way: &'static str| {
        let length = Duration::from_secs(extent.pick(3, 15, 40));
        test_within(length + 2 * LIMIT, kind.replace(' ', "_"), move || under_fire(kind, pool, way, length))
    };
    vec![
        run("hostile task in a hardened pool", "hardened", "task"),
        run("hostile thread in a hardened pool", "hardened", "thread"),
        run("hostile task in a default pool", "default", "task"),
        run("hostile thread in a default pool", "default", "thread"),
    ]
}

/// The seed that `RINGPOOL_SEED` asks for, and no other; or else some that are new in every run.
fn seeds() -> Box<dyn Iterator<Item = u64>> {
    match std::env::var("RINGPOOL_SEED") {
        Ok(seed) => Box::new(std::iter::once(seed.parse().expect("RINGPOOL_SEED is a number"))),
        Err(_) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
            let first = now.as_millis() as u64 % 1_000_000_000;
            Box::new(first..)
        }
    }
}

fn under_fire(kind: &str, pool: &str, way: &str, length: Duration) {
    let start = Instant::now();
    let mut proof = Proof::of(kind);
    let (mut errors, mut ruined) = (0, 0);
    for seed in seeds() {
        // Short ones, after which pools have to work again, and ones that go on.
        let millis = [150, 400, 900][seed as usize % 3];
        let line = one_client(seed, pool, millis, way);
        let numbers: Vec<u64> =
            line.split_whitespace().skip(1).map(|n| n.parse().expect("a number")).collect();
        let [good, failed, wrong, hung, ruins] = numbers[..] else {
            panic!("the client of seed {seed} ({pool}, {way}, {millis} ms) said {line:?}")
        };
        if wrong + hung > 0 {
            println!("seed {seed}: {wrong} wrong values, {hung} calls hung");
        }
        proof.runs += 1;
        proof.delivered += good + failed;
        proof.lost += wrong;
        proof.hung += hung;
        errors += failed;
        ruined += ruins;
        if start.elapsed() >= length {
            break;
        }
    }
    println!(
        "{kind}: {errors} of {} calls failed, {ruined} of {} pools gave up",
        proof.delivered, proof.runs
    );
    proof.report();
}

/// The line that a client prints at its end.
fn one_client(seed: u64, pool: &str, millis: u64, way: &str) -> String {
    let mut client = Actor::start("client", &[&seed.to_string(), pool, &millis.to_string(), way]);
    let pid = client.pid();
    let (ended, wait) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if wait.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            println!("the client of seed {seed} hangs");
            procs::kill(pid);
        }
    });
    let line = client.line();
    let status = client.finish();
    drop(ended);
    watchdog.join().expect("the watchdog");
    assert!(status.success(), "the client of seed {seed} ({pool}, {way}, {millis} ms) ended with {status}");
    line
}
