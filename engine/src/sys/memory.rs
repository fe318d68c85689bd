//! Shared memory: sealed files without a name, and views of them.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;

use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::sync::private::{Private, PrivateU8};
use crate::sys::cpus::{Group, group_limits, read};
use crate::sys::fork_guard;

/// Makes `len` bytes of zeroes that take no memory until they are written.
///
/// The size is sealed, or whoever has the descriptor could cut the file under our mappings: the next
/// access would be SIGBUS.
pub(crate) fn create_memfd(name: &str, len: u64) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let created = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        other => other,
    };
    let fd = created.map_err(|errno| Error::io("cannot create shared memory", errno))?;
    rustix::fs::ftruncate(&fd, len).map_err(|errno| Error::io("cannot size shared memory", errno))?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        .map_err(|errno| Error::io("cannot seal shared memory", errno))?;
    Ok(fd)
}

/// A view of a part of a file. Forked children do not have it, core dumps leave it out.
pub(crate) struct Mapping {
    map: ManuallyDrop<MmapRaw>,
    /// Where [`fork_guard::generation`] stood.
    generation: u64,
    writable: bool,
    fallback: Option<Fallback>,
}

/// How to get memory on a kernel that cannot populate a mapping (before Linux 5.14).
struct Fallback {
    fd: OwnedFd,
    offset: u64,
}

// Not implied by anything: said so that a field that changes it is noticed. A mapping only hands out
// its address and length. It makes no references to the memory, so it cannot be raced on itself.
const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<Mapping>();
};

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.is_here() {
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.map) };
        }
    }
}

impl Mapping {
    /// Whether this process has the mapping: a forked child does not, and may have mapped something else
    /// at these addresses.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.generation == fork_guard::generation()
    }

    /// Maps `len` bytes from `offset`, a multiple of the page size, for reading and writing.
    pub(crate) fn read_write(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Self> {
        Self::new(fd, offset, len, true)
    }

    /// The same for reading only: a store is SIGSEGV.
    pub(crate) fn read_only(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Self> {
        Self::new(fd, offset, len, false)
    }

    fn new(fd: BorrowedFd<'_>, offset: u64, len: usize, writable: bool) -> Result<Self> {
        const WHAT: &str = "cannot map shared memory";
        let size = rustix::fs::fstat(fd).map_err(|errno| Error::io(WHAT, errno))?.st_size;
        let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
        let inside = end.is_some_and(|end| u64::try_from(size).is_ok_and(|size| end <= size));
        if len == 0 || !offset.is_multiple_of(page_size() as u64) || !inside {
            let part = format!("{len} bytes at {offset} of {size}");
            return Err(Error::invalid(format!("cannot map {part}: not whole pages inside of the file")));
        }
        let mut options = MmapOptions::new();
        // Without it, strict overcommit would count a sparse file's whole size.
        options.offset(offset).len(len).no_reserve_swap();
        let raw = fd.as_raw_fd();
        let map = if writable { options.map_raw(raw) } else { options.map_raw_read_only(raw) };
        let map = map.map_err(|error| Error::io(WHAT, error))?;
        // A forked child of a worker would outlive it, and could write after the worker was reaped.
        map.advise(Advice::DontFork).map_err(|error| Error::io(WHAT, error))?;
        // A dump that is too large is a nuisance, not an error.
        let _ = map.advise(Advice::DontDump);
        let fallback = if can_populate(&map) {
            None
        } else {
            let fd = fd.try_clone_to_owned().map_err(|error| Error::io(WHAT, error))?;
            Some(Fallback { fd, offset })
        };
        Ok(Self { map: ManuallyDrop::new(map), generation: fork_guard::generation(), writable, fallback })
    }

    pub(crate) fn ptr(&self) -> NonNull<u8> {
        NonNull::new(self.map.as_mut_ptr()).expect("the kernel maps nothing at address 0 unasked")
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Gets memory for the pages of this range now, ready to be written. If there is none, that is an
    /// error here; at the first write it would be SIGBUS.
    pub(crate) fn populate_write(&self, offset: usize, len: usize) -> Result<(), Errno> {
        if !self.writable {
            return Err(Errno::ACCESS);
        }
        self.populate(Advice::PopulateWrite, offset, len)
    }

    /// Makes the first `len` bytes read-only, as far as whole pages go: a store there is SIGSEGV.
    pub(crate) fn protect_front(&self, len: usize) -> Result<()> {
        let len = len.min(self.len()) / page_size() * page_size();
        if len > 0 {
            // SAFETY: inside the mapping; nobody has a reference through which it would write there: of
            // shared memory there are only references to atomics, and whoever stores to these wants the
            // fault.
            unsafe {
                let flags = rustix::mm::MprotectFlags::READ;
                rustix::mm::mprotect(self.map.as_mut_ptr().cast(), len, flags)
            }
            .map_err(|error| Error::io("protecting shared memory", error))?;
        }
        Ok(())
    }

    /// Gives the memory of these whole pages back. They read as zero from now on, in every process that
    /// has them mapped.
    ///
    /// It goes by the mapping and not by the descriptor, whose number may be another file's by now if
    /// the program closes descriptors that it does not know.
    pub(crate) fn remove(&self, offset: usize, len: usize) -> Result<(), Errno> {
        if !self.writable {
            return Err(Errno::ACCESS);
        }
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(Errno::INVAL);
        }
        // SAFETY: inside the mapping; there are no references into it that rely on what the pages hold.
        unsafe {
            let start = self.map.as_mut_ptr().byte_add(offset);
            rustix::mm::madvise(start.cast(), len, rustix::mm::Advice::LinuxRemove)
        }
    }

    fn populate(&self, advice: Advice, offset: usize, len: usize) -> Result<(), Errno> {
        // The library checks offset and length one by one, not their sum.
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return Err(Errno::INVAL);
        }
        if len == 0 {
            return Ok(());
        }
        if let Some(Fallback { fd, offset: start }) = &self.fallback {
            return match allocate(fd, start + offset as u64, len as u64) {
                // Only to be read: then having memory in time is for those who write.
                Err(Errno::BADF) if !self.writable => Ok(()),
                other => other,
            };
        }
        loop {
            let Err(error) = self.map.advise_range(advice, offset, len) else { return Ok(()) };
            match Errno::from_io_error(&error) {
                Some(Errno::INTR | Errno::AGAIN) => {}
                // How the kernel says that the access would have been SIGBUS for want of memory.
                Some(Errno::FAULT) => return Err(Errno::NOMEM),
                other => return Err(other.unwrap_or(Errno::IO)),
            }
        }
    }
}

/// Asked of the kernel once, with an empty range, which it refuses only if it does not know the advice.
fn can_populate(map: &MmapRaw) -> bool {
    const UNKNOWN: u8 = 2;
    static ANSWER: PrivateU8 = PrivateU8::new(UNKNOWN);
    match ANSWER.load(Private::Relaxed) {
        UNKNOWN => {
            let advice = rustix::mm::Advice::LinuxPopulateWrite;
            // SAFETY: no byte is in the range.
            let can = unsafe { rustix::mm::madvise(map.as_mut_ptr().cast(), 0, advice) } != Err(Errno::INVAL);
            ANSWER.store(can.into(), Private::Relaxed);
            can
        }
        answer => answer != 0,
    }
}

fn allocate(fd: &OwnedFd, offset: u64, len: u64) -> Result<(), Errno> {
    loop {
        match rustix::fs::fallocate(fd, FallocateFlags::KEEP_SIZE, offset, len) {
            Err(Errno::INTR) => continue,
            other => return other,
        }
    }
}

pub(crate) fn page_size() -> usize {
    // SAFETY: it only reads a constant of the system.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("every system has a page size")
}

/// The bytes of memory that this process can hope for: the machine's, or what its control groups allowed when
/// it first asked.
pub(crate) fn physical_memory() -> u64 {
    /// Read once: it takes half as long as a fork.
    static MEMORY: OnceLock<u64> = OnceLock::new();
    *MEMORY.get_or_init(find_memory)
}

fn find_memory() -> u64 {
    let system = rustix::system::sysinfo();
    let machine = (system.totalram as u64).saturating_mul(u64::from(system.mem_unit.max(1)));
    // "max" is not a number, and v1 says the same with one far above every machine.
    let limit = group_limits("memory", |group| {
        let text = match group {
            Group::V2(dir) => read(&dir.join("memory.max"))?,
            Group::V1(dir) => read(&dir.join("memory.limit_in_bytes"))?,
        };
        text.trim().parse().ok()
    });
    machine.min(limit.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn blocks(fd: &OwnedFd) -> u64 {
        rustix::fs::fstat(fd).unwrap().st_blocks as u64 * 512
    }

    fn store(mapping: &Mapping, offset: usize, value: u8) {
        assert!(offset < mapping.len());
        // SAFETY: inside of a writable mapping that no other thread uses.
        unsafe { mapping.ptr().add(offset).write_volatile(value) }
    }

    fn load(mapping: &Mapping, offset: usize) -> u8 {
        assert!(offset < mapping.len());
        // SAFETY: inside of a mapping that no other thread writes meanwhile.
        unsafe { mapping.ptr().add(offset).read_volatile() }
    }

    #[test]
    fn a_huge_file_is_sparse_and_sealed() {
        let fd = create_memfd("ringpool-sparse", 1 << 40).unwrap();
        assert_eq!(blocks(&fd), 0);
        assert_eq!(rustix::fs::ftruncate(&fd, 1 << 20), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&fd, 1 << 41), Err(Errno::PERM));
        assert_eq!(rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE), Err(Errno::PERM));
        let mapping = Mapping::read_write(fd.as_fd(), 0, 1 << 40).unwrap();
        store(&mapping, (1 << 40) - 1, 9);
        assert_eq!(load(&mapping, (1 << 40) - 1), 9);
        assert!(blocks(&fd) < 1 << 22);
    }

    #[test]
    fn views_of_one_file_show_the_same_bytes() {
        let fd = create_memfd("ringpool-views", 1 << 20).unwrap();
        let writer = Mapping::read_write(fd.as_fd(), 1 << 16, 1 << 16).unwrap();
        let reader = Mapping::read_only(fd.as_fd(), 0, 1 << 20).unwrap();
        store(&writer, 5, 77);
        assert_eq!(load(&reader, (1 << 16) + 5), 77);
        assert_eq!((writer.len(), reader.len()), (1 << 16, 1 << 20));
        assert_eq!(reader.populate_write(0, page_size()), Err(Errno::ACCESS));
    }

    #[test]
    fn parts_that_do_not_exist_are_refused() {
        let fd = create_memfd("ringpool-parts", 1 << 20).unwrap();
        for (offset, len) in [
            (0, 0),
            (0, (1 << 20) + 1),
            (1 << 20, page_size()),
            (100, page_size()),
            (u64::MAX - page_size() as u64 + 1, 2 * page_size()),
        ] {
            assert!(Mapping::read_write(fd.as_fd(), offset, len).is_err(), "{offset} {len}");
        }
        let mapping = Mapping::read_write(fd.as_fd(), 0, 16 * page_size()).unwrap();
        for (offset, len) in
            [(16 * page_size(), 1), (8 * page_size(), 9 * page_size()), (usize::MAX, 2), (0, usize::MAX)]
        {
            assert_eq!(mapping.populate_write(offset, len), Err(Errno::INVAL), "{offset} {len}");
        }
        mapping.populate_write(16 * page_size(), 0).unwrap();
    }

    #[test]
    fn memory_comes_by_populating_and_goes_by_removing() {
        let fd = create_memfd("ringpool-populate", 1 << 24).unwrap();
        let mut mapping = Mapping::read_write(fd.as_fd(), 1 << 20, 1 << 20).unwrap();
        let pages = 16 * page_size() as u64;
        mapping.populate_write(page_size(), 16 * page_size()).unwrap();
        assert!(blocks(&fd) >= pages);
        store(&mapping, page_size(), 1);
        mapping.remove(0, 1 << 20).unwrap();
        assert_eq!(blocks(&fd), 0);
        assert_eq!(load(&mapping, page_size()), 0);

        // The way of older kernels: same result, at the same place in the file.
        mapping.fallback = Some(Fallback { fd: fd.try_clone().unwrap(), offset: 1 << 20 });
        mapping.populate_write(page_size(), 16 * page_size()).unwrap();
        assert!(blocks(&fd) >= pages);
        mapping.remove(page_size(), 16 * page_size()).unwrap();
        assert_eq!(blocks(&fd), 0);
    }

    #[test]
    fn a_forked_child_has_no_mapping() {
        use crate::error::Exit;
        use crate::sys::process::{Fork, ProcessHandle, fork};
        let fd = create_memfd("ringpool-fork", page_size() as u64).unwrap();
        let mapping = Mapping::read_write(fd.as_fd(), 0, page_size()).unwrap();
        store(&mapping, 0, 1);
        // SAFETY: the child makes two system calls and leaves.
        match unsafe { fork() }.unwrap() {
            Fork::Child => {
                let mut resident = 0_u8;
                // SAFETY: the kernel writes one byte for the one page; it fails if that is not mapped.
                let code =
                    unsafe { libc::mincore(mapping.ptr().as_ptr().cast(), page_size(), &raw mut resident) };
                // SAFETY: `_exit` may be called anywhere.
                unsafe { libc::_exit(if code == 0 { 1 } else { 7 }) }
            }
            Fork::Parent(pid) => {
                let child = ProcessHandle::open(pid).unwrap();
                assert!(child.wait_dead(None));
                assert_eq!(child.wait_status(), Some(Exit::Code(7)));
                assert_eq!(load(&mapping, 0), 1);
            }
        }
    }

    #[test]
    fn there_is_memory() {
        let bytes = physical_memory();
        assert!((1 << 20..1 << 50).contains(&bytes), "{bytes}");
    }
}
