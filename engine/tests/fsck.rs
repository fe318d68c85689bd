//! The program `ringpool-fsck`, run on this process's pools.

use ringpool::Pool;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

/// Exit code, standard output and standard error.
fn fsck(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringpool-fsck"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

fn name(of: &str) -> String {
    format!("fsck-{of}-{}", std::process::id())
}

/// Tests run side by side in this process, so its pools are audited by name or by a worker.
fn pool(of: &str) -> Pool {
    Pool::builder().processes(2).slots(64).name(name(of)).start().expect("a pool")
}

#[test]
fn pools_are_found_by_name_and_by_worker() {
    let pool = pool("found");
    let large = pool.apply_async(|len: u64| vec![1u8; len as usize], (100_000,)).expect("submitted");
    let view = large.view().expect("a result");
    let worker = pool.worker_pids()[0].to_string();
    for target in [&name("found"), &worker] {
        let (code, out, err) = fsck(&[target]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        let id = format!(
            "pool {:x}, running; process {} made it and lives\n",
            pool.audit().unwrap().pool_id,
            std::process::id()
        );
        assert!(out.starts_with(&id), "{out}");
        assert!(out.contains("slots: 64 of 64 free\n"), "{out}");
        assert!(out.contains("3 places used, 3 live\n"), "{out}");
        assert!(out.contains("blocks held: 0 arguments, 1 results, 0 by workers\n"), "{out}");
        assert!(out.ends_with("no violation\n"), "{out}");
    }
    drop(view);
}

#[test]
fn a_busy_pool_is_clean() {
    let pool = pool("busy");
    std::thread::scope(|scope| {
        let stream =
            pool.imap(|len: u64| vec![len; len as usize], (0..).map(|i| i % 5000), 3).expect("started");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            for result in stream {
                result.expect("a result");
                if stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected) {
                    return;
                }
            }
        });
        for _ in 0..20 {
            let (code, out, err) = fsck(&[&name("busy")]);
            assert_eq!(code, 0, "{out}{err}");
        }
        drop(stop);
    });
}

#[test]
fn other_pools_of_the_process_may_end_meanwhile() {
    let lasting = pool("lasting");
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                drop(pool("ending"));
            }
        });
        for _ in 0..200 {
            let audit = ringpool::audit::by_name(&name("lasting")).expect("the pool lives");
            assert!(audit.is_clean(), "{audit}");
        }
        for _ in 0..200 {
            let audits = ringpool::audit::by_pid(std::process::id()).expect("a pool of it lives");
            assert!(audits.iter().any(|one| one.pool_id == lasting.audit().expect("own").pool_id));
        }
        drop(stop);
    });
}

#[test]
fn a_spoilt_pool_is_reported() {
    let pool = pool("spoilt");
    let id = pool.audit().expect("own").pool_id;
    let control = std::fs::read_dir("/proc/self/fd").expect("own descriptors").flatten().find(|entry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        target.to_string_lossy() == format!("/memfd:ringpool-control-{id:x} (deleted)")
    });
    let control = std::fs::OpenOptions::new().write(true).open(control.expect("it is open").path());
    // The eleventh word is the quota, which nobody reads any more.
    control.expect("own memory").write_all_at(&u64::MAX.to_ne_bytes(), 80).expect("written");
    let (code, out, err) = fsck(&[&name("spoilt")]);
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    let last = out.lines().last().expect("a line");
    assert_eq!(
        last,
        format!("invariant 30: pool: the quota is {}; a region has {} bytes", u64::MAX, 16u64 << 30)
    );
}

#[test]
fn what_cannot_be_audited_is_said() {
    for (target, expected) in [
        ("fsck-nobody", "\"fsck-nobody\": there is no pool of this name"),
        ("a/b", "the pool's name is \"a/b\"; it must be 1 to 64 letters"),
        ("4294967295", "there is no process 4294967295"),
        ("0", "there is no process 0"),
    ] {
        let (code, out, err) = fsck(&[target]);
        assert_eq!((code, out.as_str()), (2, ""), "{target}");
        assert!(err.contains(expected), "{target}: {err}");
    }
    let mut sleep = Command::new("sleep").arg("100").spawn().expect("sleep");
    let (code, _, err) = fsck(&[&sleep.id().to_string()]);
    assert_eq!(code, 2);
    assert!(err.contains(&format!("process {} has no pool; name a process", sleep.id())), "{err}");
    sleep.kill().expect("ours");
    sleep.wait().expect("ours");
}

#[test]
fn usage_is_explained() {
    let (code, out, err) = fsck(&["--help"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("Usage: ringpool-fsck <NAME|PID>\n") && out.contains("Exit code: 0"), "{out}");
    for wrong in [&[][..], &["one", "two"], &["--fix"]] {
        let (code, out, err) = fsck(wrong);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains(&format!("{wrong:?}")) && err.contains("Usage: "), "{err}");
    }
}
