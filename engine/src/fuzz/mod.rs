//! Fuzzers of everything that is read from other processes, as tests: what comes of any bytes is an error
//! or a value, never a panic or a wait, and under AddressSanitizer never an access out of bounds.
//!
//! Deterministic: the number of a run is its seed. `RINGPOOL_PROOF` (`short`, `quick`, `full`) says how many
//! runs there are, `RINGPOOL_SEED` asks for one of them. With AddressSanitizer, which the stable toolchain
//! carries along:
//!
//! ```sh
//! RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target-asan \
//! ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_sigbus=0:handle_sigill=0:handle_sigfpe=0:handle_abort=0 \
//!     cargo test --target x86_64-unknown-linux-gnu -p ringpool --lib fuzz -- --nocapture
//! ```

mod consume;
mod header;
mod messages;
mod payloads;

use fastrand::Rng;
use std::ops::Range;

/// Runs `body` with seeds, `times` of them in a short run, and prints the line of the proof.
fn fuzz(kind: &str, times: u64, mut body: impl FnMut(&mut Rng) -> u64) {
    let factor = match std::env::var("RINGPOOL_PROOF").as_deref() {
        Ok("quick") => 8,
        Ok("full") => 60,
        _ => 1,
    };
    let seeds: Range<u64> = match std::env::var("RINGPOOL_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("RINGPOOL_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..times * factor,
    };
    let mut delivered = 0;
    let runs = seeds.end - seeds.start;
    for seed in seeds {
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&mut Rng::with_seed(seed))));
        match outcome {
            Ok(count) => delivered += count,
            Err(panic) => {
                eprintln!("{kind}: seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("proof|{kind}|{runs}|0|{delivered}|0|0|0");
}

/// A value that somebody might write over `now`.
fn nonsense(random: &mut Rng, now: u64) -> u64 {
    match random.u32(..8) {
        0 => random.u64(..),
        1..=3 => now ^ 1 << random.u32(..64),
        4 => [0, !0, 1 << 63, 1 << 31, 0xffff_ffff, 1 << 40][random.usize(..6)],
        5 => random.u64(..70),
        6 => now.wrapping_add(1),
        _ => now.wrapping_sub(1),
    }
}

/// Changes some of `bytes`, and perhaps how many they are.
fn mutate(random: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..random.u32(1..6) {
        if bytes.is_empty() {
            bytes.push(random.u8(..));
        }
        let at = random.usize(..bytes.len());
        match random.u32(..10) {
            0 => bytes[at] = random.u8(..),
            1..=4 => bytes[at] ^= 1 << random.u32(..8),
            5 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)],
            6 => bytes.truncate(at),
            7 => bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(at % 40)),
            _ => {
                // A whole word, which is what lengths and pointers are.
                let at = at / 4 * 4;
                if let Some(word) = bytes.get_mut(at..at + 4) {
                    let now = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                    word.copy_from_slice(&(nonsense(random, now.into()) as u32).to_le_bytes());
                }
            }
        }
    }
}
