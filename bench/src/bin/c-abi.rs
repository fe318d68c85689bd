//! What the C ABI adds to a call and to an item of a map: `libringpool.so` and the crate, by turns in one run.
//!
//! `c-abi [--smoke] [LIBRARY]`: by default the library that `cargo build --profile clib --package ringpool-ffi` made.

use ringpool::raw::{self, Array, Name};
use ringpool::{Pool, Result};
use ringpool_bench::machine;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::time::Instant;

const ROUNDS: usize = 60;
const CALLS: u64 = 20_000;
const ITEMS: usize = 1_000_000;

type Status = i32;
type Task = unsafe extern "C" fn(*mut c_void, *const c_void, usize, *mut c_void) -> i32;
type ArrayTask = unsafe extern "C" fn(*mut c_void, *const c_void, usize, *mut c_void, *mut c_void) -> i32;
type Write = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> Status;
type MapArray = unsafe extern "C" fn(
    *const c_void,
    *const c_char,
    *const c_void,
    usize,
    usize,
    usize,
    *mut c_void,
    usize,
) -> Status;

/// `rp_result`.
#[repr(C)]
struct Output {
    data: *const u64,
    size: usize,
}

/// The functions of the library that are measured, and what they need.
struct Library {
    register: unsafe extern "C" fn(*const c_char, Task, *mut c_void) -> Status,
    register_array: unsafe extern "C" fn(*const c_char, usize, usize, ArrayTask, *mut c_void) -> Status,
    options_init: unsafe extern "C" fn(*mut c_void, usize),
    pool_new: unsafe extern "C" fn(*const c_void, *mut *mut c_void) -> Status,
    pool_free: unsafe extern "C" fn(*mut *mut c_void),
    apply:
        unsafe extern "C" fn(*const c_void, *const c_char, *const c_void, usize, *mut *mut Output) -> Status,
    result_free: unsafe extern "C" fn(*mut *mut Output),
    apply_into: unsafe extern "C" fn(
        *const c_void,
        *const c_char,
        *const c_void,
        usize,
        *mut c_void,
        usize,
        *mut usize,
    ) -> Status,
    map_array: MapArray,
}

/// `rp_output_write`, for the task, which has no other way to it.
static WRITE: std::sync::OnceLock<Write> = std::sync::OnceLock::new();

/// A function of the library.
///
/// # Safety
///
/// `F` is a pointer to a function of the type that the header says.
unsafe fn symbol<F>(library: *mut c_void, name: &CStr) -> F {
    assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
    // SAFETY: a handle and a string.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    assert!(!address.is_null(), "the library has no {name:?}");
    // SAFETY: a pointer to a function, as the caller says.
    unsafe { std::mem::transmute_copy(&address) }
}

impl Library {
    fn open(path: &Path) -> Self {
        let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: loading it runs no code of ours.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(
            !library.is_null(),
            "{} cannot be loaded: cargo build --profile clib --package ringpool-ffi makes it",
            path.display()
        );
        // SAFETY: the types are those of include/ringpool.h, and pointers to structures are as good as void's.
        unsafe {
            WRITE.get_or_init(|| symbol(library, c"rp_output_write"));
            Library {
                register: symbol(library, c"rp_register"),
                register_array: symbol(library, c"rp_register_array"),
                options_init: symbol(library, c"rp_options_init"),
                pool_new: symbol(library, c"rp_pool_new"),
                pool_free: symbol(library, c"rp_pool_free"),
                apply: symbol(library, c"rp_apply"),
                result_free: symbol(library, c"rp_result_free"),
                apply_into: symbol(library, c"rp_apply_into"),
                map_array: symbol(library, c"rp_map_array"),
            }
        }
    }

    fn pool(&self, processes: u32) -> *mut c_void {
        // rp_options begins with its size and the number of workers; what is 0 is the default. An option that the
        // header does not have yet is refused unless it is 0.
        let mut options = [0_u64; OPTIONS / 8];
        let mut pool = null_mut();
        // SAFETY: as many bytes as are said, and a place for the pool.
        unsafe {
            (self.options_init)(options.as_mut_ptr().cast(), OPTIONS);
            options.as_mut_ptr().cast::<u32>().add(2).write(processes);
            good((self.pool_new)(options.as_ptr().cast(), &mut pool));
        }
        pool
    }
}

/// The size of `rp_options`, or more.
const OPTIONS: usize = 256;

fn good(status: Status) {
    assert_eq!(status, 0, "the status of a call");
}

/// Adds one, for all: 8 bytes in, 8 bytes out.
unsafe extern "C" fn inc(_: *mut c_void, input: *const c_void, _: usize, output: *mut c_void) -> i32 {
    // SAFETY: the bench gives 8 bytes, aligned to 16.
    let value = unsafe { input.cast::<u64>().read() }.wrapping_add(1);
    let write = WRITE.get().expect("known before the pool started");
    // SAFETY: the output that the task was given, and 8 bytes.
    unsafe { write(output, (&raw const value).cast(), 8) }
}

fn halve(items: &[f64], values: &mut [f64]) {
    for (value, item) in values.iter_mut().zip(items) {
        *value = item * 0.5 + 1.0;
    }
}

unsafe extern "C" fn halve_all(
    _: *mut c_void,
    items: *const c_void,
    count: usize,
    values: *mut c_void,
    _: *mut c_void,
) -> i32 {
    // SAFETY: so many items and as much room for values, aligned to their size, as the header says.
    unsafe {
        let values = std::slice::from_raw_parts_mut(values.cast(), count);
        halve(std::slice::from_raw_parts(items.cast(), count), values);
    }
    0
}

/// Bytes of numbers.
fn bytes(numbers: &[f64]) -> &[u8] {
    // SAFETY: numbers are bytes without gaps.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

fn bytes_mut(numbers: &mut [f64]) -> &mut [u8] {
    // SAFETY: numbers are bytes without gaps, and any bytes are numbers.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}

/// Nanoseconds for each of `count`.
fn time(count: usize, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / count as f64
}

fn calls(mut call: impl FnMut(u64) -> u64) -> f64 {
    time(CALLS as usize, || (0..CALLS).for_each(|x| assert_eq!(call(x), x + 1)))
}

struct Row {
    name: &'static str,
    samples: Vec<f64>,
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The rows; the first is what the others are compared with, round by round: so what the machine does to all of
/// a round falls out.
fn print(what: &str, unit: &str, against: &str, rows: &[Row]) {
    println!("\n{what:<30} {:>9} {:>9} {:>9}", unit, "ratio", "more");
    let base = rows.iter().find(|row| row.name == against).expect("a row");
    for row in rows {
        let pairs = || row.samples.iter().zip(&base.samples);
        let ratios: Vec<f64> = pairs().map(|(mine, other)| mine / other).collect();
        let more: Vec<f64> = pairs().map(|(mine, other)| mine - other).collect();
        let (value, ratio, more) = (median(&row.samples), median(&ratios), median(&more));
        println!("{:<30} {value:>9.2} {ratio:>9.3} {more:>+9.2}", row.name);
    }
}

/// One round of all, which begins with another one each time: nobody always comes after the same.
fn round(rows: &mut [Row], turn: usize, runs: &mut [&mut dyn FnMut() -> f64]) {
    for at in 0..runs.len() {
        let index = (turn + at) % runs.len();
        let sample = runs[index]();
        rows[index].samples.push(sample);
    }
}

fn rows(names: &[&'static str]) -> Vec<Row> {
    names.iter().map(|&name| Row { name, samples: Vec::new() }).collect()
}

/// Pools with so many workers.
fn measure(library: &Library, processes: u32, rounds: usize) -> Result<()> {
    let pool = Pool::new(processes as usize)?;
    let mut c_pool = library.pool(processes);
    let caller = pool.raw();
    let (raw_inc, raw_halve) = (Name::new("inc")?, Name::new("halve")?);

    let mut call_rows =
        rows(&["Pool::apply, u64", "raw::Caller::apply", "rp_apply, rp_result_free", "rp_apply_into"]);
    let mut typed = || calls(|x| pool.apply(ringpool_bench::tasks::inc, (x,)).expect("a sum"));
    let mut raw = || {
        calls(|x| {
            let output = caller.apply(raw_inc, &x.to_ne_bytes()[..]).expect("a sum");
            u64::from_ne_bytes((*output).try_into().expect("8 bytes"))
        })
    };
    let mut c_apply = || {
        calls(|x| {
            let mut output = null_mut();
            // SAFETY: as the header says; the output has 8 bytes.
            unsafe {
                good((library.apply)(c_pool, c"inc".as_ptr(), (&raw const x).cast(), 8, &mut output));
                let value = *(*output).data;
                assert_eq!((*output).size, 8);
                (library.result_free)(&mut output);
                value
            }
        })
    };
    let mut c_into = || {
        calls(|x| {
            let (mut value, mut written) = (0_u64, 0);
            let place = (&raw mut value).cast();
            // SAFETY: as the header says.
            good(unsafe {
                (library.apply_into)(
                    c_pool,
                    c"inc".as_ptr(),
                    (&raw const x).cast(),
                    8,
                    place,
                    8,
                    &mut written,
                )
            });
            assert_eq!(written, 8);
            value
        })
    };
    for turn in 0..rounds {
        round(&mut call_rows, turn, &mut [&mut typed, &mut raw, &mut c_apply, &mut c_into]);
    }

    let numbers: Vec<f64> = (0..ITEMS).map(|index| index as f64).collect();
    let mut wanted = vec![0.0; ITEMS];
    halve(&numbers, &mut wanted);
    let mut map_rows = rows(&["Pool::map, f64", "raw::Caller::map_into", "rp_map_array"]);
    let mut typed = || {
        let task = |x: f64| x * 0.5 + 1.0;
        let mut values = Vec::new();
        let time = time(ITEMS, || values = pool.map(task, numbers.iter().copied()).expect("values"));
        assert!(values == wanted);
        time
    };
    let (mut raw_values, mut c_values) = (vec![0.0; ITEMS], vec![0.0; ITEMS]);
    let mut raw = || {
        raw_values.fill(0.0);
        let items = Array { items: bytes(&numbers), item_size: 8 };
        let time = time(ITEMS, || {
            caller.map_into(raw_halve, items, 8, bytes_mut(&mut raw_values), None).expect("values")
        });
        assert!(raw_values == wanted);
        time
    };
    let mut c = || {
        c_values.fill(0.0);
        let (items, values) = (numbers.as_ptr().cast(), c_values.as_mut_ptr().cast());
        let time = time(ITEMS, || {
            // SAFETY: as many items, and as much room, as are said.
            good(unsafe { (library.map_array)(c_pool, c"halve".as_ptr(), items, ITEMS, 8, 0, values, 8) })
        });
        assert!(c_values == wanted);
        time
    };
    for turn in 0..rounds {
        round(&mut map_rows, turn, &mut [&mut typed, &mut raw, &mut c]);
    }

    println!("\n{processes} workers");
    print("apply, 8 bytes in and out", "ns", "Pool::apply, u64", &call_rows);
    print("apply, beside its own bytes", "ns", "raw::Caller::apply", &call_rows[1..]);
    print("map of 1,000,000 doubles", "ns/item", "raw::Caller::map_into", &map_rows);
    // SAFETY: nobody uses it any more.
    unsafe { (library.pool_free)(&mut c_pool) };
    Ok(())
}

fn main() -> Result<()> {
    let library = std::env::args_os().skip(1).find(|argument| argument != "--smoke").map_or_else(
        || {
            // Beside the directory of this profile.
            let program = std::env::current_exe().expect("this program");
            program.parent().and_then(Path::parent).expect("target").join("clib/libringpool.so")
        },
        PathBuf::from,
    );
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let library = Library::open(&library);
    raw::register(
        "inc",
        raw::Function::new(|input, output| {
            output.write(&u64::from_ne_bytes(input.try_into()?).wrapping_add(1).to_ne_bytes())
        }),
    )?;
    let halve_raw = |batch: raw::Batch<'_>| {
        for (item, value) in batch.items.as_chunks::<8>().0.iter().zip(batch.values.as_chunks_mut::<8>().0) {
            *value = (f64::from_ne_bytes(*item) * 0.5 + 1.0).to_ne_bytes();
        }
        Ok(())
    };
    raw::register("halve", raw::Function::array(8, 8, halve_raw))?;
    // SAFETY: strings, and functions that live as long as the program.
    unsafe {
        good((library.register)(c"inc".as_ptr(), inc, null_mut()));
        good((library.register_array)(c"halve".as_ptr(), 8, 8, halve_all, null_mut()));
    }
    ringpool::init();
    println!("{}", machine::now("%Y-%m-%d %H:%M"));
    (1..=2).try_for_each(|processes| measure(&library, processes, if smoke { 1 } else { ROUNDS }))
}
