//! Arrays that are made in shared memory and sent without a copy.

use crate::client::{ArgsBlock, Arrays, Client};
use crate::error::{Error, Result};
use crate::payload::PayloadWriter;
use crate::segment::Segment;
pub use bytemuck::Pod;
use rkyv::api::high::HighSerializer;
use rkyv::bytecheck::CheckBytes;
use rkyv::primitive::ArchivedU64;
use rkyv::rancor::{Failure, Fallible, Source};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::{Archive, Deserialize, Place, Portable, Serialize};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError, RwLock};

/// An array of plain data in shared memory that only this process can see, and write.
///
/// Made by [`Pool::alloc`](crate::Pool::alloc) or [`alloc_unset`](crate::Pool::alloc_unset). [`share`](Self::share) makes it an argument for tasks.
pub struct SliceMut<T> {
    block: ArgsBlock,
    len: usize,
    pool: u64,
    items: PhantomData<T>,
}

impl<T: Pod> SliceMut<T> {
    /// All zeros.
    pub(crate) fn zeroed(client: &Arc<Client>, len: usize) -> Result<Self> {
        let slice = Self::unset(client, len)?;
        // SAFETY: the block is at least so long and ours alone.
        unsafe { std::ptr::write_bytes(slice.block.ptr().as_ptr(), 0, len * size_of::<T>()) };
        Ok(slice)
    }

    /// Whatever the memory holds.
    pub(crate) fn unset(client: &Arc<Client>, len: usize) -> Result<Self> {
        const { assert!(align_of::<T>() <= 128, "blocks are aligned to 128 bytes") };
        let bytes =
            size_of::<T>().checked_mul(len).filter(|&b| b <= isize::MAX as usize).ok_or_else(|| {
                Error::invalid(format!(
                    "{len} items of {} bytes are more than an address space",
                    size_of::<T>()
                ))
            })?;
        let block = client.with_memory(|| client.arena.take(bytes))?;
        Ok(SliceMut { block, len, pool: client.segment.pool_id(), items: PhantomData })
    }

    /// Ends the writing: the array can now be sent, any number of times, and read.
    pub fn share(self) -> SharedSlice<T> {
        SharedSlice {
            data: Data::Shared { block: Arc::new(self.block), len: self.len, pool: self.pool },
            items: PhantomData,
        }
    }
}

impl<T: Pod> Deref for SliceMut<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: mapped memory, which is some `T`s whatever it holds, aligned as asserted in `unset`; and nobody
        // else writes it.
        unsafe { std::slice::from_raw_parts(self.block.ptr().as_ptr().cast(), self.len) }
    }
}

impl<T: Pod> DerefMut for SliceMut<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the block is not shared before `share` consumes `self`.
        unsafe { std::slice::from_raw_parts_mut(self.block.ptr().as_ptr().cast(), self.len) }
    }
}

/// An array of plain data that tasks can read in place.
///
/// Sent as an argument it costs the same whatever its size. A function that takes
/// `&`[`ArchivedSharedSlice`] reads it where it lies; one that takes a `SharedSlice` gets a copy of its
/// own. The memory is given back when the last clone is gone and no task uses it any more.
pub struct SharedSlice<T> {
    data: Data<T>,
    items: PhantomData<T>,
}

enum Data<T> {
    Shared {
        block: Arc<ArgsBlock>,
        len: usize,
        pool: u64,
    },
    /// What a worker gets that asks for it by value.
    Owned(Arc<[T]>),
}

impl<T: Pod> SharedSlice<T> {
    /// Goes back to writing, if this is the last clone and no task uses the array.
    pub fn try_into_mut(self) -> Result<SliceMut<T>, Self> {
        match self.data {
            Data::Shared { block, len, pool } => match Arc::try_unwrap(block) {
                Ok(block) => Ok(SliceMut { block, len, pool, items: PhantomData }),
                Err(block) => {
                    Err(SharedSlice { data: Data::Shared { block, len, pool }, items: PhantomData })
                }
            },
            owned => Err(SharedSlice { data: owned, items: PhantomData }),
        }
    }
}

impl<T> Clone for SharedSlice<T> {
    fn clone(&self) -> Self {
        let data = match &self.data {
            Data::Shared { block, len, pool } => {
                Data::Shared { block: block.clone(), len: *len, pool: *pool }
            }
            Data::Owned(items) => Data::Owned(items.clone()),
        };
        SharedSlice { data, items: PhantomData }
    }
}

impl<T: Pod> Deref for SharedSlice<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.data {
            // SAFETY: as in `SliceMut::deref`; nobody writes it since `share`.
            Data::Shared { block, len, .. } => unsafe {
                std::slice::from_raw_parts(block.ptr().as_ptr().cast(), *len)
            },
            Data::Owned(items) => items,
        }
    }
}

impl<T: Pod + std::fmt::Debug> std::fmt::Debug for SharedSlice<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Pod + std::fmt::Debug> std::fmt::Debug for SliceMut<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

/// A [`SharedSlice`] as tasks see it: derefs to the array where it lies.
#[derive(CheckBytes, Portable)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub struct ArchivedSharedSlice<T> {
    pool: ArchivedU64,
    offset: ArchivedU64,
    len: ArchivedU64,
    items: PhantomData<T>,
}

impl<T: Pod> ArchivedSharedSlice<T> {
    /// The array, or why it cannot be reached.
    pub fn try_as_slice(&self) -> Result<&[T]> {
        let segment = served(self.pool.to_native()).ok_or_else(|| {
            Error::payload("a shared slice can be read only by a worker of the pool that made it")
        })?;
        let (offset, len) = (self.offset.to_native(), self.len.to_native());
        let bytes = len.checked_mul(size_of::<T>() as u64);
        // SAFETY: the client keeps the array unchanged while a task that has it as argument runs, the
        // worker keeps the memory mapped while it serves, and `self` lives no longer than the task's
        // arguments: nobody but a pool can make one that is accepted here.
        let bytes = bytes.and_then(|bytes| unsafe { segment.payload(0, offset, bytes) });
        // SAFETY: the same bytes, for as long as `self`: see above.
        let bytes = bytes.map(|bytes| unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) });
        let bytes = bytes.ok_or_else(|| {
            Error::corrupted(format!("a shared slice of {len} items at {offset} is outside the region"))
        })?;
        bytemuck::try_cast_slice(bytes).map_err(|e| Error::corrupted(format!("a shared slice: {e}")))
    }
}

impl<T: Pod> Deref for ArchivedSharedSlice<T> {
    type Target = [T];

    /// # Panics
    ///
    /// In a process that is no worker of the pool: see [`try_as_slice`](ArchivedSharedSlice::try_as_slice).
    fn deref(&self) -> &[T] {
        match self.try_as_slice() {
            Ok(slice) => slice,
            Err(error) => panic!("{error}"),
        }
    }
}

impl<T: Pod> Archive for SharedSlice<T> {
    type Archived = ArchivedSharedSlice<T>;
    type Resolver = ();

    fn resolve(&self, (): (), out: Place<Self::Archived>) {
        let (pool, offset, len) = match &self.data {
            Data::Shared { block, len, pool } => (*pool, block.offset(), *len as u64),
            Data::Owned(_) => (0, 0, 0), // refused by `serialize`
        };
        rkyv::munge::munge!(let ArchivedSharedSlice { pool: a, offset: b, len: c, items: _ } = out);
        pool.resolve((), a);
        offset.resolve((), b);
        len.resolve((), c);
    }
}

/// A slice that a worker took by value and wants to send on.
#[derive(Debug)]
struct NotShared;

impl std::fmt::Display for NotShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("only a slice made by Pool::alloc can be sent; return a Vec instead")
    }
}

impl std::error::Error for NotShared {}

/// Only for a pool's own arguments: whoever archives one elsewhere would keep nothing alive.
impl<'w, 'a, T: Pod> Serialize<HighSerializer<PayloadWriter<'w>, ArenaHandle<'a>, Failure>>
    for SharedSlice<T>
{
    fn serialize(
        &self,
        _: &mut HighSerializer<PayloadWriter<'w>, ArenaHandle<'a>, Failure>,
    ) -> Result<(), Failure> {
        match &self.data {
            Data::Shared { block, .. } => {
                SENT.with_borrow_mut(|sent| sent.push(block.clone()));
                Ok(())
            }
            Data::Owned(_) => Err(Failure::new(NotShared)),
        }
    }
}

impl<T: Pod, D: Fallible + ?Sized> Deserialize<SharedSlice<T>, D> for ArchivedSharedSlice<T>
where
    D::Error: Source,
{
    fn deserialize(&self, _: &mut D) -> Result<SharedSlice<T>, D::Error> {
        let items: Arc<[T]> = self.try_as_slice().map_err(D::Error::new)?.into();
        Ok(SharedSlice { data: Data::Owned(items), items: PhantomData })
    }
}

thread_local! {
    /// Arrays that the value being archived refers to: its task keeps them alive.
    static SENT: RefCell<Arrays> = const { RefCell::new(Arrays::new()) };
}

/// Takes what the value being archived refers to, if that is anything: mostly it is not, and nothing is moved.
#[inline]
fn take_sent() -> Option<Arrays> {
    SENT.with_borrow_mut(|sent| (!sent.is_empty()).then(|| std::mem::take(sent)))
}

/// Collects the arrays that a value refers to while it is archived.
///
/// The value's own code may archive others meanwhile (a task that is submitted from a `Serialize`), so
/// each collection puts aside what the outer one has.
pub(crate) struct Collect {
    outer: Option<Arrays>,
}

impl Collect {
    #[inline]
    pub(crate) fn begin() -> Self {
        Collect { outer: take_sent() }
    }

    /// The arrays since `begin`, if there are any.
    #[inline]
    pub(crate) fn end(self) -> Option<Arrays> {
        take_sent()
    }
}

impl Drop for Collect {
    #[inline]
    fn drop(&mut self) {
        // After a failure there may be some left, of a value that goes nowhere.
        drop(take_sent());
        if let Some(outer) = self.outer.take() {
            SENT.set(outer);
        }
    }
}

/// The pools that this process works for, by id: where its tasks find their memory. A forked child also
/// sees those of its parent, whose memory it has not.
static SERVED: RwLock<Vec<(u64, Arc<Segment>)>> = RwLock::new(Vec::new());

/// Lets tasks find a pool's memory, for as long as it lives.
pub(crate) struct Serving(u64);

impl Serving {
    /// Refuses a pool that is being served already: which of two mappings a task would find is chance.
    pub(crate) fn begin(segment: &Arc<Segment>) -> Result<Self> {
        let mut served = SERVED.write().unwrap_or_else(PoisonError::into_inner);
        let id = segment.pool_id();
        served.retain(|(_, segment)| segment.is_here());
        if served.iter().any(|&(other, _)| other == id) {
            return Err(Error::invalid("this process serves the pool already, on another thread"));
        }
        served.push((id, segment.clone()));
        Ok(Serving(id))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut served = SERVED.write().unwrap_or_else(PoisonError::into_inner);
        served.retain(|&(id, _)| id != self.0);
    }
}

/// The segment of this pool, if this process works for it.
pub(crate) fn served(pool: u64) -> Option<Arc<Segment>> {
    let served = SERVED.read().unwrap_or_else(PoisonError::into_inner);
    served.iter().find(|(id, segment)| *id == pool && segment.is_here()).map(|(_, segment)| segment.clone())
}
