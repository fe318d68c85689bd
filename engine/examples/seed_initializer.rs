//! The same five tasks, with a function that every worker calls when it starts.

use ringpool::Pool;
use std::thread::sleep;
use std::time::Duration;

fn init_pool(processes: u32) {
    println!("Initializing pool with {processes} processes");
}

fn sum(task: String, a: i64, b: i64) -> i64 {
    let seconds = fastrand::u64(1..=4);
    println!("{task} requires {seconds} seconds to finish");
    sleep(Duration::from_secs(seconds));
    a + b
}

fn main() -> ringpool::Result<()> {
    ringpool::init(); // a worker that is run anew enters here and never returns
    let pool = Pool::builder().processes(5).initializer(init_pool, (5,)).start()?;
    let results: Vec<_> = (1..=5)
        .map(|i| pool.apply_async(sum, (format!("task{i}"), 10 * i, 10 * i + 10)))
        .collect::<Result<_, _>>()?;
    println!("Submitted tasks to pool");
    for result in results {
        println!("{}", result.get()?);
    }
    pool.close();
    pool.join()
}
