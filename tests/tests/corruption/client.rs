//! The process under fire: a pool's client, which must give every call its value or an error, whatever
//! its workers write into the pool's memory.

use crate::scribble::{Random, hostile, hostile_thread};
use ringpool::{ArchivedSharedSlice, Error, ErrorKind, Payload, Pool};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A call that takes longer hangs.
const CALL_LIMIT: Duration = Duration::from_secs(40);
/// How long a pool may take to work again when nobody writes into it any more.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

fn odd(x: u64) -> u64 {
    2 * x + 1
}

fn turn(a: u64, b: u64, c: u64) -> (u64, u64, u64) {
    (b, c, a)
}

/// No longer than we ask for, should somebody write over the length: gigabytes would take longer than a call may.
fn repeat(len: u32, x: u64) -> Vec<u64> {
    (0..u64::from(len.min(60_000))).map(|i| x.wrapping_mul(i | 1)).collect()
}

fn total(items: Vec<u64>) -> u64 {
    items.iter().fold(0, |sum, item| sum.wrapping_add(*item))
}

fn text(x: u64) -> String {
    format!("{x:x}").repeat((x % 40) as usize)
}

fn sum(slice: &ArchivedSharedSlice<u64>) -> u64 {
    slice.iter().fold(0, |sum, item| sum.wrapping_add(*item))
}

#[derive(Default)]
struct Counts {
    /// The pool has said that it will do no more.
    ruined: AtomicBool,
    good: AtomicU64,
    errors: AtomicU64,
    wrong: AtomicU64,
    hung: AtomicU64,
}

impl Counts {
    fn outcome<T: PartialEq + std::fmt::Debug>(&self, what: &str, outcome: Result<T, Error>, expected: &T) {
        match outcome {
            Ok(value) if value == *expected => self.good.fetch_add(1, Ordering::Relaxed),
            Ok(value) => {
                let (value, expected) = (format!("{value:?}"), format!("{expected:?}"));
                eprintln!("{what}: {} instead of {}", cut(&value), cut(&expected));
                self.wrong.fetch_add(1, Ordering::Relaxed)
            }
            Err(error) if error.is_timeout() => {
                eprintln!("{what}: hung");
                self.hung.fetch_add(1, Ordering::Relaxed)
            }
            Err(error) => {
                self.ruined.fetch_or(is_ruined(&error), Ordering::Relaxed);
                self.errors.fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    fn all<T: PartialEq + std::fmt::Debug>(
        &self,
        what: &str,
        outcomes: Result<Vec<Result<T, Error>>, Error>,
        expected: &[T],
    ) {
        match outcomes {
            Ok(outcomes) => {
                assert_eq!(outcomes.len(), expected.len(), "{what}: an outcome for each item");
                outcomes.into_iter().zip(expected).for_each(|(outcome, e)| self.outcome(what, outcome, e));
            }
            Err(error) => self.outcome(what, Err::<u8, _>(error), &0),
        }
    }
}

fn cut(text: &str) -> &str {
    &text[..text.len().min(60)]
}

fn call<R: Payload>(submitted: Result<ringpool::AsyncResult<R>, Error>) -> Result<R, Error> {
    submitted?.get_timeout(CALL_LIMIT)
}

/// One call of some kind.
fn work(pool: &Pool, random: &mut Random, counts: &Counts) {
    let x = random.next() >> 1;
    match random.below(10) {
        0..=2 => counts.outcome("apply", call(pool.apply_async(odd, (x >> 1,))), &odd(x >> 1)),
        3 => counts.outcome("apply of three", call(pool.apply_async(turn, (x, !x, 7))), &turn(x, !x, 7)),
        4 => {
            let len = [3, 100, 5000, 60_000][random.below(4) as usize];
            counts.outcome("large result", call(pool.apply_async(repeat, (len, x))), &repeat(len, x));
        }
        5 => {
            let items = repeat(random.below(3000) as u32, x);
            counts.outcome("large argument", call(pool.apply_async(total, (items.clone(),))), &total(items));
        }
        6 => {
            let items: Vec<u64> = (x % 1000..x % 1000 + 60).collect();
            let expected: Vec<u64> = items.iter().map(|&i| odd(i)).collect();
            let map = pool.map_async(odd, items, Some(1 + random.below(12) as usize));
            counts.all("map", map.and_then(|map| each(&map)), &expected);
        }
        7 => {
            let items: Vec<u64> = (x % 1000..x % 1000 + 40).collect();
            let expected: Vec<String> = items.iter().map(|&i| text(i)).collect();
            let map = pool.map_async(text, items, Some(1 + random.below(12) as usize));
            counts.all("map to text", map.and_then(|map| each(&map)), &expected);
        }
        8 => {
            let items: Vec<u64> = (0..30).map(|i| x % 500 + i).collect();
            let expected: Vec<u64> = items.iter().map(|&i| odd(i)).collect();
            let outcomes = pool.imap(odd, items, 1 + random.below(4) as usize).map(|mut stream| {
                let mut outcomes = Vec::new();
                while let Some(outcome) = stream.next_timeout(CALL_LIMIT) {
                    let over = outcome.as_ref().is_err_and(Error::is_timeout);
                    outcomes.push(outcome);
                    if over {
                        break;
                    }
                }
                // A pool that has ended says so once for what it did not take any more.
                while outcomes.len() < expected.len() {
                    outcomes.push(Err(ErrorKind::Closed.into()));
                }
                outcomes
            });
            counts.all("imap", outcomes, &expected);
        }
        _ => {
            let shared = pool.alloc::<u64>(1 + random.below(5000) as usize).map(|mut slice| {
                slice.fill(x);
                slice.share()
            });
            match shared {
                Ok(slice) => {
                    let expected = slice.iter().fold(0_u64, |sum, item| sum.wrapping_add(*item));
                    counts.outcome("shared slice", call(pool.apply_async(sum, (slice.clone(),))), &expected);
                    assert!(slice.iter().all(|&item| item == x), "arguments cannot be written over");
                }
                Err(error) => counts.outcome("alloc", Err::<u8, _>(error), &0),
            }
        }
    }
}

fn each<R: Payload>(map: &ringpool::MapResult<R>) -> Result<Vec<Result<R, Error>>, Error> {
    if map.wait(Some(CALL_LIMIT)) {
        map.get_each()
    } else {
        Err(ErrorKind::Timeout { waited: CALL_LIMIT }.into())
    }
}

fn is_ruined(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupted { message } if message.contains("cannot go on"))
}

/// Waits until the pool works as if nothing had happened, or says that it never will: whether it does.
fn recovers(pool: &Pool) -> Result<bool, String> {
    let start = Instant::now();
    let mut in_a_row = 0;
    let mut last = None;
    while in_a_row < 100 {
        match call(pool.apply_async(repeat, (in_a_row, 5))) {
            Ok(value) => {
                // A default pool may still give what was written over before; a row without is asked for.
                in_a_row = if value == repeat(in_a_row, 5) { in_a_row + 1 } else { 0 };
            }
            Err(error) if is_ruined(&error) => return Ok(false),
            Err(error) => {
                last = Some(error);
                in_a_row = 0;
            }
        }
        if start.elapsed() > RECOVERY_LIMIT {
            return Err(format!("the pool did not recover: {last:?}"));
        }
    }
    Ok(true)
}

/// Arguments: seed, `hardened` or `default`, milliseconds, `task` or `thread`.
pub fn play(args: &[String]) {
    let seed: u64 = args[0].parse().expect("a seed");
    let hardened = args[1] == "hardened";
    let millis: u64 = args[2].parse().expect("milliseconds");
    let thread = args[3] == "thread";
    let me = std::process::id();
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("{info}");
        if std::process::id() == me {
            std::process::abort(); // whichever thread it is, the supervisor's, too
        }
    }));

    let mut random = Random::new(seed);
    let pool = Pool::builder()
        .processes(4)
        .slots([64, 256, 1024][random.below(3) as usize])
        .arena_reserve(64 << 20)
        .arena_quota(48 << 20)
        .patience(Duration::from_secs(5))
        .retries(random.below(3) as u32)
        .hardened(hardened)
        .start()
        .expect("a pool");
    let counts = Counts::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (pool, counts, over) = (&pool, &counts, &over);
            scope.spawn(move || {
                let mut random = Random::new(seed * 31 + worker);
                while !over.load(Ordering::Relaxed) && !counts.ruined.load(Ordering::Relaxed) {
                    work(pool, &mut random, counts);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(20));
        // Bursts of all kinds: a word now and then, up to all the time.
        let (burst, pause) =
            [(1, 5000), (1, 1000), (1, 300), (1, 100), (2, 1000), (4, 3000), (30, 30_000), (1, 20), (8, 0)]
                [random.below(9) as usize];
        let hostiles = 1 + random.below(2);
        let start = Instant::now();
        for i in 0..hostiles {
            // What a worker's own thread writes into a result before it is finished is that worker's result.
            let data = hardened && !thread && random.below(2) == 1;
            let arguments = (seed * 7 + i, millis, burst, pause, data);
            let submitted = match thread {
                true => pool.apply_async(hostile_thread, arguments),
                false => pool.apply_async(hostile, arguments),
            };
            let _ = submitted; // nobody needs its result
        }
        while start.elapsed() < Duration::from_millis(millis + 50) && !counts.ruined.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(2));
        }
        over.store(true, Ordering::Relaxed);
    });
    let recovered = recovers(&pool);
    pool.close();
    pool.join().expect("closed");
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let wrong = if hardened { get(&counts.wrong) } else { 0 };
    let hung = get(&counts.hung) + u64::from(recovered.is_err());
    if let Err(error) = &recovered {
        eprintln!("{error}");
    }
    println!(
        "done {} {} {wrong} {hung} {}",
        get(&counts.good),
        get(&counts.errors) + get(&counts.wrong) - wrong,
        u64::from(recovered == Ok(false))
    );
}
