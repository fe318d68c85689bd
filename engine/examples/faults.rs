//! What a task can do to a pool, which is not much: panic, be killed, be tried again.

use ringpool::{ErrorKind, Pool};
use rustix::process::{Signal, getpid, kill_process};
use std::fs::File;

fn fragile(n: u32) -> u32 {
    match n {
        3 => panic!("{n} is a bad number"),
        // What the kernel does to a process when memory runs out.
        5 => die(),
        _ => n * n,
    }
}

/// Dies at the first attempt, and leaves a mark by which later attempts know.
fn second_time_lucky(mark: String) -> String {
    if File::create_new(&mark).is_ok() {
        die();
    }
    "done at the second attempt".to_owned()
}

fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

fn main() -> ringpool::Result<()> {
    ringpool::init();
    let pool = Pool::new(2)?;

    // Items travel alone here, so only the bad ones fail.
    for (n, result) in (1..).zip(pool.imap(fragile, 1..=6, 1)?) {
        match result {
            Ok(square) => println!("{n}: {square}"),
            Err(error) => match error.kind() {
                ErrorKind::Panicked { message, place } => println!("{n}: panic {message:?} at {place}"),
                ErrorKind::WorkerDied { end, worker, .. } => println!("{n}: worker {worker} {end}"),
                _ => return Err(error),
            },
        }
    }
    println!("the pool goes on: {}", pool.apply(fragile, (10,))?);
    pool.close();
    pool.join()?;

    // Tasks that may be done twice can be tried again when their worker dies.
    let mark = std::env::temp_dir().join(format!("ringpool-faults-{}", std::process::id()));
    let mark = mark.to_string_lossy().into_owned();
    let pool = Pool::builder().processes(1).retries(2).start()?;
    let result = pool.apply(second_time_lucky, (mark.clone(),));
    let _ = std::fs::remove_file(mark);
    println!("with retries: {}", result?);
    // A task that always dies ends at last.
    match pool.apply(|| -> () { die() }, ()) {
        Ok(()) => println!("it survived"),
        Err(error) => println!("with retries: {error}"),
    }
    pool.close();
    pool.join()
}
