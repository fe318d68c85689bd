//! Notices that this process is a forked child of the one that made a pool, and closes what such a child must
//! not keep.
//!
//! Comparing process ids would cost a system call for each use of the pool. A counter that every
//! `fork` raises in the child costs one load. It does not see a raw `clone`; against
//! that, the pool's mappings are not inherited at all.

use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::sync::private::{Private, PrivateU64};

static GENERATION: PrivateU64 = PrivateU64::new(0);

/// How many forks lie between this process and the one that called [`install`] first.
///
/// Relaxed is enough: the child starts with one thread, which is the one that counted.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Private::Relaxed)
}

/// Makes every later fork count. Calling it again changes nothing.
pub(crate) fn install() -> Result<()> {
    static INSTALLED: OnceLock<i32> = OnceLock::new();
    let errno = *INSTALLED.get_or_init(|| {
        // SAFETY: plain functions, which keep to what a fork allows: see there.
        unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) }
    });
    if errno == 0 {
        return Ok(());
    }
    Err(Error::io("cannot register a fork handler", std::io::Error::from_raw_os_error(errno)))
}

/// A descriptor, which forked children may get or not.
#[derive(Debug)]
pub(crate) enum Held {
    Shared(OwnedFd),
    Kept(Kept),
}

impl Held {
    /// Keeps it from forked children from now on.
    pub(crate) fn keep(&mut self) -> Result<()> {
        if let Held::Shared(fd) = self {
            // Another number for the same, so that nothing is lost if there is none.
            let kept = Kept::open(|| {
                fd.as_fd().try_clone_to_owned().map_err(|error| Error::io("duplicating a descriptor", error))
            })?;
            *self = Held::Kept(kept);
        }
        Ok(())
    }
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Held::Shared(fd) => fd.as_fd(),
            Held::Kept(kept) => kept.as_fd(),
        }
    }
}

/// A descriptor that forked children do not get: it is closed in them before `fork` returns there.
///
/// So somebody who waits for the last copy of it to be closed waits for this process only.
#[derive(Debug)]
pub(crate) struct Kept {
    fd: ManuallyDrop<OwnedFd>,
    /// Of the process in which it is open.
    generation: u64,
}

impl Kept {
    /// Keeps the two descriptors that `make` opens. Forks by the calling thread leave the second one open.
    ///
    /// No fork comes between: it would have copies of what nobody has heard of yet.
    pub(crate) fn pair(make: impl FnOnce() -> Result<(OwnedFd, OwnedFd)>) -> Result<(Self, Self)> {
        install()?;
        let list = List::lock();
        let (one, other) = make()?;
        Ok((list.keep(one, None), list.keep(other, Some(this_thread()))))
    }

    /// Keeps the descriptor that `make` opens.
    fn open(make: impl FnOnce() -> Result<OwnedFd>) -> Result<Self> {
        install()?;
        let list = List::lock();
        Ok(list.keep(make()?, None))
    }
}

impl AsFd for Kept {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if generation() != self.generation {
            return; // a forked child's copy: the descriptor is closed, and the number may be another's
        }
        // Together, as a fork between would either copy the descriptor or close another of this number.
        let list = List::lock();
        let number = self.fd.as_raw_fd();
        list.entries().retain(|entry| entry.fd != number);
        // SAFETY: it is dropped here, and nowhere else.
        unsafe { ManuallyDrop::drop(&mut self.fd) };
    }
}

#[derive(Clone, Copy)]
struct Entry {
    fd: RawFd,
    /// The thread whose forks leave it open.
    inherited_by: Option<usize>,
}

/// What is kept. A fork holds the lock, so that it never sees half a change; nobody else forks, or does anything
/// that may wait, while holding it.
struct List {
    lock: UnsafeCell<libc::pthread_mutex_t>,
    entries: UnsafeCell<Vec<Entry>>,
}

static LIST: List =
    List { lock: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER), entries: UnsafeCell::new(Vec::new()) };

// SAFETY: `entries` is used by whoever holds `lock` only; and that is made for several threads.
unsafe impl Sync for List {}

impl List {
    fn lock() -> Locked {
        // SAFETY: initialized, never moved, and no thread locks it twice: see `List`. It cannot fail then.
        unsafe { libc::pthread_mutex_lock(LIST.lock.get()) };
        Locked
    }
}

/// The lock on [`LIST`], held by this thread.
struct Locked;

impl Locked {
    fn keep(&self, fd: OwnedFd, inherited_by: Option<usize>) -> Kept {
        self.entries().push(Entry { fd: fd.as_raw_fd(), inherited_by });
        Kept { fd: ManuallyDrop::new(fd), generation: generation() }
    }

    #[expect(clippy::mut_from_ref, reason = "each caller is done with it before the next")]
    fn entries(&self) -> &mut Vec<Entry> {
        // SAFETY: the lock is held, and within this file no two of these overlap.
        unsafe { &mut *LIST.entries.get() }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: this thread holds it.
        unsafe { libc::pthread_mutex_unlock(LIST.lock.get()) };
    }
}

fn this_thread() -> usize {
    // SAFETY: always allowed. The same in a forked child, for the thread that forked.
    unsafe { libc::pthread_self() as usize }
}

extern "C" fn before() {
    std::mem::forget(List::lock()); // the next two unlock it
}

extern "C" fn after_in_parent() {
    drop(Locked);
}

/// Only calls what a signal handler may, too, and allocates and frees nothing: other threads may have held any
/// lock.
extern "C" fn after_in_child() {
    GENERATION.fetch_add(1, Private::Relaxed);
    let locked = Locked; // by `before`, on this thread
    let me = this_thread();
    for entry in locked.entries().drain(..) {
        if entry.inherited_by != Some(me) {
            // SAFETY: open, as whoever closes it takes it off the list at once; and the copies of its owner that
            // this process has leave it alone.
            unsafe { libc::close(entry.fd) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;
    use crate::sys::process::{Fork, ProcessHandle, fork};

    /// Runs `child` in a fork of this thread, and gives its exit code.
    fn in_child(child: impl FnOnce() -> u8) -> Option<Exit> {
        // SAFETY: the child takes no locks, and leaves.
        match unsafe { fork() }.unwrap() {
            Fork::Child => {
                let code = child();
                // SAFETY: `_exit` may be called anywhere.
                unsafe { libc::_exit(code.into()) }
            }
            Fork::Parent(pid) => {
                let child = ProcessHandle::open(pid).unwrap();
                assert!(child.wait_dead(None));
                child.wait_status()
            }
        }
    }

    fn is_open(fd: RawFd) -> bool {
        // SAFETY: it only asks.
        unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
    }

    fn pipe() -> Result<(OwnedFd, OwnedFd)> {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| Error::io("a pipe", errno))
    }

    #[test]
    fn a_fork_counts_in_the_child_only() {
        install().unwrap();
        install().unwrap();
        let before = generation();
        let code = in_child(|| if generation() == before + 1 { 7 } else { 8 });
        assert_eq!(code, Some(Exit::Code(7)));
        assert_eq!(generation(), before);
    }

    #[test]
    fn what_is_kept_is_closed_in_children_and_once_only() {
        let (one, other) = Kept::pair(pipe).unwrap();
        let numbers = [one.as_fd().as_raw_fd(), other.as_fd().as_raw_fd()];
        let seen = || numbers.map(is_open).iter().fold(0, |seen, &open| 2 * seen + u8::from(open));
        assert_eq!(in_child(seen), Some(Exit::Code(1)), "the second is there: this thread forked");
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| in_child(seen)).join().unwrap());
        assert_eq!(elsewhere, Some(Exit::Code(0)));
        assert_eq!(seen(), 3, "the parent has both");
        // In a child the numbers may have gone to others, whom its copies must not close.
        let code = in_child(|| {
            // SAFETY: the first number is free here, the second is one of this process's.
            let taken = unsafe { libc::dup2(0, numbers[0]) } == numbers[0];
            // SAFETY: copies of the parent's, which nobody uses again: the child leaves.
            unsafe {
                drop(std::ptr::read(&one));
                drop(std::ptr::read(&other));
            }
            let lists = in_child(|| if taken && seen() == 3 { 5 } else { 6 });
            if seen() == 3 && lists == Some(Exit::Code(5)) { 7 } else { 8 }
        });
        assert_eq!(code, Some(Exit::Code(7)));
        drop((one, other));
        let taken = pipe().unwrap();
        let number = taken.0.as_raw_fd();
        assert_eq!(in_child(|| u8::from(is_open(number))), Some(Exit::Code(1)), "it is on the list no more");
    }
}
