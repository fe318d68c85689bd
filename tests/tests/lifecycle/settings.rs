//! What a builder takes, refuses and defaults to.

use libtest_mimic::Trial;
use ringpool::{Builder, Context, ErrorKind, Pool};
use ringpool_tests::test;
use std::process::Command;

pub fn tests() -> Vec<Trial> {
    vec![
        test("settings that make no sense", refused),
        test("settings at their limits", limits),
        test("as many workers as CPUs by default", default_processes),
        test("contexts without init", init_is_missing),
    ]
}

fn refused() {
    let cases: [(&str, Builder, &[&str]); 14] = [
        ("tasks", Pool::builder().max_tasks_per_child(0), &["max_tasks_per_child", "0", "at least 1"]),
        ("retries", Pool::builder().retries(15), &["retries", "15", "0 to 14"]),
        ("slots 0", Pool::builder().slots(0), &["slots", "0", "2 to"]),
        ("slots 1", Pool::builder().slots(1), &["slots", "1", "2 to"]),
        ("slots many", Pool::builder().slots(u32::MAX), &["slots", "4294967295"]),
        ("processes", Pool::builder().processes(1_000_000), &["processes", "1000000", "at most"]),
        ("processes", Pool::builder().processes(usize::MAX), &["processes", "at most"]),
        ("guests", Pool::builder().guests_only(), &["name"]),
        ("quota", Pool::builder().arena_quota(0), &["arena_quota", "0 bytes"]),
        ("reserve", Pool::builder().arena_reserve(0), &["arena_reserve", "0 bytes"]),
        ("reserve", Pool::builder().arena_reserve(u64::MAX), &["arena_reserve", "1 TiB"]),
        ("name", Pool::builder().name(""), &["name", "\"\""]),
        ("name", Pool::builder().name("no/slash"), &["no/slash", "letters"]),
        ("name", Pool::builder().name("x".repeat(65)), &["name", "1 to 64"]),
    ];
    for (what, builder, words) in cases {
        let error = builder.start().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid { .. }), "{what}: {error:?}");
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{what}: {text}");
    }
}

fn limits() {
    let builders = [
        Pool::builder().max_tasks_per_child(1),
        Pool::builder().max_tasks_per_child(u64::MAX),
        Pool::builder().retries(14),
        Pool::builder().slots(2),
        Pool::builder().slots(3),
        Pool::builder().arena_quota(1),
        Pool::builder().arena_reserve(1),
        Pool::builder().arena_quota(1 << 40),
        Pool::builder().patience(std::time::Duration::ZERO),
        Pool::builder().patience(std::time::Duration::MAX),
    ];
    for builder in builders {
        let name = format!("{builder:?}");
        let pool = builder.processes(1).start().unwrap();
        assert_eq!(pool.map(|x: u32| x.to_string(), 0..20).unwrap()[19], "19", "{name}");
        pool.close();
        pool.join().unwrap();
    }
}

fn default_processes() {
    let pool = Pool::new(0).unwrap();
    assert_eq!(pool.processes(), ringpool::usable_cpus());
    assert_eq!(pool.worker_pids().len(), ringpool::usable_cpus());
    assert_eq!(Pool::builder().start().unwrap().processes(), ringpool::usable_cpus());
    assert_eq!(Pool::new(3).unwrap().processes(), 3);
    assert!(ringpool::usable_cpus() >= 1);
}

/// Set for a run of this program that is to leave out `init`.
pub const WITHOUT_INIT: &str = "RINGPOOL_TEST_WITHOUT_INIT";

fn init_is_missing() {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).env(WITHOUT_INIT, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "as expected\n", "{said}");
}

/// What that run does.
pub fn without_init() {
    for context in [Context::Spawn, Context::ForkServer] {
        let error = Pool::builder().processes(1).context(context).start().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Start { .. }), "{error:?}");
        assert!(error.to_string().contains("ringpool::init()"), "{error}");
    }
    // Forks of this program need no door.
    let pool = Pool::builder().processes(1).context(Context::Fork).start().unwrap();
    assert_eq!(pool.apply(|x: u32| x + 1, (1,)).unwrap(), 2);
    println!("as expected");
}
