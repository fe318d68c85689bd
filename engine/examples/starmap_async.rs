//! A starmap in the background, with a callback for all of its results.

use ringpool::Pool;

/// What `amount` has grown to after `years` at `percent` a year.
fn interest(amount: f64, percent: f64, years: u32) -> f64 {
    (0..years).fold(amount, |amount, _| amount * (1.0 + percent / 100.0))
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(2)?;

    let offers = [(1000.0, 1.5, 30), (1000.0, 3.0, 15), (1000.0, 6.0, 8)];
    let result = pool
        .starmap_async(interest, offers, None)?
        .callback(|amounts| {
            let best = amounts.iter().copied().fold(0.0, f64::max);
            println!("callback: the best of {} offers gives {best:.2}", amounts.len());
        })
        .error_callback(|error| println!("error callback: {error}"));
    println!("the caller goes on while the workers calculate");

    for ((amount, percent, years), after) in offers.into_iter().zip(result.get()?) {
        println!("{amount} at {percent} % for {years} years: {after:.2}");
    }

    pool.close();
    pool.join()
}
