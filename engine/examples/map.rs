//! One function over many items, results in the order of the items.

use ringpool::Pool;

/// How many steps the Collatz sequence takes from `n` to 1.
fn collatz(mut n: u64) -> u32 {
    let mut steps = 0;
    while n != 1 {
        n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
        steps += 1;
    }
    steps
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(0)?; // one worker for each CPU

    let starts = 1..=100_000u64;
    let steps = pool.map(collatz, starts.clone())?;
    let longest = starts.zip(steps).max_by_key(|&(_, steps)| steps);
    if let Some((start, steps)) = longest {
        println!(
            "{} workers: below 100000, the longest sequence starts at {start}: {steps} steps",
            pool.processes()
        );
    }

    pool.close();
    pool.join()
}
