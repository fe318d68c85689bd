//! Workers that are fresh runs of this program, for contestants that are used that way.

use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The first argument of a worker.
pub const WORKER: &str = "worker";

/// A worker that is asked to leave before, and killed when this is dropped.
pub struct Program(Child);

impl Program {
    /// Runs this program as a worker with these arguments.
    pub fn start(arguments: &[&str]) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(WORKER).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().map(Program)
    }

    /// Waits for a worker that has been asked to leave.
    pub fn finish(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a worker does, by its arguments.
pub fn serve(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    // SAFETY: a plain system call. A parent that is gone already has closed its channels.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["ipc-channel", kind, server] => super::ipc_channel::serve(kind, server),
        ["iceoryx2", kind, wait, name, window] => super::iceoryx2::serve(kind, wait, name, window.parse()?),
        _ => Err("no such worker".into()),
    }
}
