//! The two shared memories of a pool and typed access to their words.
//!
//! *Control* memory is read and written by all: slots, rings, masks, block words; only its first part,
//! the header and the table of functions, can be written by nobody but the creator. *Data* memory
//! holds payloads: each process may write its own region and maps everybody else's read-only.

mod control;
mod layout;
mod view;

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{AtomicU64, Ordering, prefetch_payload};
use crate::sys::fork_guard::Held;
use crate::sys::{CopyOnWrite, Lent, Mapping, Unused, create_memfd};
pub(crate) use control::ControlMemory;
pub(crate) use layout::{
    ClientControl, FunctionEntry, Header, LANE_CODE, LANE_NAMED, LANES, Layout, MAGIC, MAX_FUNCTIONS,
    MAX_PROCESSES, ProcessEntry, Sizes, VERSION,
};
use rkyv::util::AlignedVec;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};
pub(crate) use view::{ProcessWords, SlotWords, View};

/// Name of a pool's control memory in `/proc/<pid>/maps`.
pub(crate) fn control_name(pool: u64) -> String {
    format!("ringpool-control-{pool:x}")
}

/// The pool whose control memory has this name.
pub(crate) fn control_id(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("ringpool-control-")?, 16).ok()
}

/// Name of a pool's payload memory.
pub(crate) fn data_name(pool: u64) -> String {
    format!("ringpool-data-{pool:x}")
}

/// What the pool asks of its workers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum PoolState {
    /// Take work, wait for work.
    Running = 0,
    /// Take what is left, then leave.
    Draining = 1,
    /// Leave before the next task.
    Stopping = 2,
}

/// Whose a process entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Role {
    Client = 1,
    /// Launched by the pool: runs the same program.
    Worker = 2,
    /// Joined by name: another program, or another run of this one.
    Guest = 3,
}

/// The life word of a process entry: `[state 4][28 unused][incarnation 32]`.
///
/// It settles one question only: whether a launched process or the supervisor, who gives it up, is
/// first to leave `Joining`. Which incarnation lives where, and that it has to be reaped, the supervisor
/// knows by itself; should the word be corrupt, it writes over it.
///
/// | state | meaning | who leaves it |
/// | --- | --- | --- |
/// | `Free` | nobody; `incarnation` is the next one's | the supervisor, who launches into it |
/// | `Joining` | being launched | the process, as its first act; the supervisor, if the launch failed; a reaper |
/// | `Live` | initializing or working | the process, or a reaper |
/// | `Leaving` | will exit without touching a task again | a reaper |
/// | `Dead` | the kernel confirmed its end; being reaped | the last step of the reap |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Life {
    pub state: LifeState,
    pub incarnation: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LifeState {
    Free,
    Joining,
    Live,
    Leaving,
    Dead,
}

impl Life {
    pub(crate) fn pack(self) -> u64 {
        (self.state as u64) << 60 | u64::from(self.incarnation)
    }

    /// `None` if no process of the pool writes such a word. No decision hangs on it: for auditors.
    pub(crate) fn unpack(word: u64) -> Option<Self> {
        let state = match word >> 60 {
            0 => LifeState::Free,
            1 => LifeState::Joining,
            2 => LifeState::Live,
            3 => LifeState::Leaving,
            4 => LifeState::Dead,
            _ => return None,
        };
        Some(Life { state, incarnation: word as u32 })
    }
}

impl ProcessEntry {
    #[cfg(test)]
    pub(crate) fn life(&self) -> Option<Life> {
        Life::unpack(self.life.load(Ordering::Acquire))
    }

    /// Changes the state of this incarnation; `false` if the entry is somewhere else by now.
    pub(crate) fn change_life(&self, incarnation: u32, from: &[LifeState], to: Life) -> bool {
        from.iter().any(|&state| {
            let expected = Life { state, incarnation }.pack();
            self.life.compare_exchange(expected, to.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }
}

/// A pool's memory as one process sees it.
pub(crate) struct Segment {
    control: ControlMemory,
    /// Everybody's regions, read-only.
    data: Mapping,
    /// This process's region, writable.
    region: Mapping,
    /// Which region is ours.
    pub(crate) index: u32,
    control_fd: Held,
    data_fd: Held,
    /// Parts of the data that were mapped once more, and may be again.
    unused: Arc<Unused>,
    /// What children map memory from that is lent to them.
    lending: OnceLock<Arc<OwnedFd>>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        // A forked child has none of them, and perhaps something else where they were.
        if self.is_here() {
            self.unused.close();
        }
    }
}

impl Deref for Segment {
    type Target = ControlMemory;

    fn deref(&self) -> &ControlMemory {
        &self.control
    }
}

fn refuse(message: String) -> Error {
    ErrorKind::Attach { name: String::new(), message }.into()
}

fn file_len(fd: BorrowedFd<'_>, what: &'static str) -> Result<u64> {
    Ok(rustix::fs::fstat(fd).map_err(|e| Error::io(what, e))?.st_size as u64)
}

impl Segment {
    /// Makes the memory of a new pool; this process becomes entry 0, its client.
    pub(crate) fn create(sizes: Sizes) -> Result<Self> {
        sizes.check()?;
        let layout = Layout::new(sizes);
        let mut id = [0; 8];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())
            .map_err(|e| Error::io("drawing a random number", e))?;
        let id = u64::from_ne_bytes(id) | 1; // 0 is no pool
        let control_fd = create_memfd(&control_name(id), layout.control_len as u64)?;
        let data_fd = create_memfd(&data_name(id), layout.data_len)?;
        let map = Mapping::read_write(control_fd.as_fd(), 0, layout.control_len)?;
        let segment = Self::map(ControlMemory { layout, map }, control_fd, data_fd, 0)?;
        let header = segment.header();
        header.pool_id.store(id, Ordering::Relaxed);
        header.version.store(VERSION, Ordering::Relaxed);
        header.layout.store(layout.fingerprint(), Ordering::Relaxed);
        header.processes.store(sizes.processes.into(), Ordering::Relaxed);
        header.slots.store(sizes.slots.into(), Ordering::Relaxed);
        header.completions.store(sizes.completions.into(), Ordering::Relaxed);
        header.region.store(sizes.region, Ordering::Relaxed);
        let me = segment.process(0);
        me.pid.store(std::process::id(), Ordering::Relaxed);
        me.role.store(Role::Client as u32, Ordering::Relaxed);
        me.life.store(Life { state: LifeState::Live, incarnation: 0 }.pack(), Ordering::Release);
        Ok(segment)
    }

    /// Says that everything in the header is written. Others refuse to attach before.
    pub(crate) fn publish(&self) {
        self.header().magic.store(MAGIC, Ordering::Release); // pairs with `attach`
    }

    /// Maps the memory of an existing pool as process `index`.
    pub(crate) fn attach(control_fd: OwnedFd, data_fd: OwnedFd, index: u32) -> Result<Self> {
        let control = ControlMemory::open(control_fd.as_fd(), Mapping::read_write)?;
        control.header().check_payload_format().map_err(refuse)?;
        let layout = control.layout;
        let data_len = file_len(data_fd.as_fd(), "stat of the payload memory")?;
        if data_len != layout.data_len {
            return Err(refuse(format!(
                "its payload memory is {data_len} bytes long, not {}",
                layout.data_len
            )));
        }
        if index >= layout.sizes.processes {
            return Err(refuse(format!("it has {} places, not {index}", layout.sizes.processes)));
        }
        Self::map(control, control_fd, data_fd, index)
    }

    fn map(control: ControlMemory, control_fd: OwnedFd, data_fd: OwnedFd, index: u32) -> Result<Self> {
        let layout = &control.layout;
        if index != 0 {
            control.map.protect_front(layout.creators_own())?;
        }
        let data = Mapping::read_only(data_fd.as_fd(), 0, layout.data_len as usize)?;
        let start = layout.sizes.region * u64::from(index);
        let region = Mapping::read_write(data_fd.as_fd(), start, layout.sizes.region as usize)?;
        let [control_fd, data_fd] = [control_fd, data_fd].map(Held::Shared);
        Ok(Segment {
            control,
            data,
            region,
            index,
            control_fd,
            data_fd,
            unused: Arc::default(),
            lending: OnceLock::new(),
        })
    }

    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.control_fd.as_fd(), self.data_fd.as_fd()]
    }

    /// Keeps the descriptors from forked children, which would else keep the memory when the pool is gone.
    pub(crate) fn keep_from_forks(&mut self) -> Result<()> {
        self.control_fd.keep()?;
        self.data_fd.keep()
    }

    /// Whether process `pid` has the control memory mapped; `None` if that cannot be seen.
    pub(crate) fn is_mapped_by(&self, pid: u32) -> Option<bool> {
        crate::sys::still_maps(pid, &control_name(self.pool_id()))
    }

    /// Whether this process has the memory mapped: a forked child of it has not.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.control.map.is_here()
    }

    /// The memory of this process's own region.
    pub(crate) fn region(&self) -> &Mapping {
        &self.region
    }

    /// Makes all block words of a process's region zero, and gives their memory back.
    pub(crate) fn clear_words(&self, owner: u32) -> Result<()> {
        assert!(owner < self.processes());
        let start = self.layout.words + owner as usize * self.layout.word_stride;
        let cleared = self.control.map.remove(start, self.layout.word_stride);
        cleared.map_err(|error| Error::io("clearing block words", error))
    }

    /// Gives the payload memory of an empty place back; whether that was possible. Nobody uses any of it.
    pub(crate) fn give_back(&self, owner: u32) -> bool {
        use rustix::fs::FallocateFlags;
        let region = self.layout.sizes.region;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.data_fd, flags, u64::from(owner) * region, region).is_ok()
    }

    /// How many of these bytes of a region, from the first on, are backed by memory, as all that was ever
    /// written is.
    pub(crate) fn written(&self, owner: u32, offset: u64, len: u64) -> u64 {
        let start = u64::from(owner) * self.layout.sizes.region + offset;
        let hole = rustix::fs::seek(&self.data_fd, rustix::fs::SeekFrom::Hole(start));
        hole.map_or(0, |hole| hole.saturating_sub(start).min(len))
    }

    /// Payload bytes in the region of `owner`; `None` if they do not lie inside it.
    ///
    /// # Safety
    ///
    /// Nobody may write these bytes while the slice lives. That is what a held block (results) or a
    /// running slot (arguments) grants, as long as all processes of the pool keep to the protocol.
    pub(crate) unsafe fn payload(&self, owner: u32, offset: u64, len: u64) -> Option<&[u8]> {
        let start = self.payload_start(owner, offset, len)?;
        // SAFETY: inside the mapping by the checks there; unwritten by contract.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), len as usize) })
    }

    /// Begins to fetch payload bytes that will be looked at.
    #[inline]
    pub(crate) fn prefetch_payload(&self, owner: u32, offset: u64, len: u64) {
        if let Some(start) = self.payload_start(owner, offset, len) {
            prefetch_payload(start.as_ptr(), len as usize);
        }
    }

    /// A private copy of payload bytes, which others may write meanwhile: then it is of no use, and no harm.
    pub(crate) fn copy_payload(&self, owner: u32, offset: u64, len: u64) -> Option<AlignedVec<16>> {
        let start = self.payload_start(owner, offset, len)?.as_ptr();
        let len = len as usize;
        let mut copy = AlignedVec::with_capacity(len);
        let to: *mut u8 = copy.as_mut_ptr();
        let words = len / 8 * 8;
        // SAFETY: inside the mapping and the vector's memory. Whole words, each read once; their bits are
        // values whatever they are, and blocks are aligned to more than a word, as is the vector.
        unsafe {
            for at in (0..words).step_by(8) {
                to.add(at).cast::<u64>().write(start.add(at).cast::<u64>().read_volatile());
            }
            for at in words..len {
                to.add(at).write(start.add(at).read_volatile());
            }
            copy.set_len(len);
        }
        Some(copy)
    }

    /// These payload bytes once more, to be written privately. An error if they are not of the read-only mapping of
    /// all regions.
    pub(crate) fn copy_on_write(&self, bytes: &[u8]) -> Result<CopyOnWrite> {
        let offset = bytes.as_ptr().addr().checked_sub(self.data.ptr().addr().get());
        let inside =
            |&offset: &usize| self.data.len().checked_sub(offset).is_some_and(|most| bytes.len() <= most);
        let offset =
            offset.filter(inside).ok_or_else(|| Error::invalid("the bytes are not in shared memory"))?;
        CopyOnWrite::new(&self.unused, self.data_fd.as_fd(), offset as u64, bytes.len())
    }

    /// Lets forked children find these bytes of this process's region where they are.
    ///
    /// # Safety
    ///
    /// The region stays mapped as long as what is returned lives.
    pub(crate) unsafe fn lend(&self, offset: u64, start: NonNull<u8>, len: usize) -> Result<Lent> {
        let fd = match self.lending.get() {
            Some(fd) => fd.clone(),
            None => {
                let fd = self.data_fd.as_fd().try_clone_to_owned();
                let fd = fd.map_err(|error| Error::io("duplicating a descriptor", error))?;
                self.lending.get_or_init(|| Arc::new(fd)).clone()
            }
        };
        let offset = u64::from(self.index) * self.layout.sizes.region + offset;
        // SAFETY: by contract; regions are not inherited.
        unsafe { Lent::new(fd, offset, start, len) }
    }

    /// Bytes that were written to in mappings of [`copy_on_write`](Self::copy_on_write) until these were dropped.
    pub(crate) fn copied(&self) -> u64 {
        self.unused.copied()
    }

    /// Where payload bytes are in the read-only mapping of all regions; `None` if they are not there.
    fn payload_start(&self, owner: u32, offset: u64, len: u64) -> Option<NonNull<u8>> {
        let region = self.layout.sizes.region;
        let end = offset.checked_add(len)?;
        if owner >= self.processes() || end > region {
            return None;
        }
        let start = u64::from(owner) * region + offset;
        // SAFETY: inside the mapping, whose length is that of all regions.
        Some(unsafe { self.data.ptr().byte_add(start as usize) })
    }
}

impl Header {
    /// The sizes of the pool, if its words lie where this library expects them.
    fn sizes(&self) -> Result<Sizes, String> {
        let get = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let magic = self.magic.load(Ordering::Acquire); // pairs with `publish`
        if magic != MAGIC {
            return Err(format!("its first word is {magic:#x}, not a pool's"));
        }
        if get(&self.version) != VERSION {
            return Err(format!("its layout is version {}, this library's is {VERSION}", get(&self.version)));
        }
        let small =
            |word: &AtomicU64| u32::try_from(get(word)).map_err(|_| format!("a size of {}", get(word)));
        let sizes = Sizes {
            processes: small(&self.processes)?,
            slots: small(&self.slots)?,
            completions: small(&self.completions)?,
            region: get(&self.region),
        };
        sizes.check().map_err(|error| error.to_string())?;
        let ours = Layout::new(sizes).fingerprint();
        if get(&self.layout) != ours {
            return Err(format!("its layout is {:#x}, this library's is {ours:#x}", get(&self.layout)));
        }
        Ok(sizes)
    }

    /// Whether this program can read the pool's payloads.
    fn check_payload_format(&self) -> Result<(), String> {
        let theirs = self.payload_format.load(Ordering::Relaxed);
        let ours = crate::payload::format_fingerprint();
        if theirs != ours {
            return Err(format!(
                "its payloads are archived as {theirs:#x}, this program's as {ours:#x} (rkyv version or features differ)"
            ));
        }
        Ok(())
    }
}
