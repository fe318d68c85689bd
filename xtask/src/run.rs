//! Commands with a time limit, killed with all that they started.

use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{Read, Write};
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

/// Another program, in a group of its own.
pub fn program(path: impl AsRef<std::ffi::OsStr>) -> Cmd {
    let shown = path.as_ref().display().to_string();
    let mut command = Command::new(path);
    command.current_dir(root()).stdin(Stdio::null());
    command.process_group(0);
    Cmd { command, shown }
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

    /// [`env`](Self::env), for what nobody has to repeat to get the same result.
    pub fn quietly(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Where it runs, if not in the workspace.
    pub fn at(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// [`env`](Self::env), unless the command has a value for it.
    pub fn env_unless_set(self, name: &str, value: &str) -> Self {
        if self.command.get_envs().any(|(known, _)| known == name) { self } else { self.env(name, value) }
    }

    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.shown = format!("{} {}", self.shown, argument.as_ref().display());
        self.command.arg(argument);
        self
    }
}

/// What became of a command that Ctrl-C ended.
pub const INTERRUPTED: &str = "interrupted";

/// What all commands of one step have in common.
pub struct Job {
    limit: Duration,
    deadline: Instant,
    /// Set by Ctrl-C, which does not reach the commands: they are in groups of their own.
    interrupted: Arc<AtomicBool>,
}

/// Reads to the end; shows what comes, if it is to.
fn copy(mut pipe: impl Read, show: bool) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = pipe.read(&mut buffer)?;
        if count == 0 {
            return Ok(text);
        }
        text.extend_from_slice(&buffer[..count]);
        if show {
            let mut out = std::io::stdout().lock();
            out.write_all(&buffer[..count])?;
            out.flush()?;
        }
    }
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
        self.start(command, Stdio::inherit(), false).map(drop)
    }

    /// [`run`](Self::run), and what it wrote to standard output.
    pub fn output(&self, command: Cmd) -> Result<Vec<u8>, String> {
        self.start(command, Stdio::piped(), false)
    }

    /// The same, and shows it as it comes; what was written before a failure, too.
    pub fn watch(&self, command: Cmd, text: &mut Vec<u8>) -> Result<(), String> {
        let (output, result) = self.launch(command, Stdio::piped(), true);
        *text = output;
        result
    }

    fn start(&self, command: Cmd, stdout: Stdio, show: bool) -> Result<Vec<u8>, String> {
        let (output, result) = self.launch(command, stdout, show);
        result.map(|()| output)
    }

    /// What a command wrote, if that is piped to us, and what became of it.
    fn launch(&self, mut command: Cmd, stdout: Stdio, show: bool) -> (Vec<u8>, Result<(), String>) {
        println!("$ {}", command.shown);
        let mut child = match command.command.stdout(stdout).spawn() {
            Ok(child) => child,
            Err(error) => return (Vec::new(), Err(format!("{}: {error}", command.shown))),
        };
        let reader = child.stdout.take().map(|pipe| std::thread::spawn(move || copy(pipe, show)));
        let result = self.wait(&mut child);
        // Whatever the command left behind must not outlive it.
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        if result.is_err() {
            let _ = child.wait();
        }
        let output = reader.map(|thread| thread.join());
        let result = match (result, &output) {
            (Err(error), _) => Err(error),
            (Ok(status), _) if !status.success() => Err(format!("{}: {status}", command.shown)),
            (Ok(_), None | Some(Ok(Ok(_)))) => Ok(()),
            (Ok(_), Some(_)) => Err(format!("{}: its output cannot be read", command.shown)),
        };
        (output.and_then(Result::ok).and_then(Result::ok).unwrap_or_default(), result)
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, String> {
        loop {
            if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
                return Ok(status);
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(INTERRUPTED.to_owned());
            }
            if Instant::now() > self.deadline {
                return Err(format!("not done within {:?}", self.limit));
            }
            sleep(Duration::from_millis(20));
        }
    }
}
