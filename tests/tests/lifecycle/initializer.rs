//! The function that each worker calls first.

use libtest_mimic::Trial;
use ringpool::{Builder, Context, Error, ErrorKind, Pool, TaskError};
use ringpool_tests::signs::{Sign, note};
use ringpool_tests::{eventually, in_contexts, test};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![];
    tests.extend(in_contexts("each worker is initialized once", once));
    tests.extend(in_contexts("replacements are initialized, too", replacements));
    tests.push(test("large arguments for every worker", large_arguments));
    tests.extend(in_contexts("an initializer that returns an error", |context| {
        let error = failing(context, returns_an_error);
        assert!(is_initializer(&error) && error.to_string().contains("no licence"), "{error:?}");
    }));
    tests.extend(in_contexts("an initializer that panics", |context| {
        let error = failing(context, panics);
        assert!(is_initializer(&error) && error.to_string().contains("no licence"), "{error:?}");
        assert!(error.to_string().contains("initializer.rs"), "it says where: {error}");
    }));
    tests.extend(in_contexts("an initializer that exits", |context| {
        let error = failing(context, exits);
        assert!(error.to_string().contains("exit code 3"), "{error}");
    }));
    tests.extend(in_contexts("an initializer that is killed", |context| {
        let error = failing(context, is_killed);
        assert!(error.to_string().contains("SIGABRT"), "{error}");
    }));
    tests.push(test("an initializer that fails in a replacement", fails_later));
    tests
}

fn returns_an_error(text: String) -> Result<(), TaskError> {
    Err(TaskError::msg(text))
}

fn panics(text: String) {
    panic!("{text}")
}

fn exits(_: String) {
    std::process::exit(3)
}

fn is_killed(_: String) {
    std::process::abort()
}

static STATE: AtomicU64 = AtomicU64::new(0);

fn initialize(path: String, value: u64) {
    STATE.fetch_add(value, Ordering::Relaxed);
    note(&path, &std::process::id().to_string());
}

fn state_and_pid() -> (u64, u32) {
    (STATE.load(Ordering::Relaxed), std::process::id())
}

fn distinct(notes: &[String]) -> HashSet<u32> {
    notes.iter().map(|pid| pid.parse().unwrap()).collect()
}

fn once(context: Context) {
    let calls = Sign::new();
    let pool = Pool::builder()
        .processes(3)
        .context(context)
        .initializer(initialize, (calls.path(), 42))
        .start()
        .unwrap();
    for _ in 0..100 {
        let (state, pid) = pool.apply(state_and_pid, ()).unwrap();
        assert_eq!(state, 42, "initialized before its first task, and once");
        assert!(calls.notes().contains(&pid.to_string()));
    }
    eventually("all workers are there", LONG, || calls.count() == 3);
    pool.close();
    pool.join().unwrap();
    assert_eq!((calls.count(), distinct(&calls.notes()).len()), (3, 3));
    assert_eq!(STATE.load(Ordering::Relaxed), 0, "not in this process");
}

fn replacements(context: Context) {
    let calls = Sign::new();
    let pool = Pool::builder()
        .processes(2)
        .context(context)
        .max_tasks_per_child(1)
        .initializer(initialize, (calls.path(), 42))
        .start()
        .unwrap();
    let runs = pool.starmap_async(state_and_pid, [(); 10], Some(1)).unwrap().get().unwrap();
    let pids: HashSet<u32> = runs.iter().map(|&(_, pid)| pid).collect();
    assert_eq!(pids.len(), 10, "a fresh worker for each task");
    assert!(runs.iter().all(|&(state, _)| state == 42));
    pool.close();
    pool.join().unwrap();
    let notes = calls.notes();
    let initialized = distinct(&notes);
    assert_eq!(notes.len(), initialized.len(), "once for each");
    assert!(pids.is_subset(&initialized));
    assert!(initialized.len() <= 12, "no more than two that had nothing left to do: {initialized:?}");
}

fn large_arguments() {
    fn keep(numbers: Vec<u64>) {
        STATE.store(numbers.iter().sum(), Ordering::Relaxed);
    }
    let numbers: Vec<u64> = (0..1_000_000).collect();
    let sum = numbers.iter().sum::<u64>();
    let builder = Pool::builder().processes(2).max_tasks_per_child(2);
    let pool = builder.initializer(keep, (numbers,)).start().unwrap();
    for _ in 0..10 {
        assert_eq!(pool.apply(state_and_pid, ()).unwrap().0, sum);
    }
}

fn is_initializer(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Initializer { worker: 1..=2, pid: 1.., .. })
}

/// What a pool says whose initializer is `initializer`: to those who wait, and from then on.
fn failing<M, F>(context: Context, initializer: F) -> Error
where
    F: ringpool::Task<(String,), M>,
{
    let builder = Pool::builder().processes(2).context(context);
    say_the_same(builder.initializer(initializer, ("no licence".to_owned(),)))
}

fn say_the_same(builder: Builder) -> Error {
    let pool = builder.start().unwrap();
    // The pool may have ended already; then nothing can be handed in.
    let first = match pool.apply_async(|x: u32| x, (1,)) {
        Ok(result) => result.get().unwrap_err(),
        Err(error) => error,
    };
    let later = [
        pool.apply(|x: u32| x, (1,)).unwrap_err(),
        pool.map(|x: u32| x, 0..10).unwrap_err(),
        pool.imap(|x: u32| x, 0..10, 1).unwrap().next().unwrap().unwrap_err(),
    ];
    for error in later {
        assert_eq!(error.to_string(), first.to_string(), "the first report is the answer to all calls");
    }
    // And nothing is started any more.
    eventually("all workers are gone", LONG, || pool.worker_pids().is_empty());
    std::thread::sleep(Duration::from_millis(20));
    assert!(pool.worker_pids().is_empty());
    pool.close();
    pool.join().unwrap();
    first
}

/// The first workers are fine; the pool ends when one that takes a place later is not.
fn fails_later() {
    let calls = Sign::new();
    let initializer = |path: String| -> Result<(), TaskError> {
        let before = std::fs::read_to_string(&path)?.lines().count();
        note(&path, "call");
        if before >= 1 { Err(TaskError::msg("only one")) } else { Ok(()) }
    };
    let builder = Pool::builder().processes(1).max_tasks_per_child(1);
    let pool = builder.initializer(initializer, (calls.path(),)).start().unwrap();
    let results: Vec<_> = (0..5_u32).map(|i| pool.apply_async(|x: u32| x, (i,))).collect();
    assert_eq!(results[0].as_ref().unwrap().get().unwrap(), 0);
    for result in &results[1..] {
        let error = match result {
            Ok(result) => result.get().unwrap_err(),
            Err(error) => error.clone(),
        };
        assert!(is_initializer(&error) && error.to_string().contains("only one"), "{error:?}");
    }
    assert_eq!(calls.count(), 2);
}
