//! Full slots and full arenas: waiting where that helps, errors where it does not.

use libtest_mimic::Trial;
use ringpool::{ArchivedSharedSlice, Builder, Context, Error, ErrorKind, Pool};
use ringpool_tests::signs::{Sign, wait_for_note};
use ringpool_tests::{SetOnDrop, in_contexts, test};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longer than anything here takes.
const MIB: usize = 1 << 20;

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![];
    tests.extend(in_contexts("two slots", two_slots));
    tests.push(test("two slots, four threads", two_slots_four_threads));
    tests.push(test("two slots, endless patience", endless_patience));
    tests.push(test("slots stay full", full));
    tests.push(test("slots stay full: map", full_map));
    tests.push(test("arguments wait for memory", arguments_wait));
    tests.push(test("results wait for memory", results_wait));
    tests.push(test("results wait for memory in vain", results_in_vain));
    tests.push(test("arguments wait for memory in vain", arguments_in_vain));
    tests.push(test("payloads larger than the quota", too_large));
    tests.push(test("results that grow beyond the quota", growing_too_large));
    tests.push(test("slices larger than the quota", slices_too_large));
    tests.push(test("memory from one of many tasks", memory_under_a_flood));
    tests
}

fn small() -> Builder {
    Pool::builder().processes(2).arena_reserve(4 << 20).arena_quota(4 << 20)
}

fn two_slots(context: Context) {
    let pool = Pool::builder().processes(2).slots(2).context(context).start().unwrap();
    let results: Vec<_> = (0..1000_u32).map(|i| pool.apply_async(|x: u32| x + 1, (i,)).unwrap()).collect();
    assert!((1..).zip(&results).all(|(i, result)| result.get().unwrap() == i));
    assert_eq!(
        pool.map_async(|x: u32| x, 0..500, Some(1)).unwrap().get().unwrap(),
        (0..500).collect::<Vec<_>>()
    );
    assert_eq!(pool.imap(|x: u32| x, 0..500, 2).unwrap().map(Result::unwrap).sum::<u32>(), 124_750);
}

fn two_slots_four_threads() {
    let pool = Pool::builder().processes(2).slots(2).start().unwrap();
    std::thread::scope(|threads| {
        for t in 0..4_u32 {
            let pool = &pool;
            threads.spawn(move || {
                let results: Vec<_> =
                    (0..200).map(|i| pool.apply_async(|t: u32, i: u32| (t, i), (t, i)).unwrap()).collect();
                for (i, result) in (0..).zip(&results) {
                    assert_eq!(result.get().unwrap(), (t, i));
                }
            });
        }
    });
}

/// No moment is that far away.
fn endless_patience() {
    let pool = Pool::builder().processes(1).slots(2).patience(Duration::MAX).start().unwrap();
    let nap = |x: u64| {
        std::thread::sleep(Duration::from_millis(20));
        x
    };
    let results: Vec<_> = (0..8).map(|x| pool.apply_async(nap, (x,)).unwrap()).collect();
    assert!((0..).zip(&results).all(|(x, result)| result.get().unwrap() == x));
    assert_eq!(pool.map_async(nap, 0..5, Some(1)).unwrap().get().unwrap(), [0, 1, 2, 3, 4]);

    // And for memory.
    let pool = small().patience(Duration::MAX).start().unwrap();
    let results: Vec<_> = (0..5_u8).map(|i| pool.apply_async(digest, (vec![i; 3 * MIB],)).unwrap()).collect();
    assert!(results.iter().all(|result| result.get().unwrap().0 == 3 * MIB as u64));
}

fn full() {
    let pool = Pool::builder().processes(2).slots(2).patience(Duration::from_millis(50)).start().unwrap();
    let gate = Sign::new();
    let wait = |gate: String| wait_for_note(&gate);
    let busy =
        [pool.apply_async(wait, (gate.path(),)).unwrap(), pool.apply_async(wait, (gate.path(),)).unwrap()];
    for _ in 0..3 {
        let error = pool.apply_async(|| (), ()).unwrap_err();
        let ErrorKind::Full { slots: 2, waited } = error.kind() else { panic!("{error:?}") };
        assert!(*waited >= Duration::from_millis(50), "{waited:?}");
    }
    gate.open();
    busy.iter().for_each(|result| result.get().unwrap());
    pool.apply(|| (), ()).unwrap();
}

fn full_map() {
    let pool = Pool::builder().processes(1).slots(2).patience(Duration::from_millis(20)).start().unwrap();
    let gate = Sign::new();
    let items = (0..4).map(|x| (gate.path(), x));
    let wait = |gate: String, x: u32| {
        wait_for_note(&gate);
        x
    };
    let result = pool.starmap_async(wait, items, Some(1)).unwrap();
    gate.open();
    let each = result.get_each().unwrap();
    assert_eq!((each[0].as_ref().unwrap(), each[1].as_ref().unwrap()), (&0, &1));
    for one in &each[2..] {
        let error = one.as_ref().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Full { .. }), "{error:?}");
    }
}

/// How many bytes, and their sum.
fn digest(bytes: Vec<u8>) -> (u64, u64) {
    (bytes.len() as u64, bytes.iter().step_by(1024).map(|&b| u64::from(b)).sum())
}

fn arguments_wait() {
    let pool = small().start().unwrap();
    for len in [MIB - 64, MIB, 3 * MIB] {
        let results: Vec<_> =
            (0..20_u8).map(|i| pool.apply_async(digest, (vec![i; len],)).unwrap()).collect();
        for (i, result) in (0..).zip(&results) {
            assert_eq!(result.get().unwrap(), digest(vec![i; len]));
        }
    }
    let items = || (0..20_u8).map(|i| vec![i; MIB]);
    let serial: Vec<_> = items().map(digest).collect();
    let error = pool.map(digest, items()).unwrap_err();
    assert!(is_arena_full(&error), "three items in a chunk need more than 4 MiB: {error:?}");
    assert_eq!(pool.map_async(digest, items(), Some(1)).unwrap().get().unwrap(), serial);
    assert_eq!(pool.imap(digest, items(), 1).unwrap().map(Result::unwrap).collect::<Vec<_>>(), serial);
}

fn make(value: u8, len: u32) -> Vec<u8> {
    vec![value; len as usize]
}

fn results_wait() {
    let pool = small().processes(1).start().unwrap();
    // Two of them fill the worker's arena. What the caller has not fetched makes room all the same.
    let make_async = |value| pool.apply_async(make, (value, 2 * MIB as u32 - 1000)).unwrap();
    let results: Vec<_> = (0..20).map(make_async).collect();
    let views: Vec<_> = results.iter().rev().map(|result| result.view().unwrap()).collect();
    for (i, view) in (0..20).rev().zip(&views) {
        assert!(view.len() == 2 * MIB - 1000 && view.iter().all(|&b| b == i));
    }
    let items = (0..30_u8).map(|i| (i, MIB as u32));
    let arrays = pool.starmap_async(make, items, Some(1)).unwrap().get().unwrap();
    assert!((0..).zip(&arrays).all(|(i, array)| *array == vec![i; MIB]));

    // Nobody holds these; each is in its place only until it is fetched.
    let items = (0..30_u8).map(|i| (i, MIB as u32));
    let lens = pool.starmap(|value: u8, len: u32| make(value, len).len() as u64, items).unwrap();
    assert_eq!(lens, vec![MIB as u64; 30]);
    for i in 0..30 {
        assert_eq!(pool.apply(make, (i, MIB as u32)).unwrap(), vec![i; MIB]);
    }
    let many = pool.imap(|i: u8| make(i, MIB as u32), 0..30, 1).unwrap().buffersize(2);
    for (i, bytes) in (0..).zip(many) {
        assert_eq!(bytes.unwrap(), vec![i; MIB]);
    }
}

fn is_arena_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ArenaFull { quota, .. } if *quota == 4 << 20)
}

fn results_in_vain() {
    let pool = small().processes(1).patience(Duration::from_millis(100)).start().unwrap();
    let make_async = |value| pool.apply_async(make, (value, 2 * MIB as u32 - 1000)).unwrap();
    // Nobody looks at the first two while the third waits for their memory.
    let results: Vec<_> = (0..3).map(make_async).collect();
    std::thread::sleep(Duration::from_millis(1000));
    let error = results[2].get().unwrap_err();
    assert!(is_arena_full(&error), "{error:?}");
    assert_eq!((results[0].view().unwrap()[9], results[1].view().unwrap()[9]), (0, 1));
    assert_eq!(pool.apply(|x: u32| x, (1,)).unwrap(), 1, "small results need no memory");
    assert_eq!(pool.apply(make, (3, 2 * MIB as u32 - 1000)).unwrap()[0], 3);
}

fn arguments_in_vain() {
    let pool = small().patience(Duration::from_millis(100)).start().unwrap();
    // Held by this thread, so nothing that the pool does makes room. No waiting without a task.
    let held = pool.alloc::<u8>(2 * MIB).unwrap();
    let error = pool.apply(digest, (vec![0; 3 * MIB],)).unwrap_err();
    assert!(is_arena_full(&error), "{error:?}");
    // With a task on its way there is hope, for as long as the patience lasts.
    let gate = Sign::new();
    let busy = pool.apply_async(|gate: String| wait_for_note(&gate), (gate.path(),)).unwrap();
    let error = pool.apply(digest, (vec![0; 3 * MIB],)).unwrap_err();
    assert!(is_arena_full(&error), "{error:?}");
    gate.open();
    busy.get().unwrap();
    drop(held);
    assert_eq!(pool.apply(digest, (vec![0; MIB],)).unwrap(), (MIB as u64, 0));
}

/// Waiting cannot help, so there is none: with a patience of ten minutes a wait would be a hang.
fn too_large() {
    let pool = small().start().unwrap();
    let gate = Sign::new();
    let busy = pool.apply_async(|gate: String| wait_for_note(&gate), (gate.path(),)).unwrap();
    for len in [4 * MIB + 1, 20 * MIB] {
        let error = pool.apply(digest, (vec![0; len],)).unwrap_err();
        assert!(is_arena_full(&error), "{error:?}");
        assert!(matches!(error.kind(), ErrorKind::ArenaFull { needed, .. } if *needed >= len as u64));
        let error = pool.apply(make, (0, len as u32)).unwrap_err();
        assert!(is_arena_full(&error), "{error:?}");
        // In chunks as well.
        let error = pool.map_async(digest, vec![vec![0; len / 2]; 2], Some(2)).unwrap().get().unwrap_err();
        assert!(is_arena_full(&error), "{error:?}");
        let each = pool
            .starmap_async(make, [(1, 10), (2, len as u32), (3, 10)], Some(3))
            .unwrap()
            .get_each()
            .unwrap();
        assert_eq!((each[0].as_ref().unwrap().len(), each[2].as_ref().unwrap().len()), (10, 10));
        assert!(is_arena_full(each[1].as_ref().unwrap_err()), "{each:?}");
    }
    gate.open();
    busy.get().unwrap();
    assert_eq!(pool.apply(digest, (vec![0; 3 * MIB],)).unwrap(), (3 * MIB as u64, 0));
}

/// Archives that are written piece by piece move to larger blocks as they grow.
fn growing_too_large() {
    let pool = small().start().unwrap();
    let pieces = |count: u32| vec!["x".repeat(1000); count as usize];
    assert_eq!(pool.apply(pieces, (1000,)).unwrap().len(), 1000);
    // 3 MB would fit alone, but not beside the half of it from which it grows: either answer is right,
    // as long as there is one.
    match pool.apply(pieces, (3000,)) {
        Ok(value) => assert_eq!(value.len(), 3000),
        Err(error) => assert!(is_arena_full(&error), "{error:?}"),
    }
    match pool.apply(|pieces: Vec<String>| pieces.len() as u64, (pieces(3000),)) {
        Ok(value) => assert_eq!(value, 3000),
        Err(error) => assert!(is_arena_full(&error), "{error:?}"),
    }
    assert!(is_arena_full(&pool.apply(pieces, (6000,)).unwrap_err()));
    assert_eq!(pool.apply(pieces, (1000,)).unwrap().len(), 1000);
}

fn slices_too_large() {
    let pool = small().start().unwrap();
    let error = pool.alloc::<u8>(4 * MIB + 1).err().unwrap();
    assert!(is_arena_full(&error), "{error:?}");
    // One that fits is waited for while a task holds the memory.
    let gate = Sign::new();
    let slice = pool.alloc::<u8>(2 * MIB).unwrap().share();
    let hold = |gate: String, slice: &ArchivedSharedSlice<u8>| {
        wait_for_note(&gate);
        slice.len() as u64
    };
    let busy = pool.apply_async(hold, (gate.path(), slice)).unwrap();
    std::thread::scope(|threads| {
        let wait = threads.spawn(|| pool.alloc::<u8>(3 * MIB).map(|slice| slice.len()));
        std::thread::sleep(Duration::from_millis(20));
        gate.open();
        assert_eq!(wait.join().unwrap().unwrap(), 3 * MIB);
    });
    assert_eq!(busy.get().unwrap(), 2 * MIB as u64);
}

/// A task gives its memory back, and as many are on their way as before: others came in the meantime.
fn memory_under_a_flood() {
    let pool = small().patience(Duration::from_secs(60)).start().unwrap();
    let slice = pool.alloc::<u8>(3 * MIB).unwrap().share();
    let hold = |slice: &ArchivedSharedSlice<u8>| {
        std::thread::sleep(Duration::from_millis(300));
        slice.len() as u64
    };
    let holder = pool.apply_async(hold, (slice,)).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let nap = || std::thread::sleep(Duration::from_micros(200));
            let mut under_way = VecDeque::new();
            while !over.load(Ordering::Relaxed) {
                under_way.push_back(pool.apply_async(nap, ()).unwrap());
                if under_way.len() > 32 {
                    under_way.pop_front().unwrap().get().unwrap();
                }
            }
        });
        let _end_of_flood = SetOnDrop(&over);
        assert_eq!(pool.alloc::<u8>(3 * MIB).expect("the task ends long before").len(), 3 * MIB);
    });
    assert_eq!(holder.get().unwrap(), 3 * MIB as u64);
}
