//! A pool that other programs can join as workers.
//!
//! `named` starts a pool, and a worker for it as another program would; `named --join NAME` is such a
//! worker, and can be run by hand, too, while the pool is there.

use ringpool::Pool;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// The text, and the process that turned it.
fn reverse(text: String) -> (String, u32) {
    std::thread::sleep(Duration::from_millis(10)); // so that nobody gets all the work
    (text.chars().rev().collect(), std::process::id())
}

fn join(name: &str) -> ringpool::Result<()> {
    let seat = ringpool::attach(name)?;
    println!("worker {} joins {name}", std::process::id());
    let reason = seat.serve()?;
    println!("worker {} leaves: {reason:?}", std::process::id());
    Ok(())
}

fn host() -> Result<(), Box<dyn std::error::Error>> {
    let name = format!("example-{}", std::process::id());
    let pool = Pool::builder().processes(1).name(&name).start()?;
    println!("pool {name} has one worker of its own; this adds another: named --join {name}");
    let mut guest = Command::new(std::env::current_exe()?).args(["--join", &name]).spawn()?;

    let start = Instant::now();
    while pool.worker_pids().len() < 2 {
        if start.elapsed() > Duration::from_secs(10) {
            return Err("the guest did not come".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }

    // Another program finds functions by their names only.
    let reverse = ringpool::named::<(String,), (String, u32)>("reverse");
    let words = ["stressed", "drawer", "diaper", "reward", "live", "evil"].map(str::to_owned);
    for result in pool.imap(reverse, words, 1)? {
        let (word, pid) = result?;
        let who = if pid == guest.id() { "the guest" } else { "the pool's own worker" };
        println!("{word} (by {who})");
    }

    pool.close();
    pool.join()?;
    let status = guest.wait()?;
    println!("the guest left: {status}");
    Ok(())
}

fn main() -> ExitCode {
    // Both programs know the function; workers that are run anew do when it is registered before `init`.
    let registered = ringpool::register("reverse", reverse);
    ringpool::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = registered.map_err(Into::into).and_then(|()| match arguments[..] {
        [] => host(),
        ["--join", name] => join(name).map_err(Into::into),
        _ => Err("usage: named [--join NAME]".into()),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
