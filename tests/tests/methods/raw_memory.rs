//! Memory of the pool that callers and tasks get at by themselves.

use super::pool;
use libtest_mimic::Trial;
use ringpool::raw::{Array, Bytes, Claimed, Failure, Function, Input, Name, Private};
use ringpool::{Context, ErrorKind, Pool, raw};
use ringpool_tests::audit::expect_whole;
use ringpool_tests::{in_contexts, test};
use std::sync::{Arc, Mutex};

pub fn tests() -> Vec<Trial> {
    let mut tests = in_contexts("raw: results that are written to", private_results);
    tests.extend(in_contexts("raw: inputs that are written to", private_inputs));
    tests.extend(in_contexts("raw: outputs made beforehand", claims));
    tests.push(test("raw: results of chunks that are written to", private_parts));
    tests.push(test("raw: results that are not shared", not_shared));
    tests.push(test("raw: outputs are not copied", not_copied));
    tests.push(test("raw: a chunk of large outputs", large_chunk));
    tests
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// What tasks of a worker leave for later ones.
static PRIVATE: Mutex<Option<Private>> = Mutex::new(None);
static CLAIMED: Mutex<Option<Claimed>> = Mutex::new(None);

fn failed(what: &str) -> Failure {
    Failure::new(1, what)
}

fn count(input: &[u8]) -> Result<usize, Failure> {
    Ok(u64::from_ne_bytes(input.try_into()?) as usize)
}

/// `len` bytes that say where they are.
fn pattern(bytes: &mut [u8]) {
    bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7 % 251) as u8);
}

fn patterned(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    pattern(&mut bytes);
    bytes
}

/// Called by the program before it becomes a worker.
pub fn register() {
    let bytes = |name: &str, function: Function| raw::register(name, function).unwrap();
    bytes(
        "raw pattern",
        Function::new(|input, output| {
            let len = count(input)?;
            pattern(output.reserve(len)?);
            output.commit(len)
        }),
    );
    // Keeps its input, changed.
    bytes(
        "raw keep",
        Function::new(|input, _| {
            // SAFETY: owned below, or dropped.
            let private = unsafe { Private::of_task(input) }?;
            // SAFETY: so many bytes, of which nobody else knows.
            let own = unsafe { std::slice::from_raw_parts_mut(private.as_ptr().as_ptr(), private.len()) };
            if own != input {
                return Err(failed("other bytes"));
            }
            own[0] ^= 0xff;
            if own[0] == input[0] || own[1..] != input[1..] {
                return Err(failed("not private"));
            }
            private.own()?;
            *PRIVATE.lock()? = Some(private);
            Ok(())
        }),
    );
    bytes(
        "raw kept",
        Function::new(|_, output| {
            let private = PRIVATE.lock()?.take().ok_or_else(|| failed("nothing"))?;
            // SAFETY: as above.
            output.write(unsafe { std::slice::from_raw_parts(private.as_ptr().as_ptr(), private.len()) })
        }),
    );
    // A letter that says what to do, and a length.
    bytes(
        "raw claim",
        Function::new(|input, output| {
            let (&what, len) = input.split_first().ok_or_else(|| failed("nothing"))?;
            let len = count(len)?;
            let claimed = || -> Result<Claimed, Failure> {
                let mut claimed = raw::claim(len)?;
                pattern(claimed.bytes_mut().ok_or_else(|| failed("not here"))?);
                Ok(claimed)
            };
            match what {
                b'a' => output.adopt(claimed()?, len),
                b'h' => {
                    output.adopt(claimed()?, len / 2)?;
                    output.write(b"and more")
                }
                b's' => {
                    output.write(b"before")?;
                    output.adopt(claimed()?, len)
                }
                b'm' => output.adopt(claimed()?, len + 1),
                b'f' => {
                    output.adopt(claimed()?, len)?;
                    Err(failed("on purpose"))
                }
                b'k' => {
                    *CLAIMED.lock()? = Some(claimed()?);
                    Ok(())
                }
                b'u' => {
                    let claimed = CLAIMED.lock()?.take().ok_or_else(|| failed("nothing"))?;
                    output.adopt(claimed, len)
                }
                b'd' => {
                    let claimed = claimed()?;
                    std::thread::spawn(move || drop(claimed)).join().map_err(|_| failed("a panic"))
                }
                b't' => match std::thread::spawn(move || raw::claim(len).is_err()).join() {
                    Ok(true) => Ok(()),
                    _ => Err(failed("claimed on another thread")),
                },
                _ => Err(failed("what?")),
            }
        }),
    );
    // Writes so many bytes in pieces, having asked for all of them at once.
    bytes(
        "raw pieces",
        Function::new(|input, output| {
            let len = count(input)?;
            output.reserve(len)?;
            let pieces = patterned(len);
            for piece in pieces.chunks(len / 7 + 1) {
                output.write(piece)?;
            }
            Ok(())
        }),
    );
}

fn arg(len: usize) -> [u8; 8] {
    (len as u64).to_ne_bytes()
}

fn bytes_of(private: &Private) -> &'static mut [u8] {
    // SAFETY: one reference at a time, used only as long as the memory is there.
    unsafe { std::slice::from_raw_parts_mut(private.as_ptr().as_ptr(), private.len()) }
}

/// Has all workers use their memory again.
fn churn(pool: &Pool, len: usize) {
    for _ in 0..40 {
        let filler = vec![0xee; len];
        drop(pool.raw().apply(name("raw echo"), &filler[..]).unwrap());
    }
}

fn private_results(context: Context) {
    let pool = pool(context);
    for len in [41, 100, 4096, 70_000, 3 << 20] {
        let right = patterned(len);
        let bytes = Arc::new(pool.raw().apply(name("raw pattern"), &arg(len)[..]).unwrap());
        assert!(bytes.is_shared());
        let all = Private::of_result(&bytes, 0..len).unwrap().unwrap();
        let part = Private::of_result(&bytes, 7..len - 3).unwrap().unwrap();
        assert_eq!((all.len(), part.len()), (len, len - 10));
        assert_eq!(bytes_of(&all), right);
        assert_eq!(bytes_of(&part), &right[7..len - 3]);
        bytes_of(&part).fill(1);
        bytes_of(&all)[len - 1] = 2;
        assert_eq!(**bytes, right[..]);
        assert_eq!(bytes_of(&all)[..len - 1], right[..len - 1]);
        // They hold it.
        drop(bytes);
        churn(&pool, len);
        assert_eq!(bytes_of(&all)[..len - 1], right[..len - 1]);
        all.own().unwrap();
        all.own().unwrap();
        drop(part);
        churn(&pool, len);
        assert_eq!(bytes_of(&all)[..len - 1], right[..len - 1]);
        assert_eq!(expect_whole(&pool).blocks.results, 0, "an owned one needs no memory of the pool");
        drop(all);
    }
    let later = pool.raw().apply_async(name("raw pattern"), &arg(100_000)[..]).unwrap();
    let bytes = Arc::new(later.get(None).unwrap());
    let private = Private::of_result(&bytes, 0..100_000).unwrap().unwrap();
    drop((bytes, later, pool));
    assert_eq!(bytes_of(&private), patterned(100_000), "it outlives the pool");
}

fn private_parts() {
    let pool = pool(Context::Fork);
    let (a, b) = (arg(5000), arg(90_000));
    struct Two([Vec<u8>; 2], usize);
    impl raw::Source for Two {
        fn next(&mut self) -> Option<ringpool::Result<&[u8]>> {
            self.1 += 1;
            self.0.get(self.1 - 1).map(|item| Ok(&item[..]))
        }
    }
    let source = Two([a.to_vec(), b.to_vec()], 0);
    let mut outputs = pool.raw().imap(name("raw pattern"), source, 2, raw::Order::Items, None).unwrap();
    let mut parts = Vec::new();
    for len in [5000, 90_000] {
        let bytes = Arc::new(outputs.next(None).unwrap().unwrap());
        assert!(bytes.is_shared());
        parts.push(Private::of_result(&bytes, 1..len).unwrap().unwrap());
    }
    drop(outputs);
    churn(&pool, 100_000);
    bytes_of(&parts[0]).fill(3);
    assert_eq!(bytes_of(&parts[1]), &patterned(90_000)[1..]);
    drop(parts);
    expect_whole(&pool);
}

fn not_shared() {
    let invalid = |bytes: &Arc<Bytes>, range| {
        let error = Private::of_result(bytes, range).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid { .. }), "{error:?}");
    };
    let pool = pool(Context::Fork);
    for len in [0, 8, 40] {
        let bytes = Arc::new(pool.raw().apply(name("raw pattern"), &arg(len)[..]).unwrap());
        assert!(!bytes.is_shared() && Private::of_result(&bytes, 0..len).unwrap().is_none());
        invalid(&bytes, 0..len + 1);
    }
    let bytes = Arc::new(pool.raw().apply(name("raw pattern"), &arg(100)[..]).unwrap());
    assert!(Private::of_result(&bytes, 50..50).unwrap().is_none());
    invalid(&bytes, 50..101);
    #[expect(clippy::reversed_empty_ranges, reason = "what is to be refused")]
    invalid(&bytes, 9..8);
    // SAFETY: an error.
    assert!(unsafe { Private::of_task(&bytes) }.is_err(), "this is no worker");
    assert!(raw::claim(1).is_err());
    drop(bytes);
    // Hardened pools copy all results.
    let hardened = Pool::builder().processes(1).hardened(true).start().unwrap();
    let bytes = Arc::new(hardened.raw().apply(name("raw pattern"), &arg(100_000)[..]).unwrap());
    assert!(!bytes.is_shared() && Private::of_result(&bytes, 0..5).unwrap().is_none());
    assert_eq!(**bytes, patterned(100_000)[..]);
    let output = hardened.raw().apply(name("raw claim"), &[b"a", &arg(100_000)[..]].concat()[..]).unwrap();
    assert_eq!(*output, patterned(100_000)[..]);
    drop((bytes, output));
    expect_whole(&hardened);
    expect_whole(&pool);
}

fn private_inputs(context: Context) {
    let pool = Pool::builder().processes(1).context(context).start().unwrap();
    let caller = pool.raw();
    for len in [33, 5000, 1 << 20] {
        let mut right = patterned(len);
        caller.apply(name("raw keep"), &right[..]).unwrap();
        right[0] ^= 0xff;
        churn(&pool, len);
        assert_eq!(*caller.apply(name("raw kept"), &b""[..]).unwrap(), right[..]);
        // The same for a buffer, which is used again at once.
        let mut buffer = caller.buffer(len).unwrap();
        pattern(buffer.bytes_mut().unwrap());
        caller.apply(name("raw keep"), Input::Buffer(&buffer, len)).unwrap();
        assert_eq!(buffer.bytes_mut().unwrap(), patterned(len), "the task has changed its own only");
        buffer.bytes_mut().unwrap().fill(0);
        assert_eq!(*caller.apply(name("raw kept"), &b""[..]).unwrap(), right[..]);
    }
    let error = caller.apply(name("raw keep"), &[1; 32][..]).unwrap_err();
    assert!(error.to_string().contains("not in shared memory"), "{error}");
    expect_whole(&pool);
}

fn claims(context: Context) {
    let pool = Pool::builder().processes(1).context(context).start().unwrap();
    let claim =
        |what: u8, len: usize| pool.raw().apply(name("raw claim"), &[&[what][..], &arg(len)].concat()[..]);
    for len in [0, 1, 8, 40, 41, 1000, 70_000, 5 << 20] {
        let right = patterned(len);
        assert_eq!(*claim(b'a', len).unwrap(), right[..], "{len}");
        assert_eq!(*claim(b'h', len).unwrap(), [&right[..len / 2], b"and more"].concat());
        assert_eq!(*claim(b's', len).unwrap(), [b"before", &right[..]].concat());
        assert!(claim(b'm', len).unwrap_err().to_string().contains("claimed"));
        assert!(claim(b'f', len).unwrap_err().to_string().contains("on purpose"));
        claim(b'k', len).unwrap();
        churn(&pool, len);
        assert_eq!(*claim(b'u', len).unwrap(), right[..]);
        claim(b'd', len).unwrap();
        claim(b't', len).unwrap();
    }
    assert!(claim(b'a', usize::MAX).is_err());
    // Given back with the worker's next look for memory.
    assert_eq!(*claim(b'a', 1000).unwrap(), patterned(1000)[..]);
    // In chunks, too.
    let item = |len: usize| [b"a", &arg(len)[..]].concat();
    let items: Vec<Vec<u8>> = [10, 100, 10_000, 5].into_iter().map(item).collect();
    let slices: Vec<&[u8]> = items.iter().map(|item| &item[..]).collect();
    let results = pool.raw().map(name("raw claim"), &slices, Some(4)).unwrap().get(None).unwrap();
    for (index, len) in [10, 100, 10_000, 5].into_iter().enumerate() {
        assert_eq!(results.get(index).unwrap().unwrap(), patterned(len));
    }
    drop(results);
    drop(claim(b'a', 1000).unwrap());
    expect_whole(&pool);
    // What a worker has when it dies is not lost.
    claim(b'k', 100_000).unwrap();
    assert_eq!(pool.audit().unwrap().blocks.workers, 1);
    let error = pool.raw().apply(name("raw fail"), &b"die"[..]).unwrap_err();
    assert!(error.is_worker_died(), "{error:?}");
    expect_whole(&pool);
}

/// More than half of what a worker may have: there is no room for a copy.
fn not_copied() {
    let pool = Pool::builder().processes(1).arena_reserve(8 << 20).arena_quota(8 << 20).start().unwrap();
    let len = 5 << 20;
    for _ in 0..5 {
        let claimed = pool.raw().apply(name("raw claim"), &[b"a", &arg(len)[..]].concat()[..]).unwrap();
        assert_eq!(*claimed, patterned(len)[..]);
        drop(claimed);
        let pieces = pool.raw().apply(name("raw pieces"), &arg(len)[..]).unwrap();
        assert_eq!(*pieces, patterned(len)[..]);
    }
    // One for which there is no room but by a copy, and one for which there is none.
    for what in [&b"s"[..], b"a"] {
        let len = if what == b"a" { 9 << 20 } else { len };
        assert!(pool.raw().apply(name("raw claim"), &[what, &arg(len)[..]].concat()[..]).is_err());
    }
    // An item that a map travels with alone is a call.
    let feed = pool.raw().feed(name("raw claim"), 1).unwrap();
    feed.push(0, &[&[b"a", &arg(len)[..]].concat()], &[]).unwrap();
    assert_eq!(feed.pending().get(None).unwrap().get(0).unwrap().unwrap(), patterned(len));
    drop(feed);
    drop(pool.raw().apply(name("raw pattern"), &arg(1000)[..]).unwrap());
    expect_whole(&pool);
}

fn large_chunk() {
    let pool = pool(Context::Fork);
    let len = 300_000;
    let items: Vec<u8> = (0..40).flat_map(|_| arg(len)).collect();
    let array = Array { items: &items, item_size: 8 };
    let results = pool.raw().map_array(name("raw pieces"), array, Some(40)).unwrap().get(None).unwrap();
    assert!((0..40).all(|index| results.get(index).unwrap().unwrap() == patterned(len)));
    drop(results);
    expect_whole(&pool);
}
