//! Functions that programs of the attach tests know by name.

use crate::journal::{note, notes};
use ringpool::{ArchivedSharedSlice, Named, ResultSlice, SharedSlice, named, register};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn shout(text: String) -> String {
    text.to_uppercase()
}

fn who() -> u32 {
    std::process::id()
}

fn grow(len: u64) -> ResultSlice<u64> {
    ResultSlice::new(len as usize, |items| items.iter_mut().zip(0..).for_each(|(item, x)| *item = x))
}

fn fail(message: String) -> u64 {
    panic!("{message}")
}

/// Notes the item; kills its process in its first runs, `deaths` of them.
fn run((journal, item, deaths): (String, u64, u64)) -> u64 {
    note(&journal, item);
    let attempts = notes(&journal).iter().filter(|&&noted| noted == item).count() as u64;
    if attempts <= deaths {
        // SAFETY: a signal to ourselves.
        unsafe { libc::raise(libc::SIGKILL) };
    }
    2 * item
}

fn note_and_sleep(journal: String, milliseconds: u64) -> u32 {
    note(&journal, std::process::id().into());
    std::thread::sleep(Duration::from_millis(milliseconds));
    std::process::id()
}

fn watch(journal: String, slice: &ArchivedSharedSlice<u64>, milliseconds: u64) -> u64 {
    let first = slice[0];
    note(&journal, first);
    let end = Instant::now() + Duration::from_millis(milliseconds);
    while Instant::now() < end && black_box(slice)[0] == first {
        std::thread::sleep(Duration::from_millis(1));
    }
    note(&journal, black_box(slice)[0]);
    first
}

/// Upper case.
pub const SHOUT: &str = "shout";
/// The process that runs it.
pub const WHO: &str = "who";

/// Calls [`SHOUT`].
pub fn shouting() -> Named<(String,), String> {
    named(SHOUT)
}

/// Says which process runs it.
pub fn asking_who() -> Named<(), u32> {
    named(WHO)
}

/// The numbers below the argument.
pub fn growing() -> Named<(u64,), Vec<u64>> {
    named("grow")
}

/// Panics with the argument.
pub fn failing() -> Named<(String,), u64> {
    named("fail")
}

/// Notes the item (second) in the journal (first), and doubles it. Its first runs, as many as the third
/// says, kill the process instead.
pub fn running() -> Named<((String, u64, u64),), u64> {
    named("run")
}

/// Notes its process in a journal, sleeps so many milliseconds, and says which process it is.
pub fn sleeping() -> Named<(String, u64), u32> {
    named("note_and_sleep")
}

/// Reads an array for so many milliseconds. Notes its first item before and after, and returns it.
pub fn watching() -> Named<(String, SharedSlice<u64>, u64), u64> {
    named("watch")
}

/// Registers them all, but not the one of name `without`.
pub fn register_all(without: &str) -> ringpool::Result<()> {
    if without != SHOUT {
        register(SHOUT, shout)?;
    }
    if without != WHO {
        register(WHO, who)?;
    }
    register("grow", grow)?;
    register("fail", fail)?;
    register("run", run)?;
    register::<(String, SharedSlice<u64>, u64), _, _>("watch", watch)?;
    register("note_and_sleep", note_and_sleep)
}

/// Joins the pool, says so, and serves: what guests do.
pub fn serve(name: &str) {
    match ringpool::attach(name) {
        Ok(attached) => {
            println!("joined");
            match attached.serve() {
                Ok(served) => println!("{served:?}"),
                Err(error) => println!("failed: {error}"),
            }
        }
        Err(error) => println!("refused: {error}"),
    }
}
