//! Other processes that play a part in a test: this program run again, or another one.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

const ROLE: &str = "RINGPOOL_TEST_ROLE";
/// In the environment of actors and of all that they start: the process of the test.
const TEST: &str = "RINGPOOL_TEST_PROCESS";

/// What an actor does, with the arguments that it was started with.
pub type Part = fn(&[String]);

/// If this process was started by [`Actor::start`], plays its part and ends. To be called after
/// `ringpool::init()`, so that the actor's own workers do not come here.
pub fn play(roles: &[(&str, Part)]) {
    let Ok(role) = std::env::var(ROLE) else { return };
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (_, part) = roles.iter().find(|(name, _)| *name == role).expect("a known role");
    part(&args);
    std::process::exit(0);
}

/// For actors: waits until the test closes their input, or has died.
pub fn wait_for_the_end() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Running processes that actors of this test have started, and the actors themselves: whatever became of
/// their parents, and whatever they call themselves.
pub fn troupe() -> Vec<u32> {
    let mark = format!("{TEST}={}", std::process::id());
    let marked = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes())
    };
    let running = crate::procs::all().into_iter().filter(|(_, stat)| !matches!(stat.state, 'Z' | 'X'));
    running.map(|(pid, _)| pid).filter(|&pid| marked(pid)).collect()
}

/// A running actor, killed when dropped.
pub struct Actor {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Actor {
    /// Runs this program again in a role.
    pub fn start(role: &str, args: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("own path"));
        command.env(ROLE, role);
        Self::run(command, args)
    }

    /// Runs another program.
    pub fn program(path: &str, args: &[&str]) -> Self {
        Self::run(Command::new(path), args)
    }

    fn run(mut command: Command, args: &[&str]) -> Self {
        command.env(TEST, std::process::id().to_string());
        let mut child =
            command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("an actor");
        let output = BufReader::new(child.stdout.take().expect("piped above"));
        Actor { child, output }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints; empty if it has ended.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a pipe");
        line.trim_end().to_owned()
    }

    /// Writes to its input.
    pub fn tell(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().expect("not closed yet").write_all(bytes).expect("an actor that reads");
    }

    /// SIGKILLs it and waits until it is dead.
    pub fn kill(&mut self) -> ExitStatus {
        self.child.kill().expect("a child that is not waited for");
        self.child.wait().expect("own child")
    }

    /// Waits for its end, with its input open.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("own child")
    }

    /// Closes its input.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Closes its input and waits for its end.
    pub fn finish(&mut self) -> ExitStatus {
        self.close_input();
        self.child.wait().expect("own child")
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill(); // harmless if it has been waited for
        let _ = self.child.wait();
    }
}
