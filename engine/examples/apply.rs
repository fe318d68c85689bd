//! One call in a worker, waited for.

use ringpool::Pool;

/// The most frequent letter of a text, and how often it occurs.
fn favourite(text: String) -> Option<(char, u64)> {
    let mut counts = [0u64; 26];
    for letter in text.bytes().filter(u8::is_ascii_alphabetic) {
        counts[usize::from(letter.to_ascii_lowercase() - b'a')] += 1;
    }
    ('a'..='z').zip(counts).filter(|&(_, count)| count > 0).max_by_key(|&(_, count)| count)
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(1)?;

    let text = "The quick brown fox jumps over the lazy dog".to_owned();
    match pool.apply(favourite, (text,))? {
        Some((letter, count)) => println!("the most frequent letter is {letter:?}, {count} times"),
        None => println!("there are no letters"),
    }

    // A closure that captures nothing is as good as a function.
    let there = pool.apply(std::process::id, ())?;
    println!("this is process {}, the calls ran in process {there}", std::process::id());

    pool.close();
    pool.join()
}
