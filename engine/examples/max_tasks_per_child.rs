//! Workers that are replaced after some tasks, as a cure for code that leaks.

use ringpool::Pool;
use std::cell::Cell;
use std::collections::BTreeMap;

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

/// Leaks a little with every call, and says who it is and how often it was called.
fn leaky() -> (u32, u32) {
    std::mem::forget(vec![0u8; 1 << 20]);
    CALLS.set(CALLS.get() + 1);
    (std::process::id(), CALLS.get())
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::builder().processes(2).max_tasks_per_child(3).start()?;

    let mut most: BTreeMap<u32, u32> = BTreeMap::new();
    for (pid, calls) in pool.starmap_async(leaky, (0..12).map(|_| ()), Some(1))?.get()? {
        let entry = most.entry(pid).or_default();
        *entry = calls.max(*entry);
    }
    for (pid, calls) in &most {
        println!("process {pid} did {calls} tasks");
    }
    println!("12 tasks took {} processes", most.len());

    pool.close();
    pool.join()
}
