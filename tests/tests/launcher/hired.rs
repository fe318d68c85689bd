//! A launcher, and what its processes do.

use crate::SOON;
use ringpool::Exit;
use ringpool::raw::{self, Failure, Launcher, Service};
use ringpool_tests::{eventually, procs};
use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::ThreadId;

/// How processes are started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// As a fork of the calling thread.
    Forks,
    /// By running this program, which finds its seat as its standard input.
    Runs,
}

pub const WAYS: [Way; 2] = [Way::Forks, Way::Runs];

/// What a process does besides tasks. It is told of a path for notes.
#[derive(Clone, Copy)]
pub struct Plan {
    pub name: &'static str,
    /// Before it serves.
    pub before: fn(&str),
    pub initialize: fn(&str) -> Result<(), String>,
    pub around: fn(&mut dyn FnMut()),
    /// When it has served.
    pub after: fn(&str),
}

/// Nothing else.
pub const PLAIN: Plan =
    Plan { name: "plain", before: |_| {}, initialize: |_| Ok(()), around: |task| task(), after: |_| {} };

/// What goes wrong with a start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    Fails,
    Panics,
    /// There is a process all the same, which has taken its place: it takes a note when it is initialized.
    FailsLate,
    /// The process ends at once, and has been waited for when its number is told.
    EndsAtOnce,
    /// The forked process comes back.
    ComesBack,
}

/// A process that was started.
#[derive(Clone)]
pub struct Started {
    pub worker: u32,
    pub pid: u32,
    pub by: ThreadId,
    /// The threads that there were.
    pub threads: BTreeSet<u32>,
}

#[derive(Default)]
pub struct Log {
    pub started: Vec<Started>,
    /// Place, process and exit of those that were asked about.
    pub ended: Vec<(u32, u32, Option<Exit>)>,
    /// What happens to the next starts.
    pub plot: VecDeque<Option<Trouble>>,
    /// Of processes that it has waited for itself.
    known: Vec<(u32, Exit)>,
}

/// A launcher of which the test keeps a copy.
#[derive(Clone)]
pub struct Hired {
    way: Way,
    plan: Plan,
    path: String,
    log: Arc<Mutex<Log>>,
}

/// In the environment of a program that is run: its plan, and where to take notes.
const PLAN: &str = "RINGPOOL_TEST_PLAN";
const PATH: &str = "RINGPOOL_TEST_NOTES";

/// If this process was run by a launcher, works and ends.
pub fn enter(plans: &[&Plan]) {
    let Ok(name) = std::env::var(PLAN) else { return };
    let path = std::env::var(PATH).unwrap_or_default();
    let plan = plans.iter().copied().chain([&PLAIN]).find(|plan| plan.name == name);
    // SAFETY: the standard input is the seat, and nobody else uses it.
    let seat = unsafe { OwnedFd::from_raw_fd(0) };
    work(plan.expect("a known plan"), &path, seat)
}

/// The life of a worker.
fn work(plan: &Plan, path: &str, seat: OwnedFd) -> ! {
    (plan.before)(path);
    let around = |task: &mut dyn FnMut()| (plan.around)(task);
    let initialize = Box::new(|| (plan.initialize)(path));
    let served = raw::serve(seat, Service { initialize, around: &around });
    (plan.after)(path);
    // SAFETY: ends the process at once, and runs nothing of its parent's.
    unsafe { libc::_exit(i32::from(served.is_err())) }
}

impl Hired {
    pub fn new(way: Way, plan: Plan, path: &str) -> Self {
        Hired { way, plan, path: path.to_owned(), log: Arc::default() }
    }

    pub fn plain(way: Way) -> Self {
        Self::new(way, PLAIN, "")
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("nobody panics with it")
    }

    /// What happens to the starts from now on.
    pub fn plot(&self, plot: impl IntoIterator<Item = Option<Trouble>>) {
        self.log().plot.extend(plot);
    }

    pub fn pids(&self) -> Vec<u32> {
        self.log().started.iter().map(|started| started.pid).collect()
    }

    /// The last one in this place.
    pub fn pid_of(&self, worker: u32) -> u32 {
        self.log().started.iter().rfind(|started| started.worker == worker).expect("a worker").pid
    }

    /// All that were started have ended, were asked about once, and waited for.
    #[track_caller]
    pub fn expect_all_ended(&self) {
        let log = self.log();
        let mut started: Vec<_> = log.started.iter().map(|started| (started.worker, started.pid)).collect();
        let mut ended: Vec<_> = log.ended.iter().map(|&(worker, pid, _)| (worker, pid)).collect();
        started.sort_unstable();
        ended.sort_unstable();
        assert_eq!(started, ended);
        assert!(log.ended.iter().all(|(_, _, exit)| exit.is_some()), "{:?}", log.ended);
        assert!(started.iter().all(|&(_, pid)| procs::stat(pid).is_none()), "not even zombies are left");
    }

    pub fn exit_of(&self, pid: u32) -> Option<Exit> {
        self.log().ended.iter().find(|(_, ended, _)| *ended == pid).expect("it was asked about").2
    }

    fn fork(&self, seat: BorrowedFd<'_>) -> u32 {
        // SAFETY: the child uses the allocator, which libc repairs, and the file system. It does not return.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: the child has the seat, and no owner of it but this.
            work(&self.plan, &self.path, unsafe { OwnedFd::from_raw_fd(seat.as_raw_fd()) });
        }
        u32::try_from(pid).expect("a child")
    }

    fn run(&self, seat: BorrowedFd<'_>) -> u32 {
        let mut command = Command::new(std::env::current_exe().expect("own path"));
        command.env(PLAN, self.plan.name).env(PATH, &self.path);
        let seat = seat.try_clone_to_owned().expect("a descriptor");
        command.stdin(Stdio::from(seat)).spawn().expect("a process").id()
    }
}

/// Waits for a child.
fn wait(pid: u32, options: libc::c_int) -> Option<Exit> {
    let mut status = 0;
    // SAFETY: `status` may be written.
    let waited = unsafe { libc::waitpid(pid as i32, &raw mut status, options) };
    if waited != pid as i32 {
        return None;
    }
    let code = libc::WIFEXITED(status).then(|| Exit::Code(libc::WEXITSTATUS(status)));
    Some(code.unwrap_or_else(|| Exit::Signal(libc::WTERMSIG(status))))
}

fn threads() -> BTreeSet<u32> {
    let entries = std::fs::read_dir("/proc/self/task").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

impl Launcher for Hired {
    fn start(&mut self, worker: u32, seat: BorrowedFd<'_>) -> Result<u32, Failure> {
        let trouble = self.log().plot.pop_front().flatten();
        let notes = || std::fs::metadata(&self.path).map_or(0, |file| file.len());
        let noted = notes();
        let pid = match trouble {
            None | Some(Trouble::FailsLate) => match self.way {
                Way::Forks => self.fork(seat),
                Way::Runs => self.run(seat),
            },
            Some(Trouble::Fails) => return Err(Failure::new(7, "no hands")),
            Some(Trouble::Panics) => panic!("no heads"),
            Some(Trouble::EndsAtOnce) => {
                // SAFETY: the child ends at once.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    // SAFETY: as above.
                    unsafe { libc::_exit(3) };
                }
                let exit = wait(pid as u32, 0).expect("its end");
                self.log().known.push((pid as u32, exit));
                pid as u32
            }
            Some(Trouble::ComesBack) => {
                // SAFETY: the child only returns, and is ended where it comes to.
                match unsafe { libc::fork() } {
                    0 => return Ok(std::process::id()),
                    pid => pid as u32,
                }
            }
        };
        let by = std::thread::current().id();
        let mut log = self.log();
        log.started.push(Started { worker, pid, by, threads: threads() });
        drop(log);
        if trouble == Some(Trouble::FailsLate) {
            eventually("it has taken its place", SOON, || notes() > noted);
            return Err(Failure::new(8, "no memory of what was done"));
        }
        Ok(pid)
    }

    fn exit_of(&mut self, worker: u32, pid: u32) -> Option<Exit> {
        let known = self.log().known.iter().find(|(known, _)| *known == pid).map(|&(_, exit)| exit);
        let exit = known.or_else(|| wait(pid, libc::WNOHANG));
        self.log().ended.push((worker, pid, exit));
        exit
    }
}
