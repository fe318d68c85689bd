//! How many instructions a call costs the pool's process: counted by single steps, as hardware counters are
//! seldom there on virtual machines.
//!
//! What is stepped is some thousand times slower than what is not. So calls are submitted while the worker is
//! busy with another, and results are taken when all are there: nobody is waited for, and nobody is woken.

use ringpool::{AsyncResult, Pool};
use ringpool_bench::tasks::inc;
use std::hint::black_box;
use std::io;
use std::process::ExitCode;
use std::ptr::null_mut;
use std::time::Duration;

const CALLS: u64 = 256;
/// Keeps the worker busy while calls are submitted step by step.
const NAP: Duration = Duration::from_secs(3);

/// Stops this process, for whoever traces it.
fn stop() {
    // SAFETY: a signal to ourselves.
    unsafe { libc::raise(libc::SIGSTOP) };
}

fn wait(pid: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: writes to `status` only.
    match unsafe { libc::waitpid(pid, &mut status, libc::__WALL) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(status),
    }
}

/// The process that is measured: stops before and after it submits calls, and before and after it takes their
/// results.
fn client() -> ringpool::Result<()> {
    let pool = Pool::new(1)?;
    for _ in 0..100 {
        let results: Vec<_> =
            (0..CALLS).map(|i| pool.apply_async(inc, (i,))).collect::<ringpool::Result<_>>()?;
        results.iter().try_for_each(|result| result.get().map(drop))?;
    }
    let nap = pool.apply_async(
        |millis: u64| std::thread::sleep(Duration::from_millis(millis)),
        (NAP.as_millis() as u64,),
    )?;
    std::thread::sleep(Duration::from_millis(100)); // it has begun
    let mut results: Vec<AsyncResult<u64>> = Vec::with_capacity(CALLS as usize);
    // SAFETY: makes our parent our tracer; no memory is concerned.
    unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, null_mut::<u8>(), null_mut::<u8>()) };
    stop();
    for i in 0..CALLS {
        results.push(pool.apply_async(inc, (i,))?);
    }
    stop();
    nap.get()?;
    std::thread::sleep(Duration::from_millis(100)); // all are done
    stop();
    for result in results {
        black_box(result.get()?);
    }
    stop();
    Ok(())
}

/// What a request to the kernel about our tracee, which is stopped, does to it.
fn trace(request: libc::c_uint, pid: libc::pid_t) -> io::Result<()> {
    // SAFETY: lets the tracee run; our memory is not concerned.
    match unsafe { libc::ptrace(request, pid, null_mut::<u8>(), null_mut::<u8>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Steps until it stops itself.
fn count(pid: libc::pid_t) -> io::Result<u64> {
    for steps in 0.. {
        trace(libc::PTRACE_SINGLESTEP, pid)?;
        let status = wait(pid)?;
        if !libc::WIFSTOPPED(status) {
            break;
        }
        if libc::WSTOPSIG(status) != libc::SIGTRAP {
            return Ok(steps);
        }
    }
    Err(io::Error::other("the process ended early"))
}

fn measure(pid: libc::pid_t) -> io::Result<(u64, u64)> {
    wait(pid)?;
    let submitting = count(pid)?;
    trace(libc::PTRACE_CONT, pid)?;
    wait(pid)?;
    Ok((submitting, count(pid)?))
}

fn main() -> ExitCode {
    ringpool::init();
    // SAFETY: this process has one thread, so its child may do anything.
    let result = match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => return client().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS),
        pid => {
            let result = measure(pid);
            // SAFETY: our own child, not waited for to its end.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            result
        }
    };
    match result {
        Ok((submitting, taking)) => {
            let each = |steps: u64| steps as f64 / CALLS as f64;
            println!(
                "instructions for a call: {:.0} to submit it, {:.0} to take its result",
                each(submitting),
                each(taking)
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
