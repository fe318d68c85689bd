//! A large array that is made in shared memory and read there by all workers, never copied.

use ringpool::{ArchivedSharedSlice, Pool, ResultSlice};

/// Sum and sum of squares of a part of the array.
fn sums(values: &ArchivedSharedSlice<f64>, start: u64, end: u64) -> (f64, f64) {
    let part = &values[start as usize..end as usize];
    part.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x))
}

/// The array after a moving average over eight values, made where its reader will find it.
fn smooth(values: &ArchivedSharedSlice<f64>) -> ResultSlice<f64> {
    ResultSlice::new(values.len() - 7, |smoothed| {
        for (value, window) in smoothed.iter_mut().zip(values.windows(8)) {
            *value = window.iter().sum::<f64>() / 8.0;
        }
    })
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(2)?;

    let len = 1_000_000;
    let mut values = pool.alloc::<f64>(len)?;
    for (index, value) in values.iter_mut().enumerate() {
        *value = (index as f64 * 0.001).sin();
    }
    let values = values.share(); // from here on it is read only

    // A clone is one more reference to the same memory, so each task costs a few bytes.
    let parts = (0..len as u64).step_by(125_000).map(|start| (values.clone(), start, start + 125_000));
    let parts = pool.starmap(sums, parts)?;
    let (sum, squares) = parts.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let mean = sum / len as f64;
    println!(
        "{len} values in {} parts: mean {mean:.6}, deviation {:.6}",
        parts.len(),
        (squares / len as f64 - mean * mean).sqrt()
    );

    // The result, as large as the array, is not copied either.
    let smoothed = pool.apply_async(smooth, (values.clone(),))?;
    let view = smoothed.view()?;
    let smoothed = view.as_slice();
    println!("smoothed: {} values, the first is {:.6}", smoothed.len(), smoothed[0]);

    // With the last reference the memory can be written again.
    match values.try_into_mut() {
        Ok(mut values) => {
            values.fill(1.0);
            println!("refilled: the sum is {}", pool.apply(sums, (values.share(), 0, len as u64))?.0);
        }
        Err(_) => println!("a task still uses the array"),
    }

    pool.close();
    pool.join()
}
