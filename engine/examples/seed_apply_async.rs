//! Five tasks on five workers, their results fetched one after the other.

use ringpool::Pool;
use std::thread::sleep;
use std::time::Duration;

fn sum(task: String, a: i64, b: i64) -> i64 {
    let seconds = fastrand::u64(1..=4);
    println!("{task} requires {seconds} seconds to finish");
    sleep(Duration::from_secs(seconds));
    a + b
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(5)?;
    let results = (1..=5)
        .map(|i| pool.apply_async(sum, (format!("task{i}"), 10 * i, 10 * i + 10)))
        .collect::<Result<Vec<_>, _>>()?;
    println!("Submitted tasks to pool");
    for result in results {
        println!("{}", result.get()?);
    }
    Ok(())
}
