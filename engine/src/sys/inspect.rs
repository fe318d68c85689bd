//! Looking at other processes through `/proc`, without a handle and without disturbing them.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, SealFlags};

use super::process::{parse_start_time, read_stat};
use crate::error::{Error, Result};

/// What has become of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Running,
    /// By a signal or a debugger.
    Stopped,
    /// Its number is nobody's, somebody else's or a zombie's.
    Dead,
}

impl Fate {
    pub(crate) fn is_alive(self) -> bool {
        self != Fate::Dead
    }

    pub(crate) fn is_stopped(self) -> bool {
        self == Fate::Stopped
    }
}

/// What has become of the process that had this number at this time; whenever it was, if that is 0.
pub(crate) fn fate(pid: u32, started: u64) -> Fate {
    let Some(stat) = read_stat(&format!("/proc/{pid}/stat")) else { return Fate::Dead };
    let state = stat.iter().rposition(|&byte| byte == b')').and_then(|at| stat.get(at + 2));
    match state {
        _ if started != 0 && parse_start_time(&stat) != Some(started) => Fate::Dead,
        None | Some(b'Z' | b'X') => Fate::Dead,
        Some(b'T' | b't') => Fate::Stopped,
        Some(_) => Fate::Running,
    }
}

/// The name of a process, as `ps` shows it: up to 15 bytes.
pub(crate) fn name_of(pid: u32) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// The children of all threads of a process; nobody, if the kernel does not tell.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// The memfds that a process has open: their names, and where to open them.
pub(crate) fn memfds_of(pid: u32) -> Result<Vec<(String, PathBuf)>> {
    let dir = PathBuf::from(format!("/proc/{pid}/fd"));
    let entries = std::fs::read_dir(&dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::invalid(format!("there is no process {pid}")),
        std::io::ErrorKind::PermissionDenied => Error::invalid(format!(
            "process {pid} may not be looked into: that takes its user's rights, or root's"
        )),
        _ => Error::io("reading a process's descriptors", error),
    })?;
    let named = |path: PathBuf| Some((memfd_name(&path)?, path));
    Ok(entries.flatten().filter_map(|entry| named(entry.path())).collect())
}

/// The name of the memfd behind a descriptor's path; `None` for anything else.
fn memfd_name(path: &Path) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    Some(target.to_str()?.strip_prefix("/memfd:")?.strip_suffix(" (deleted)")?.to_owned())
}

/// Opens another process's memfd of this name for reading; `None` if it has closed it, and whatever it may have
/// opened under that number since. Its size must be sealed: a file that shrinks under a mapping is SIGBUS.
pub(crate) fn open_sealed(path: &Path, name: &str) -> Result<Option<OwnedFd>> {
    let still_is = |path: &Path| memfd_name(path).is_some_and(|now| now == name);
    // Without waiting, for what has the number now may be a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(errno) if still_is(path) => return Err(Error::io("opening another process's memory", errno)),
        Err(_) => return Ok(None),
    };
    if !still_is(&PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))) {
        return Ok(None);
    }
    let seals = rustix::fs::fcntl_get_seals(&fd)
        .map_err(|errno| Error::io("asking for the seals of another process's memory", errno))?;
    if !seals.contains(SealFlags::SHRINK) {
        return Err(Error::invalid(format!("{} may shrink: it is no pool's memory", path.display())));
    }
    Ok(Some(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{create_memfd, start_time};
    use rustix::process::Signal;

    #[test]
    fn the_fate_of_processes_is_known() {
        let own = std::process::id();
        assert_eq!(fate(own, start_time(own).unwrap()), Fate::Running);
        assert_eq!(fate(own, 1), Fate::Dead, "somebody else of this number");
        assert_eq!(fate(own, 0), Fate::Running, "of whatever time");
        assert_eq!(fate(u32::MAX, 0), Fate::Dead);
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id();
        let start = start_time(pid).unwrap();
        assert!(children(own).contains(&pid));
        assert!(!children(own).contains(&own));
        let handle = crate::sys::ProcessHandle::open(pid).unwrap();
        handle.kill(Signal::STOP).unwrap();
        while fate(pid, start) != Fate::Stopped {
            std::thread::yield_now();
        }
        handle.kill(Signal::KILL).unwrap();
        assert!(handle.wait_dead(None));
        assert_eq!(fate(pid, start), Fate::Dead, "a zombie");
        child.wait().unwrap();
    }

    #[test]
    fn only_sealed_memory_is_opened() {
        let own = std::process::id();
        let name = format!("ringpool-inspect-{own}");
        let _fd = create_memfd(&name, 4096).unwrap();
        let open = rustix::fs::memfd_create(format!("{name}-open"), rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let all = memfds_of(own).unwrap();
        let path =
            |wanted: &str| all.iter().find(|(name, _)| name == wanted).map(|(_, path)| path.clone()).unwrap();
        let reader = open_sealed(&path(&name), &name).unwrap().expect("it is open");
        assert!(rustix::io::write(&reader, b"x").is_err(), "it is for reading");
        let unsealed = format!("{name}-open");
        let error = open_sealed(&path(&unsealed), &unsealed).unwrap_err();
        assert!(error.to_string().contains("may shrink"), "{error}");
        assert!(open_sealed(&path(&name), &unsealed).unwrap().is_none(), "its number is another's now");
        drop(open);
        assert!(memfds_of(u32::MAX).unwrap_err().to_string().contains("no process"));
        assert!(open_sealed(&PathBuf::from("/proc/self/fd/4000000"), &name).unwrap().is_none(), "closed");
    }

    #[test]
    fn a_pipe_under_the_number_of_a_closed_memfd_keeps_nobody_waiting() {
        let (_reader, writer) = std::io::pipe().unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
        assert!(open_sealed(&path, "ringpool-inspect").unwrap().is_none());
    }
}
