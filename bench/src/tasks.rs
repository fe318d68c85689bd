//! The functions that everybody runs. They do next to nothing, so that all time is that of the pools.

use ringpool::rkyv::vec::ArchivedVec;
use ringpool::{ArchivedSharedSlice, ResultSlice};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

/// The task that costs nothing.
pub fn inc(x: u64) -> u64 {
    x.wrapping_add(1)
}

/// The task that touches every byte it gets, and gives as many back.
pub fn xor(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 1).collect()
}

/// [`xor`] into memory that is there.
pub fn xor_into(bytes: &[u8], out: &mut [u8]) {
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = from ^ 1;
    }
}

/// [`xor`] of an argument where it lies, into a result where it will lie.
pub fn xor_view(bytes: &ArchivedVec<u8>) -> ResultSlice<u8> {
    ResultSlice::new(bytes.len(), |out| xor_into(bytes, out))
}

/// The same of an array that was made in shared memory.
pub fn xor_shared(bytes: &ArchivedSharedSlice<u8>) -> ResultSlice<u8> {
    ResultSlice::new(bytes.len(), |out| xor_into(bytes, out))
}

/// Looks at a byte of every cache line.
pub fn look(bytes: &[u8]) -> u64 {
    bytes.iter().step_by(64).map(|&byte| u64::from(byte)).sum()
}

/// A payload of `size` bytes: not all alike, so that no part can be taken for another.
pub fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8).collect()
}

/// How often [`compute`] goes round. Set before a pool starts, so that its workers inherit it.
static ROUNDS: AtomicU64 = AtomicU64::new(400);

/// A task that computes for as long as [`set_rounds`] says, and touches no memory.
pub fn compute(x: u64) -> u64 {
    spin(x, ROUNDS.load(Ordering::Relaxed))
}

/// For [`compute`] in this process and those that are forked from it.
pub fn set_rounds(rounds: u64) {
    ROUNDS.store(rounds, Ordering::Relaxed);
}

/// So many steps, each of which needs the one before.
fn spin(mut x: u64, rounds: u64) -> u64 {
    for _ in 0..rounds {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(x >> 33);
    }
    x
}

/// How many rounds of [`compute`] take a microsecond here and now.
pub fn rounds_of_a_microsecond() -> u64 {
    const ROUNDS: u64 = 20_000;
    let best = (0..50)
        .map(|i| {
            let start = std::time::Instant::now();
            // Opaque, or else it could be computed before the clock is read.
            black_box(spin(black_box(i), black_box(ROUNDS)));
            start.elapsed()
        })
        .min()
        .unwrap_or_default();
    (ROUNDS * 1000 / (best.as_nanos() as u64).max(1)).max(1)
}
