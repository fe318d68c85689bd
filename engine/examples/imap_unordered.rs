//! Results in the order in which they come: a slow item holds nobody up.

use ringpool::Pool;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Stands for something that takes now long, now short: a download, a compilation.
fn job(name: String, millis: u64) -> String {
    sleep(Duration::from_millis(millis));
    name
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(3)?;
    let start = Instant::now();

    let jobs = [("slow", 300), ("quick", 20), ("middling", 120), ("quick, too", 40)];
    let items = jobs.map(|(name, millis)| (name.to_owned(), millis));
    // Here an item is one argument, a tuple, so the function is called through a closure that unpacks it.
    for name in pool.imap_unordered(|(name, millis): (String, u64)| job(name, millis), items, 1)? {
        println!("after {:3} ms: {}", start.elapsed().as_millis(), name?);
    }

    pool.close();
    pool.join()
}
