//! Functions that take the items of a chunk by themselves, and outputs that are taken as they come.

use super::pool;
use libtest_mimic::Trial;
use ringpool::raw::{Failure, Function, Name, Order, Source};
use ringpool::{Context, Error, Pool, raw};
use ringpool_tests::audit::expect_whole;
use ringpool_tests::{in_contexts, test};
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    let mut tests = in_contexts("raw: functions for chunks", chunks);
    tests.push(test("raw: a function for chunks that dies", chunks_die));
    tests.push(test("raw: results as they come", some_results));
    tests.push(test("raw: sources are taken to their end", all_taken));
    tests
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Called by the program before it becomes a worker.
pub fn register() {
    // Numbers from the one in the input on, one for each item; the items that the rest of the input names are special:
    // 1 dies, 2 has no output, 3 a long one, 4 fails, and 5 ends all.
    raw::register(
        "raw count",
        Function::new(|input, output| output.write(input)).chunks(|chunk| {
            let Some(input) = chunk.whole() else {
                while let Some(index) = chunk.take() {
                    let item = chunk.item(index).unwrap_or_default();
                    chunk.put(|output| output.write(item));
                }
                return;
            };
            let (first, special) = input.split_first_chunk::<8>().unwrap();
            assert_eq!(chunk.left().1, 10);
            while let Some(index) = chunk.take() {
                let number = u64::from_ne_bytes(*first) + u64::from(index);
                match special.get(index as usize) {
                    Some(1) => std::process::abort(),
                    Some(2) => continue,
                    Some(3) => chunk.put(|output| output.write(&[7; 5000])),
                    Some(4) => chunk.put(|_| Err(Failure::new(9, "four"))),
                    Some(5) => return,
                    _ => chunk.put_short(&number.to_ne_bytes()),
                }
                chunk.put_short(b"too late");
            }
        }),
    )
    .unwrap();
}

/// The outputs of the ten items of one chunk: numbers from 100 on, but for those that are special.
fn ten(pool: &Pool, special: &[u8]) -> Vec<Result<Vec<u8>, String>> {
    let feed = pool.raw().feed(name("raw count"), 10).unwrap();
    let input = [&100_u64.to_ne_bytes()[..], special].concat();
    feed.push_whole(0, 10, &input, &[]).unwrap();
    let results = feed.pending().get(None).unwrap();
    (0..10)
        .map(|index| results.get(index).unwrap().map(<[u8]>::to_vec).map_err(ToString::to_string))
        .collect()
}

fn number(number: u64) -> Result<Vec<u8>, String> {
    Ok(number.to_ne_bytes().to_vec())
}

fn chunks(context: Context) {
    let pool = pool(context);
    assert_eq!(ten(&pool, &[]), (100..110).map(number).collect::<Vec<_>>());
    let results = ten(&pool, &[0, 2, 3, 4]);
    assert_eq!(results[0], number(100));
    assert!(results[1].as_ref().unwrap_err().contains("no output"), "{:?}", results[1]);
    assert_eq!(results[2], Ok(vec![7; 5000]));
    assert!(results[3].as_ref().unwrap_err().contains("four"), "{:?}", results[3]);
    assert_eq!(results[4..], (104..110).map(number).collect::<Vec<_>>());
    let results = ten(&pool, &[0, 0, 5]);
    assert_eq!(results[..2], [number(100), number(101)]);
    assert!(results[2..].iter().all(Result::is_err), "{results:?}");
    // Items that were pushed one by one, and calls.
    let caller = pool.raw();
    let items: [&[u8]; 3] = [b"a", b"bb", &[1; 300]];
    let results = caller.map(name("raw count"), &items, Some(3)).unwrap().get(None).unwrap();
    assert!((0..3).all(|index| results.get(index).unwrap().unwrap() == items[index]));
    assert_eq!(&*caller.apply(name("raw count"), &b"call"[..]).unwrap(), b"call");
    // And functions that cannot tell items.
    let feed = caller.feed(name("raw echo"), 2).unwrap();
    feed.push_whole(0, 2, b"whole", &[]).unwrap();
    let results = feed.pending().get(None).unwrap();
    assert!(results.get(0).unwrap().unwrap_err().to_string().contains("cannot tell items"));
    expect_whole(&pool);
}

fn chunks_die() {
    let pool = pool(Context::Fork);
    let results = ten(&pool, &[0, 0, 0, 1, 0, 0, 1]);
    for (index, result) in results.iter().enumerate() {
        match index {
            3 | 6 => assert!(result.as_ref().unwrap_err().contains("SIGABRT"), "{result:?}"),
            _ => assert_eq!(*result, number(100 + index as u64)),
        }
    }
    expect_whole(&pool);
}

fn some_results() {
    let pool = pool(Context::Fork);
    let feed = pool.raw().feed(name("raw count"), 40).unwrap();
    let pending = feed.pending();
    assert!(!pending.wait_for_some(1, Some(Duration::from_millis(5))));
    let mut seen = 0;
    for first in (0..40).step_by(10) {
        feed.push_whole(first, 10, &(first as u64).to_ne_bytes(), &[]).unwrap();
        assert!(pending.wait_for_some(1, None));
        for (at, results) in pending.take() {
            for index in 0..results.len() {
                let expected = (at + index) as u64;
                assert_eq!(results.get(index).unwrap().unwrap(), expected.to_ne_bytes());
                seen += 1;
            }
        }
        assert_eq!(seen, first + 10);
        assert_eq!(pending.left(), 30 - first);
    }
    assert!(pending.wait_for_some(1, None), "all have come");
    assert!(pending.take().is_empty());
}

/// Numbers from 0 on.
struct Numbers {
    next: u64,
    end: u64,
    bytes: [u8; 8],
}

impl Source for Numbers {
    fn next(&mut self) -> Option<Result<&[u8], Error>> {
        self.bytes = self.next.to_ne_bytes();
        self.next += 1;
        (self.next <= self.end).then_some(Ok(&self.bytes))
    }
}

fn all_taken() {
    for (chunksize, order) in
        [(1, Order::Items), (7, Order::Items), (1, Order::Arrival), (50, Order::Arrival)]
    {
        let pool = pool(Context::Fork);
        let source = Numbers { next: 0, end: 5000, bytes: [0; 8] };
        let mut iter = pool.raw().imap(name("raw echo"), source, chunksize, order, Some(20)).unwrap();
        let mut seen = vec![u64::from_ne_bytes(iter.next(None).unwrap().unwrap()[..].try_into().unwrap())];
        pool.close();
        while !iter.take_all(Duration::from_millis(20)) {}
        pool.join().unwrap();
        while let Some(output) = iter.next(None) {
            seen.push(u64::from_ne_bytes(output.unwrap()[..].try_into().unwrap()));
        }
        if order == Order::Arrival {
            seen.sort_unstable();
        }
        assert_eq!(seen, (0..5000).collect::<Vec<_>>(), "{chunksize} {order:?}");
    }
}
