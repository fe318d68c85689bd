//! Shared memory, forked processes and futexes, as plain as the system has them: for the contestants that
//! are written by hand, and for the probes of the machine.

use std::io::{Error, Result};
use std::sync::atomic::AtomicU32;

/// Zeroed memory that forked processes share, all of its pages present.
pub struct Shared {
    start: *mut u8,
    len: usize,
}

impl Shared {
    /// At least one byte.
    pub fn new(len: usize) -> Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a new mapping where the kernel finds room for it.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Shared { start: start.cast(), len })
    }

    /// Where it begins: on a page.
    pub fn start(&self) -> *mut u8 {
        self.start
    }

    /// A value at `offset` that all processes may change at any time.
    ///
    /// # Safety
    ///
    /// `T` consists of atomics, for which all zeros are a value; and the processes agree on what lies there.
    pub unsafe fn at<T>(&self, offset: usize) -> &T {
        assert!(offset + size_of::<T>() <= self.len && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: within the mapping and aligned, as asserted; the rest is the caller's promise.
        unsafe { &*self.start.add(offset).cast() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; whoever borrows from it is gone.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// A forked process, killed when this is dropped.
pub struct Child {
    pid: libc::pid_t,
}

impl Child {
    /// Forks a process that does nothing but `work`, and ends when its parent does.
    ///
    /// The parent must have no other threads that could hold locks `work` needs.
    pub fn fork(work: impl FnOnce()) -> Result<Self> {
        // SAFETY: see above; the child leaves by `_exit`.
        match unsafe { libc::fork() } {
            -1 => Err(Error::last_os_error()),
            0 => {
                // SAFETY: plain system calls.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                // SAFETY: ends the child without running what its parent registered for its own end.
                unsafe { libc::_exit(0) }
            }
            pid => Ok(Child { pid }),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid as u32
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // SAFETY: the child is ours and not yet waited for, so the number is its.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// Sleeps unless the word is no longer `value`. May return for no reason.
pub fn futex_wait(word: &AtomicU32, value: u32) {
    // SAFETY: the word is alive; no timeout.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, std::ptr::null::<u8>());
    }
}

/// Wakes one process that sleeps on the word.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word is alive.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

/// Keeps the calling thread on one CPU. A refusal leaves it where it was.
pub fn pin(cpu: usize) {
    // SAFETY: all zeros are an empty set; the set is as long as we say.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// The CPUs that this thread may use.
pub fn cpus() -> Vec<usize> {
    // SAFETY: all zeros are an empty set, which the kernel fills; the set is as long as we say.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect()
    }
}
