//! What the pool of each run does: a bit of everything, and a check of every outcome.

use ringpool::{AsyncResult, Error, ErrorKind, MapResult, Pool, Result, ResultSlice};
use std::time::Duration;

pub fn double(x: u64) -> u64 {
    2 * x
}

/// A result that travels in the slot, beyond its first line.
pub fn spread(x: u64) -> (u64, u64, u64) {
    (x, x + 1, x + 2)
}

/// Argument and result in blocks.
pub fn reversed(mut words: Vec<u64>) -> Vec<u64> {
    words.reverse();
    words
}

/// A result that is made where it will lie.
pub fn counted(len: u64) -> ResultSlice<u64> {
    let mut unused = ResultSlice::<u64>::new(200, |_| {});
    unused.edit(|items| items.fill(len));
    ResultSlice::new(len as usize, |items| items.iter_mut().zip(0..).for_each(|(item, x)| *item = x))
}

/// Items whose results are archives.
pub fn spelled(x: u64) -> String {
    format!("number {x}")
}

fn words(seed: u64) -> Vec<u64> {
    (0..100 + seed).collect()
}

/// What came of a number of tasks.
#[derive(Default, Clone, Copy, Debug)]
pub struct Tally {
    /// Right results, and errors that name the death of a worker.
    pub delivered: u64,
    /// The latter alone.
    pub deaths: u64,
}

impl Tally {
    #[track_caller]
    pub fn add<R: PartialEq + std::fmt::Debug>(&mut self, outcome: Result<R>, right: &R) {
        self.delivered += 1;
        match outcome {
            Ok(value) => assert_eq!(value, *right),
            Err(error) => {
                assert!(died(&error), "{error}");
                self.deaths += 1;
            }
        }
    }
}

pub fn died(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WorkerDied { .. })
}

/// Tasks of all kinds, on their way.
pub struct Batch {
    doubles: Vec<AsyncResult<u64>>,
    spreads: Vec<AsyncResult<(u64, u64, u64)>>,
    reversals: Vec<AsyncResult<Vec<u64>>>,
    counts: Vec<AsyncResult<Vec<u64>>>,
    mapped: MapResult<u64>,
    texts: MapResult<String>,
}

impl Batch {
    pub fn submit(pool: &Pool) -> Result<Self> {
        Ok(Batch {
            doubles: (0..4).map(|x| pool.apply_async(double, (x,))).collect::<Result<_>>()?,
            spreads: (0..2).map(|x| pool.apply_async(spread, (x,))).collect::<Result<_>>()?,
            reversals: (0..3).map(|x| pool.apply_async(reversed, (words(x),))).collect::<Result<_>>()?,
            counts: (0..1).map(|x| pool.apply_async(counted, (100 + x,))).collect::<Result<_>>()?,
            mapped: pool.map_async(double, 0..12, Some(3))?,
            texts: pool.map_async(spelled, 0..4, Some(2))?,
        })
    }

    /// Waits a moment for what is not there yet; how many tasks (a map is one) are left then.
    pub fn outstanding(&self) -> usize {
        const MOMENT: Option<Duration> = Some(Duration::from_millis(20));
        self.doubles.iter().filter(|result| !result.wait(MOMENT)).count()
            + self.spreads.iter().filter(|result| !result.wait(MOMENT)).count()
            + self.reversals.iter().filter(|result| !result.wait(MOMENT)).count()
            + self.counts.iter().filter(|result| !result.wait(MOMENT)).count()
            + usize::from(!self.mapped.wait(MOMENT))
            + usize::from(!self.texts.wait(MOMENT))
    }

    /// Waits for all outcomes, and checks them.
    pub fn collect(self, tally: &mut Tally) {
        for (x, result) in self.doubles.iter().enumerate() {
            tally.add(result.get(), &(2 * x as u64));
        }
        for (x, result) in self.spreads.iter().enumerate() {
            let x = x as u64;
            tally.add(result.get(), &(x, x + 1, x + 2));
        }
        for (x, result) in self.reversals.iter().enumerate() {
            tally.add(result.get(), &words(x as u64).into_iter().rev().collect());
        }
        for (x, result) in self.counts.iter().enumerate() {
            tally.add(result.get(), &(0..100 + x as u64).collect());
        }
        for (x, result) in self.mapped.get_each().expect("a map").into_iter().enumerate() {
            tally.add(result, &(2 * x as u64));
        }
        for (x, result) in self.texts.get_each().expect("a map").into_iter().enumerate() {
            tally.add(result, &spelled(x as u64));
        }
    }
}

/// Everything that a client does with a pool, but end it.
pub fn everything(pool: &Pool) -> Tally {
    let mut tally = Tally::default();
    Batch::submit(pool).expect("slots").collect(&mut tally);
    std::thread::sleep(Duration::from_millis(1)); // workers fall asleep
    tally.add(pool.apply(double, (21,)), &42);
    let mut seen = [0; 8];
    for result in pool.imap_unordered(double, 0..8, 1).expect("a pool that runs") {
        tally.delivered += 1;
        match result {
            Ok(value) => seen[value as usize / 2] += 1,
            Err(error) => {
                assert!(died(&error), "{error}");
                tally.deaths += 1;
            }
        }
    }
    assert!(seen.iter().all(|&times| times <= 1), "delivered twice: {seen:?}");
    tally
}

/// Takes some results of an endless iteration, and drops it: what no worker has begun is taken back.
pub fn take_a_few(pool: &Pool, tally: &mut Tally) {
    for (x, result) in pool.imap(double, 0.., 1).expect("a pool that runs").take(3).enumerate() {
        tally.add(result, &(2 * x as u64));
    }
}

/// More tasks than a completion ring has room for, while nobody takes results. For pools of 64 slots.
pub fn flood(pool: &Pool, tally: &mut Tally) {
    for _ in 0..3 {
        let results: Vec<_> = (0..64).map(|x| pool.apply_async(double, (x,)).expect("a slot")).collect();
        std::thread::sleep(Duration::from_millis(2));
        for (x, result) in results.iter().enumerate() {
            tally.add(result.get(), &(2 * x as u64));
        }
    }
}

fn large(x: u64) -> Vec<u64> {
    vec![x; 100_000]
}

/// Results that do not fit into their worker's memory all at once: it has to wait until some are fetched.
/// For pools with a quota of 4 MiB.
pub fn starve(pool: &Pool, tally: &mut Tally) {
    let results: Vec<_> = (0..7).map(|x| pool.apply_async(large, (x,)).expect("a slot")).collect();
    std::thread::sleep(Duration::from_millis(10));
    // The last one first: the client sleeps on its slot while the others' results fill the memory.
    for (x, result) in results.iter().enumerate().rev() {
        tally.add(result.get(), &large(x as u64));
    }
    // Small ones of many sizes, which need an extent for each: held by a map until all are there.
    let sizes = [100, 1000, 4000, 9000, 20_000, 60_000];
    let mapped = pool.map_async(sized, sizes, Some(1)).expect("slots");
    for (result, size) in mapped.get_each().expect("a map").into_iter().zip(sizes) {
        tally.add(result, &sized(size));
    }
}

fn sized(len: u64) -> Vec<u8> {
    vec![7; len as usize]
}

/// The same for pools that wait for memory no longer than some milliseconds: some tasks fail.
pub fn give_up(pool: &Pool, tally: &mut Tally) {
    let results: Vec<_> = (0..7).map(|x| pool.apply_async(large, (x,)).expect("a slot")).collect();
    let views: Vec<_> = results[..2].iter().map(AsyncResult::view).collect();
    for (x, result) in results.iter().enumerate().skip(2) {
        match result.get() {
            Err(error) if matches!(error.kind(), ErrorKind::ArenaFull { .. }) => tally.delivered += 1,
            other => tally.add(other, &large(x as u64)),
        }
    }
    drop(views);
}

/// All workers are there, and nothing is left of the tasks: no slot in use, no block but the one that the
/// initializer's arguments may lie in.
pub fn expect_repaired(pool: &Pool) {
    let audit = ringpool_tests::audit::expect_whole(pool);
    assert!(audit.blocks.arguments <= 1 && audit.blocks.results == 0, "blocks are left:\n{audit}");
}
