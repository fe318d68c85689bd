//! Whole pools are killed at random moments of their lives, alone and together with their workers.

use crate::{SOON, block, double, storm};
use libtest_mimic::Trial;
use ringpool::{Context, Pool};
use ringpool_tests::actor::{Actor, troupe};
use ringpool_tests::leftovers::Before;
use ringpool_tests::proof::Extent;
use ringpool_tests::random::Random;
use ringpool_tests::tally::Tally;
use ringpool_tests::{eventually, procs};

pub fn tests() -> Vec<Trial> {
    vec![
        storm("clients_are_killed", || clients_are_killed(0)),
        storm("clients_and_their_workers_are_killed", || clients_are_killed(6)),
    ]
}

/// The actor: makes a pool, works for ever, and says now and then what came of it.
pub fn client(args: &[String]) {
    let [name, context, retries] = args else { panic!("{args:?}") };
    let context = ringpool_tests::CONTEXTS.into_iter().find(|c| format!("{c:?}") == *context);
    let mut settings = Pool::builder()
        .processes(2)
        .context(context.expect("a context"))
        .retries(retries.parse().expect("a number"));
    if !name.is_empty() {
        settings = settings.name(name);
    }
    let pool = settings.start().expect("a pool");
    let tally = Tally::default();
    loop {
        let single: Vec<_> = (0..50).map(|i| pool.apply_async(block, (i,)).expect("a slot")).collect();
        for result in pool.imap_unordered(double, 0..100, 3).expect("a stream") {
            tally.outcome(result, |&value| value < 200 && value % 2 == 0);
        }
        for (i, result) in single.iter().enumerate() {
            tally.get(result, |value| *value == block(i as u64));
        }
        println!("{} {}", tally.delivered(), tally.lost());
    }
}

struct Player {
    name: String,
    context: Context,
    actor: Actor,
}

impl Player {
    fn start(name: String, context: Context) -> Self {
        let actor = Actor::start("client", &[&name, &format!("{context:?}"), "3"]);
        Player { name, context, actor }
    }

    /// SIGKILLs the pool's process, counts what it had done, and starts the next of this name at once.
    fn replace(&mut self, tally: &Tally) {
        let _ = self.actor.kill();
        count(&mut self.actor, tally);
        *self = Player::start(std::mem::take(&mut self.name), self.context);
    }

    /// SIGKILLs one of its workers; whether there was one.
    fn kill_a_worker(&self, random: &mut Random) -> bool {
        let workers: Vec<u32> = procs::descendants(self.actor.pid())
            .into_iter()
            .filter(|&pid| procs::stat(pid).is_some_and(|stat| stat.name == "ringpool-worker"))
            .collect();
        !workers.is_empty() && procs::kill(workers[random.below(workers.len() as u64) as usize])
    }
}

/// The last line says it. The output ends when no process of this pool is left that could write to it.
fn count(actor: &mut Actor, tally: &Tally) {
    let mut last = String::new();
    loop {
        match actor.line() {
            line if line.is_empty() => break,
            line => last = line,
        }
    }
    if let Some((delivered, lost)) = last.split_once(' ') {
        tally.deliver(delivered.parse().expect("a number"));
        tally.lose(lost.parse().expect("a number"), "in a client that was killed later");
    }
}

/// Three pools live side by side; one after the other is killed, some before they are ready. For each of
/// them, so many workers are killed, too.
fn clients_are_killed(workers: u64) {
    let before = Before::now();
    let tally = Tally::default();
    let mut random = Random::new(workers);
    let name = |number: u32| format!("storm-{}-{number}", std::process::id());
    let mut players = [
        Player::start(String::new(), Context::Fork),
        Player::start(name(1), Context::Fork),
        Player::start(name(2), Context::ForkServer),
    ];
    let (mut clients_killed, mut workers_killed) = (0, 0);
    while clients_killed < Extent::now().pick(12, 60, 400) {
        for _ in 0..=workers {
            std::thread::sleep(random.micros(40_000 / (workers + 1)));
            let player = &players[random.below(3) as usize];
            workers_killed += u64::from(workers > 0 && player.kill_a_worker(&mut random));
        }
        players[random.below(3) as usize].replace(&tally);
        clients_killed += 1;
    }
    for player in &mut players {
        let _ = player.actor.kill();
        count(&mut player.actor, &tally);
    }
    drop(players);
    eventually("all processes of all pools are gone", SOON, || troupe().is_empty());
    expect_names_to_be_free([name(1), name(2)]);
    let kind = if workers > 0 { "clients and their workers" } else { "clients" };
    let mut proof = tally.proof(format!("storms: {kind}"));
    proof.kills = clients_killed + workers_killed;
    proof.leaked = before.left_over()
        + procs::shm().iter().filter(|n| n.contains(&name(1)[..name(1).len() - 1])).count() as u64;
    proof.report();
}

/// Templates take the names of killed pools down. One that was killed in the microseconds in which it wrote
/// its card leaves that unfinished, and nobody can say whose it is; whoever takes the name next removes it.
fn expect_names_to_be_free(names: [String; 2]) {
    for name in names {
        let card = format!("ringpool.{name}");
        std::thread::sleep(std::time::Duration::from_millis(50));
        if procs::shm().contains(&card) {
            eprintln!("{card} was left by a client that was killed while it wrote it");
        }
        let pool = Pool::builder().processes(1).name(&name).start().expect("nobody has the name");
        assert_eq!(pool.apply(double, (4,)).expect("a result"), 8);
        drop(pool);
    }
}
