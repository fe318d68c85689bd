//! A pool in the memory of a forked child, to whom it does not belong.

use super::pool;
use libtest_mimic::Trial;
use ringpool::{Context, Error, ErrorKind, Pool};
use ringpool_tests::in_contexts;
use ringpool_tests::signs::{Sign, wait_for_note};
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![];
    tests.extend(in_contexts("a forked child is told that the pool is not its own", refused));
    tests.extend(in_contexts("a forked child drops its copy", dropped));
    tests.extend(in_contexts("a forked child and the results of its parent", results));
    tests.extend(in_contexts("a forked child starts a pool of its own", own_pool));
    tests
}

/// Runs `child` in a fork of this process. It says what is wrong; silence is success.
fn in_child(child: impl FnOnce() -> Result<(), String>) {
    let said = Sign::new();
    let path = said.path();
    // SAFETY: the child uses only what is usable after a fork: the allocator, which libc repairs, and the
    // file system. It leaves without running anything of the parent's.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        let code = match result {
            Ok(Ok(())) => 42,
            Ok(Err(text)) => {
                let _ = std::fs::write(path, text);
                1
            }
            Err(_) => 2,
        };
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the child is ours, and `status` may be written.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
    assert_eq!(code, Some(42), "the child ended with status {status:#x} and said {:?}", said.notes());
}

fn check(what: &str, error: Option<Error>) -> Result<(), String> {
    match error {
        Some(error) if matches!(error.kind(), ErrorKind::Forked { owner } if *owner == parent()) => Ok(()),
        Some(error) => Err(format!("{what}: {error:?}")),
        None => Err(format!("{what} succeeded")),
    }
}

fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

fn add_one(x: u64) -> u64 {
    x + 1
}

fn works(pool: &Pool) {
    assert_eq!(pool.apply(add_one, (1,)).unwrap(), 2);
    assert_eq!(pool.map(add_one, 0..100).unwrap().len(), 100);
    assert_eq!(pool.worker_pids().len(), 2);
}

fn refused(context: Context) {
    let pool = pool(context);
    let mut results = pool.imap(add_one, 0.., 1).unwrap();
    results.next().unwrap().unwrap();
    in_child(|| {
        check("apply", pool.apply(add_one, (1,)).err())?;
        check("apply_async", pool.apply_async(add_one, (1,)).err())?;
        check("map", pool.map(add_one, [1]).err())?;
        check("starmap", pool.starmap(add_one, [(1,)]).err())?;
        check("imap", pool.imap(add_one, [1], 1).err())?;
        check("alloc", pool.alloc::<u8>(1).err())?;
        check("join", pool.join().err())?;
        // What cannot say so does nothing.
        pool.close();
        pool.terminate();
        drop(pool.worker_pids());
        Ok(())
    });
    works(&pool);
    assert_eq!(results.next().unwrap().unwrap(), 2);
}

fn dropped(context: Context) {
    let pool = pool(context);
    let (gate, slice) = (Sign::new(), pool.alloc::<u64>(1000).unwrap());
    let pending = pool.apply_async(|gate: String| wait_for_note(&gate), (gate.path(),)).unwrap();
    let large = pool.apply_async(|| vec![1_u64; 100_000], ()).unwrap();
    let map = pool.map_async(|x: u64| vec![x; 1000], 0..10, Some(5)).unwrap();
    assert!(large.wait(None) && map.wait(None));
    let mut results = pool.imap(add_one, 0.., 1).unwrap();
    results.next().unwrap().unwrap();
    let mut everything = Some((pool, pending, large, map, results, slice));
    in_child(|| {
        drop(everything.take());
        Ok(())
    });
    let (pool, pending, large, map, mut results, slice) = everything.expect("the child took its own copy");
    gate.open();
    pending.get().unwrap();
    assert_eq!(large.get().unwrap(), vec![1; 100_000]);
    assert_eq!(map.get().unwrap()[9], vec![9; 1000]);
    assert_eq!(results.next().unwrap().unwrap(), 2);
    assert_eq!(slice.len(), 1000);
    works(&pool);
}

fn results(context: Context) {
    let pool = pool(context);
    let (short, large) =
        (pool.apply_async(add_one, (1,)).unwrap(), pool.apply_async(|| vec![1_u64; 100_000], ()).unwrap());
    let map = pool.map_async(|x: u64| vec![x; 1000], 0..10, Some(5)).unwrap();
    assert!(short.wait(None) && large.wait(None) && map.wait(None));
    let mut stream = pool.imap(|x: u64| vec![x; 1000], 0.., 5).unwrap();
    stream.next().unwrap().unwrap();
    let gate = Sign::new();
    let wait = |gate: String| wait_for_note(&gate);
    let pending = pool.apply_async(wait, (gate.path(),)).unwrap();
    let pending_map = pool.map_async(wait, [gate.path()], None).unwrap();
    in_child(|| {
        // What has come is in memory that the child does not have.
        check("get of a short result", short.get().err())?;
        check("get of a large result", large.get().err())?;
        check("view of a large result", large.view().err())?;
        check("get of a map", map.get().err())?;
        check("get_each of a map", map.get_each().err())?;
        check("next", stream.next().unwrap().err())?;
        check("next_timeout", stream.next_timeout(Duration::ZERO).unwrap().err())?;
        // What has not come never will.
        check("get", pending.get().err())?;
        check("get_timeout", pending.get_timeout(Duration::from_millis(1)).err())?;
        check("get of a pending map", pending_map.get().err())?;
        if pending.wait(None) || pending.ready() || pending_map.wait(None) || pending_map.ready() {
            return Err("a result that cannot come has come".to_owned());
        }
        Ok(())
    });
    gate.open();
    pending.get().unwrap();
    pending_map.get().unwrap();
    assert_eq!(large.get().unwrap(), vec![1; 100_000]);
    assert_eq!(map.get().unwrap()[9], vec![9; 1000]);
    assert_eq!(stream.next().unwrap().unwrap(), vec![1; 1000]);
    works(&pool);
}

fn own_pool(context: Context) {
    let pool = pool(context);
    in_child(|| {
        let own = Pool::builder().processes(1).context(context).start().map_err(|e| e.to_string())?;
        match own.apply(add_one, (1,)) {
            Ok(2) => {}
            other => return Err(format!("{other:?}")),
        }
        drop(own);
        check("the parent's", pool.apply(add_one, (1,)).err())
    });
    works(&pool);
}
