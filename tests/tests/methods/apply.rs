//! `apply`, `apply_async`, and what can be asked of a result.

use super::pool;
use libtest_mimic::Trial;
use ringpool::{AsyncResult, Context, ErrorKind, Pool};
use ringpool_tests::signs::{Sign, note, wait_for_note};
use ringpool_tests::{eventually, in_contexts, test};
use std::sync::mpsc;
use std::time::Duration;

/// Longer than anything here takes; a wait that needs it has failed.
const LONG: Duration = Duration::from_secs(30);

pub fn tests() -> Vec<Trial> {
    let mut tests = vec![];
    tests.extend(in_contexts("apply", apply));
    tests.extend(in_contexts("results in any order", any_order));
    tests.extend(in_contexts("dropped results", dropped));
    tests.extend(in_contexts("get again and again", get_twice));
    tests.extend(in_contexts("time-out, then success", timeout));
    tests.extend(in_contexts("views", views));
    tests.extend(in_contexts("callbacks", callbacks));
    tests.push(test("a callback's panic stops no other", panicking_callback));
    tests.push(test("join waits for callbacks", join_waits));
    tests.push(test("a callback that comes late", late_callback));
    tests.push(test("callbacks need nobody to wait", callbacks_alone));
    tests.push(test("callbacks may use the pool", callbacks_use_the_pool));
    tests.push(test("terminate tells error callbacks", callbacks_of_terminated));
    tests
}

fn sum(a: u64, b: u64) -> u64 {
    a + b
}

fn refuse(x: u32) -> std::io::Result<u32> {
    Err(std::io::Error::other(format!("{x} is refused")))
}

fn apply(context: Context) {
    let pool = pool(context);
    assert_eq!(pool.apply(sum, (1, 2)).unwrap(), 3);
    assert_eq!(pool.apply(|text: String| text.to_uppercase(), ("text".to_owned(),)).unwrap(), "TEXT");
    pool.apply(|| (), ()).unwrap();

    let pid = pool.apply(std::process::id, ()).unwrap();
    assert_ne!(pid, std::process::id(), "a task runs in another process");
    assert!(pool.worker_pids().contains(&pid));
    assert_eq!((pool.processes(), pool.worker_pids().len()), (2, 2));
    assert!(pool.apply(ringpool::is_worker, ()).unwrap());
    assert!(!ringpool::is_worker());
}

fn any_order(context: Context) {
    let pool = pool(context);
    let results: Vec<_> = (0..500).map(|i| pool.apply_async(sum, (i, 1000)).unwrap()).collect();
    for (i, result) in results.iter().enumerate().rev() {
        assert_eq!(result.get().unwrap(), i as u64 + 1000);
    }
    // Every third one first: neither the order of submission nor its reverse.
    let results: Vec<_> = (0..500).map(|i| pool.apply_async(sum, (i, i)).unwrap()).collect();
    for i in (0..3).flat_map(|first| (first..500).step_by(3)) {
        assert_eq!(results[i].get().unwrap(), 2 * i as u64);
    }
}

fn dropped(context: Context) {
    let pool = pool(context);
    let done = Sign::new();
    for i in 0..300_u32 {
        let large = vec![i; (i as usize % 3) * 1000];
        let result = pool.apply_async(
            |path: String, large: Vec<u32>| {
                note(&path, "done");
                large
            },
            (done.path(), large),
        );
        drop(result.unwrap());
    }
    pool.close();
    pool.join().unwrap();
    assert_eq!(done.count(), 300, "tasks run although nobody wants their results");
}

fn get_twice(context: Context) {
    let pool = pool(context);
    let good = pool.apply_async(|n: u32| vec![n; n as usize], (1000,)).unwrap();
    let bad = pool.apply_async(refuse, (7,)).unwrap();
    for _ in 0..3 {
        assert_eq!(good.get().unwrap(), vec![1000; 1000]);
        assert_eq!(bad.get().unwrap_err().to_string(), "the task failed: 7 is refused");
    }
    assert_eq!((good.ready(), good.successful()), (true, Some(true)));
    assert_eq!((bad.ready(), bad.successful()), (true, Some(false)));
    assert_eq!(good.get_timeout(Duration::ZERO).unwrap().len(), 1000, "no time is needed any more");
}

fn timeout(context: Context) {
    let pool = pool(context);
    let gate = Sign::new();
    let result = pool
        .apply_async(
            |gate: String| {
                wait_for_note(&gate);
                7_u32
            },
            (gate.path(),),
        )
        .unwrap();
    let error = result.get_timeout(Duration::from_millis(30)).unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(matches!(error.kind(), &ErrorKind::Timeout { waited } if waited == Duration::from_millis(30)));
    assert!(result.get_timeout(Duration::ZERO).unwrap_err().is_timeout());
    assert!(!result.wait(Some(Duration::from_millis(1))));
    assert_eq!((result.ready(), result.successful()), (false, None));
    gate.open();
    assert_eq!(result.get_timeout(LONG).unwrap(), 7);
    assert!(result.wait(None));
    assert_eq!((result.ready(), result.successful()), (true, Some(true)));
}

fn views(context: Context) {
    let pool = pool(context);
    let result = pool.apply_async(|n: u32| (0..n).collect::<Vec<u32>>(), (100_000,)).unwrap();
    let view = result.view().unwrap();
    assert_eq!(view.len(), 100_000);
    assert!(view.iter().enumerate().all(|(i, x)| x.to_native() == i as u32));
    // Other tasks do not get the memory while somebody looks at it.
    for _ in 0..50 {
        pool.apply(|n: u32| vec![u32::MAX; n as usize], (100_000,)).unwrap();
    }
    assert_eq!(view[99_999].to_native(), 99_999);

    // A view outlives its result and its pool.
    let short = pool.apply_async(|| "short".to_owned(), ()).unwrap();
    let short_view = short.view().unwrap();
    drop((result, short, pool));
    assert_eq!(view[500].to_native(), 500);
    assert_eq!(&**short_view, "short");
}

fn callbacks(context: Context) {
    let pool = pool(context);
    let (tell, told) = mpsc::channel();
    let report = |tell: &mpsc::Sender<String>, result: AsyncResult<u32>| {
        let (good, bad) = (tell.clone(), tell.clone());
        result
            .callback(move |value| good.send(format!("value {value}")).unwrap())
            .error_callback(move |error| bad.send(format!("error {error}")).unwrap())
    };
    let _value = report(&tell, pool.apply_async(|x: u32| x + 1, (1,)).unwrap());
    assert_eq!(told.recv_timeout(LONG).unwrap(), "value 2");
    let _error = report(&tell, pool.apply_async(refuse, (3,)).unwrap());
    assert_eq!(told.recv_timeout(LONG).unwrap(), "error the task failed: 3 is refused");
    let _panic = report(&tell, pool.apply_async(|x: u32| -> u32 { panic!("no {x}") }, (4,)).unwrap());
    assert!(told.recv_timeout(LONG).unwrap().ends_with("no 4"));
    // Each result has told of one thing only.
    pool.close();
    pool.join().unwrap();
    assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Empty));
}

fn panicking_callback() {
    let pool = pool(Context::Fork);
    let (tell, told) = mpsc::channel();
    for i in 0..20_u64 {
        let tell = tell.clone();
        let result = pool.apply_async(sum, (i, 0)).unwrap();
        drop(
            result
                .callback(move |_| assert!(i % 10 != 5, "on purpose"))
                .callback(move |value| tell.send(value).unwrap()),
        );
    }
    let mut values: Vec<u64> = (0..20).map(|_| told.recv_timeout(LONG).unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, (0..20).collect::<Vec<_>>());
    assert_eq!(pool.apply(sum, (1, 1)).unwrap(), 2);
}

fn join_waits() {
    let pool = pool(Context::Fork);
    let (tell, told) = mpsc::channel();
    for i in 0..20 {
        let tell = tell.clone();
        drop(pool.apply_async(sum, (i, 0)).unwrap().callback(move |value| {
            std::thread::sleep(Duration::from_millis(2));
            tell.send(value).unwrap();
        }));
    }
    pool.close();
    pool.join().unwrap();
    assert_eq!(told.try_iter().count(), 20);
}

fn late_callback() {
    let pool = pool(Context::Fork);
    let (tell, told) = mpsc::channel();
    let result = pool.apply_async(sum, (1, 2)).unwrap();
    assert!(result.wait(Some(LONG)));
    let result = result.callback({
        let tell = tell.clone();
        move |value| tell.send(value).unwrap()
    });
    assert_eq!(told.recv_timeout(LONG).unwrap(), 3);
    // Another one, though the first has been called already.
    drop(result.callback(move |value| tell.send(10 * value).unwrap()));
    assert_eq!(told.recv_timeout(LONG).unwrap(), 30);
    pool.close();
    pool.join().unwrap();
}

fn callbacks_alone() {
    let pool = pool(Context::Fork);
    let (tell, told) = mpsc::channel();
    let gate = Sign::new();
    let result = pool.apply_async(
        |gate: String| {
            wait_for_note(&gate);
            "late".to_owned()
        },
        (gate.path(),),
    );
    drop(result.unwrap().callback(move |text| tell.send(text).unwrap()));
    assert!(told.recv_timeout(Duration::from_millis(20)).is_err());
    gate.open();
    // This thread waits for the channel, not for the pool.
    assert_eq!(told.recv_timeout(LONG).unwrap(), "late");
}

fn callbacks_use_the_pool() {
    let pool = std::sync::Arc::new(pool(Context::Fork));
    let (tell, told) = mpsc::channel();
    let again = pool.clone();
    drop(pool.apply_async(sum, (1, 1)).unwrap().callback(move |value| {
        tell.send(again.apply(sum, (value, 10)).unwrap()).unwrap();
    }));
    assert_eq!(told.recv_timeout(LONG).unwrap(), 12);
    eventually("the callback lets go of the pool", LONG, || std::sync::Arc::strong_count(&pool) == 1);
}

fn callbacks_of_terminated() {
    let pool: Pool = pool(Context::Fork);
    let (tell, told) = mpsc::channel();
    let gate = Sign::new();
    let result = pool.apply_async(|gate: String| wait_for_note(&gate), (gate.path(),)).unwrap();
    let good = tell.clone();
    drop(
        result
            .callback(move |()| good.send("done".to_owned()).unwrap())
            .error_callback(move |error| tell.send(error.to_string()).unwrap()),
    );
    pool.terminate();
    pool.join().unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["the pool was terminated before the work was done"]);
}
