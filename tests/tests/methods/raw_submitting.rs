//! How calls over bytes are submitted: on which terms, with which buffers, and little by little.

use super::pool;
use libtest_mimic::Trial;
use ringpool::raw::{Array, Buffer, Caller, Failure, Function, Input, MapPending, Name, Order, Source};
use ringpool::{Context, Error, ErrorKind, Pool, raw};
use ringpool_tests::audit::expect_whole;
use ringpool_tests::{in_contexts, test};
use std::cell::Cell;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let mut tests = in_contexts("raw: buffers that are kept", kept);
    tests.push(test("raw: retries of a call", retries));
    tests.push(test("raw: no patience for slots", impatient));
    tests.push(test("raw: no patience for memory", impatient_for_memory));
    tests.push(test("raw: feeds", feeds));
    tests.push(test("raw: feeds of closed pools", feeds_closed));
    tests.push(test("raw: feeds of terminated pools", feeds_terminated));
    tests.push(test("raw: feeds without a slot", feeds_full));
    tests.push(test("raw: sources are read no further than asked", buffersize));
    tests
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Called by the program before it becomes a worker.
pub fn register() {
    // Dies until it has been called so often: a digit, and the path of the file where it counts.
    raw::register(
        "raw nth",
        Function::new(|input, output| {
            let Some((&digit, path)) = input.split_first() else { return output.write(b"none") };
            let path = std::str::from_utf8(path)?;
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
            file.write_all(b"x")?;
            if file.metadata()?.len() < u64::from(digit - b'0') {
                std::process::abort();
            }
            output.write(b"done")
        }),
    )
    .unwrap();
    // Waits as many milliseconds as the first number says, then adds up the bytes of the buffers at the others, each
    // an offset and a length.
    raw::register(
        "raw refer",
        Function::new(|input, output| {
            let [wait, buffers @ ..] = input.as_chunks::<8>().0 else {
                return Err(Failure::new(1, "numbers"));
            };
            std::thread::sleep(Duration::from_millis(u64::from_ne_bytes(*wait)));
            let mut sum = 0;
            for [offset, len] in buffers.as_chunks::<2>().0 {
                let (offset, len) = (u64::from_ne_bytes(*offset), u64::from_ne_bytes(*len) as usize);
                // SAFETY: the task keeps what it refers to.
                let bytes = unsafe { raw::buffer_at(offset, len) }?;
                sum += bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
            }
            output.write(&sum.to_ne_bytes())
        }),
    )
    .unwrap();
}

fn count_file(what: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("ringpool-{what}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn retries() {
    let pool = Pool::builder().processes(2).retries(1).start().unwrap();
    let died = |error: &Error, times: u32| {
        assert!(
            matches!(error.kind(), ErrorKind::WorkerDied { attempt, .. } if *attempt == times),
            "{error:?} after {times} attempts"
        );
    };
    // Succeeds with the third attempt.
    type Run = fn(&Caller, &[u8]) -> Result<(), Error>;
    let each: [(&str, Run); 5] = [
        ("call", |caller, input| caller.apply(name("raw nth"), input).map(drop)),
        ("map", |caller, input| {
            let items = [&b""[..], input, b""];
            let results = caller.map(name("raw nth"), &items, Some(3))?.get(None)?;
            assert!(results.get(0).unwrap().is_ok() && results.get(2).unwrap().is_ok());
            results.get(1).unwrap().map(drop).map_err(Clone::clone)
        }),
        ("feed", |caller, input| {
            let feed = caller.feed(name("raw nth"), 1)?;
            feed.push(0, &[input], &[])?;
            feed.pending().get(None)?.get(0).unwrap().map(drop).map_err(Clone::clone)
        }),
        ("imap", |caller, input| {
            let mut outputs =
                caller.imap(name("raw nth"), One(input.to_vec(), false), 1, Order::Items, None)?;
            outputs.next(None).unwrap().map(drop)
        }),
        ("queue", |caller, input| {
            let queue = caller.queue()?;
            queue.submit(name("raw nth"), [(0, Input::Bytes(input))]).1?;
            queue.take(1, None)?.get(0).unwrap().map(drop).map_err(Clone::clone)
        }),
    ];
    for (what, run) in each {
        let path = count_file(what);
        let input = [b"3", path.to_str().unwrap().as_bytes()].concat();
        died(&run(&pool.raw(), &input).unwrap_err(), 2);
        std::fs::remove_file(&path).unwrap();
        died(&run(&pool.raw().retries(0), &input).unwrap_err(), 1);
        std::fs::remove_file(&path).unwrap();
        run(&pool.raw().retries(2), &input).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"xxx", "{what}");
        std::fs::remove_file(&path).unwrap();
    }
    // More than there can be, with an input that travels inside of the slot.
    let path = format!("/tmp/rp-{}", std::process::id());
    let error =
        pool.raw().retries(u32::MAX).apply(name("raw nth"), [b":", path.as_bytes()].concat().as_slice());
    assert_eq!(std::fs::read(&path).unwrap().len(), 10, "{error:?}");
    error.unwrap();
    std::fs::remove_file(&path).unwrap();
    expect_whole(&pool);
}

/// One item; whether it was taken.
struct One(Vec<u8>, bool);

impl Source for One {
    fn next(&mut self) -> Option<ringpool::Result<&[u8]>> {
        (!std::mem::replace(&mut self.1, true)).then_some(Ok(&self.0[..]))
    }
}

fn impatient() {
    let pool = Pool::builder().processes(1).slots(16).start().unwrap();
    let caller = pool.raw().patience(Duration::ZERO);
    let nap = 200_u64.to_ne_bytes();
    let mut calls = Vec::new();
    let error = loop {
        match caller.apply_async(name("raw refer"), &nap[..]) {
            Ok(call) => calls.push(call),
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind(), ErrorKind::Full { slots: 16, .. }), "{error:?}");
    assert!(calls.len() >= 16, "{}", calls.len());
    // As long as the same takes with patience.
    let error =
        pool.raw().patience(Duration::from_millis(20)).apply(name("raw refer"), &nap[..]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Full { .. }), "{error:?}");
    let map = caller.map(name("raw refer"), &[&nap[..]; 2], Some(1)).unwrap();
    let results = map.get(Some(Duration::ZERO)).expect("nothing was submitted");
    assert!(matches!(results.first_error().unwrap().kind(), ErrorKind::Full { .. }));
    pool.raw().apply(name("raw refer"), &[0; 8][..]).unwrap(); // waits
    calls.iter().for_each(|call| drop(call.get(None).unwrap()));
    expect_whole(&pool);
}

fn impatient_for_memory() {
    let pool = Pool::builder().processes(1).arena_reserve(4 << 20).arena_quota(4 << 20).start().unwrap();
    let caller = pool.raw().patience(Duration::ZERO);
    let nap = [200_u64.to_ne_bytes().as_slice(), &[0; 1 << 20]].concat();
    let mut calls = Vec::new();
    let error = loop {
        match caller.apply_async(name("raw refer"), &nap[..]) {
            Ok(call) => calls.push(call),
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind(), ErrorKind::ArenaFull { .. }), "{error:?}");
    assert!((1..4).contains(&calls.len()), "{}", calls.len());
    assert!(matches!(caller.buffer(2 << 20).unwrap_err().kind(), ErrorKind::ArenaFull { .. }));
    let feed = caller.feed(name("raw refer"), 1).unwrap();
    let error = feed.push(0, &[&nap], &[]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ArenaFull { .. }), "{error:?}");
    drop(pool.raw().buffer(2 << 20).unwrap()); // waits
    feed.push(0, &[&nap], &[]).unwrap();
    calls.iter().for_each(|call| drop(call.get(None).unwrap()));
    assert!(feed.pending().get(None).unwrap().first_error().is_none());
    drop((calls, feed));
    expect_whole(&pool);
}

fn filled(caller: &Caller, len: usize, value: u8) -> Arc<Buffer> {
    let mut buffer = caller.buffer(len).unwrap();
    buffer.bytes_mut().unwrap().fill(value);
    Arc::new(buffer)
}

/// What "raw refer" is to look at.
fn refer(wait: u64, buffers: &[Arc<Buffer>]) -> Vec<u8> {
    let places = buffers.iter().flat_map(|buffer| [buffer.offset(), buffer.len() as u64]);
    std::iter::once(wait).chain(places).flat_map(u64::to_ne_bytes).collect()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes.try_into().unwrap())
}

/// Referring inputs with the buffers that only they keep.
struct Referring {
    caller: Caller,
    left: u64,
    item: Vec<u8>,
    buffers: Vec<Arc<Buffer>>,
}

impl Source for Referring {
    fn next(&mut self) -> Option<ringpool::Result<&[u8]>> {
        self.left = self.left.checked_sub(1)?;
        self.buffers = vec![filled(&self.caller, 10_000, self.left as u8)];
        self.item = refer(1, &self.buffers);
        Some(Ok(&self.item))
    }

    fn keep(&mut self) -> Vec<Arc<Buffer>> {
        std::mem::take(&mut self.buffers)
    }
}

fn kept(context: Context) {
    let pool = pool(context);
    let caller = pool.raw();
    // Short input, long input, input in a buffer, and buffers at two levels.
    for count in [1, 2, 5] {
        let buffers: Vec<_> = (0..count).map(|n| filled(&caller, 100_000, n as u8 + 1)).collect();
        let sum = (1..=count).sum::<u64>() * 100_000;
        let bytes = refer(50, &buffers);
        let mut lying = caller.buffer(bytes.len()).unwrap();
        lying.bytes_mut().unwrap().copy_from_slice(&bytes);
        let (first, others) = buffers.split_at(1);
        let outer = Input::Keeping { input: &Input::Bytes(&bytes), buffers: first };
        let calls = [
            Input::Keeping { input: &Input::Bytes(&bytes), buffers: &buffers },
            Input::Keeping { input: &Input::Buffer(&lying, bytes.len()), buffers: &buffers },
            Input::Keeping { input: &outer, buffers: others },
        ]
        .map(|input| caller.apply_async(name("raw refer"), input).unwrap());
        let (queue, one) = (caller.queue().unwrap(), &buffers[..1]);
        let bytes = refer(50, one);
        queue
            .submit(name("raw refer"), [(7, Input::Keeping { input: &Input::Bytes(&bytes), buffers: one })])
            .1
            .unwrap();
        let feed = caller.feed(name("raw refer"), 3).unwrap();
        feed.push(1, &[&bytes, &bytes], one).unwrap();
        feed.push(0, &[&bytes], one).unwrap();
        // Nobody else has them, and whoever comes next would be given their memory.
        drop((lying, buffers));
        let others: Vec<_> = (0..20).map(|_| filled(&caller, 100_000, 255)).collect();
        for call in &calls {
            assert_eq!(number(&call.get(None).unwrap()), sum);
        }
        assert_eq!(number(queue.take(1, None).unwrap().get(0).unwrap().unwrap()), 100_000);
        let results = feed.pending().get(None).unwrap();
        assert!((0..3).all(|at| number(results.get(at).unwrap().unwrap()) == 100_000));
        drop(others);
    }
    for (chunksize, order) in [(1, Order::Items), (4, Order::Items), (1, Order::Arrival)] {
        let source = Referring { caller: caller.clone(), left: 100, item: Vec::new(), buffers: Vec::new() };
        let mut outputs = caller.imap(name("raw refer"), source, chunksize, order, None).unwrap();
        let mut sums = Vec::new();
        while let Some(output) = outputs.next(None) {
            sums.push(number(&output.unwrap()));
        }
        if order == Order::Arrival {
            sums.sort_unstable_by_key(|&sum| std::cmp::Reverse(sum));
        }
        assert!(sums.into_iter().eq((0..100).rev().map(|left| left * 10_000)));
    }
    // It is the owner's again when the task is done, and not before.
    let mut buffer = filled(&caller, 1000, 1);
    let bytes = refer(100, std::slice::from_ref(&buffer));
    let input = Input::Keeping { input: &Input::Bytes(&bytes), buffers: std::slice::from_ref(&buffer) };
    let call = caller.apply_async(name("raw refer"), input).unwrap();
    assert!(Arc::get_mut(&mut buffer).unwrap().bytes_mut().is_none());
    assert_eq!(number(&call.get(None).unwrap()), 1000);
    assert!(Arc::get_mut(&mut buffer).unwrap().bytes_mut().is_some());
    // Of another pool, and outside of all buffers.
    let input = Input::Keeping { input: &Input::Bytes(&bytes), buffers: std::slice::from_ref(&buffer) };
    let other = Pool::new(1).unwrap();
    assert!(matches!(
        other.raw().apply(name("raw refer"), input).unwrap_err().kind(),
        ErrorKind::Invalid { .. }
    ));
    for (offset, len) in [(u64::MAX, 1), (0, u64::MAX >> 1), (1 << 62, 1 << 62)] {
        let bytes: Vec<u8> = [0, offset, len].into_iter().flat_map(u64::to_ne_bytes).collect();
        let error = caller.apply(name("raw refer"), &bytes[..]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::FailedWith { .. }), "{error:?}");
    }
    // SAFETY: never used.
    assert!(unsafe { raw::buffer_at(buffer.offset(), 1) }.is_err(), "this is no worker");
    drop(call);
    expect_whole(&pool);
}

fn expect_invalid(result: ringpool::Result<()>) {
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Invalid { .. }), "{error:?}");
}

fn feeds() {
    let pool = pool(Context::Fork);
    let caller = pool.raw();
    let feed = caller.feed(name("raw echo"), 1000).unwrap();
    let items: Vec<Vec<u8>> = (0..1000_usize).map(|n| vec![n as u8; n % 90]).collect();
    let slices: Vec<&[u8]> = items.iter().map(|item| &item[..]).collect();
    // From the end on, and from another thread; one item, and several.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let feed = feed.clone();
            for first in (500..1000).step_by(20).rev() {
                feed.push(first, &slices[first..first + 20], &[]).unwrap();
            }
        });
        for first in 0..100 {
            feed.push(first, &slices[first..=first], &[]).unwrap();
        }
    });
    feed.push(100, &[], &[]).unwrap();
    expect_invalid(feed.push(99, &slices[99..101], &[]));
    expect_invalid(feed.push(499, &slices[499..501], &[]));
    expect_invalid(feed.push(501, &slices[..1], &[]));
    expect_invalid(feed.push(999, &slices[..2], &[]));
    expect_invalid(feed.push(usize::MAX, &slices[..2], &[]));
    let pending = feed.pending();
    assert!(!pending.wait(Some(Duration::from_millis(20))) && !pending.ready());
    feed.push_array(100, Array { items: &[5; 300 * 8], item_size: 8 }, &[]).unwrap();
    // Who waits is told of those that are not run, too.
    let waiting = feed.pending();
    let waiter = std::thread::spawn(move || waiting.get(None).unwrap());
    feed.push(450, &slices[450..500], &[]).unwrap();
    feed.fail(300, 200, ErrorKind::Cancelled.into());
    feed.fail(0, usize::MAX, ErrorKind::Closed.into());
    let results = waiter.join().unwrap();
    for (index, item) in items.iter().enumerate() {
        let output = results.get(index).unwrap();
        match index {
            100..400 => assert_eq!(output.unwrap(), [5; 8]),
            400..450 => assert!(matches!(output.unwrap_err().kind(), ErrorKind::Cancelled)),
            _ => assert_eq!(output.unwrap(), &item[..], "{index}"),
        }
    }
    assert_eq!((pending.ready(), pending.successful(), pending.len()), (true, Some(false), 1000));
    expect_invalid(feed.push(450, &slices[..1], &[]));
    // One that is given up.
    let feed = caller.feed(name("raw echo"), 3).unwrap();
    feed.push(1, &[b"this"], &[]).unwrap();
    let pending = feed.clone().pending();
    drop(feed);
    let results = pending.get(None).unwrap();
    assert_eq!(results.get(1).unwrap().unwrap(), b"this");
    for lost in [0, 2] {
        assert!(matches!(results.get(lost).unwrap().unwrap_err().kind(), ErrorKind::Cancelled));
    }
    // One of nothing.
    assert!(caller.feed(name("raw echo"), 0).unwrap().pending().get(None).unwrap().is_empty());
    drop((results, pending));
    expect_whole(&pool);
}

/// Feeds items from another thread, each after a while; gives up at the first error.
fn feed_slowly(caller: &Caller, items: usize) -> (MapPending, std::thread::JoinHandle<usize>) {
    let feed = caller.feed(name("raw echo"), items).unwrap();
    let pending = feed.pending();
    let feeder = std::thread::spawn(move || {
        for index in 0..items {
            std::thread::sleep(Duration::from_millis(5));
            if feed.push(index, &[b"x"], &[]).is_err() {
                return index;
            }
        }
        items
    });
    (pending, feeder)
}

fn feeds_closed() {
    let pool = pool(Context::Fork);
    let (pending, feeder) = feed_slowly(&pool.raw(), 50);
    pool.close();
    assert!(pool.raw().feed(name("raw echo"), 1).is_err());
    pool.join().unwrap();
    assert_eq!(feeder.join().unwrap(), 50);
    assert!(pending.get(None).unwrap().first_error().is_none());
}

fn feeds_terminated() {
    let pool = pool(Context::Fork);
    let (pending, feeder) = feed_slowly(&pool.raw(), 10_000);
    pool.close();
    std::thread::scope(|scope| {
        let joining = scope.spawn(|| pool.join());
        std::thread::sleep(Duration::from_millis(50));
        pool.terminate();
        joining.join().unwrap().unwrap();
    });
    assert!(feeder.join().unwrap() < 10_000);
    assert!(pending.get(None).unwrap().first_error().is_some());
}

fn feeds_full() {
    let pool = Pool::builder().processes(2).slots(16).start().unwrap();
    let feed = pool.raw().patience(Duration::ZERO).feed(name("raw refer"), 300).unwrap();
    let nap = 1_u64.to_ne_bytes();
    let mut refused = 0;
    let mut first = 0;
    while first < 300 {
        match feed.push(first, &[&nap[..]; 3], &[]) {
            Ok(()) => first += 3,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Full { .. }), "{error:?}");
                refused += 1;
                std::thread::yield_now();
            }
        }
    }
    assert!(refused > 0);
    let results = feed.pending().get(None).unwrap();
    assert!((0..300).all(|at| number(results.get(at).unwrap().unwrap()) == 0));
    expect_whole(&pool);
}

struct Counted {
    taken: Rc<Cell<usize>>,
    left: usize,
}

impl Source for Counted {
    fn next(&mut self) -> Option<ringpool::Result<&[u8]>> {
        self.left = self.left.checked_sub(1)?;
        self.taken.set(self.taken.get() + 1);
        Some(Ok(b"item"))
    }
}

fn buffersize() {
    let pool = pool(Context::Fork);
    for (chunksize, buffersize, most) in [(1, 1, 1), (1, 5, 5), (1, 100, 100), (4, 9, 9), (8, 3, 8)] {
        for order in [Order::Items, Order::Arrival] {
            let taken = Rc::new(Cell::new(0));
            let source = Counted { taken: taken.clone(), left: 300 };
            let mut outputs =
                pool.raw().imap(name("raw echo"), source, chunksize, order, Some(buffersize)).unwrap();
            let mut returned = 0;
            let mut held = taken.get();
            while let Some(output) = outputs.next(None) {
                output.unwrap();
                held = held.max(taken.get() - returned);
                returned += 1;
            }
            assert_eq!(returned, 300);
            assert!(held <= most && held > most - chunksize, "{held} of {most}");
        }
    }
    expect_whole(&pool);
}
