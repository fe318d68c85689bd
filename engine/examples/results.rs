//! All that can be asked of a result.

use ringpool::Pool;
use std::thread::sleep;
use std::time::Duration;

fn slowly(millis: u64) -> u64 {
    sleep(Duration::from_millis(millis));
    millis
}

/// The sieve of Eratosthenes: item `n` says whether `n` is prime.
fn sieve(limit: u64) -> Vec<bool> {
    let mut prime = vec![true; limit as usize];
    prime.iter_mut().take(2).for_each(|p| *p = false);
    for n in 2..=prime.len().isqrt() {
        if prime[n] {
            prime.iter_mut().skip(n * n).step_by(n).for_each(|p| *p = false);
        }
    }
    prime
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(2)?;

    let result = pool.apply_async(slowly, (200,))?;
    println!("at once:      ready {}, successful {:?}", result.ready(), result.successful());
    match result.get_timeout(Duration::from_millis(50)) {
        Ok(value) => println!("get_timeout:  {value}, sooner than expected"),
        // The task goes on.
        Err(error) if error.is_timeout() => println!("get_timeout:  {error}"),
        Err(error) => return Err(error),
    }
    println!("wait, 10 ms:  {}", result.wait(Some(Duration::from_millis(10))));
    println!("wait:         {}", result.wait(None));
    println!("after that:   ready {}, successful {:?}", result.ready(), result.successful());
    println!("get:          {}, and again {}", result.get()?, result.get()?);

    let failed = pool.apply_async(|x: u32| -> u32 { panic!("no {x} today") }, (7,))?;
    failed.wait(None);
    println!("a panic:      ready {}, successful {:?}", failed.ready(), failed.successful());

    // A large result is read where the worker wrote it; its memory is free again when the view is gone.
    let view = pool.apply_async(sieve, (1_000_000,))?.view()?;
    let primes = view.iter().filter(|&&prime| prime).count();
    println!("view:         {primes} primes below {}", view.len());

    pool.close();
    pool.join()
}
