//! Nothing is left behind: no descriptor, thread, process, name, mapping, block or CPU time.

use libtest_mimic::Trial;
use ringpool::{Context, Pool};
use ringpool_tests::journal::{Journal, note, notes};
use ringpool_tests::{eventually, procs, test};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn double(x: u64) -> u64 {
    2 * x
}

/// What this process has of the system.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: Vec<String>,
    threads: usize,
    /// Zombies included.
    children: Vec<u32>,
    /// Named pools' cards with this process's id in their names: other programs have theirs.
    names: Vec<String>,
    mappings: usize,
}

impl Holdings {
    fn now() -> Self {
        let list = |path: &str| std::fs::read_dir(path).expect("own /proc").flatten();
        // The directory that is being listed is among them, always once.
        let mut descriptors: Vec<String> = list("/proc/self/fd")
            .map(|entry| std::fs::read_link(entry.path()).unwrap_or_default().to_string_lossy().into_owned())
            .map(|target| match target.split_once(":[") {
                Some((kind, _)) => kind.to_owned(), // numbers of sockets and pipes change
                None if target.starts_with("/proc/") => "/proc".to_owned(),
                None => target,
            })
            .collect();
        descriptors.sort();
        let maps = std::fs::read_to_string("/proc/self/maps").expect("own maps");
        let own = format!("-{}-", std::process::id());
        Holdings {
            descriptors,
            threads: list("/proc/self/task").count(),
            children: procs::children(std::process::id()).into_iter().map(|(pid, _)| pid).collect(),
            names: procs::shm().into_iter().filter(|name| name.contains(&own)).collect(),
            mappings: maps.lines().filter(|line| line.contains("ringpool") && line.contains("memfd")).count(),
        }
    }
}

fn name(number: usize) -> String {
    format!("leaks-{}-{number}", std::process::id())
}

/// Has what `body` needs once and for all, then checks that doing it again leaves nothing.
fn leaves_nothing(body: impl Fn()) {
    let threads = Holdings::now().threads;
    // A thread that has been joined may be listed for a moment longer.
    let body = || {
        body();
        eventually("threads end", SOON, || Holdings::now().threads == threads);
    };
    body();
    let before = Holdings::now();
    body();
    assert_eq!(Holdings::now(), before);
    assert_eq!((before.children.len(), before.names.len(), before.mappings), (0, 0, 0));
}

fn sleep_long() {
    std::thread::sleep(Duration::from_secs(600));
}

/// Opens a pool, leaves it in one of many states, and drops it.
fn open_and_drop(number: usize, context: Context) {
    let mut builder = Pool::builder().processes(1 + number % 3).context(context).slots(64);
    if number % 5 == 1 {
        builder = builder.name(name(number));
    }
    let pool = builder.start().unwrap();
    match number % 7 {
        0 => {} // at once, workers are just being born
        1 => assert_eq!(pool.apply(double, (4,)).unwrap(), 8),
        2 => {
            // Work pending.
            for _ in 0..20 {
                let _ = pool.apply_async(sleep_long, ()).unwrap();
            }
        }
        3 => {
            // Workers killed; they are being buried and replaced.
            assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
            for pid in pool.worker_pids() {
                procs::kill(pid);
            }
        }
        4 => {
            assert_eq!(pool.map(double, 0..100u64).unwrap().len(), 100);
            pool.close();
            pool.join().unwrap();
        }
        5 => {
            // The template killed: workers follow it, and all are replaced.
            assert_eq!(pool.apply(double, (4,)).unwrap(), 8);
            for pid in procs::templates() {
                procs::kill(pid);
            }
        }
        _ => {
            // A half-consumed iterator, and a callback.
            let mut results = pool.imap(|x: u64| vec![x; 1000], 0.., 1).unwrap();
            assert_eq!(results.next().unwrap().unwrap(), vec![0; 1000]);
            let _ = pool.apply_async(double, (1,)).unwrap().callback(drop);
        }
    }
}

fn five_hundred_pools() {
    leaves_nothing(|| {
        for number in 0..250 {
            let context = match number % 25 {
                11 => Context::Spawn,
                17 | 23 => Context::ForkServer,
                _ => Context::Fork,
            };
            open_and_drop(number, context);
        }
    });
}

/// The same from several threads at once: pools are forked while others are being closed.
fn pools_of_many_threads() {
    leaves_nothing(|| {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    // Killing templates would hit those of the other threads, too.
                    for number in (35 * thread..35 * thread + 15).filter(|number| number % 7 != 5) {
                        open_and_drop(number, Context::Fork);
                    }
                });
            }
        });
    });
}

fn leave() {
    std::process::exit(1)
}

/// Pools that fail to start leave nothing, either.
fn pools_that_do_not_start() {
    leaves_nothing(|| {
        for number in 0..10 {
            let first = Pool::builder().processes(1).name(name(number)).start().unwrap();
            let second = Pool::builder().processes(2).name(name(number)).start();
            assert!(second.is_err(), "the name is taken");
            drop(first);
        }
        let broken = Pool::builder().processes(2).initializer(leave, ()).start().unwrap();
        broken.apply(double, (1,)).unwrap_err();
    });
}

fn kills_leave_nothing() {
    leaves_nothing(|| {
        let pool = Pool::builder().processes(2).retries(14).start().unwrap();
        let mut killed = 0;
        while killed < 50 {
            killed += pool.worker_pids().into_iter().filter(|&pid| procs::kill(pid)).count();
            assert!(pool.map(double, 0..50u64).unwrap().into_iter().eq((0..50).map(double)));
        }
    });
}

/// The descriptors of a pool do not grow with the workers that die in it.
fn replacements_cost_no_descriptors() {
    let pool = Pool::builder().processes(2).start().unwrap();
    let settle = || {
        eventually("all workers are there", SOON, || {
            let pids = pool.worker_pids();
            pids.len() == 2 && pids.iter().all(|&pid| procs::runs(pid))
        });
        assert_eq!(pool.apply(double, (2,)).unwrap(), 4);
        Holdings::now()
    };
    let replace = || {
        let old = pool.worker_pids();
        assert!(old.iter().all(|&pid| procs::kill(pid)));
        eventually("both are replaced", SOON, || {
            let now = pool.worker_pids();
            now.len() == 2 && !now.iter().any(|pid| old.contains(pid))
        });
    };
    replace(); // the very first worker was this process's own child
    let before = settle();
    for _ in 0..50 {
        replace();
    }
    let after = settle();
    assert_eq!(after.descriptors, before.descriptors);
    assert_eq!(after, before);
    let template = procs::templates()[0];
    let of_template = || std::fs::read_dir(format!("/proc/{template}/fd")).unwrap().count();
    eventually("the template keeps only what it needs", SOON, || of_template() < 20);
}

fn idle_pool_uses_no_cpu() {
    for context in [Context::Fork, Context::Spawn] {
        let pool = Pool::builder().processes(4).context(context).start().unwrap();
        assert_eq!(pool.map(double, 0..100u64).unwrap().len(), 100);
        let all = || {
            let mut pids = procs::descendants(std::process::id());
            pids.push(std::process::id());
            pids.sort_unstable();
            pids
        };
        std::thread::sleep(Duration::from_millis(300)); // searches end, and the pool may tidy up once
        let pids = all();
        assert!(pids.len() >= 5);
        let ticks = || -> u64 { pids.iter().map(|&pid| procs::stat(pid).expect("it lives").ticks).sum() };
        let before = ticks();
        std::thread::sleep(Duration::from_secs(2));
        let used = ticks() - before;
        assert_eq!(all(), pids, "nobody came or went");
        assert!(used <= 2, "{used} ticks of CPU time in two idle seconds");

        // Not even for a moment.
        let nobody_wakes = |while_: &str| {
            let sleeps = || pids.iter().map(|&pid| procs::sleeps_of_others(pid)).sum::<u64>();
            eventually(&format!("nobody wakes up {while_}"), SOON, || {
                let before = sleeps();
                std::thread::sleep(Duration::from_secs(2));
                sleeps() == before
            });
        };
        nobody_wakes("in a pool at rest");
        // Results that nobody waits for are taken, and then there is nothing left to look at.
        let results: Vec<_> = (0..10).map(|i| pool.apply_async(double, (i,)).unwrap()).collect();
        nobody_wakes("for results that lie there");
        assert!(results.iter().enumerate().all(|(i, result)| result.get().unwrap() == 2 * i as u64));
    }
}

fn wait_for_note(journal: String) -> u64 {
    loop {
        match notes(&journal)[..] {
            [note, ..] => return note,
            [] => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Somebody looks after a task for which nobody waits, and only as long as it takes.
fn busy_pool_is_watched() {
    let pool = Pool::builder().processes(1).start().unwrap();
    assert_eq!(pool.apply(double, (1,)).unwrap(), 2);
    let sleeps = || procs::sleeps_of_others(std::process::id());
    for _ in 0..3 {
        eventually("the pool rests", SOON, || {
            let before = sleeps();
            std::thread::sleep(Duration::from_secs(1));
            sleeps() == before
        });
        let journal = Journal::default();
        let before = sleeps();
        let task = pool.apply_async(wait_for_note, (journal.path(),)).unwrap();
        eventually("somebody looks more than once", SOON, || sleeps() >= before + 2);
        note(&journal.path(), 7);
        assert_eq!(task.get().unwrap(), 7);
    }
}

/// As little memory as a pool can be given: what leaks is soon missed.
fn tight_pool(processes: usize) -> Pool {
    Pool::builder()
        .processes(processes)
        .arena_reserve(8 << 20)
        .arena_quota(8 << 20)
        .patience(Duration::from_secs(20))
        .start()
        .unwrap()
}

fn length(bytes: Vec<u8>) -> u64 {
    bytes.len() as u64
}

fn bytes(len: u64) -> Vec<u8> {
    vec![len as u8; len as usize]
}

fn fail(message: String) -> Vec<u8> {
    panic!("{message}")
}

/// A hundred thousand tasks whose arguments and results would fill the memory hundreds of times.
fn mixed_tasks_in_little_memory() {
    let pool = tight_pool(2);
    for round in 0..20u64 {
        // Small, by slots alone.
        assert!(
            pool.map_async(double, 0..1000u64, Some(1))
                .unwrap()
                .get()
                .unwrap()
                .into_iter()
                .eq((0..1000).map(double))
        );
        // In chunks, the results of which move as they grow.
        let sizes = (0..2000).map(|i| (i * 7 + round) % 600);
        let chunks = pool.map_async(bytes, sizes.clone(), Some(100)).unwrap().get().unwrap();
        assert!(chunks.iter().map(|chunk| chunk.len() as u64).eq(sizes));
        // Large arguments and large results, one by one.
        for i in 0..8 {
            let len = (i * 270_007 + round) % (1 << 20);
            assert_eq!(pool.apply(length, (vec![0; len as usize],)).unwrap(), len);
            assert_eq!(pool.apply(bytes, (len,)).unwrap().len() as u64, len);
        }
        // Failures with text in blocks.
        for _ in 0..10 {
            assert!(pool.apply(fail, ("no ".repeat(1000),)).unwrap_err().is_panic());
        }
        // Streams.
        assert_eq!(pool.imap_unordered(bytes, 0..1000, 10).unwrap().filter(Result::is_ok).count(), 1000);
        // Shared arrays.
        let mut array = pool.alloc::<u64>(100_000).unwrap();
        array.fill(round);
        let array = array.share();
        let sum = |a: &ringpool::ArchivedSharedSlice<u64>| a.iter().sum::<u64>();
        assert_eq!(pool.apply(sum, (array.clone(),)).unwrap(), 100_000 * round);
    }
    assert!(pool.map(double, 0..20_000u64).unwrap().into_iter().eq((0..20_000).map(double)));
    assert_all_memory_is_free(&pool);
}

/// Every process of the pool can still use most of its quota for one payload.
#[track_caller]
fn assert_all_memory_is_free(pool: &Pool) {
    let most = 5 << 20;
    for _ in 0..4 {
        let results: Vec<_> = (0..4).map(|_| pool.apply(bytes, (most,))).collect();
        for result in results {
            assert_eq!(result.unwrap().len() as u64, most);
        }
        assert_eq!(pool.apply(length, (vec![1; most as usize],)).unwrap(), most);
    }
}

fn results_that_nobody_fetches() {
    let pool = tight_pool(2);
    for round in 0..200 {
        // 64 times 100 KB a round.
        let mut results: Vec<_> = (0..64).map(|_| pool.apply_async(bytes, (100_000,)).unwrap()).collect();
        match round % 4 {
            0 => drop(results), // at once
            1 => {
                results[20].wait(None); // some are done, some are not
            }
            2 => {
                let view = results.swap_remove(5).view().unwrap();
                drop(results); // the view outlives what it was taken from
                assert_eq!(view.len(), 100_000);
            }
            _ => assert_eq!(results[63].get().unwrap().len(), 100_000),
        }
    }
    assert_all_memory_is_free(&pool);
}

fn half_consumed_iterators() {
    let pool = tight_pool(2);
    for round in 0..200usize {
        let chunksize = 1 + round % 3;
        let mut ordered = pool.imap(bytes, std::iter::repeat(50_000), chunksize).unwrap();
        for _ in 0..round % 5 {
            assert_eq!(ordered.next().unwrap().unwrap().len(), 50_000);
        }
        let mut unordered = pool.imap_unordered(bytes, std::iter::repeat_n(50_000, 30), chunksize).unwrap();
        if round % 2 == 0 {
            drop(ordered);
            assert_eq!(unordered.next().unwrap().unwrap().len(), 50_000);
        }
        let _ = pool.map_async(bytes, std::iter::repeat_n(10_000, 50), Some(5)).unwrap();
    }
    assert_all_memory_is_free(&pool);
}

/// Blocks that dead workers held, in any state, are free again.
fn killed_workers_leave_no_blocks() {
    // One worker may come to hold all results of a round, in a block class or two each.
    let pool = Pool::builder()
        .processes(2)
        .arena_reserve(12 << 20)
        .arena_quota(12 << 20)
        .patience(Duration::from_secs(20))
        .retries(14)
        .start()
        .unwrap();
    for round in 0..100u64 {
        let results: Vec<_> = (0..20).map(|_| pool.apply_async(bytes, (100_000,)).unwrap()).collect();
        let chunks = pool.map_async(bytes, std::iter::repeat_n(8_000, 100), Some(10)).unwrap();
        std::thread::sleep(Duration::from_micros(round * 29 % 3000));
        for pid in pool.worker_pids() {
            procs::kill(pid);
        }
        if round % 3 != 0 {
            for result in results {
                assert_eq!(result.get().unwrap().len(), 100_000);
            }
            assert_eq!(chunks.get().unwrap().len(), 100);
        }
    }
    assert_all_memory_is_free(&pool);
}

fn main() {
    ringpool::init();
    let tests: Vec<Trial> = vec![
        test("five_hundred_pools", five_hundred_pools),
        test("pools_of_many_threads", pools_of_many_threads),
        test("pools_that_do_not_start", pools_that_do_not_start),
        test("kills_leave_nothing", kills_leave_nothing),
        test("replacements_cost_no_descriptors", replacements_cost_no_descriptors),
        test("idle_pool_uses_no_cpu", idle_pool_uses_no_cpu),
        test("busy_pool_is_watched", busy_pool_is_watched),
        test("mixed_tasks_in_little_memory", mixed_tasks_in_little_memory),
        test("results_that_nobody_fetches", results_that_nobody_fetches),
        test("half_consumed_iterators", half_consumed_iterators),
        test("killed_workers_leave_no_blocks", killed_workers_leave_no_blocks),
    ];
    ringpool_tests::run(tests)
}
