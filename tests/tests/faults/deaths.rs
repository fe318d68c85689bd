//! One worker dies under one task.

use crate::{SOON, death, double, expect_full_strength, pool_of};
use libtest_mimic::Trial;
use ringpool::{Context, Exit, Pool, ResultSlice};
use ringpool_tests::audit::expect_whole;
use ringpool_tests::journal::{self, Journal, note};
use ringpool_tests::{SetOnDrop, eventually, in_contexts, procs, test};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for (way, end) in WAYS {
        tests.extend(in_contexts(&format!("death_is_reported::{way}"), move |c| {
            death_is_reported(c, way, end)
        }));
    }
    tests.extend(in_contexts("killed_from_outside_in_a_long_task", killed_from_outside));
    tests.extend(in_contexts("third_attempt_succeeds", third_attempt_succeeds));
    tests.extend(in_contexts("attempts_run_out", attempts_run_out));
    tests.extend(in_contexts("idle_workers_killed", idle_workers_killed));
    tests.push(test("large_result_on_its_way", || large_result_on_its_way(Context::Fork)));
    tests.push(test("large_result_in_place_on_its_way", large_result_in_place_on_its_way));
    tests.push(test("large_argument_on_its_way", || large_argument_on_its_way(Context::Fork)));
    tests.extend(in_contexts("one_task_per_worker", one_task_per_worker));
    tests.extend(in_contexts("exec_in_a_task", exec_in_a_task));
    tests.extend(in_contexts("child_of_a_task_lives_on", child_of_a_task_lives_on));
    tests.extend(in_contexts("task_closes_all_descriptors", task_closes_all_descriptors));
    tests.push(test("death_while_many_wait", death_while_many_wait));
    tests.push(test("retried_under_a_flood", retried_under_a_flood));
    tests
}

const WAYS: [(&str, Exit); 6] = [
    ("kill", Exit::Signal(libc::SIGKILL)),
    ("segv", Exit::Signal(libc::SIGSEGV)),
    ("abort", Exit::Signal(libc::SIGABRT)),
    ("term", Exit::Signal(libc::SIGTERM)),
    ("exit", Exit::Code(3)),
    ("_exit", Exit::Code(0)),
];

pub fn kill_self() -> ! {
    // SAFETY: a signal to ourselves.
    unsafe { libc::raise(libc::SIGKILL) };
    unreachable!("SIGKILL cannot be survived")
}

fn die(way: String, journal: String) -> u64 {
    note(&journal, std::process::id().into());
    match way.as_str() {
        "kill" => kill_self(),
        // SAFETY: none: this is the bad store that the test wants.
        "segv" => unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) },
        "abort" => std::process::abort(),
        "exit" => std::process::exit(3),
        // SAFETY: ends the process, and nothing of it is needed any more.
        "_exit" => unsafe { libc::_exit(0) },
        // SAFETY: a signal to ourselves.
        "term" => unsafe {
            libc::raise(libc::SIGTERM);
        },
        other => panic!("no way to die: {other}"),
    }
    0
}

fn death_is_reported(context: Context, way: &str, end: Exit) {
    let journal = Journal::default();
    let pool = pool_of(2, context);
    let before: Vec<_> = (0..50).map(|i| pool.apply_async(double, (i,)).unwrap()).collect();
    let doomed = pool.apply_async(die, (way.to_owned(), journal.path())).unwrap();
    let after: Vec<_> = (50..100).map(|i| pool.apply_async(double, (i,)).unwrap()).collect();

    let death = death(&doomed.get().unwrap_err());
    assert_eq!(death.end, end);
    assert_eq!(journal.notes(), [u64::from(death.pid)], "run once, by the process that the error names");
    assert!(death.function.ends_with("die"), "{}", death.function);
    assert_eq!(death.attempt, 1);
    for (i, result) in before.iter().chain(&after).enumerate() {
        assert_eq!(result.get().unwrap(), 2 * i as u64);
    }
    expect_full_strength(&pool);
    assert!(!pool.worker_pids().contains(&death.pid));
}

fn note_and_sleep(journal: String) -> u64 {
    note(&journal, std::process::id().into());
    std::thread::sleep(Duration::from_secs(600));
    0
}

fn killed_from_outside(context: Context) {
    let journal = Journal::default();
    let pool = pool_of(2, context);
    let long = pool.apply_async(note_and_sleep, (journal.path(),)).unwrap();
    let short: Vec<_> = (0..50).map(|i| pool.apply_async(double, (i,)).unwrap()).collect();
    eventually("the long task runs", SOON, || !journal.notes().is_empty());
    let victim = journal.notes()[0] as u32;
    assert!(procs::kill(victim));
    let death = death(&long.get().unwrap_err());
    assert_eq!((death.end, death.pid), (Exit::Signal(libc::SIGKILL), victim));
    for (i, result) in short.iter().enumerate() {
        assert_eq!(result.get().unwrap(), 2 * i as u64);
    }
    expect_full_strength(&pool);
}

/// Dies in its first `deaths` attempts; returns which attempt it is.
fn die_at_first(journal: String, deaths: u64) -> u64 {
    note(&journal, 0);
    let attempt = ringpool_tests::journal::notes(&journal).len() as u64;
    if attempt <= deaths {
        kill_self();
    }
    attempt
}

fn third_attempt_succeeds(context: Context) {
    let journals: Vec<Journal> = (0..4).map(|_| Journal::default()).collect();
    let pool = Pool::builder().processes(2).context(context).retries(2).start().unwrap();
    let results: Vec<_> = journals
        .iter()
        .enumerate()
        .map(|(deaths, journal)| pool.apply_async(die_at_first, (journal.path(), deaths as u64)).unwrap())
        .collect();
    for (deaths, result) in results[..3].iter().enumerate() {
        assert_eq!(result.get().unwrap(), 1 + deaths as u64);
    }
    assert_eq!(death(&results[3].get().unwrap_err()).attempt, 3, "two retries are three attempts");
    for (deaths, journal) in journals.iter().enumerate() {
        assert_eq!(journal.notes().len(), (deaths + 1).min(3));
    }
    expect_full_strength(&pool);
}

fn attempts_run_out(context: Context) {
    let journal = Journal::default();
    let pool = Pool::builder().processes(2).context(context).retries(2).start().unwrap();
    let death = death(&pool.apply(die, ("abort".to_owned(), journal.path())).unwrap_err());
    assert_eq!((death.end, death.attempt), (Exit::Signal(libc::SIGABRT), 3));
    let pids = journal.notes();
    assert_eq!(pids.len(), 3);
    assert_eq!(u64::from(death.pid), pids[2], "the error is that of the last attempt");
    expect_full_strength(&pool);
}

fn idle_workers_killed(context: Context) {
    let pool = pool_of(2, context);
    for _ in 0..5 {
        expect_full_strength(&pool);
        let old = pool.worker_pids();
        eventually("the workers sleep", SOON, || {
            old.iter().all(|&pid| procs::stat(pid).is_some_and(|stat| stat.state == 'S'))
        });
        assert!(old.iter().all(|&pid| procs::kill(pid)));
        eventually("they are replaced", SOON, || !pool.worker_pids().iter().any(|pid| old.contains(pid)));
    }
    expect_full_strength(&pool);
}

const LARGE: usize = 64 << 20;

fn large(journal: String) -> Vec<u8> {
    note(&journal, std::process::id().into());
    vec![7; LARGE]
}

/// Kills those who take up the task, each a bit later after that than the one before; the last survives.
fn kill_takers(journal: &Journal, takers: usize) {
    for taker in 0..takers {
        eventually("somebody takes the task", SOON, || journal.notes().len() > taker);
        std::thread::sleep(Duration::from_millis(8 * taker as u64));
        procs::kill(journal.notes()[taker] as u32);
        let done = || journal.notes().len() == taker + 1;
        // One that was quick is done already, and then nobody takes the task again.
        std::thread::sleep(Duration::from_millis(100));
        if done() {
            return;
        }
    }
}

fn large_result_on_its_way(context: Context) {
    let journal = Journal::default();
    let pool = Pool::builder().processes(2).context(context).retries(14).start().unwrap();
    let result = pool.apply_async(large, (journal.path(),)).unwrap();
    kill_takers(&journal, 8);
    let bytes = result.get().unwrap();
    assert!(bytes.len() == LARGE && bytes.iter().all(|&byte| byte == 7));
    assert!(journal.notes().len() > 1, "at least the first was killed");
    expect_full_strength(&pool);
}

/// Fills its result slowly, where it will lie.
fn large_in_place(journal: String) -> ResultSlice<u8> {
    let _other = ResultSlice::<u8>::new(LARGE / 4, |bytes| bytes.fill(1));
    ResultSlice::new(LARGE, |bytes| {
        note(&journal, std::process::id().into());
        for part in bytes.chunks_mut(LARGE / 32) {
            part.fill(7);
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

fn large_result_in_place_on_its_way() {
    let journal = Journal::default();
    let pool = Pool::builder().processes(2).retries(14).start().unwrap();
    let result = pool.apply_async(large_in_place, (journal.path(),)).unwrap();
    kill_takers(&journal, 6);
    let view = result.view().unwrap();
    assert!(view.len() == LARGE && view.iter().all(|&byte| byte == 7));
    assert!(journal.notes().len() > 1, "at least the first was killed");
    assert_eq!(expect_whole(&pool).blocks.results, 1, "what is looked at");
    drop((view, result));
    assert_eq!(expect_whole(&pool).blocks.results, 0);
}

fn length(journal: String, bytes: Vec<u8>) -> u64 {
    note(&journal, std::process::id().into());
    bytes.iter().filter(|&&byte| byte == 9).count() as u64
}

fn large_argument_on_its_way(context: Context) {
    let journal = Journal::default();
    let pool = Pool::builder().processes(2).context(context).retries(14).start().unwrap();
    let result = pool.apply_async(length, (journal.path(), vec![9; LARGE])).unwrap();
    // Reading the argument comes before the note: these die while they read it, or before.
    for victim in pool.worker_pids() {
        procs::kill(victim);
    }
    kill_takers(&journal, 4);
    assert_eq!(result.get().unwrap(), LARGE as u64);
    expect_full_strength(&pool);
}

/// Dies if it is told to; else says who ran it.
fn who(dies: bool) -> u32 {
    if dies {
        kill_self();
    }
    std::process::id()
}

fn one_task_per_worker(context: Context) {
    let count = if context == Context::Spawn { 40 } else { 150 };
    let pool = Pool::builder().processes(3).context(context).max_tasks_per_child(1).start().unwrap();
    let results: Vec<_> = (0..count).map(|i| pool.apply_async(who, (i % 5 == 3,)).unwrap()).collect();
    let mut pids = Vec::new();
    for (i, result) in results.iter().enumerate() {
        let outcome = result.get();
        assert_eq!(outcome.is_err(), i % 5 == 3, "task {i}: {outcome:?}");
        pids.push(outcome.unwrap_or_else(|error| death(&error).pid));
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), count, "a worker for each task");
    pool.close();
    pool.join().unwrap();
}

fn become_sleep() -> u64 {
    use std::os::unix::process::CommandExt;
    panic!("{}", std::process::Command::new("sleep").arg("600").exec())
}

fn exec_in_a_task(context: Context) {
    let pool = pool_of(2, context);
    let gone = pool.apply_async(become_sleep, ()).unwrap();
    let others: Vec<_> = (0..50).map(|i| pool.apply_async(double, (i,)).unwrap()).collect();
    let death = death(&gone.get().unwrap_err());
    assert_eq!(death.end, Exit::Signal(libc::SIGKILL), "what it became must not live on in the pool's name");
    assert!(!procs::runs(death.pid));
    for (i, result) in others.iter().enumerate() {
        assert_eq!(result.get().unwrap(), 2 * i as u64);
    }
    expect_full_strength(&pool);
}

/// Forks a child that outlives the task, and returns its id.
fn fork_a_child() -> u32 {
    // SAFETY: the child only sleeps and leaves.
    match unsafe { libc::fork() } {
        // SAFETY: as said above.
        0 => unsafe {
            libc::sleep(600);
            libc::_exit(0)
        },
        pid => pid.cast_unsigned(),
    }
}

/// Forks a child that outlives the worker: its process dies at once.
fn fork_a_child_and_die(journal: String) -> u64 {
    note(&journal, fork_a_child().into());
    kill_self()
}

/// A child that a task left behind, ended when the test ends.
struct Stray(u32);

impl Drop for Stray {
    fn drop(&mut self) {
        // SAFETY: it sleeps for minutes and nobody waits for it, so the number is still its.
        unsafe { libc::kill(self.0.cast_signed(), libc::SIGKILL) };
    }
}

fn child_of_a_task_lives_on(context: Context) {
    let journal = Journal::default();
    let pool = pool_of(2, context);
    let first = Stray(pool.apply(fork_a_child, ()).unwrap());
    expect_full_strength(&pool);
    // The child keeps copies of all the worker's descriptors open, its channel among them.
    let error = pool.apply(fork_a_child_and_die, (journal.path(),)).unwrap_err();
    let second = Stray(journal.notes()[0] as u32);
    assert_eq!(death(&error).end, Exit::Signal(libc::SIGKILL));
    expect_full_strength(&pool);
    pool.close();
    pool.join().unwrap();
    assert!(procs::runs(first.0) && procs::runs(second.0), "children are none of the pool's business");
}

/// Closes all descriptors, those of the standard streams included.
fn close_everything() -> u32 {
    // SAFETY: also closes what others own; that is the test.
    unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    std::process::id()
}

fn task_closes_all_descriptors(context: Context) {
    let pool = pool_of(1, context);
    let pid = pool.apply(close_everything, ()).unwrap();
    // It works on: nobody mistakes a closed channel for a death.
    for _ in 0..20 {
        assert_eq!(pool.apply(who, (false,)).unwrap(), pid);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(pool.worker_pids(), [pid]);
    // And its death is noticed all the same.
    assert!(procs::kill(pid));
    eventually("it is replaced", SOON, || !pool.worker_pids().contains(&pid));
    expect_full_strength(&pool);
    pool.close();
    pool.join().unwrap();
}

/// Many threads wait for results when the worker dies: each is told.
fn death_while_many_wait() {
    let journal = Journal::default();
    let pool = pool_of(1, Context::Fork);
    let doomed = pool.apply_async(note_and_sleep, (journal.path(),)).unwrap();
    let queued: Vec<_> = (0..8).map(|i| pool.apply_async(double, (i,)).unwrap()).collect();
    eventually("the task runs", SOON, || !journal.notes().is_empty());
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| doomed.get().unwrap_err())).collect();
        let others: Vec<_> = queued.iter().map(|result| scope.spawn(|| result.get().unwrap())).collect();
        std::thread::sleep(Duration::from_millis(30)); // asleep, most likely
        assert!(procs::kill(journal.notes()[0] as u32));
        for thread in waiting {
            assert_eq!(death(&thread.join().unwrap()).end, Exit::Signal(libc::SIGKILL));
        }
        for (i, thread) in others.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), 2 * i as u64);
        }
    });
    expect_full_strength(&pool);
}

fn nap(x: u64) -> u64 {
    std::thread::sleep(Duration::from_micros(300));
    x
}

/// Kills its process the first time.
fn abort_once(journal: String) -> u64 {
    note(&journal, 0);
    if journal::notes(&journal).len() == 1 {
        std::process::abort();
    }
    7
}

/// A task that is to be run again does not wait for the end of what was submitted after it.
fn retried_under_a_flood() {
    let pool = Pool::builder().processes(2).retries(3).start().unwrap();
    let journal = Journal::default();
    let (flows, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let flood = pool.imap_unordered(nap, 0.., 1).unwrap().buffersize(400);
            for result in flood.take_while(|_| !over.load(Ordering::Relaxed)) {
                result.unwrap();
                flows.store(true, Ordering::Relaxed);
            }
        });
        let _end_of_flood = SetOnDrop(&over);
        eventually("the flood runs", SOON, || flows.load(Ordering::Relaxed));
        let result = pool.apply_async(abort_once, (journal.path(),)).unwrap();
        let value = result.get_timeout(Duration::from_secs(30));
        assert_eq!(value.expect("a second run, while the flood goes on"), 7);
    });
    assert_eq!(journal.notes().len(), 2);
}
