//! A map in the background: progress meanwhile, then each result by itself.

use ringpool::Pool;
use std::time::Duration;

/// The whole square root of `n`; refuses numbers that are no square.
fn exact_root(n: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(10)); // stands for real work
    let root = n.isqrt();
    assert!(root * root == n, "{n} is no square");
    root
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(2)?;

    // Chunks of one item: each item is a task of its own, and may fail alone.
    let result = pool.map_async(exact_root, [1, 4, 9, 15, 16, 24, 25], Some(1))?;
    while !result.ready() {
        println!("still at work on {} items", result.len());
        result.wait(Some(Duration::from_millis(20)));
    }
    for (index, root) in result.get_each()?.iter().enumerate() {
        match root {
            Ok(root) => println!("item {index}: {root}"),
            Err(error) => println!("item {index}: {error}"),
        }
    }
    if let Err(error) = result.get() {
        println!("all together: {error}"); // the error of the first item that failed
    }

    pool.close();
    pool.join()
}
