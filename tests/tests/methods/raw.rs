//! Functions over bytes, by name.

use super::pool;
use libtest_mimic::Trial;
use ringpool::raw::{Array, Batch, Failure, Function, Input, Name, Order, Source};
use ringpool::{Context, ErrorKind, Exit, Pool, named, raw};
use ringpool_tests::audit::expect_whole;
use ringpool_tests::{in_contexts, test};
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let mut tests = in_contexts("raw: of all sizes", sizes);
    tests.extend(in_contexts("raw: with functions of Rust", both_ways));
    tests.extend(in_contexts("raw: maps", maps));
    tests.push(test("raw: failures", failures));
    tests.push(test("raw: arrays", arrays));
    tests.push(test("raw: arrays whose worker dies", deaths_in_arrays));
    tests.push(test("raw: buffers", buffers));
    tests.push(test("raw: iterators", iterators));
    tests.push(test("raw: queues", queues));
    tests.push(test("raw: cancelled", cancelled));
    tests.push(test("raw: callbacks", callbacks));
    tests.push(test("raw: initializer", initializer));
    tests.push(test("raw: in a hardened pool", hardened));
    tests.push(test("raw: results outlive the pool", outlive));
    tests.push(test("raw: registered twice", twice));
    tests
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn roots(batch: Batch<'_>) -> Result<(), Failure> {
    let numbers: &[f64] = bytemuck(batch.items);
    if let Some(bad) = numbers.iter().find(|&&x| x == -7.0) {
        return Err(Failure::new(7, format!("no root of {bad}")));
    }
    if numbers.contains(&-9.0) {
        std::process::abort();
    }
    for (place, number) in batch.values.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
        *place = number.sqrt().to_ne_bytes();
    }
    Ok(())
}

/// Aligned, as the contract says.
fn bytemuck(bytes: &[u8]) -> &[f64] {
    assert!(bytes.as_ptr().cast::<f64>().is_aligned());
    // SAFETY: aligned, and all bytes are numbers.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / 8) }
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn half(x: f64) -> f64 {
    x / 2.0
}

/// Called by the program before it becomes a worker.
pub fn register() {
    let bytes = |name: &str, function: Function| raw::register(name, function).unwrap();
    bytes(
        "raw echo",
        Function::new(|input, output| {
            // Items of an array are aligned to their own size.
            assert!(input.as_ptr().addr().is_multiple_of(16) || input.len() < 16);
            output.write(input)
        }),
    );
    bytes(
        "raw add",
        Function::new(|input, output| {
            let [a, b] = *input.as_chunks::<8>().0 else { return Err(Failure::new(3, "two numbers")) };
            output.write(&(u64::from_ne_bytes(a) + u64::from_ne_bytes(b)).to_ne_bytes())
        }),
    );
    bytes(
        "raw grow",
        Function::new(|input, output| {
            let pieces = u64::from_ne_bytes(input.try_into().map_err(|_| Failure::new(1, "a number"))?);
            for piece in 0..pieces {
                let room = output.reserve(1000)?;
                room[..100].fill(piece as u8);
                output.commit(100)?;
            }
            Ok(())
        }),
    );
    bytes(
        "raw fail",
        Function::new(|input, _| match input {
            [] => panic!("on nothing"),
            [b'd', ..] => std::process::abort(),
            [b'f', ..] => Err(Failure::new(-42, "not this")),
            [b'h', ..] => Err(Failure::new(0, String::new())),
            _ => Ok(()),
        }),
    );
    bytes(
        "raw sleep",
        Function::new(|_, _| {
            std::thread::sleep(Duration::from_millis(300));
            Ok(())
        }),
    );
    bytes(
        "raw huge",
        Function::new(|_, output| {
            output.reserve(1 << 60)?;
            Ok(())
        }),
    );
    bytes("raw roots", Function::array(8, 8, roots));
    bytes(
        "raw init",
        Function::new(|input, _| {
            // SAFETY: no other thread looks at the environment of a worker that begins.
            unsafe { std::env::set_var("RAW_INIT", String::from_utf8_lossy(input).as_ref()) };
            Ok(())
        }),
    );
    bytes("raw inited", Function::new(|_, output| output.write(std::env::var("RAW_INIT")?.as_bytes())));
    ringpool::register("typed add", add).unwrap();
    ringpool::register("typed half", half).unwrap();
}

fn sizes(context: Context) {
    let pool = pool(context);
    let echo = name("raw echo");
    for size in [0, 1, 7, 8, 9, 24, 31, 32, 33, 40, 41, 64, 65, 511, 512, 513, 4096, 1 << 20, (3 << 20) + 1] {
        let bytes: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
        let result = pool.raw().apply(echo, &bytes[..]).unwrap();
        assert_eq!(&*result, bytes, "{size}");
        let result = pool.raw().apply_async(echo, &bytes[..]).unwrap().get(None).unwrap();
        assert_eq!(&*result, bytes, "{size}");
    }
    for pieces in [0, 1, 5, 1000_u64] {
        let result = pool.raw().apply(name("raw grow"), &pieces.to_ne_bytes()[..]).unwrap();
        assert_eq!(result.len() as u64, 100 * pieces);
        assert!(result.chunks(100).zip(0..).all(|(part, piece)| part.iter().all(|&b| b == piece as u8)));
    }
    expect_whole(&pool);
}

fn both_ways(context: Context) {
    let pool = pool(context);
    // What is registered over bytes, called with types.
    assert_eq!(pool.apply(named::<(u64, u64), u64>("raw add"), (30, 12)).unwrap(), 42);
    let pairs: Vec<(u64, u64)> = (0..100).map(|x| (x, 2 * x)).collect();
    let sums = pool.starmap(named::<(u64, u64), u64>("raw add"), pairs).unwrap();
    assert!(sums.iter().zip(0..).all(|(&sum, x)| sum == 3 * x));
    let squares: Vec<f64> = (0..1000).map(|x| f64::from(x * x)).collect();
    let values = pool.map(named::<(f64,), f64>("raw roots"), squares.clone()).unwrap();
    assert!(values.iter().zip(0..).all(|(&value, x)| value == f64::from(x)));
    assert_eq!(pool.apply(named::<(f64,), f64>("raw roots"), (81.0,)).unwrap(), 9.0);
    for count in [1, 2, 3, 5, 200] {
        let bytes: Vec<u8> = (0..count).collect();
        for chunksize in [2, 3, 100] {
            let echoed =
                pool.map_async(named::<(u8,), u8>("raw echo"), bytes.clone(), Some(chunksize)).unwrap();
            assert_eq!(echoed.get().unwrap(), bytes);
            let echoed = pool.imap(named::<(u8,), u8>("raw echo"), bytes.clone(), chunksize).unwrap();
            assert_eq!(echoed.collect::<Result<Vec<_>, _>>().unwrap(), bytes);
        }
    }
    let error = pool.apply(named::<(u8,), ()>("raw fail"), (b'f',)).unwrap_err();
    assert!(error.is_task_error());
    // What is registered with types, called over bytes.
    let input = [7_u64.to_ne_bytes(), 8_u64.to_ne_bytes()].concat();
    assert_eq!(&*pool.raw().apply(name("typed add"), &input[..]).unwrap(), 15_u64.to_ne_bytes());
    let items: Vec<u8> = squares.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let mut halves = vec![0; items.len()];
    let array = Array { items: &items, item_size: 8 };
    pool.raw().map_into(name("typed half"), array, 8, &mut halves, None).unwrap();
    assert!(halves.as_chunks::<8>().0.iter().zip(&squares).all(|(&h, x)| f64::from_ne_bytes(h) == x / 2.0));
    expect_whole(&pool);
}

fn maps(context: Context) {
    let pool = pool(context);
    let caller = pool.raw();
    let items: Vec<Vec<u8>> = (0..500_usize).map(|n| vec![n as u8; n * 13 % 300]).collect();
    let slices: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
    for chunksize in [None, Some(1), Some(7), Some(10_000)] {
        let results = caller.map(name("raw echo"), &slices, chunksize).unwrap().get(None).unwrap();
        assert_eq!(results.len(), items.len());
        for (index, item) in items.iter().enumerate() {
            assert_eq!(results.get(index).unwrap().unwrap(), item, "{index}");
        }
        assert!(results.get(items.len()).is_none());
    }
    assert!(caller.map(name("raw echo"), &[], None).unwrap().get(None).unwrap().is_empty());
    assert!(caller.map(name("raw echo"), &slices, Some(0)).is_err());
    // One that fails costs nobody else.
    let results = caller.map(name("raw fail"), &[b"a", b"f", b"b", b"d", b"c"], Some(5)).unwrap();
    let results = results.get(None).unwrap();
    let kinds: Vec<String> = (0..5)
        .map(|index| match results.get(index).unwrap() {
            Ok(bytes) => format!("{}", bytes.len()),
            Err(error) => match error.kind() {
                ErrorKind::FailedWith { code, message } => format!("{code} {message}"),
                ErrorKind::WorkerDied { end: Exit::Signal(6), .. } => "aborted".to_owned(),
                other => format!("{other:?}"),
            },
        })
        .collect();
    assert_eq!(kinds, ["0", "-42 not this", "0", "aborted", "0"]);
    expect_whole(&pool);
}

fn failures() {
    let pool = pool(Context::Fork);
    let fail = |input: &[u8]| pool.raw().apply(name("raw fail"), input).unwrap_err();
    assert!(
        matches!(fail(b"f").kind(), ErrorKind::FailedWith { code: -42, message } if message == "not this")
    );
    assert!(fail(b"").is_panic());
    assert!(matches!(fail(b"die").kind(), ErrorKind::WorkerDied { end: Exit::Signal(6), .. }));
    let error = pool.raw().apply(name("raw unknown"), &b"x"[..]).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Function { message } if message.contains("raw unknown")),
        "{error}"
    );
    let error = pool.raw().apply(name("raw huge"), &b""[..]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ArenaFull { .. }), "{error:?}");
    assert!(Name::new("").is_err() && Name::new(&"x".repeat(64)).is_err());
    expect_whole(&pool);
}

fn numbers(values: impl Iterator<Item = f64>) -> Vec<u8> {
    values.flat_map(f64::to_ne_bytes).collect()
}

fn arrays() {
    let pool = pool(Context::Fork);
    let caller = pool.raw();
    let count = 100_000;
    let items = numbers((0..count).map(|x| f64::from(x) * f64::from(x)));
    let array = Array { items: &items, item_size: 8 };
    let right = |values: &[u8]| values == numbers((0..count).map(f64::from));
    for chunksize in [None, Some(1000), Some(1_000_000)] {
        let mut values = vec![0; items.len()];
        caller.map_into(name("raw roots"), array, 8, &mut values, chunksize).unwrap();
        assert!(right(&values));
        let results = caller.map_array(name("raw roots"), array, chunksize).unwrap().get(None).unwrap();
        let mut values = Vec::new();
        while values.len() / 8 < results.len() {
            let (run, size) = results.run_at(values.len() / 8).unwrap().unwrap();
            assert_eq!(size, 8);
            assert_eq!(run.len() / 8, results.run_len(values.len() / 8));
            values.extend_from_slice(run);
        }
        assert!(right(&values));
    }
    // One bad item fails its chunk, and no other.
    let items = numbers([1.0, 4.0, -7.0, 9.0, 16.0, 25.0].into_iter());
    let array = Array { items: &items, item_size: 8 };
    let results = caller.map_array(name("raw roots"), array, Some(2)).unwrap().get(None).unwrap();
    let good: Vec<bool> = (0..6).map(|index| results.get(index).unwrap().is_ok()).collect();
    assert_eq!(good, [true, true, false, false, true, true]);
    let mut values = vec![0; items.len()];
    let error = caller.map_into(name("raw roots"), array, 8, &mut values, Some(2)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::FailedWith { code: 7, .. }));
    let error = caller.map_into(name("raw echo"), array, 4, &mut values[..24], None).unwrap_err();
    assert!(error.to_string().contains("expected"), "{error}");
    assert!(caller.map_array(name("raw roots"), Array { items: &items, item_size: 7 }, None).is_err());
    let wrong = caller.map_array(name("raw roots"), Array { items: &items, item_size: 4 }, None).unwrap();
    assert!(wrong.get(None).unwrap().first_error().is_some());
    expect_whole(&pool);
}

fn deaths_in_arrays() {
    for retries in [0, 1] {
        let pool = Pool::builder().processes(2).retries(retries).start().unwrap();
        let mut values = vec![1.0; 40_000];
        values[25_000] = -9.0;
        let items = numbers(values.into_iter());
        let array = Array { items: &items, item_size: 8 };
        let results =
            pool.raw().map_array(name("raw roots"), array, Some(10_000)).unwrap().get(None).unwrap();
        // The whole chunk at once, not item by item.
        for index in 0..40_000 {
            let ended = results.get(index).unwrap();
            assert_eq!(ended.is_err(), (20_000..30_000).contains(&index), "{index}");
        }
        let error = results.first_error().unwrap();
        assert!(
            matches!(error.kind(), ErrorKind::WorkerDied { end: Exit::Signal(6), attempt, .. } if *attempt == retries + 1),
            "{error:?}"
        );
        expect_whole(&pool);
    }
}

fn buffers() {
    let pool = pool(Context::Fork);
    let caller = pool.raw();
    let mut buffer = caller.buffer(800_000).unwrap();
    for (place, x) in buffer.bytes_mut().unwrap().as_chunks_mut::<8>().0.iter_mut().zip(0..) {
        *place = f64::from(x).powi(2).to_ne_bytes();
    }
    let echoed = caller.apply(name("raw echo"), Input::Buffer(&buffer, 800_000)).unwrap();
    assert_eq!(&*echoed, &buffer.bytes_mut().expect("no task has it any more")[..]);
    assert_eq!(caller.apply(name("raw echo"), Input::Buffer(&buffer, 16)).unwrap().len(), 16);
    let results = caller.map_buffer(name("raw roots"), &buffer, 8, Some(777)).unwrap();
    let all = results.get(None).unwrap();
    assert!((0..100_000).all(|x| all.get(x).unwrap().unwrap() == (x as f64).to_ne_bytes()));
    assert!(caller.apply(name("raw echo"), Input::Buffer(&buffer, 800_001)).is_err());
    let pairs = caller.map_buffer(name("raw echo"), &buffer, 16, None).unwrap().get(None).unwrap();
    assert_eq!(pairs.len(), 50_000);
    assert!(caller.map_buffer(name("raw echo"), &buffer, 3, None).is_err());
    assert!(caller.buffer(usize::MAX).is_err());
    let other = Pool::new(1).unwrap();
    assert!(other.raw().apply(name("raw echo"), Input::Buffer(&buffer, 8)).is_err());
    drop(buffer);
    drop((all, results));
    expect_whole(&pool);
}

struct Numbers(u32, Vec<u8>);

impl Source for Numbers {
    fn next(&mut self) -> Option<ringpool::Result<&[u8]>> {
        self.0 = self.0.checked_sub(1)?;
        self.1 = self.0.to_ne_bytes().repeat(1 + self.0 as usize % 20);
        Some(Ok(&self.1))
    }
}

fn iterators() {
    let pool = pool(Context::Fork);
    for (chunksize, order) in [(1, Order::Items), (1, Order::Arrival), (6, Order::Items), (6, Order::Arrival)]
    {
        let mut iter =
            pool.raw().imap(name("raw echo"), Numbers(1000, Vec::new()), chunksize, order, None).unwrap();
        let mut seen = Vec::new();
        while let Some(output) = iter.next(None) {
            let output = output.unwrap();
            let number = u32::from_ne_bytes(*output.first_chunk().unwrap());
            assert_eq!(output.len(), 4 * (1 + number as usize % 20));
            seen.push(number);
        }
        if order == Order::Arrival {
            seen.sort_by_key(|&number| std::cmp::Reverse(number));
        }
        assert!(seen.into_iter().eq((0..1000).rev()));
    }
    let mut slow = pool.raw().imap(name("raw sleep"), Numbers(3, Vec::new()), 1, Order::Items, None).unwrap();
    assert!(slow.next(Some(Duration::from_millis(1))).unwrap().unwrap_err().is_timeout());
    assert!(slow.next(None).unwrap().is_ok());
    drop(slow); // half-way
    // A closed pool goes on with it.
    let mut iter =
        pool.raw().imap(name("raw echo"), Numbers(100, Vec::new()), 3, Order::Items, None).unwrap();
    pool.close();
    let mut count = 0;
    while let Some(output) = iter.next(None) {
        output.unwrap();
        count += 1;
    }
    assert_eq!(count, 100);
    pool.join().unwrap();
    assert!(pool.raw().imap(name("raw echo"), Numbers(1, Vec::new()), 1, Order::Items, None).is_err());
}

fn queues() {
    // Fewer slots than calls.
    let pool = Pool::builder().processes(2).slots(16).start().unwrap();
    let queue = pool.raw().queue().unwrap();
    let inputs: Vec<Vec<u8>> = (0..1000_usize).map(|n| vec![n as u8; n % 50]).collect();
    let calls = inputs.iter().enumerate().map(|(n, input)| (n as u64 * 3, Input::Bytes(input)));
    let (submitted, result) = queue.submit(name("raw echo"), calls);
    result.unwrap();
    assert_eq!(submitted, 1000);
    let mut seen = vec![false; 1000];
    while queue.outstanding() > 0 {
        let results = queue.take(7, None).unwrap();
        assert!((1..=7).contains(&results.len()));
        for at in 0..results.len() {
            let number = results.tag(at).unwrap() as usize / 3;
            assert_eq!(results.get(at).unwrap().unwrap(), inputs[number]);
            assert!(!std::mem::replace(&mut seen[number], true));
        }
    }
    assert!(seen.into_iter().all(|seen| seen));
    assert!(queue.take(1, None).unwrap().is_empty());
    let (_, result) = queue.submit(name("raw sleep"), [(1, Input::Bytes(b""))]);
    result.unwrap();
    assert!(queue.take(1, Some(Duration::ZERO)).is_err_and(|error| error.is_timeout()));
    drop(queue);
    expect_whole(&pool);
}

fn cancelled() {
    let pool = Pool::builder().processes(1).start().unwrap();
    let calls: Vec<_> =
        (0..20).map(|_| pool.raw().apply_async(name("raw sleep"), &b""[..]).unwrap()).collect();
    let last = calls.last().unwrap();
    assert!(last.cancel());
    assert!(last.ready() && last.successful() == Some(false));
    assert!(matches!(last.get(None).unwrap_err().kind(), ErrorKind::Cancelled));
    calls[0].wait(None);
    assert!(!calls[0].cancel());
    assert!(calls[0].get(None).is_ok());
    let map = pool.raw().map(name("raw sleep"), &[&[][..]; 8], Some(2)).unwrap();
    assert!(map.cancel());
    for call in &calls {
        call.cancel();
    }
    assert!(map.get(None).unwrap().first_error().is_some());
    drop((calls, map));
    expect_whole(&pool);
}

fn callbacks() {
    let pool = pool(Context::Fork);
    let (tell, told) = std::sync::mpsc::channel();
    let say = tell.clone();
    let _call = pool
        .raw()
        .apply_async(name("raw echo"), &b"hello"[..])
        .unwrap()
        .then(move |output| say.send(output.unwrap().to_vec()).unwrap());
    assert_eq!(told.recv().unwrap(), b"hello");
    let say = tell.clone();
    let _call = pool
        .raw()
        .apply_async(name("raw fail"), &b"f"[..])
        .unwrap()
        .then(move |output| say.send(output.unwrap_err().to_string().into_bytes()).unwrap());
    assert!(told.recv().unwrap().ends_with(b"not this"));
    let map = pool
        .raw()
        .map(name("raw echo"), &[b"a", b"b"], None)
        .unwrap()
        .then(move |results| tell.send(results.get(1).unwrap().unwrap().to_vec()).unwrap());
    assert_eq!(told.recv().unwrap(), b"b");
    assert_eq!(map.get(None).unwrap().len(), 2);
}

fn initializer() {
    let builder = Pool::builder().processes(2).raw_initializer(name("raw init"), b"warm".to_vec());
    let pool = builder.start().unwrap();
    assert_eq!(&*pool.raw().apply(name("raw inited"), &b""[..]).unwrap(), b"warm");
    let pool = Pool::builder().processes(1).raw_initializer(name("raw fail"), b"f".to_vec()).start().unwrap();
    let error = pool.raw().apply(name("raw echo"), &b""[..]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Initializer { .. }), "{error:?}");
}

fn hardened() {
    let pool = Pool::builder().processes(2).hardened(true).retries(2).start().unwrap();
    let caller = pool.raw();
    for size in [0, 8, 24, 25, 32, 33, 41, 1000, 100_000] {
        let bytes = vec![size as u8; size];
        assert_eq!(&*caller.apply(name("raw echo"), &bytes[..]).unwrap(), bytes);
    }
    let items = numbers((0..1000).map(|x| f64::from(x * x)));
    let array = Array { items: &items, item_size: 8 };
    let mut values = vec![0; items.len()];
    caller.map_into(name("raw roots"), array, 8, &mut values, Some(100)).unwrap();
    assert_eq!(values, numbers((0..1000).map(f64::from)));
    let results = caller.map(name("raw fail"), &[b"a", b"d", b"b"], Some(3)).unwrap().get(None).unwrap();
    assert!(results.get(0).unwrap().is_ok() && results.get(2).unwrap().is_ok());
    assert!(results.get(1).unwrap().unwrap_err().is_worker_died());
    let items = numbers([1.0, -9.0].into_iter());
    let results =
        caller.map_array(name("raw roots"), Array { items: &items, item_size: 8 }, Some(2)).unwrap();
    assert!(results.get(None).unwrap().first_error().unwrap().is_worker_died());
    expect_whole(&pool);
}

fn outlive() {
    let pool = pool(Context::Fork);
    let bytes = vec![5; 100_000];
    let result = pool.raw().apply(name("raw echo"), &bytes[..]).unwrap();
    let call = pool.raw().apply_async(name("raw echo"), &bytes[..]).unwrap();
    let late = call.get(None).unwrap();
    let map = pool.raw().map(name("raw echo"), &[&bytes], None).unwrap().get(None).unwrap();
    let buffer = pool.raw().buffer(4096).unwrap();
    drop((pool, call));
    assert_eq!(&*result, bytes);
    assert_eq!(&*late, bytes);
    assert_eq!(map.get(0).unwrap().unwrap(), bytes);
    drop(buffer);
}

fn twice() {
    let one = || Function::new(|_, _| Ok(())).identity([1, 2, 0, 0]);
    raw::register("raw twice", one()).unwrap();
    raw::register("raw twice", one()).unwrap();
    assert!(raw::register("raw twice", Function::new(|_, _| Ok(())).identity([1, 3, 0, 0])).is_err());
    assert!(raw::register("raw twice", Function::new(|_, _| Ok(()))).is_err());
    assert!(ringpool::register("raw twice", add).is_err());
    assert!(raw::register("typed add", one()).is_err());
    assert!(raw::register("", one()).is_err());
}
