//! Programs that join a pool by its name, and the names themselves.

use libtest_mimic::Trial;
use ringpool::{Builder, Context, ErrorKind, Exit, Pool};
use ringpool_tests::actor::{Actor, play, wait_for_the_end};
use ringpool_tests::functions::{
    asking_who, failing, growing, register_all, running, serve, shouting, sleeping, watching,
};
use ringpool_tests::journal::Journal;
use ringpool_tests::{eventually, in_contexts, procs, test};
use rustix::process::Signal;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Which program the guests are.
#[derive(Clone, Copy, Debug)]
enum Program {
    Same,
    Other,
}

const PROGRAMS: [Program; 2] = [Program::Same, Program::Other];

/// A name that no other test uses.
fn name() -> String {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("attach-{}-{number}", std::process::id())
}

fn card_is_up(name: &str) -> bool {
    procs::shm().contains(&format!("ringpool.{name}"))
}

fn start_guest(program: Program, name: &str) -> Actor {
    match program {
        Program::Same => Actor::start("guest", &[name]),
        Program::Other => Actor::program(env!("CARGO_BIN_EXE_guest"), &[name, "all"]),
    }
}

/// A guest that has joined.
fn guest(program: Program, name: &str) -> Actor {
    let mut guest = start_guest(program, name);
    assert_eq!(guest.line(), "joined");
    guest
}

fn for_guests(name: &str) -> Builder {
    Pool::builder().name(name).guests_only()
}

/// What `attach` says to a program that is not to join; it ends by itself.
fn refusal(mut guest: Actor) -> String {
    let line = guest.line();
    assert!(guest.finish().success());
    line.strip_prefix("refused: ").unwrap_or_else(|| panic!("not refused: {line:?}")).to_owned()
}

fn guests_do_all_the_work(program: Program) {
    let name = name();
    let pool = for_guests(&name).start().unwrap();
    // Work may come before the workers.
    let early = pool.apply_async(shouting(), ("early".to_owned(),)).unwrap();
    assert!(early.get_timeout(Duration::from_millis(50)).unwrap_err().is_timeout());
    let mut guests = [guest(program, &name), guest(program, &name)];
    assert_eq!(early.get().unwrap(), "EARLY");
    let pids = guests.each_ref().map(Actor::pid);
    eventually("the pool knows both", SOON, || pool.worker_pids().len() == 2);
    assert!(pool.worker_pids().iter().all(|pid| pids.contains(pid)));
    assert!(pids.contains(&pool.apply(asking_who(), ()).unwrap()));

    // Results in the slot, in blocks, in chunks, and failures.
    for len in [0, 3, 1000, 1_000_000] {
        assert!(pool.apply(growing(), (len,)).unwrap().into_iter().eq(0..len));
    }
    let chunks = pool.map_async(growing(), 0..300u64, Some(20)).unwrap().get().unwrap();
    assert!(chunks.iter().map(|chunk| chunk.len() as u64).eq(0..300));
    let texts: Vec<String> = (0..100).map(|i| format!("text {i}")).collect();
    let shouted: Vec<String> = pool.imap(shouting(), texts.clone(), 3).unwrap().map(Result::unwrap).collect();
    assert!(shouted.into_iter().eq(texts.iter().map(|text| text.to_uppercase())));
    let error = pool.apply(failing(), ("on purpose".to_owned(),)).unwrap_err();
    assert!(error.is_panic() && error.to_string().contains("on purpose"), "{error}");

    pool.close();
    pool.join().unwrap();
    for guest in &mut guests {
        assert_eq!(guest.line(), "PoolEnded");
        assert!(guest.finish().success());
    }
    assert!(!card_is_up(&name));
}

/// Guests run what is called by name, the pool's own workers run everything.
/// Nobody may ever come again to use the memory that a guest has left.
fn memory_of_guests_that_left(program: Program) {
    let name = name();
    let pool = for_guests(&name).start().unwrap();
    let mut first = guest(program, &name);
    let results: Vec<_> = (0..4).map(|_| pool.apply_async(growing(), (1_000_000,)).unwrap()).collect();
    results.iter().for_each(|result| assert_eq!(result.get().unwrap().len(), 1_000_000));
    let committed = || pool.audit().unwrap().memory.committed;
    assert!(committed() > 8_000_000);
    first.kill();
    drop(results);
    eventually("the guest's memory is given back", SOON, || committed() < 1_000_000);
    let _second = guest(program, &name);
    assert_eq!(pool.apply(growing(), (1_000_000,)).unwrap().len(), 1_000_000, "the place works again");
}

fn guests_beside_workers(context: Context) {
    let name = name();
    let pool = Pool::builder().name(&name).processes(1).context(context).start().unwrap();
    let guest = guest(Program::Other, &name);
    eventually("both work", SOON, || {
        let mut pids = pool.map_async(sleeping_who, 0..8u64, Some(1)).unwrap().get().unwrap();
        assert!(!pids.contains(&guest.pid()), "a guest cannot know a function without a name");
        let named = (0..8).map(|_| pool.apply_async(asking_who(), ()).unwrap()).collect::<Vec<_>>();
        pids.extend(named.iter().map(|result| result.get().unwrap()));
        pids.sort_unstable();
        pids.dedup();
        pids.len() == 2 && pids.contains(&guest.pid())
    });
}

fn sleeping_who(milliseconds: u64) -> u32 {
    std::thread::sleep(Duration::from_millis(milliseconds % 2));
    std::process::id()
}

fn guest_killed_in_a_task(program: Program) {
    let name = name();
    let pool = for_guests(&name).start().unwrap();
    let journal = Journal::default();
    let guests = [guest(program, &name), guest(program, &name)];
    let pids = guests.each_ref().map(Actor::pid);
    let task = |item: u64| (journal.path(), item, u64::from(item == 40));
    let results: Vec<_> = (0..100).map(|i| pool.apply_async(running(), (task(i),)).unwrap()).collect();
    for (i, result) in results.iter().enumerate() {
        match result.get() {
            Ok(value) => assert_eq!(value, 2 * i as u64),
            Err(error) => {
                let ErrorKind::WorkerDied { end, pid, attempt, .. } = error.kind() else {
                    panic!("{error:?}")
                };
                assert_eq!((i, *attempt), (40, 1));
                assert!(pids.contains(pid));
                // Its own parent alone can know how it ended.
                assert!(matches!(end, Exit::Unknown | Exit::Signal(libc::SIGKILL)), "{end:?}");
            }
        }
    }
    assert!(results[40].get().is_err());
    assert_eq!(journal.notes().len(), 100, "each is run once");
    // The other guest goes on, and another may come.
    eventually("the dead one is struck off", SOON, || pool.worker_pids().len() == 1);
    assert!(procs::runs(pool.worker_pids()[0]));
    let third = guest(program, &name);
    eventually("the third is there", SOON, || pool.worker_pids().contains(&third.pid()));

    // Again in chunks, with one guest left at the end.
    let journal = Journal::default();
    let items = (0..200).map(|i| (journal.path(), i, u64::from(i == 77)));
    let results = pool.map_async(running(), items, Some(20)).unwrap().get_each().unwrap();
    for (i, result) in results.iter().enumerate() {
        match result {
            Ok(value) => assert_eq!(*value, 2 * i as u64),
            Err(error) => assert!(i == 77 && error.is_worker_died(), "item {i}: {error}"),
        }
    }
    assert!(results[77].is_err());
    assert!(journal.counts().into_iter().eq((0..200).map(|i| (i, 1))), "each is run once");
}

fn guest_killed_from_outside(program: Program) {
    let name = name();
    let pool = for_guests(&name).retries(1).start().unwrap();
    let journal = Journal::default();
    let mut guests = [guest(program, &name), guest(program, &name)];
    let result = pool.apply_async(sleeping(), (journal.path(), 300)).unwrap();
    eventually("the task runs", SOON, || !journal.notes().is_empty());
    let victim = journal.notes()[0] as u32;
    let index = usize::from(guests[1].pid() == victim);
    guests[index].kill();
    assert_eq!(result.get().unwrap(), guests[1 - index].pid(), "the other one does it again");
    assert_eq!(journal.notes().len(), 2);
}

fn refused_for_its_functions() {
    let name = name();
    let pool = for_guests(&name).start().unwrap();
    for (variant, function) in [("missing", "\"who\""), ("other-types", "\"shout\"")] {
        let message = refusal(Actor::program(env!("CARGO_BIN_EXE_guest"), &[&name, variant]));
        assert!(message.contains(function), "{variant}: {message}");
        assert!(message.contains(&name), "{message}");
    }
    // Neither has a place now, and one who knows all is welcome.
    eventually("those who were refused are gone", SOON, || pool.worker_pids().is_empty());
    let good = guest(Program::Other, &name);
    assert_eq!(pool.apply(asking_who(), ()).unwrap(), good.pid());
}

fn attach_error(name: &str) -> String {
    let error = ringpool::attach(name).err().expect("nothing to join");
    assert!(matches!(error.kind(), ErrorKind::Attach { .. }), "{error:?}");
    assert!(error.to_string().contains(name), "{error}");
    error.to_string()
}

fn unknown_names() {
    assert!(attach_error(&name()).contains("no pool of this name"));
    assert!(matches!(ringpool::attach("no/such").err().expect("no name").kind(), ErrorKind::Invalid { .. }));
}

/// The descriptors of control memory that this process has. Besides those of living pools there are some
/// of terminated ones from which a guest still read.
fn controls() -> Vec<PathBuf> {
    let is_control = |fd: &PathBuf| {
        let target = std::fs::read_link(fd).unwrap_or_default();
        target.to_string_lossy().starts_with("/memfd:ringpool-control")
    };
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    fds.map(|fd| fd.path()).filter(is_control).collect()
}

/// Overwrites a word of a pool's control memory for the time of `body`.
fn with_word(control: &Path, word: u64, value: u64, body: impl FnOnce()) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(control).unwrap();
    let mut old = [0; 8];
    file.read_exact_at(&mut old, 8 * word).unwrap();
    assert_ne!(u64::from_ne_bytes(old), value);
    file.write_all_at(&value.to_ne_bytes(), 8 * word).unwrap();
    body();
    file.write_all_at(&old, 8 * word).unwrap();
}

/// Pools of other versions of the library are recognised by the first words of their memory.
fn refused_for_the_pools_layout() {
    let name = name();
    let others = controls();
    let pool = for_guests(&name).start().unwrap();
    let control = controls().into_iter().find(|fd| !others.contains(fd)).expect("the pool's control memory");
    // Magic, version, layout, payload format; then sizes that no pool has: places, slots, region.
    for (word, value, reason) in [
        (0, 1, "first word"),
        (1, 999, "version 999"),
        (2, 1, ""),
        (3, 1, "archived"),
        (6, 1 << 40, ""),
        (6, 0, ""),
        (7, 3, ""),
        (9, 1 << 60, ""),
        (9, 2 << 20, ""),
    ] {
        with_word(&control, word, value, || {
            let message = refusal(start_guest(Program::Other, &name));
            assert!(message.contains(reason), "word {word}: {message}");
            assert!(message.contains(&name), "word {word}: {message}");
        });
    }
    let good = guest(Program::Other, &name);
    assert_eq!(pool.apply(asking_who(), ()).unwrap(), good.pid());
}

fn names_are_taken_and_given_back(context: Context) {
    let name = name();
    let start = || Pool::builder().name(&name).processes(1).context(context).start();
    for way in 0..4 {
        let pool = start().unwrap();
        assert!(card_is_up(&name));
        let error = start().expect_err("the name is taken");
        assert!(matches!(error.kind(), ErrorKind::Attach { .. }), "{error:?}");
        assert!(error.to_string().contains(&std::process::id().to_string()), "says who has it: {error}");
        assert_eq!(pool.apply(shouting(), ("x".to_owned(),)).unwrap(), "X", "the first pool is unharmed");
        match way {
            0 => drop(pool),
            1 => pool.terminate(),
            2 => {
                pool.close();
                pool.join().unwrap();
            }
            _ => {
                for pid in pool.worker_pids() {
                    procs::kill(pid);
                }
                drop(pool);
            }
        }
        assert!(!card_is_up(&name), "way {way}");
        attach_error(&name);
    }
}

/// An actor: makes a named pool for guests, or with one worker, and holds it. A third argument is a journal,
/// and wants a task that notes itself there.
fn creator(args: &[String]) {
    let builder = Pool::builder().name(&args[0]);
    let builder = if args[1] == "guests" { builder.guests_only() } else { builder.processes(1) };
    let pool = builder.start().expect("a pool");
    if let Some(journal) = args.get(2) {
        let _ = pool.apply_async(sleeping(), (journal.clone(), 500)).expect("a task");
    }
    pool.worker_pids(); // waits until they have been launched
    println!("ready");
    wait_for_the_end();
}

fn start_creator(args: &[&str]) -> Actor {
    let mut creator = Actor::start("creator", args);
    assert_eq!(creator.line(), "ready");
    creator
}

fn creator_killed_while_guests_idle(program: Program) {
    let name = name();
    let mut creator = start_creator(&[&name, "guests"]);
    let mut guests = [guest(program, &name), guest(program, &name)];
    std::thread::sleep(Duration::from_millis(100)); // they park
    creator.kill();
    for guest in &mut guests {
        assert_eq!(guest.line(), "CreatorGone");
        assert!(guest.finish().success());
    }
    eventually("the name is gone", SOON, || !card_is_up(&name));
    attach_error(&name);
}

fn creator_killed_while_a_guest_works(program: Program) {
    let name = name();
    let journal = Journal::default();
    let mut creator = start_creator(&[&name, "guests", &journal.path()]);
    let mut guest = guest(program, &name);
    eventually("the task runs", SOON, || !journal.notes().is_empty());
    creator.kill();
    assert_eq!(guest.line(), "CreatorGone", "it serves out its task for nobody");
}

/// A card that nobody takes down: its pool and the pool's template die at once.
fn leave_a_stale_card(name: &str) {
    let mut creator = start_creator(&[name, "worker"]);
    let pid = creator.pid();
    // The template comes when the pool has started already.
    eventually("a template and a worker", SOON, || procs::descendants(pid).len() == 2);
    // Stopped, it cannot replace the template that is killed before it.
    assert!(procs::signal(pid, Signal::STOP));
    eventually("the creator stops", SOON, || procs::is_stopped(pid));
    let pids = procs::descendants(pid);
    assert_eq!(pids.len(), 2, "a template and a worker");
    for &pid in &pids {
        procs::kill(pid);
    }
    eventually("both are dead", SOON, || !pids.iter().any(|&pid| procs::runs(pid)));
    creator.kill();
    assert!(card_is_up(name), "the test has made what it wants to see swept");
}

fn stale_names_are_swept() {
    let name = name();
    leave_a_stale_card(&name);
    assert!(attach_error(&name).contains("dead"));
    assert!(!card_is_up(&name), "who finds it takes it down");
    leave_a_stale_card(&name);
    let pool = for_guests(&name).start().expect("a dead pool's name is free");
    let guest = guest(Program::Other, &name);
    assert_eq!(pool.apply(asking_who(), ()).unwrap(), guest.pid());
    drop(pool);
    assert!(!card_is_up(&name));
}

/// A file that bears the name and is no card, as a creator that dies at the wrong moment leaves it.
fn unfinished_cards_are_swept() {
    for len in [0, 4096] {
        let name = name();
        let path = format!("/dev/shm/ringpool.{name}");
        std::fs::write(&path, vec![0; len]).unwrap();
        assert!(attach_error(&name).contains("no pool of this name"));
        let pool = for_guests(&name).start().expect("an unfinished card is no pool");
        let guest = guest(Program::Other, &name);
        assert_eq!(pool.apply(asking_who(), ()).unwrap(), guest.pid());
    }
}

fn guests_leave_when_the_pool_ends(program: Program) {
    for way in 0..3 {
        let name = name();
        let pool = for_guests(&name).start().unwrap();
        let mut guests = [guest(program, &name), guest(program, &name)];
        if way > 0 {
            assert_eq!(pool.apply(shouting(), ("x".to_owned(),)).unwrap(), "X");
        }
        match way {
            0 => drop(pool),
            1 => pool.terminate(),
            _ => pool.close(),
        }
        for guest in &mut guests {
            assert_eq!(guest.line(), "PoolEnded", "way {way}");
            assert!(guest.finish().success());
        }
    }
}

/// A pool can end, and its name be used again, while a guest is still in a task of it.
fn guest_outlives_the_pool_in_a_task() {
    let name = name();
    let journal = Journal::default();
    let pool = for_guests(&name).start().unwrap();
    let mut first = guest(Program::Other, &name);
    let result = pool.apply_async(sleeping(), (journal.path(), 500)).unwrap();
    eventually("the task runs", SOON, || !journal.notes().is_empty());
    drop(pool);
    assert!(result.get().unwrap_err().is_closed());
    let pool = for_guests(&name).start().expect("the name is free");
    let second = guest(Program::Other, &name);
    assert_eq!(pool.apply(asking_who(), ()).unwrap(), second.pid());
    assert_eq!(first.line(), "PoolEnded", "it serves out its task for nobody");
}

fn guests_have_a_task_limit() {
    let name = name();
    let pool = for_guests(&name).max_tasks_per_child(3).start().unwrap();
    for _ in 0..3 {
        let mut guest = guest(Program::Other, &name);
        for _ in 0..3 {
            assert_eq!(pool.apply(asking_who(), ()).unwrap(), guest.pid());
        }
        assert_eq!(guest.line(), "TaskLimit");
    }
}

/// Guests come and die all the time; each death costs the task that it hit.
fn guests_under_fire() {
    let name = name();
    let pool = for_guests(&name).retries(14).start().unwrap();
    let mut steady = guest(Program::Other, &name);
    for round in 0..15u64 {
        let mut victim = guest(Program::Other, &name);
        let results = pool.map_async(growing(), (0..400).map(|i| i % 97), Some(7)).unwrap();
        std::thread::sleep(Duration::from_micros(300 * round));
        victim.kill();
        let values = results.get().unwrap();
        assert!(values.iter().map(|value| value.len() as u64).eq((0..400).map(|i| i % 97)));
    }
    eventually("only the steady one is left", SOON, || pool.worker_pids() == [steady.pid()]);
    drop(pool);
    assert_eq!(steady.line(), "PoolEnded");
}

/// A guest program of several threads, which serve a pool each. It stays when they are done.
fn serve_each(names: &[String]) {
    std::thread::scope(|threads| {
        for name in names {
            threads.spawn(move || serve(name));
        }
    });
    wait_for_the_end();
}

/// A pool is ended when nobody serves it any more, not when the guest's program ends.
fn one_guest_of_two_pools() {
    let names = [name(), name()];
    let [first, second] = names.each_ref().map(|name| for_guests(name).start().unwrap());
    let mut guest = Actor::start("guest of each", &[&names[0], &names[1]]);
    assert_eq!([guest.line(), guest.line()], ["joined", "joined"]);
    for pool in [&first, &second] {
        assert_eq!(pool.apply(asking_who(), ()).unwrap(), guest.pid());
    }
    first.close();
    first.join().unwrap();
    assert_eq!(guest.line(), "PoolEnded");
    assert!(!card_is_up(&names[0]));
    for len in [0, 1000, 1_000_000] {
        assert!(second.apply(growing(), (len,)).unwrap().into_iter().eq(0..len));
    }
    second.close();
    second.join().unwrap();
    assert_eq!(guest.line(), "PoolEnded");
    assert!(procs::runs(guest.pid()), "it has other things to do");
    assert!(guest.finish().success());
}

/// A task could not tell in which of two mappings its pool's memory is.
fn one_pool_served_twice() {
    let name = name();
    let pool = for_guests(&name).start().unwrap();
    let mut guest = Actor::start("guest of each", &[&name, &name]);
    let mut lines = [guest.line(), guest.line(), guest.line()];
    lines.sort_unstable();
    let [failed, joined @ ..] = &lines;
    assert_eq!(joined, &["joined", "joined"]);
    assert!(failed.starts_with("failed: ") && failed.contains("already"), "{failed}");
    for len in 0..200 {
        assert!(pool.apply(growing(), (len,)).unwrap().into_iter().eq(0..len));
    }
    let journal = Journal::default();
    let slice = pool.alloc::<u64>(1000).unwrap().share();
    assert_eq!(pool.apply(watching(), (journal.path(), slice, 1)).unwrap(), 0);
    pool.close();
    pool.join().unwrap();
    assert_eq!(guest.line(), "PoolEnded");
    assert!(guest.finish().success());
}

/// Terminated pools do not wait for guests, so what these read is not to be written again.
fn guest_reads_on_in_a_terminated_pool(program: Program) {
    let name = name();
    let journal = Journal::default();
    let pool = for_guests(&name).start().unwrap();
    let mut guest = guest(program, &name);
    let mut slice = pool.alloc::<u64>(100_000).unwrap();
    slice.fill(1);
    let slice = slice.share();
    let result = pool.apply_async(watching(), (journal.path(), slice.clone(), 500)).unwrap();
    eventually("the task runs", SOON, || !journal.notes().is_empty());
    pool.terminate();
    assert!(result.get().unwrap_err().is_closed());
    drop((result, pool));
    assert_eq!(journal.notes(), [1], "it runs still");
    let Err(slice) = slice.try_into_mut() else { panic!("writable while the guest reads it") };
    assert!(slice.iter().all(|&item| item == 1));
    assert_eq!(guest.line(), "PoolEnded", "it serves out its task for nobody");
    assert_eq!(journal.notes(), [1, 1]);
}

/// Wake-ups for tasks without a name are lost on guests.
fn code_after_names(context: Context) {
    let name = name();
    let pool = Pool::builder().name(&name).processes(1).context(context).start().unwrap();
    let _guest = guest(Program::Other, &name);
    let journal = Journal::default();
    for round in 0..40 {
        std::thread::sleep(Duration::from_millis(3)); // both park
        let naps = [0, 1].map(|_| {
            std::thread::sleep(Duration::from_micros(500));
            pool.apply_async(sleeping(), (journal.path(), 2)).unwrap()
        });
        naps.iter().for_each(|nap| assert!(procs::runs(nap.get().unwrap())));
        // Both are about to park.
        std::thread::sleep(Duration::from_micros(5 * round));
        let result = pool.apply_async(sleeping_who, (0,)).unwrap();
        assert_eq!(result.get_timeout(SOON).expect("the worker wakes"), pool.worker_pids()[0]);
    }
}

fn main() {
    register_all("").expect("good names");
    ringpool::init();
    play(&[("guest", |args| serve(&args[0])), ("guest of each", serve_each), ("creator", creator)]);
    let mut tests: Vec<Trial> = Vec::new();
    for program in PROGRAMS {
        let mut add = |name: &str, body: fn(Program)| {
            tests.push(test(format!("{name}::{program:?}"), move || body(program)));
        };
        add("guests_do_all_the_work", guests_do_all_the_work);
        add("guest_killed_in_a_task", guest_killed_in_a_task);
        add("guest_killed_from_outside", guest_killed_from_outside);
        add("creator_killed_while_guests_idle", creator_killed_while_guests_idle);
        add("creator_killed_while_a_guest_works", creator_killed_while_a_guest_works);
        add("memory_of_guests_that_left", memory_of_guests_that_left);
        add("guests_leave_when_the_pool_ends", guests_leave_when_the_pool_ends);
        add("guest_reads_on_in_a_terminated_pool", guest_reads_on_in_a_terminated_pool);
    }
    tests.extend(in_contexts("guests_beside_workers", guests_beside_workers));
    tests.extend(in_contexts("code_after_names", code_after_names));
    tests.extend(in_contexts("names_are_taken_and_given_back", names_are_taken_and_given_back));
    tests.extend([
        test("refused_for_its_functions", refused_for_its_functions),
        test("refused_for_the_pools_layout", refused_for_the_pools_layout),
        test("unknown_names", unknown_names),
        test("stale_names_are_swept", stale_names_are_swept),
        test("unfinished_cards_are_swept", unfinished_cards_are_swept),
        test("guest_outlives_the_pool_in_a_task", guest_outlives_the_pool_in_a_task),
        test("guests_have_a_task_limit", guests_have_a_task_limit),
        test("guests_under_fire", guests_under_fire),
        test("one_guest_of_two_pools", one_guest_of_two_pools),
        test("one_pool_served_twice", one_pool_served_twice),
    ]);
    ringpool_tests::run(tests)
}
