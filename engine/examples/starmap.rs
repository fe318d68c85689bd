//! A function of several arguments over tuples of them.

use ringpool::Pool;

/// `base` to the power of `exponent`, modulo `modulus`.
fn power(base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let times = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(modulus)) as u64;
    let (mut base, mut result) = (base % modulus, 1 % modulus);
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = times(result, base);
        }
        base = times(base, base);
        exponent /= 2;
    }
    result
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(2)?;

    // Fermat's test: no base a has a^(p-1) other than 1 modulo a prime p.
    let p = (1 << 61) - 1;
    let questions: Vec<_> = [2, 3, 5, 7].into_iter().map(|base| (base, p - 1, p)).collect();
    let answers = pool.starmap(power, questions.iter().copied())?;
    for ((base, exponent, modulus), answer) in questions.into_iter().zip(answers) {
        println!("{base}^{exponent} mod {modulus} = {answer}");
    }

    pool.close();
    pool.join()
}
