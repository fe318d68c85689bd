//! Processes: handles that cannot name the wrong one, their end, and what a worker sets up first.

use std::ffi::CString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::error::{Error, Exit, Result};
use crate::sys::channel::{EventFd, poll_one};

/// How long [`quick_exit`] waits for output that nobody takes, or for another thread's lock on it.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// A process, named by a descriptor that stays its name after its id went to another process.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    fd: OwnedFd,
    pid: u32,
}

impl ProcessHandle {
    /// The process that has this id now. Whether it is the meant one is the caller's to know: it is an
    /// own child not waited for yet, or its [`start_time`] is compared afterwards.
    pub(crate) fn open(pid: u32) -> Result<Self> {
        let raw = to_pid(pid).ok_or_else(|| Error::invalid(format!("{pid} is no process id")))?;
        let fd = rustix::process::pidfd_open(raw, PidfdFlags::empty())
            .map_err(|errno| Error::io("cannot open a process handle", errno))?;
        Ok(Self { fd, pid })
    }

    /// A pidfd that came by another way, and the id that belongs to it.
    pub(crate) fn from_fd(fd: OwnedFd, pid: u32) -> Self {
        Self { fd, pid }
    }

    /// A process that is known to be gone, and whose id may be another's by now.
    pub(crate) fn gone(pid: u32) -> Result<Self> {
        let bell = EventFd::new()?;
        bell.ring(); // readable, as the pidfd of a dead process
        Ok(Self { fd: bell.into_fd(), pid })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether every thread of it has ended. A zombie is dead; a stopped process is not.
    pub(crate) fn is_dead(&self) -> bool {
        self.wait_dead(Some(Duration::ZERO))
    }

    /// Waits until it is dead, for as long as `limit` at most. When the kernel gives no answer, the
    /// process counts as alive: nothing may be taken from it on a guess.
    pub(crate) fn wait_dead(&self, limit: Option<Duration>) -> bool {
        poll_one(self.as_fd(), limit).is_ok_and(|ready| ready.input)
    }

    /// Sends a signal. A process that is gone already is no failure.
    pub(crate) fn kill(&self, signal: Signal) -> Result<()> {
        match rustix::process::pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(Errno::BADF) => Ok(()), // no pidfd: `gone`
            Err(errno) => Err(Error::io("cannot signal a process", errno)),
        }
    }

    /// Collects the end of an own child. `None` if it is not our child, somebody else collected it, or
    /// it still runs: ask after [`is_dead`](Self::is_dead) said so.
    pub(crate) fn wait_status(&self) -> Option<Exit> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = loop {
            match rustix::process::waitid(WaitId::PidFd(self.as_fd()), options) {
                Err(Errno::INTR) => continue,
                other => break other.ok()??,
            }
        };
        let code = status.exit_status().map(Exit::Code);
        code.or_else(|| status.terminating_signal().map(Exit::Signal)).or(Some(Exit::Unknown))
    }
}

impl AsFd for ProcessHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether [`ProcessHandle::open`] failed because no process has that id any more.
pub(crate) fn is_nobody(error: &Error) -> bool {
    let crate::error::ErrorKind::Io { source, .. } = error.kind() else { return false };
    source.raw_os_error() == Some(libc::ESRCH)
}

fn to_pid(pid: u32) -> Option<Pid> {
    // Negative ids name process groups elsewhere; here they are nonsense.
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// When the process started, in clock ticks since boot: together with the id, a name that is not used twice.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    parse_start_time(&read_stat(&format!("/proc/{pid}/stat"))?)
}

/// The line that the kernel has about a process. By two reads of a fixed size: it is shorter than that, and
/// asking for its length first would tell nothing.
pub(super) fn read_stat(path: &str) -> Option<Vec<u8>> {
    let mut file = std::fs::File::open(path).ok()?;
    let mut line = vec![0; 2048];
    let len = file.read(&mut line).ok()?;
    line.truncate(len);
    Some(line)
}

/// What this process is for as long as it runs this program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Own {
    pid: u32,
    /// See [`start_time`]; 0 if the kernel does not tell.
    pub start_time: u64,
    /// It runs with the memory of a program that another process started.
    forked: bool,
}

impl Own {
    pub(crate) fn get() -> Self {
        /// Read once: it takes some microseconds.
        static OWN: Mutex<Option<Own>> = Mutex::new(None);
        let pid = std::process::id();
        // A thread that this process does not have any more may hold it.
        let mut known = OWN.try_lock().ok();
        if let Some(own) = known.as_deref().copied().flatten().filter(|own| own.pid == pid) {
            return own;
        }
        let stat = read_stat("/proc/self/stat").unwrap_or_default();
        let own = Self::parse(&stat).unwrap_or(Own { pid, start_time: 0, forked: true });
        if let Some(known) = &mut known {
            **known = Some(own);
        }
        own
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        const FORKED_AND_NOT_EXECUTED: u64 = 0x40; // PF_FORKNOEXEC
        let forked = stat_field(stat, 9)? & FORKED_AND_NOT_EXECUTED != 0;
        Some(Own { pid: std::process::id(), start_time: stat_field(stat, 22)?, forked })
    }

    /// Whether nobody holds a lock but the calling thread, and nobody will: it is the only one, and when this
    /// process began there was no other that it does not have.
    fn is_alone(&self) -> bool {
        // A directory's links: itself, its name, and one for each thread.
        let threads = rustix::fs::stat("/proc/self/task").map(|stat| stat.st_nlink);
        !self.forked && threads == Ok(3)
    }
}

/// Whether the process that had this number at this time still runs. A zombie does not.
pub(crate) fn still_runs(pid: u32, started: u64) -> bool {
    super::fate(pid, started).is_alive()
}

/// Whether any process has this id, if only a zombie. One system call, unlike [`still_runs`].
pub(crate) fn is_somebody(pid: u32) -> bool {
    to_pid(pid).is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(Errno::SRCH))
}

/// Whether the first thread of the process has ended: all of it, or there are others left. The id has to
/// be a living process's, or that of one nobody has waited for.
pub(crate) fn first_thread_ended(pid: u32) -> bool {
    let Some(stat) = read_stat(&format!("/proc/{pid}/stat")) else { return false };
    let state = stat.iter().rposition(|&byte| byte == b')').and_then(|at| stat.get(at + 2));
    state == Some(&b'Z')
}

/// Whether the calling thread is the one that lives, in a program in Rust, as long as its process.
pub(crate) fn is_first_thread() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

/// Ends a child that has no handle, and waits for it.
pub(crate) fn kill_child(pid: u32) {
    if let Some(raw) = to_pid(pid) {
        let _ = rustix::process::kill_process(raw, Signal::KILL);
        wait_for_child(pid);
    }
}

/// Waits for a child that has no handle.
pub(crate) fn wait_for_child(pid: u32) {
    if let Some(pid) = to_pid(pid) {
        let options = rustix::process::WaitOptions::empty();
        while matches!(rustix::process::waitpid(Some(pid), options), Err(Errno::INTR)) {}
    }
}

pub(super) fn parse_start_time(stat: &[u8]) -> Option<u64> {
    stat_field(stat, 22)
}

/// A field after the second, counted from 1. That is the command's name in parentheses, and may contain
/// both spaces and parentheses.
fn stat_field(stat: &[u8], number: usize) -> Option<u64> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let text = std::str::from_utf8(&stat[after_name..]).ok()?;
    text.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// Whether the process has a memfd of this name mapped; `None` if it cannot be looked into.
///
/// A channel to it that hung up means either that it closed its descriptors or that it runs another
/// program now. Only the second takes its mappings away.
pub(crate) fn still_maps(pid: u32, memfd_name: &str) -> Option<bool> {
    let maps = std::fs::File::open(format!("/proc/{pid}/maps")).ok()?;
    for line in BufReader::new(maps).split(b'\n') {
        if is_memfd_line(&line.ok()?, memfd_name) {
            return Some(true);
        }
    }
    Some(false)
}

fn is_memfd_line(line: &[u8], memfd_name: &str) -> bool {
    // A memfd has no directory entry, so the kernel always calls it deleted.
    let Some(line) = line.strip_suffix(b" (deleted)") else { return false };
    let Some(line) = line.strip_suffix(memfd_name.as_bytes()) else { return false };
    line.ends_with(b" /memfd:")
}

/// Asks for SIGKILL when the parent's thread that started this process ends. Says whether the parent
/// is still the expected one: if not, it ended before we asked, and nobody will send the signal.
#[must_use]
pub(crate) fn set_parent_death_signal(expected_parent: u32) -> bool {
    let asked = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    asked && to_pid(expected_parent).is_some_and(|pid| rustix::process::getppid() == Some(pid))
}

/// Takes [`set_parent_death_signal`] back.
pub(crate) fn clear_parent_death_signal() {
    let _ = rustix::process::set_parent_process_death_signal(None); // fails for no valid argument
}

/// Which of the two processes this is.
#[must_use]
pub(crate) enum Fork {
    Child,
    /// The child's id.
    Parent(u32),
}

/// Makes a child process with a copy of this one's memory.
///
/// Buffered output is copied too, and would come out twice: see [`flush_output`].
///
/// # Safety
///
/// Only the calling thread exists in the child. Whatever lock another thread held stays locked there
/// for ever, and what that lock guards may be half changed. In a process with other threads, the child
/// may use only what cannot be in that state: the C library's allocator is (it repairs itself in the
/// child), std's standard streams are not.
pub(crate) unsafe fn fork() -> Result<Fork> {
    // The C library's fork, not the bare system call: fork handlers have to run.
    // SAFETY: the caller's promise.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid => match u32::try_from(pid) {
            Ok(pid) => Ok(Fork::Parent(pid)),
            Err(_) => Err(Error::io("cannot fork", std::io::Error::last_os_error())),
        },
    }
}

/// Ends a forked child that came back from where children do not.
pub(crate) fn abandon_fork() -> ! {
    // SAFETY: `_exit` ends the process and touches none of its memory.
    unsafe { libc::_exit(1) }
}

/// Ctrl-C goes to every process of the terminal. What it means is for the pool's process to decide.
pub(crate) fn ignore_sigint() {
    // SAFETY: ignoring runs no code of ours.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
}

/// The signals that whole groups of processes get when a terminal, a shell or a service manager ends them.
const ENDING: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGHUP];

/// A template ends with its pool's process and has to outlive it for a moment.
pub(crate) fn ignore_ending_signals() {
    for signal in ENDING {
        // SAFETY: sets a disposition, no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// What its children undo: a worker is ended like any process.
pub(crate) fn heed_ending_signals() {
    for signal in ENDING {
        // SAFETY: as above.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// What `execve` does to signals, and what a forked worker needs as well: handlers go, ignored signals
/// stay ignored. A handler that tells an event loop through an inherited pipe would tell the parent's.
/// In addition nothing stays blocked.
pub(crate) fn default_signals() {
    // The runtime's own handlers for these report stack overflow. They concern this process alone.
    const KEPT: [i32; 2] = [libc::SIGSEGV, libc::SIGBUS];
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| !KEPT.contains(signal)) {
        // SAFETY: all-zero bytes are a valid `sigaction`: plain integers and a nullable function.
        let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: without a new action this only writes the current one to `now`. It fails, and leaves
        // the zeroes (the default), for signals that the C library keeps for itself.
        unsafe { libc::sigaction(signal, std::ptr::null(), &mut now) };
        if now.sa_sigaction != libc::SIG_DFL && now.sa_sigaction != libc::SIG_IGN {
            // SAFETY: the default action runs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // SAFETY: as above; `sigemptyset` then gives it its proper value.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is ours and outlives both calls; a missing old set is allowed.
    unsafe {
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Names the calling thread; in the main thread, the process as `ps` shows it. 15 bytes remain.
pub(crate) fn set_name(name: &str) {
    let bytes: Vec<u8> = name.bytes().take_while(|&byte| byte != 0).take(15).collect();
    if let Ok(name) = CString::new(bytes) {
        // It is only for people to read.
        let _ = rustix::thread::set_name(&name);
    }
}

/// A worker must not eat the input of the program whose descriptors it inherited.
pub(crate) fn redirect_stdin_to_null() -> Result<()> {
    let null = std::fs::File::open("/dev/null").map_err(|error| Error::io("cannot open /dev/null", error))?;
    if null.as_raw_fd() == libc::STDIN_FILENO {
        // Descriptor 0 was closed. It stays open now, but not across an execve, like when it was closed.
        std::mem::forget(null);
        return Ok(());
    }
    // SAFETY: number 0 belongs to nobody as an `OwnedFd`; std reads it by number.
    if unsafe { libc::dup2(null.as_raw_fd(), libc::STDIN_FILENO) } < 0 {
        return Err(Error::io("cannot redirect the standard input", std::io::Error::last_os_error()));
    }
    Ok(())
}

/// Writes out what std buffers for the standard output, and says whether that was done in time.
///
/// Where that might hang, it is [tried](try_flush): but that takes as long as a fork.
pub(crate) fn flush_output(limit: Duration) -> bool {
    if Own::get().is_alone() && takes_output(libc::STDOUT_FILENO) {
        // It panics where the stream is just being written to: in the formatting of what is printed.
        return std::panic::catch_unwind(|| std::io::stdout().flush()).is_ok();
    }
    try_flush(limit)
}

/// The same if it may never be: the pipe is full and its reader asleep, or the stream is locked, in a forked
/// child for ever. So a thread of its own tries it, and is left behind if it hangs.
fn try_flush(limit: Duration) -> bool {
    let (done, wait) = std::sync::mpsc::sync_channel(1);
    let flush = move || {
        let _ = std::io::stdout().flush();
        let _ = done.send(());
    };
    let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(flush);
    thread.is_ok() && wait.recv_timeout(limit).is_ok()
}

/// Whether the next write of some hundred bytes, which is as much as std buffers, will not wait.
fn takes_output(fd: libc::c_int) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one entry, ours, for the time of the call.
    unsafe { libc::poll(&raw mut entry, 1, 0) == 1 }
}

/// Ends the process at once: no exit handlers, no destructors. In a forked worker those belong to the
/// parent: they would remove its temporary files and finish its connections.
pub(crate) fn quick_exit(code: i32) -> ! {
    try_flush(FLUSH_LIMIT);
    // SAFETY: `_exit` may be called anywhere.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn sleeper() -> (Child, ProcessHandle) {
        let child = Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().unwrap();
        let handle = ProcessHandle::open(child.id()).unwrap();
        (child, handle)
    }

    #[test]
    fn a_killed_child_is_dead_before_it_is_collected() {
        let (_child, handle) = sleeper();
        assert!(!handle.is_dead());
        assert_eq!(handle.wait_status(), None);
        handle.kill(Signal::STOP).unwrap();
        assert!(!handle.wait_dead(Some(Duration::from_millis(20))), "stopped is not dead");
        handle.kill(Signal::KILL).unwrap();
        assert!(handle.wait_dead(None));
        assert!(start_time(handle.pid()).is_some(), "a zombie still has its id");
        assert_eq!(handle.wait_status(), Some(Exit::Signal(libc::SIGKILL)));
        assert!(handle.is_dead());
        assert_eq!(handle.wait_status(), None, "it can be collected once");
        handle.kill(Signal::KILL).unwrap();
    }

    #[test]
    fn a_foreign_process_has_no_status() {
        assert_eq!(ProcessHandle::open(std::process::id()).unwrap().wait_status(), None);
        assert!(ProcessHandle::open(0).is_err());
        assert!(ProcessHandle::open(u32::MAX).is_err());
    }

    #[test]
    fn start_times_are_found_behind_strange_names() {
        let stat = b"7 (a) R 1 (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 9 9 9\n";
        assert_eq!(parse_start_time(stat), Some(123_456));
        assert_eq!(parse_start_time(b"7 (a) S 1 2"), None);
        assert_eq!(parse_start_time(b""), None);
        let own = start_time(std::process::id());
        assert!(own.is_some_and(|ticks| ticks > 0));
        assert_eq!(own, start_time(std::process::id()));
    }

    /// Runs `body` in a forked child. The test harness has other threads, so it must not print or lock.
    fn in_child(body: impl FnOnce() -> i32) -> Exit {
        // SAFETY: `body` takes no locks but the allocator's.
        match unsafe { fork() }.unwrap() {
            Fork::Child => {
                let code = body();
                // SAFETY: `_exit` may be called anywhere.
                unsafe { libc::_exit(code) }
            }
            Fork::Parent(pid) => {
                let child = ProcessHandle::open(pid).unwrap();
                assert!(child.wait_dead(None));
                child.wait_status().unwrap()
            }
        }
    }

    #[test]
    fn the_parent_is_checked() {
        let parent = std::process::id();
        assert_eq!(in_child(|| i32::from(set_parent_death_signal(parent))), Exit::Code(1));
        assert_eq!(in_child(|| i32::from(set_parent_death_signal(1))), Exit::Code(0));
    }

    extern "C" fn no_op(_signal: i32) {}

    #[test]
    fn handlers_go_and_ignored_signals_stay_ignored() {
        let exit = in_child(|| {
            // SAFETY: the handler does nothing; the set is initialised before it is used.
            unsafe {
                libc::signal(libc::SIGUSR1, no_op as *const () as libc::sighandler_t);
                libc::signal(libc::SIGUSR2, libc::SIG_IGN);
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::sigaddset(&mut set, libc::SIGUSR1);
                libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            }
            default_signals();
            ignore_sigint();
            for signal in [libc::SIGINT, libc::SIGUSR2, libc::SIGUSR1] {
                // SAFETY: raising a signal is always allowed.
                unsafe { libc::raise(signal) };
            }
            0
        });
        assert_eq!(exit, Exit::Signal(libc::SIGUSR1));
    }

    #[test]
    fn standard_input_becomes_empty() {
        let exit = in_child(|| {
            set_name("a name that is too long for the kernel");
            if redirect_stdin_to_null().is_err() {
                return 1;
            }
            let mut byte = [0_u8];
            // SAFETY: it writes one byte at most, and `byte` has room for it.
            if unsafe { libc::read(0, byte.as_mut_ptr().cast(), 1) } != 0 {
                return 2;
            }
            let named = std::fs::read("/proc/self/comm").is_ok_and(|name| name == b"a name that is \n");
            if named { 0 } else { 3 }
        });
        assert_eq!(exit, Exit::Code(0));
    }

    #[test]
    fn quick_exit_leaves_although_another_thread_keeps_the_output_locked() {
        let (locked, wait) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            let _guard = std::io::stdout().lock();
            locked.send(()).unwrap();
            let _ = released.recv();
        });
        wait.recv().unwrap();
        let exit = in_child(|| quick_exit(5));
        drop(release);
        holder.join().unwrap();
        assert_eq!(exit, Exit::Code(5));
    }

    const ASKED: &str = "RINGPOOL_TEST_EXIT";

    /// Not a test by itself: what the child in the next one does.
    #[test]
    fn leaves_when_asked() {
        if std::env::var_os(ASKED).is_some() {
            print!("half a line");
            quick_exit(3);
        }
    }

    #[test]
    fn quick_exit_writes_what_was_printed() {
        // The harness names tests without their crate.
        let name = concat!(module_path!(), "::leaves_when_asked").split_once("::").unwrap().1;
        let output = Command::new(crate::sys::program::current_exe_path())
            .args(["--exact", "--nocapture", name])
            .env(ASKED, "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert!(String::from_utf8(output.stdout).unwrap().ends_with("half a line"));
    }

    #[test]
    fn a_mapped_memfd_is_seen_until_it_is_unmapped() {
        let name = format!("ringpool-maps-{}", std::process::id());
        let own = std::process::id();
        assert_eq!(still_maps(own, &name), Some(false));
        let fd = crate::sys::memory::create_memfd(&name, 1 << 16).unwrap();
        assert_eq!(still_maps(own, &name), Some(false), "open is not mapped");
        let mapping = crate::sys::memory::Mapping::read_write(fd.as_fd(), 0, 1 << 16).unwrap();
        drop(fd);
        assert_eq!(still_maps(own, &name), Some(true));
        assert_eq!(still_maps(own, &name[1..]), Some(false));
        drop(mapping);
        assert_eq!(still_maps(own, &name), Some(false));
        assert_eq!(still_maps(u32::MAX, &name), None);
    }
}
