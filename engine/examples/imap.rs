//! Lazy: results come one by one, in order, and no more items are taken than are needed.

use ringpool::Pool;
use std::cell::Cell;

fn is_prime(n: u64) -> (u64, bool) {
    let prime = n > 1 && (2..=n.isqrt()).all(|divisor| !n.is_multiple_of(divisor));
    (n, prime)
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(2)?;

    // The input has no end, which is no trouble: only as much is taken as `buffersize` allows.
    let taken = Cell::new(0);
    let numbers = (1_000_000_000_000u64..).inspect(|_| taken.set(taken.get() + 1));
    let mut primes = Vec::new();
    for result in pool.imap(is_prime, numbers, 1)?.buffersize(8) {
        let (number, prime) = result?;
        if prime {
            println!("{number} is prime");
            primes.push(number);
        }
        if primes.len() == 5 {
            break;
        }
    }
    println!("{} numbers were taken for this", taken.get());

    pool.close();
    pool.join()
}
