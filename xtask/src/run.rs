//! Commands with a time limit, killed with all that they started.

use rustix::process::{Pid, Signal, kill_process_group};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Cargo with these arguments, none of which contains a space.
pub fn cargo(arguments: &str) -> Cmd {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments.split(' ')).current_dir(root()).stdin(Stdio::null());
    // The group is what is killed when time is up.
    command.process_group(0);
    Cmd { command, shown: format!("cargo {arguments}") }
}

/// A command, and how it is shown.
pub struct Cmd {
    command: Command,
    shown: String,
}

impl Cmd {
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.shown = format!("{name}={:?} {}", value.as_ref(), self.shown);
        self.command.env(name, value);
        self
    }

    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.shown = format!("{} {}", self.shown, argument.as_ref().display());
        self.command.arg(argument);
        self
    }
}

/// What all commands of one step have in common.
pub struct Job {
    limit: Duration,
    deadline: Instant,
    /// Set by Ctrl-C, which does not reach the commands: they are in groups of their own.
    interrupted: Arc<AtomicBool>,
}

impl Job {
    pub fn new(limit: Duration) -> Result<Self, String> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, interrupted.clone()).map_err(|e| e.to_string())?;
        }
        Ok(Job { limit, deadline: Instant::now() + limit, interrupted })
    }

    /// Runs a command; it fails unless its exit code is 0.
    pub fn run(&self, command: Cmd) -> Result<(), String> {
        self.start(command, Stdio::inherit()).map(drop)
    }

    /// [`run`](Self::run), and what it wrote to standard output.
    pub fn output(&self, command: Cmd) -> Result<Vec<u8>, String> {
        self.start(command, Stdio::piped())
    }

    fn start(&self, mut command: Cmd, stdout: Stdio) -> Result<Vec<u8>, String> {
        println!("$ {}", command.shown);
        let mut child =
            command.command.stdout(stdout).spawn().map_err(|e| format!("{}: {e}", command.shown))?;
        let reader = child.stdout.take().map(|mut pipe| {
            std::thread::spawn(move || {
                let mut text = Vec::new();
                pipe.read_to_end(&mut text).map(|_| text)
            })
        });
        let result = self.wait(&mut child);
        // Whatever the command left behind must not outlive it.
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let status = match result {
            Ok(status) => status,
            Err(error) => {
                let _ = child.wait();
                return Err(error);
            }
        };
        if !status.success() {
            return Err(format!("{}: {status}", command.shown));
        }
        match reader.map(|thread| thread.join()) {
            None => Ok(Vec::new()),
            Some(Ok(Ok(text))) => Ok(text),
            Some(_) => Err(format!("{}: its output cannot be read", command.shown)),
        }
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, String> {
        loop {
            if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
                return Ok(status);
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err("interrupted".to_owned());
            }
            if Instant::now() > self.deadline {
                return Err(format!("not done within {:?}", self.limit));
            }
            sleep(Duration::from_millis(20));
        }
    }
}
