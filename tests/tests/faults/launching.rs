//! Workers that die before they work, and the death of the process that forks them.

use crate::deaths::kill_self;
use crate::{SOON, double, expect_full_strength};
use libtest_mimic::Trial;
use ringpool::{Context, ErrorKind, Pool};
use ringpool_tests::journal::{Journal, note, notes};
use ringpool_tests::{eventually, in_contexts, procs};
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let mut tests = in_contexts("killed_while_starting", killed_while_starting);
    tests.extend(in_contexts("initializer_that_kills", initializer_that_kills));
    tests.extend(in_contexts("initializer_that_leaves", initializer_that_leaves));
    tests.extend(in_contexts("initializer_that_kills_twice", initializer_that_kills_twice));
    tests.extend(in_contexts("initializer_that_panics_in_a_replacement", panics_in_a_replacement));
    let forking = |name: &str| !name.ends_with("Spawn"); // spawned workers have no template
    let with_template = in_contexts("template_killed", template_killed)
        .into_iter()
        .chain(in_contexts("template_and_worker_killed", template_and_worker_killed));
    tests.extend(with_template.filter(|test| forking(test.name())));
    tests
}

fn slow_start(journal: String) {
    note(&journal, std::process::id().into());
    std::thread::sleep(Duration::from_millis(300));
}

fn killed_while_starting(context: Context) {
    let journal = Journal::default();
    let pool = Pool::builder()
        .processes(2)
        .context(context)
        .initializer(slow_start, (journal.path(),))
        .start()
        .unwrap();
    let results: Vec<_> = (0..50).map(|i| pool.apply_async(double, (i,)).unwrap()).collect();
    for starts in 1..=3 {
        eventually("a worker starts", SOON, || journal.notes().len() >= starts);
        assert!(procs::kill(journal.notes()[starts - 1] as u32));
    }
    for (i, result) in results.iter().enumerate() {
        assert_eq!(result.get().unwrap(), 2 * i as u64);
    }
    expect_full_strength(&pool);
}

/// Whatever kills workers in their initializer is reported, and they are not started for ever.
fn expect_refusal(pool: &Pool, journal: &Journal) {
    let error = pool.apply(double, (1,)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Start { .. }), "{error:?}");
    let starts = journal.notes().len();
    assert!((1..=100).contains(&starts), "{starts} workers were started");
    assert!(pool.apply(double, (1,)).is_err());
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(journal.notes().len(), starts, "nobody is started any more");
    assert!(pool.worker_pids().is_empty());
}

fn initializer_that_kills(context: Context) {
    fn initialize(journal: String) {
        note(&journal, 0);
        kill_self()
    }
    let journal = Journal::default();
    let builder = Pool::builder().processes(2).context(context);
    let pool = builder.initializer(initialize, (journal.path(),)).start().unwrap();
    expect_refusal(&pool, &journal);
}

fn initializer_that_leaves(context: Context) {
    fn initialize(journal: String) {
        note(&journal, 0);
        std::process::exit(3)
    }
    let journal = Journal::default();
    let builder = Pool::builder().processes(2).context(context);
    let pool = builder.initializer(initialize, (journal.path(),)).start().unwrap();
    expect_refusal(&pool, &journal);
    let error = pool.apply(double, (1,)).unwrap_err();
    assert!(error.to_string().contains("exit code 3"), "{error}");
}

/// Bad luck at the start is no reason to give up.
fn initializer_that_kills_twice(context: Context) {
    fn initialize(journal: String) {
        note(&journal, 0);
        // Exactly two workers make one of these first, however they run past each other.
        for marker in markers(&journal) {
            if std::fs::File::create_new(marker).is_ok() {
                kill_self()
            }
        }
    }
    fn markers(journal: &str) -> [String; 2] {
        [1, 2].map(|n| format!("{journal}.killed-{n}"))
    }
    let journal = Journal::default();
    let builder = Pool::builder().processes(2).context(context);
    let pool = builder.initializer(initialize, (journal.path(),)).start().unwrap();
    assert_eq!(pool.apply(double, (1,)).unwrap(), 2);
    eventually("two are replaced", SOON, || journal.notes().len() == 4);
    expect_full_strength(&pool);
    markers(&journal.path()).iter().for_each(|marker| std::fs::remove_file(marker).unwrap());
}

fn panics_in_a_replacement(context: Context) {
    fn initialize(journal: String) {
        note(&journal, std::process::id().into());
        assert!(notes(&journal).len() <= 2, "one start too many");
    }
    let journal = Journal::default();
    let builder = Pool::builder().processes(2).context(context);
    let pool = builder.initializer(initialize, (journal.path(),)).start().unwrap();
    assert_eq!(pool.apply(double, (1,)).unwrap(), 2);
    eventually("both start", SOON, || journal.notes().len() == 2);
    assert!(procs::kill(journal.notes()[0] as u32));
    eventually("the pool is ended", SOON, || pool.apply(double, (1,)).is_err());
    let error = pool.apply(double, (1,)).unwrap_err();
    let ErrorKind::Initializer { message, pid, .. } = error.kind() else { panic!("{error:?}") };
    assert!(message.contains("one start too many"), "{message}");
    assert_eq!(journal.notes().last(), Some(&u64::from(*pid)));
}

fn slow_double(x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(2));
    2 * x
}

/// No process of the pool but its workers and one template is left, dead or alive.
#[track_caller]
fn expect_one_template(old: u32) {
    eventually("the dead template is gone for good", SOON, || {
        let children = procs::children(std::process::id());
        children.len() == 1 && children[0].0 != old && children[0].1.name == procs::TEMPLATE
    });
}

fn template_killed(context: Context) {
    let pool = Pool::builder().processes(2).context(context).retries(3).start().unwrap();
    for _ in 0..3 {
        let results: Vec<_> = (0..100).map(|i| pool.apply_async(slow_double, (i,)).unwrap()).collect();
        let [template] = procs::templates()[..] else { panic!("not one template") };
        assert!(procs::kill(template));
        for (i, result) in results.iter().enumerate() {
            assert_eq!(result.get().unwrap(), 2 * i as u64);
        }
        expect_full_strength(&pool);
        expect_one_template(template);
    }
}

/// The replacement of a worker may be asked of a template that is just dying.
fn template_and_worker_killed(context: Context) {
    let pool = Pool::builder().processes(2).context(context).retries(14).start().unwrap();
    for round in 0..30u64 {
        expect_full_strength(&pool);
        let [template] = procs::templates()[..] else { panic!("not one template") };
        procs::kill(pool.worker_pids()[0]);
        // Some ten rounds each: before, while and after the supervisor looks.
        std::thread::sleep(Duration::from_micros(round * 20));
        assert!(procs::kill(template));
        expect_full_strength(&pool);
        expect_one_template(template);
    }
}
