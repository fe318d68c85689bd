//! Calls that run while the caller goes on, with callbacks for what comes of them.

use ringpool::{Pool, TaskError};
use std::sync::{Arc, Mutex};

/// Adds up the fields of a line such as `3, 4, 5`.
fn total(line: String) -> Result<u64, TaskError> {
    let mut sum = 0;
    for field in line.split(',') {
        sum += field.trim().parse::<u64>().map_err(|e| TaskError::msg(format!("{field:?}: {e}")))?;
    }
    Ok(sum)
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(2)?;
    let grand_total = Arc::new(Mutex::new(0));

    let mut results = Vec::new();
    for line in ["3, 4, 5", "10, 20", "7, seven", "100"] {
        let sum = grand_total.clone();
        let result = pool
            .apply_async(total, (line.to_owned(),))?
            .callback(move |value| {
                *sum.lock().unwrap() += value;
                println!("callback: {line:?} is {value}");
            })
            .error_callback(move |error| println!("error callback: {line:?}: {error}"));
        results.push(result);
    }
    println!("submitted {} lines", results.len());

    // Callbacks do not use results up.
    println!("the first line is {}", results[0].get()?);

    pool.close();
    pool.join()?; // all callbacks have run
    println!("all good lines together are {}", grand_total.lock().unwrap());
    Ok(())
}
