//! Parts of a file, copied page by page as they are written to.

use super::memory::page_size;
use super::unused::Unused;
use crate::error::{Error, Result};
use crate::sync::private::{Private, PrivateU8};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use slab::Slab;
use std::cell::UnsafeCell;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::{NonNull, null_mut};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A private, writable view of a part of a file. A page shows what the file holds until it is written to for the first
/// time, or [owned](Self::own); then it is a copy.
///
/// A forked child has it, too, but cannot keep the file from being changed. So whoever forks by the C library's
/// `fork` owns all pages first.
pub(crate) struct CopyOnWrite {
    /// Whole pages of the process.
    pages: Pages,
    /// Where the part begins in them, and its length.
    start: usize,
    len: usize,
    /// Its number in [`LIVE`].
    number: usize,
    /// Where its pages begin in the file.
    offset: u64,
    /// Where they go when nobody needs them any more.
    unused: Arc<Unused>,
}

#[derive(Clone, Copy)]
pub(super) struct Pages {
    pub start: NonNull<u8>,
    pub len: usize,
}

// SAFETY: an address and a length, without a reference to what is there.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

// Said so that a field that changes it is noticed. It only hands out its address and length.
const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<CopyOnWrite>();
};

/// A view, as far as a fork has to know it.
struct Live {
    pages: Pages,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Some pages may show the file.
    Shared,
    /// None does.
    Owned,
    /// As `Shared`; a fork found no memory to own them, so its child did not get them.
    Hidden,
    /// This is such a child.
    Gone,
    /// Not a view, but the file's memory itself, of which children get a view: from this place of that file.
    Lent { fd: RawFd, offset: u64 },
}

/// Memory of a file that is mapped for all to see, but not to be inherited: a forked child finds it where it was all the
/// same, privately. It shows the file until the child writes to it, whatever the file holds by then; so a child reads
/// what its parent has kept, and does no harm.
pub(crate) struct Lent {
    number: usize,
    _fd: Arc<OwnedFd>,
}

impl Lent {
    /// `len` bytes that are mapped at `start`, and at `offset` in the file. The descriptor stays open in children.
    ///
    /// # Safety
    ///
    /// The memory stays mapped, with [`DontFork`](Advice::LinuxDontFork), until this is dropped.
    pub(crate) unsafe fn new(fd: Arc<OwnedFd>, offset: u64, start: NonNull<u8>, len: usize) -> Result<Self> {
        guard_forks()?;
        let before = start.addr().get() % page_size();
        let whole = (before + len).next_multiple_of(page_size());
        // SAFETY: on the same page, which is mapped.
        let start = unsafe { start.byte_sub(before) };
        let state = State::Lent { fd: fd.as_raw_fd(), offset: offset - before as u64 };
        let number = live().insert(Live { pages: Pages { start, len: whole }, state });
        Ok(Lent { number, _fd: fd })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        live().remove(self.number);
    }
}

/// All views of this process. Locked while it forks.
static LIVE: Mutex<Slab<Live>> = Mutex::new(Slab::new());

fn live() -> MutexGuard<'static, Slab<Live>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CopyOnWrite {
    /// `len` bytes from `offset` on, wherever that is.
    pub(crate) fn new(unused: &Arc<Unused>, fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Self> {
        const WHAT: &str = "cannot map shared memory once more";
        let start = (offset % page_size() as u64) as usize;
        let whole = len.checked_add(start).and_then(|len| len.checked_next_multiple_of(page_size()));
        let size = rustix::fs::fstat(fd).map_err(|errno| Error::io(WHAT, errno))?.st_size as u64;
        let inside = offset.checked_add(len as u64).is_some_and(|end| end <= size);
        let Some(whole) = whole.filter(|_| inside && len > 0) else {
            return Err(Error::invalid(format!("cannot map {len} bytes at {offset} of {size}")));
        };
        guard_forks()?;
        let offset = offset - start as u64;
        let pages = match unused.take(offset, whole) {
            Some(pages) => pages,
            None => {
                // SAFETY: a new mapping, where the kernel finds room.
                let mapped = unsafe {
                    let (access, how) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
                    mmap(null_mut(), whole, access, how, fd, offset)
                };
                let mapped = mapped.map_err(|errno| Error::io(WHAT, errno))?;
                let start =
                    NonNull::new(mapped.cast()).expect("the kernel maps nothing at address 0 unasked");
                Pages { start, len: whole }
            }
        };
        // Until then nobody has written to it, and a fork in between gives a child what nobody there knows of.
        let number = live().insert(Live { pages, state: State::Shared });
        Ok(CopyOnWrite { pages, start, len, number, offset, unused: unused.clone() })
    }

    pub(crate) fn ptr(&self) -> NonNull<u8> {
        // SAFETY: inside of the pages.
        unsafe { self.pages.start.byte_add(self.start) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes all pages copies. The file may hold anything else afterwards.
    pub(crate) fn own(&self) -> Result<()> {
        let own = || {
            if live()[self.number].state != State::Gone {
                self.pages.own()?; // without the lock: it takes its time, and a fork meanwhile does the same
            }
            live()[self.number].note_owned()
        };
        own().map_err(|errno| Error::io("copying shared memory", errno))
    }
}

impl Drop for CopyOnWrite {
    fn drop(&mut self) {
        // Before the addresses can be another's.
        match live().remove(self.number).state {
            State::Gone | State::Lent { .. } => {}
            // Nothing of the file is left in there.
            State::Owned => self.pages.unmap(),
            State::Shared | State::Hidden => self.unused.put(self.offset, self.pages),
        }
    }
}

impl Live {
    fn own(&mut self) -> Result<(), Errno> {
        if matches!(self.state, State::Shared | State::Hidden) {
            self.pages.own()?;
        }
        self.note_owned()
    }

    /// All pages are copies.
    fn note_owned(&mut self) -> Result<(), Errno> {
        match self.state {
            State::Gone => return Err(Errno::NOMEM),
            State::Hidden => self.pages.advise(Advice::LinuxDoFork)?,
            State::Lent { .. } => return Ok(()),
            State::Shared | State::Owned => {}
        }
        self.state = State::Owned;
        Ok(())
    }
}

impl Pages {
    /// Whoever had a pointer into it has been told.
    pub(super) fn unmap(self) {
        // SAFETY: a mapping of this module's, of which nobody knows any more.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "{unmapped:?}");
    }

    /// Makes pages that are copies show the file again. Nobody looks at them. Whether that was possible.
    pub(super) fn forget(self) -> bool {
        // SAFETY: inside of a mapping of this module's.
        unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxDontNeed) }.is_ok()
    }

    fn own(self) -> Result<(), Errno> {
        #[cfg(test)]
        if tests::NO_MEMORY.get() {
            return Err(Errno::NOMEM);
        }
        if !can_populate() {
            self.write_each();
            return Ok(());
        }
        loop {
            match self.advise(Advice::LinuxPopulateWrite) {
                Err(Errno::INTR | Errno::AGAIN) => {}
                // How the kernel says that the write would have been SIGBUS for want of memory.
                Err(Errno::FAULT) => return Err(Errno::NOMEM),
                other => return other,
            }
        }
    }

    /// The same on kernels that cannot do that in one go (before Linux 5.14).
    fn write_each(self) {
        for at in (0..self.len).step_by(page_size()) {
            // SAFETY: inside of the mapping, which is writable. Threads of the process may write there: an exchange
            // of a value for itself changes nothing for them. It is a write whether or not it takes place, or
            // somebody else's write is.
            unsafe {
                let byte = PrivateU8::from_ptr(self.start.as_ptr().add(at));
                let seen = byte.load(Private::Relaxed);
                let _ = byte.compare_exchange(seen, seen, Private::Relaxed, Private::Relaxed);
            }
        }
    }

    pub(super) fn advise(self, advice: Advice) -> Result<(), Errno> {
        // SAFETY: inside of the mapping. No advice that is given by this changes what the process sees.
        unsafe { madvise(self.start.as_ptr().cast(), self.len, advice) }
    }
}

/// Asked of the kernel once, with an empty range, which it refuses only if it does not know the advice.
fn can_populate() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    // SAFETY: no byte is in the range.
    *ANSWER.get_or_init(|| unsafe { madvise(null_mut(), 0, Advice::LinuxPopulateWrite) } != Err(Errno::INVAL))
}

/// Has every later fork own all pages.
fn guard_forks() -> Result<()> {
    static INSTALLED: OnceLock<i32> = OnceLock::new();
    let errno = *INSTALLED.get_or_init(|| {
        can_populate();
        // SAFETY: the handlers are functions of the program. The one that runs in a child allocates nothing.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(in_parent), Some(in_child)) }
    });
    match errno {
        0 => Ok(()),
        errno => Err(Error::io("cannot register a fork handler", std::io::Error::from_raw_os_error(errno))),
    }
}

/// The lock of [`LIVE`], on its way from the one handler to the other.
struct Held(UnsafeCell<Option<MutexGuard<'static, Slab<Live>>>>);

// SAFETY: only who has locked `LIVE` uses it: see the handlers.
unsafe impl Sync for Held {}

static HELD: Held = Held(UnsafeCell::new(None));

extern "C" fn before_fork() {
    let mut all = live();
    for (_, view) in all.iter_mut() {
        // Better no memory than one that changes.
        if view.own().is_err()
            && view.state == State::Shared
            && view.pages.advise(Advice::LinuxDontFork).is_ok()
        {
            view.state = State::Hidden;
        }
    }
    // SAFETY: with the lock held nobody else is here.
    unsafe { *HELD.0.get() = Some(all) };
}

extern "C" fn in_parent() {
    // SAFETY: the thread that forks has the lock.
    drop(unsafe { (*HELD.0.get()).take() });
}

extern "C" fn in_child() {
    // SAFETY: the thread that forks has the lock, and is the child's only one.
    let Some(mut all) = (unsafe { (*HELD.0.get()).take() }) else { return };
    for (_, view) in all.iter_mut() {
        match view.state {
            State::Hidden => view.state = State::Gone,
            // SAFETY: nothing is mapped there in the child. If that cannot be done, it stays so.
            State::Lent { fd, offset } => unsafe {
                let (access, how) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::FIXED);
                let fd = BorrowedFd::borrow_raw(fd);
                let _ = mmap(view.pages.start.as_ptr().cast(), view.pages.len, access, how, fd, offset);
            },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;
    use crate::sys::memory::{Mapping, create_memfd};
    use crate::sys::process::{Fork, ProcessHandle, fork};
    use std::os::fd::AsFd;

    fn file(pages: usize) -> (OwnedFd, Mapping) {
        let fd = create_memfd("ringpool-copy", (pages * page_size()) as u64).unwrap();
        let shared = Mapping::read_write(fd.as_fd(), 0, pages * page_size()).unwrap();
        fill(&shared, 1);
        (fd, shared)
    }

    fn fill(shared: &Mapping, value: u8) {
        // SAFETY: a writable mapping of that length that only this thread uses.
        unsafe { shared.ptr().as_ptr().write_bytes(value, shared.len()) }
    }

    #[expect(clippy::mut_from_ref, reason = "as short as the borrow of its memory")]
    fn bytes(view: &CopyOnWrite) -> &mut [u8] {
        // SAFETY: only this thread uses it, and no two of these at once.
        unsafe { std::slice::from_raw_parts_mut(view.ptr().as_ptr(), view.len()) }
    }

    #[test]
    fn what_is_written_is_private_and_what_is_owned_stays() {
        let (fd, shared) = file(4);
        let page = page_size();
        let view = CopyOnWrite::new(&Arc::default(), fd.as_fd(), 100, 3 * page).unwrap();
        assert_eq!(view.len(), 3 * page);
        bytes(&view)[5] = 9;
        // SAFETY: inside of the mapping, written by this thread only.
        assert_eq!(unsafe { shared.ptr().add(105).read() }, 1);
        fill(&shared, 2);
        assert_eq!(bytes(&view)[..7], [1, 1, 1, 1, 1, 9, 1]); // that page was copied before
        assert_eq!(bytes(&view)[2 * page], 2);
        view.own().unwrap();
        fill(&shared, 3);
        assert_eq!(bytes(&view)[2 * page..], vec![2; page]);
        // The way of older kernels.
        let view = CopyOnWrite::new(&Arc::default(), fd.as_fd(), 0, 4 * page).unwrap();
        view.pages.write_each();
        fill(&shared, 4);
        assert!(bytes(&view).iter().all(|&byte| byte == 3));
    }

    #[test]
    fn a_part_that_is_mapped_again_shows_the_file() {
        let (fd, shared) = file(20);
        let (page, unused) = (page_size(), Arc::new(Unused::default()));
        let again = |len| CopyOnWrite::new(&unused, fd.as_fd(), page as u64 + 8, len).unwrap();
        let view = again(12 * page);
        let first = view.ptr();
        for written in [0, 1, 2, 5, 11] {
            bytes(&view)[written * page + 3] = 9;
        }
        drop(view);
        fill(&shared, 2);
        let view = again(10 * page); // part of the same mapping
        assert_eq!(view.ptr(), first);
        assert_eq!(bytes(&view), vec![2; 10 * page]);
        let other = again(10 * page);
        assert_ne!(other.ptr(), first, "that one is in use");
        bytes(&other).fill(7);
        assert_eq!(bytes(&view), vec![2; 10 * page]);
        view.own().unwrap();
        drop((view, other));
        fill(&shared, 3);
        assert_eq!(bytes(&again(10 * page)), vec![3; 10 * page]);
        assert_eq!(unused.lock().mappings.len(), 1);
        let view = again(page);
        unused.close();
        drop(view);
        assert_eq!(unused.lock().mappings.len(), 0);
    }

    #[test]
    fn what_is_lent_is_found_by_a_child() {
        let (fd, shared) = file(6);
        let page = page_size();
        // SAFETY: inside of the mapping, which is not to be inherited and lives longer.
        let lent = unsafe {
            let start = shared.ptr().byte_add(page + 16);
            Lent::new(Arc::new(fd), page as u64 + 16, start, 2 * page).unwrap()
        };
        // SAFETY: the child looks at memory, and leaves.
        match unsafe { fork() }.unwrap() {
            Fork::Child => {
                // SAFETY: mapped in the child by the handler.
                let good = unsafe {
                    let there =
                        std::slice::from_raw_parts_mut(shared.ptr().as_ptr().add(page + 16), 2 * page);
                    let same = there.iter().all(|&byte| byte == 1);
                    there.fill(9);
                    same
                };
                // SAFETY: `_exit` may be called anywhere.
                unsafe { libc::_exit(if good { 7 } else { 8 }) }
            }
            Fork::Parent(pid) => {
                let child = ProcessHandle::open(pid).unwrap();
                assert!(child.wait_dead(None));
                assert_eq!(child.wait_status(), Some(Exit::Code(7)));
                // SAFETY: inside of the mapping.
                let here = unsafe { shared.ptr().add(2 * page).read() };
                assert_eq!(here, 1, "the child has written to its own");
            }
        }
        drop(lent);
    }

    #[test]
    fn parts_that_do_not_exist_are_refused() {
        let (fd, _shared) = file(2);
        let page = page_size() as u64;
        for (offset, len) in
            [(0, 0), (0, 2 * page + 1), (2 * page, 1), (u64::MAX, 2), (1, 2 * page), (1, u64::MAX)]
        {
            assert!(
                CopyOnWrite::new(&Arc::default(), fd.as_fd(), offset, len as usize).is_err(),
                "{offset} {len}"
            );
        }
        assert!(CopyOnWrite::new(&Arc::default(), fd.as_fd(), 2 * page - 1, 1).is_ok());
    }

    thread_local! {
        /// Whether this thread finds none to own pages.
        pub(super) static NO_MEMORY: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    #[test]
    fn what_cannot_be_owned_is_not_inherited() {
        let (fd, shared) = file(2);
        let view = CopyOnWrite::new(&Arc::default(), fd.as_fd(), 0, shared.len()).unwrap();
        let in_child = |expected| {
            // SAFETY: the child looks at its mappings, and leaves.
            match unsafe { fork() }.unwrap() {
                Fork::Child => {
                    NO_MEMORY.set(false);
                    let mut resident = 0_u8;
                    // SAFETY: the kernel writes one byte for the one page; it fails if that is not mapped.
                    let code = unsafe {
                        libc::mincore(view.pages.start.as_ptr().cast(), page_size(), &raw mut resident)
                    };
                    let there = code == 0;
                    let ownable = view.own().is_ok();
                    // SAFETY: `_exit` may be called anywhere.
                    unsafe { libc::_exit(if [there, ownable] == [expected; 2] { 7 } else { 8 }) }
                }
                Fork::Parent(pid) => {
                    let child = ProcessHandle::open(pid).unwrap();
                    assert!(child.wait_dead(None));
                    assert_eq!(child.wait_status(), Some(Exit::Code(7)), "{expected}");
                }
            }
        };
        NO_MEMORY.set(true);
        assert!(view.own().is_err());
        in_child(false);
        in_child(false);
        assert_eq!(bytes(&view)[0], 1); // here it stays
        NO_MEMORY.set(false);
        in_child(true);
    }

    #[test]
    fn a_forked_child_keeps_what_it_saw() {
        let (fd, shared) = file(8);
        let view = CopyOnWrite::new(&Arc::default(), fd.as_fd(), 0, shared.len()).unwrap();
        let (mut changed, go) = std::io::pipe().unwrap();
        // SAFETY: the child reads a pipe and its memory, and leaves.
        match unsafe { fork() }.unwrap() {
            Fork::Child => {
                drop(go);
                let waited = std::io::Read::read(&mut changed, &mut [0]);
                let same = waited.is_ok() && bytes(&view).iter().all(|&byte| byte == 1);
                bytes(&view).fill(7);
                let again = CopyOnWrite::new(&Arc::default(), fd.as_fd(), 0, 1).is_ok(); // the lock is free
                // SAFETY: `_exit` may be called anywhere.
                unsafe { libc::_exit(if same && again { 7 } else { 8 }) }
            }
            Fork::Parent(pid) => {
                fill(&shared, 2);
                drop(go);
                let child = ProcessHandle::open(pid).unwrap();
                assert!(child.wait_dead(None));
                assert_eq!(child.wait_status(), Some(Exit::Code(7)));
                assert!(bytes(&view).iter().all(|&byte| byte == 1), "owned by the fork");
            }
        }
    }
}
