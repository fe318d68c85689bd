//! Shared memory as objects with a buffer.

use crate::codec::{RawBuffer, Store};
use crate::error::to_py;
use crate::overflow::is_full;
use crate::wait;
use engine::ErrorKind;
use engine::raw::{Buffer, Caller, Claimed, Lending, Private, claim};
use memmap2::{Advice, MmapMut, UncheckedAdvice};
use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Fills a request for the buffer of an object.
///
/// # Safety
///
/// `view` is Python's, to be filled, and the memory stays where it is for as long as the object lives.
unsafe fn fill(
    object: &Bound<'_, PyAny>,
    view: *mut ffi::Py_buffer,
    flags: c_int,
    start: *mut u8,
    len: usize,
) -> PyResult<()> {
    // SAFETY: as above; it takes a reference to the object of its own.
    let filled = unsafe {
        ffi::PyBuffer_FillInfo(view, object.as_ptr(), start.cast(), len as ffi::Py_ssize_t, 0, flags)
    };
    if filled == 0 { Ok(()) } else { Err(PyErr::fetch(object.py())) }
}

/// Bytes that another process wrote: writable, and nobody else sees what is written.
#[pyclass(frozen, module = "ringpool._native")]
pub(crate) struct View {
    bytes: Held,
}

/// Views that are mapped now. A process can have some 65,000 mappings, which others need, too.
static MAPPED: AtomicUsize = AtomicUsize::new(0);
const MOST_MAPPED: usize = 8192;

/// Whether there may be more of them.
pub(crate) fn may_map() -> bool {
    MAPPED.load(Ordering::Relaxed) < MOST_MAPPED
}

impl Drop for View {
    fn drop(&mut self) {
        if let Held::Mapped(_) = self.bytes {
            MAPPED.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

enum Held {
    /// Mapped privately: a page is copied when it is written to.
    Mapped(Arc<Private>),
    Copied(Copied),
}

impl View {
    pub(crate) fn mapped(memory: Arc<Private>) -> Self {
        MAPPED.fetch_add(1, Ordering::Relaxed);
        View { bytes: Held::Mapped(memory) }
    }

    pub(crate) fn copied(copy: Copied) -> Self {
        View { bytes: Held::Copied(copy) }
    }

    fn place(&self) -> (*mut u8, usize) {
        match &self.bytes {
            Held::Mapped(memory) => (memory.as_ptr().as_ptr(), memory.len()),
            Held::Copied(copy) => (copy.start, copy.len),
        }
    }
}

/// A copy in memory that was used before: fresh pages cost more than the copy.
pub(crate) struct Copied {
    /// There until the drop.
    map: Option<MmapMut>,
    start: *mut u8,
    len: usize,
}

// SAFETY: memory of its own; who uses it from several threads at once is Python, as with every buffer.
unsafe impl Send for Copied {}
// SAFETY: as above.
unsafe impl Sync for Copied {}

/// Memory that is kept to be used again: so many pieces, so many bytes. The kernel may take the pages if it has none.
const SPARE: usize = 4;
const SPARE_BYTES: usize = 512 << 20;
static SPARES: Mutex<Vec<MmapMut>> = Mutex::new(Vec::new());

fn spares() -> MutexGuard<'static, Vec<MmapMut>> {
    SPARES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copied {
    pub(crate) fn new(bytes: &[u8]) -> std::io::Result<Self> {
        let spare = {
            let mut spares = spares();
            let fits = |map: &MmapMut| map.len() >= bytes.len() && map.len() / 2 <= bytes.len();
            let at = spares.iter().rposition(fits);
            at.map(|at| spares.remove(at))
        };
        let mut map = match spare {
            Some(map) => map,
            None => {
                let map = MmapMut::map_anon(bytes.len())?;
                let _ = map.advise(Advice::HugePage); // fewer faults, where it is known
                map
            }
        };
        map[..bytes.len()].copy_from_slice(bytes);
        let start = map.as_mut_ptr();
        Ok(Copied { map: Some(map), start, len: bytes.len() })
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let Some(map) = self.map.take() else { return };
        // SAFETY: nobody looks at it any more, and what it holds is of no use.
        if unsafe { map.unchecked_advise(UncheckedAdvice::Free) }.is_err() {
            return;
        }
        let mut spares = spares();
        spares.push(map);
        while spares.len() > SPARE || spares.iter().map(|map| map.len()).sum::<usize>() > SPARE_BYTES {
            spares.remove(0);
        }
    }
}

#[pymethods]
impl View {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let (start, len) = slf.get().place();
        // SAFETY: the memory is the object's for as long as that lives.
        unsafe { fill(slf.as_any(), view, flags, start, len) }
    }

    fn __len__(&self) -> usize {
        self.place().1
    }
}

/// Memory of the pool that workers can map: what `ringpool.empty` is made of.
#[pyclass(frozen, weakref, module = "ringpool._native")]
pub(crate) struct Memory {
    bytes: Shared,
}

enum Shared {
    /// A client's, which forked children find, too.
    Buffer(Arc<Buffer>, #[expect(dead_code, reason = "for as long as the memory")] Lending),
    /// A worker's.
    Claimed(Arc<Claimed>),
}

impl Memory {
    fn place(&self) -> (*mut u8, usize) {
        match &self.bytes {
            Shared::Buffer(buffer, _) => (buffer.as_ptr().as_ptr(), buffer.len()),
            // Behind the place of a message's head.
            Shared::Claimed(claimed) => {
                (claimed.as_ptr().as_ptr().wrapping_add(FRONT), claimed.len() - FRONT - BACK)
            }
        }
    }
}

/// Bytes of a worker's memory in front of what the program sees, and behind it: for the rest of a result that is made
/// there.
const FRONT: usize = 64;
const BACK: usize = 4096;

/// Memory that Python has, by the address where it begins.
struct ByAddress<T>(Mutex<BTreeMap<usize, Weak<T>>>);

impl<T> ByAddress<T> {
    const fn new() -> Self {
        ByAddress(Mutex::new(BTreeMap::new()))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<usize, Weak<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, start: NonNull<u8>, memory: &Arc<T>) {
        let mut known = self.known();
        known.retain(|_, memory| memory.strong_count() > 0);
        known.insert(start.as_ptr().addr(), Arc::downgrade(memory));
    }

    /// The memory, of which so many bytes can be used, that holds these bytes, and where in it they begin.
    fn find(&self, bytes: &[u8], usable: impl Fn(&T) -> usize) -> Option<(Arc<T>, usize)> {
        let known = self.known();
        let at = bytes.as_ptr().addr();
        let (&start, memory) = known.range(..=at).next_back()?;
        let memory = memory.upgrade()?;
        let within = at - start;
        (within.checked_add(bytes.len())? <= usable(&memory)).then_some((memory, within))
    }
}

/// The memories of a worker.
static CLAIMED: ByAddress<Claimed> = ByAddress::new();

/// In a worker: memory that a result can be made in, which is not copied then.
#[pyfunction]
pub(crate) fn worker_memory(py: Python<'_>, nbytes: usize) -> PyResult<Memory> {
    let len = nbytes
        .checked_add(FRONT + BACK)
        .ok_or_else(|| PyMemoryError::new_err("more than an address space"))?;
    let memory = Arc::new(claim(len).map_err(|error| to_py(py, &error, None))?);
    CLAIMED.insert(memory.as_ptr(), &memory);
    Ok(Memory { bytes: Shared::Claimed(memory) })
}

/// The worker's memory that holds these bytes, and where in it they begin.
pub(crate) fn find_claimed(bytes: &[u8]) -> Option<(Arc<Claimed>, usize)> {
    CLAIMED.find(bytes, |memory| memory.len() - BACK)
}

#[pymethods]
impl Memory {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let (start, len) = slf.get().place();
        // SAFETY: the block is the object's for as long as that lives.
        unsafe { fill(slf.as_any(), view, flags, start, len) }
    }

    fn __len__(&self) -> usize {
        self.place().1
    }
}

/// The memories of a pool that Python has.
pub(crate) struct Memories(ByAddress<Buffer>);

impl Memories {
    pub(crate) fn new() -> Self {
        Memories(ByAddress::new())
    }

    pub(crate) fn make(&self, py: Python<'_>, caller: &Caller, len: usize) -> PyResult<Memory> {
        let buffer = Arc::new(patiently(py, caller, len)?);
        self.0.insert(buffer.as_ptr(), &buffer);
        let lending = buffer.lend().map_err(|error| to_py(py, &error, None))?;
        Ok(Memory { bytes: Shared::Buffer(buffer, lending) })
    }

    /// The memory that holds these bytes, and where in it they begin.
    fn find(&self, bytes: &[u8]) -> Option<(Arc<Buffer>, usize)> {
        self.0.find(bytes, Buffer::len)
    }
}

/// Memory of this size; waits, if tasks that are on their way have it all.
pub(crate) fn patiently(py: Python<'_>, caller: &Caller, len: usize) -> PyResult<Buffer> {
    loop {
        // Without tasks on their way nobody gives anything back.
        let hope = caller.in_flight() > 0;
        match caller.buffer(len) {
            Err(error) if is_full(&error) && hope => {
                let caller = caller.patience(wait::SLICE);
                let made = py.detach(|| caller.buffer(len));
                match made {
                    Err(error) if matches!(error.kind(), ErrorKind::ArenaFull { .. }) => {
                        py.check_signals()?
                    }
                    other => return other.map_err(|error| to_py(py, &error, None)),
                }
            }
            other => return other.map_err(|error| to_py(py, &error, None)),
        }
    }
}

/// Where a client puts large buffers: into the pool's memory, unless they are there already.
pub(crate) struct ClientStore<'a> {
    caller: &'a Caller,
    memories: &'a Memories,
    /// All that what is encoded refers to.
    pub keep: Vec<Arc<Buffer>>,
    /// What has been put there for earlier items of the same map, and what keeps its address from being another's.
    seen: Option<HashMap<(usize, usize), Put>>,
}

/// Where something was put, and what it was put there from.
type Put = (Arc<Buffer>, RawBuffer);

impl<'a> ClientStore<'a> {
    /// `caller` waits for nothing.
    pub(crate) fn new(caller: &'a Caller, memories: &'a Memories) -> Self {
        ClientStore { caller, memories, keep: Vec::new(), seen: None }
    }

    /// The same for many items at once, which may have buffers in common.
    pub(crate) fn of_many(caller: &'a Caller, memories: &'a Memories) -> Self {
        ClientStore { seen: Some(HashMap::new()), ..Self::new(caller, memories) }
    }
}

impl Store for ClientStore<'_> {
    fn put(&mut self, object: &Bound<'_, PyAny>, raw: RawBuffer, out: &mut Vec<u8>) -> PyResult<()> {
        let bytes = raw.bytes();
        let len = bytes.len();
        let key = (bytes.as_ptr().addr(), len);
        let (buffer, within) = if let Some(found) = self.memories.find(bytes) {
            found
        } else if let Some((buffer, _)) = self.seen.as_ref().and_then(|seen| seen.get(&key)) {
            (buffer.clone(), 0)
        } else {
            let buffer = Arc::new(patiently(object.py(), self.caller, len)?);
            // SAFETY: fresh memory of that length, of which nobody else knows.
            unsafe { buffer.as_ptr().as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), len) };
            if let Some(seen) = &mut self.seen {
                seen.insert(key, (buffer.clone(), raw));
            }
            (buffer, 0)
        };
        out.extend_from_slice(&(buffer.offset() + within as u64).to_ne_bytes());
        out.extend_from_slice(&(len as u64).to_ne_bytes());
        self.keep.push(buffer);
        Ok(())
    }

    fn truncate(&mut self, count: usize) {
        self.keep.truncate(count);
    }

    fn count(&self) -> usize {
        self.keep.len()
    }
}
