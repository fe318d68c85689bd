//! What a worker cannot write, whatever it tries: a store there is its death, and nothing else.

use crate::scribble::mappings;
use libtest_mimic::Trial;
use ringpool::{ArchivedSharedSlice, Context, Error, ErrorKind, Exit, Pool};
use ringpool_tests::{in_contexts, test};

const REGION: usize = 64 << 20;
const LEN: usize = 10_000;

pub fn tests() -> Vec<Trial> {
    let mut tests = in_contexts("store_into_arguments_faults", store_into_arguments_faults);
    tests.extend(in_contexts("store_into_the_header_faults", store_into_the_header_faults));
    tests.push(test("store_into_other_regions_faults", store_into_other_regions_faults));
    tests.push(test("only_what_must_be_is_writable", only_what_must_be_is_writable));
    tests
}

fn pool(context: Context) -> Pool {
    Pool::builder().processes(2).context(context).arena_reserve(REGION as u64).start().unwrap()
}

/// # Safety
///
/// None.
unsafe fn poke(at: usize) {
    // SAFETY: none: this is the bad store that the tests want.
    unsafe { (at as *mut u64).write_volatile(0x6666_6666_6666_6666) }
}

#[track_caller]
fn expect_segv(error: &Error) {
    match error.kind() {
        ErrorKind::WorkerDied { end: Exit::Signal(libc::SIGSEGV), .. } => {}
        other => panic!("expected a fault, got {other:?}"),
    }
}

fn poke_argument(slice: &ArchivedSharedSlice<u64>, index: u64) -> u64 {
    // SAFETY: none, see above.
    unsafe { poke((&raw const slice[index as usize]) as usize) };
    0
}

fn sum(slice: &ArchivedSharedSlice<u64>) -> u64 {
    slice.iter().sum()
}

fn store_into_arguments_faults(context: Context) {
    let pool = pool(context);
    let mut slice = pool.alloc::<u64>(LEN).unwrap();
    slice.iter_mut().zip(0..).for_each(|(item, i)| *item = i);
    let slice = slice.share();
    for index in [0, LEN as u64 / 2, LEN as u64 - 1] {
        expect_segv(&pool.apply(poke_argument, (slice.clone(), index)).unwrap_err());
    }
    let expected = (0..LEN as u64).sum::<u64>();
    assert_eq!(slice.iter().sum::<u64>(), expected);
    assert_eq!(pool.apply(sum, (slice,)).unwrap(), expected);
}

fn count(from: u64) -> Vec<u64> {
    (from..from + LEN as u64).collect()
}

/// Stores into the region of a process, through the view of all regions.
fn poke_region(owner: u32) -> u64 {
    let all = mappings().into_iter().find(|m| !m.control && !m.writable).expect("all regions");
    // SAFETY: none, see above.
    unsafe { poke(all.start + owner as usize * REGION) };
    0
}

fn store_into_other_regions_faults() {
    let pool = pool(Context::Fork);
    // Results of both workers, viewed where they lie.
    let results: Vec<_> = (0..40).map(|i| pool.apply_async(count, (i,)).unwrap()).collect();
    let views: Vec<_> = results.iter().map(|result| result.view().unwrap()).collect();
    for owner in 0..3 {
        expect_segv(&pool.apply(poke_region, (owner,)).unwrap_err());
    }
    for (view, i) in views.iter().zip(0..) {
        assert!(view.iter().map(|item| item.to_native()).eq(i..i + LEN as u64));
    }
}

fn poke_header(offset: u64) -> u64 {
    let header =
        mappings().into_iter().find(|m| m.control && !m.writable).expect("what only the creator writes");
    assert!(header.len >= 4096 + 1024 * 128, "header and functions");
    // SAFETY: none, see above.
    unsafe { poke(header.start + offset as usize) };
    0
}

fn store_into_the_header_faults(context: Context) {
    let pool = pool(context);
    // Magic, quota, the state that would stop all workers, and the first function's name.
    for offset in [0, 80, 256, 4096] {
        expect_segv(&pool.apply(poke_header, (offset,)).unwrap_err());
    }
    assert_eq!(pool.apply(count, (7,)).unwrap(), count(7));
}

/// Bytes that a worker can write: of control memory and of payloads; and all payload bytes.
fn writable() -> (u64, u64, u64) {
    let of = |control: bool, writable: Option<bool>| {
        let all = mappings().into_iter();
        let these = all.filter(|m| m.control == control && writable.is_none_or(|w| m.writable == w));
        these.map(|m| m.len as u64).sum::<u64>()
    };
    (of(true, Some(true)), of(false, Some(true)), of(false, Some(false)))
}

fn only_what_must_be_is_writable() {
    let pool = pool(Context::Fork);
    let (control, own, all) = pool.apply(writable, ()).unwrap();
    assert!(control > 0);
    assert_eq!((own, all), (REGION as u64, 3 * REGION as u64));
}
