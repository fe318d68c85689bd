//! Tasks that do what tasks should not do, in the middle of a storm.

use crate::{Wind, blow, double, storm, weather};
use libtest_mimic::Trial;
use ringpool::{Context, Error, ErrorKind, Exit, Pool};
use ringpool_tests::proof::Extent;
use ringpool_tests::tally::{PATIENCE, Tally};
use ringpool_tests::{expect_repaired, in_contexts};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub fn tests() -> Vec<Trial> {
    let mut tests = in_contexts("main_thread_leaves_another_behind", main_thread_leaves_another_behind);
    tests.extend(in_contexts("main_thread_leaves_alone", main_thread_leaves_alone));
    tests.push(storm("odd_tasks", odd_tasks));
    tests
}

/// Ends the calling thread, which is the worker's first and only one: not the process, if there are others.
fn end_this_thread() -> ! {
    // SAFETY: the thread owns nothing that anybody waits for, but for the task.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

fn leave_another_behind() -> u64 {
    std::thread::spawn(|| std::thread::sleep(Duration::from_secs(600)));
    end_this_thread()
}

fn leave_alone() -> u64 {
    end_this_thread()
}

#[track_caller]
fn end_of(error: &Error) -> Exit {
    match error.kind() {
        ErrorKind::WorkerDied { end, .. } => *end,
        other => panic!("expected the death of a worker, got {other:?}"),
    }
}

/// The process lives on by its other thread, a zombie that nobody can wait for; as a worker it is dead.
fn main_thread_leaves_another_behind(context: Context) {
    let pool = Pool::builder().processes(2).context(context).start().expect("a pool");
    let pids = pool.worker_pids();
    let start = Instant::now();
    let result = pool.apply_async(leave_another_behind, ()).expect("a slot");
    assert!(pool.map(double, 0..100u64).expect("the other worker goes on").len() == 100);
    let error = result.get_timeout(PATIENCE).expect_err("nobody can return a value");
    assert_eq!(end_of(&error), Exit::Signal(libc::SIGKILL), "what is left of it must not live on");
    assert!(start.elapsed() < Duration::from_secs(20), "noticed after {:?}", start.elapsed());
    expect_repaired(&pool);
    assert_ne!(pool.worker_pids(), pids);
    pool.close();
    pool.join().expect("a closed pool");
}

/// With its only thread the process ends, and well at that.
fn main_thread_leaves_alone(context: Context) {
    let pool = Pool::builder().processes(2).context(context).start().expect("a pool");
    let result = pool.apply_async(leave_alone, ()).expect("a slot");
    let error = result.get_timeout(PATIENCE).expect_err("nobody can return a value");
    assert_eq!(end_of(&error), Exit::Code(0));
    expect_repaired(&pool);
}

/// Forks a child that outlives the task, and often the worker; it leaves by itself soon.
fn fork_a_child() -> u64 {
    // SAFETY: the child only sleeps and leaves.
    match unsafe { libc::fork() } {
        // SAFETY: as said above.
        0 => unsafe {
            libc::usleep(100_000);
            libc::_exit(0)
        },
        _ => 1,
    }
}

fn become_sleep() -> u64 {
    use std::os::unix::process::CommandExt;
    panic!("{}", std::process::Command::new("sleep").arg("600").exec())
}

/// Closes all descriptors, those of the standard streams included.
fn close_everything() -> u64 {
    // SAFETY: also closes what others own; that is the test.
    unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    1
}

/// All of them at once, among good tasks, while workers are killed. Each costs itself at most.
fn odd_tasks() {
    let wind = Wind { kills: Extent::now().pick(20, 80, 300), pauses: (500, 15_000) };
    let mut rounds = 0;
    weather("odd tasks", Pool::builder().processes(4), |pool, tally| {
        blow(pool, wind, |over| {
            while !over.load(Ordering::Relaxed) {
                odd_round(pool, tally, rounds % 8 == 0);
                rounds += 1;
            }
        })
    });
}

fn odd_round(pool: &Pool, tally: &Tally, with_threads: bool) {
    let mut odd = vec![
        pool.apply_async(fork_a_child, ()).expect("a slot"),
        pool.apply_async(become_sleep, ()).expect("a slot"),
        pool.apply_async(close_everything, ()).expect("a slot"),
    ];
    if with_threads {
        odd.push(pool.apply_async(leave_another_behind, ()).expect("a slot"));
        odd.push(pool.apply_async(leave_alone, ()).expect("a slot"));
    }
    let good: Vec<_> = (0..40).map(|i| pool.apply_async(double, (i,)).expect("a slot")).collect();
    for result in &odd {
        tally.get(result, |&value| value == 1);
    }
    for (i, result) in good.iter().enumerate() {
        tally.get(result, |&value| value == 2 * i as u64);
    }
}
