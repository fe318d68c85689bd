//! Results that tasks make where they will lie.

use crate::chunk::ChunkWriter;
use crate::error::Result;
use crate::payload::{Payload, Reply, Room, flat_items_len, is_flat, put_items, put_lying_items};
use crate::pool::View;
use crate::shared_slice::Pod;
use crate::slot::INLINE_RESULT;
use crate::worker::{Home, here};
use rkyv::vec::ArchivedVec;
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;

/// An array of plain data that a task returns without a copy.
///
/// In a task, its memory is that in which the result will lie: who waits for it gets a `Vec<T>`, or looks at
/// the items in place with [`AsyncResult::view`](crate::AsyncResult::view) and
/// [`View::as_slice`](crate::View::as_slice). A task may make several and return one of them.
///
/// ```
/// # ringpool::init();
/// use ringpool::{ArchivedSharedSlice, Pool, ResultSlice};
///
/// fn halves(numbers: &ArchivedSharedSlice<f64>) -> ResultSlice<f64> {
///     ResultSlice::new(numbers.len(), |halves| {
///         for (half, number) in halves.iter_mut().zip(numbers.iter()) {
///             *half = number / 2.0;
///         }
///     })
/// }
/// let pool = Pool::new(1)?;
/// let mut numbers = pool.alloc::<f64>(100_000)?;
/// numbers.fill(3.0);
/// let result = pool.apply_async(halves, (numbers.share(),))?;
/// assert!(result.view()?.as_slice().iter().all(|&half| half == 1.5));
/// # Ok::<(), ringpool::Error>(())
/// ```
///
/// Elsewhere, which is in any thread but the worker's own, it is like a `Vec`: memory of the process, copied
/// if a task returns it. So it is in a task if the worker's memory is full, if the result is short enough to
/// travel inside of the task's slot, and in the chunks of a [`map`](crate::Pool::map).
pub struct ResultSlice<T> {
    memory: Memory<T>,
    len: usize,
}

enum Memory<T> {
    Lent(Lent),
    Heap(Vec<T>),
}

/// A block of the worker's region, given back when it is dropped.
struct Lent {
    home: Rc<Home>,
    start: NonNull<u8>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give_back(self.start);
    }
}

impl<T: Pod> Memory<T> {
    fn with<R>(&mut self, len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
        match self {
            Memory::Heap(items) => f(&mut items[..len]),
            Memory::Lent(lent) => {
                assert!(
                    lent.home.is_open(),
                    "a result slice can be used only as long as its worker serves, and not after a fork"
                );
                // SAFETY: the block was taken for at least so many items, and blocks are aligned to more than
                // `new` allows; it is mapped while the worker serves, which on this thread goes on until `f`
                // is done. Its bytes are some `T`s, whatever they are. Nobody else uses them before this is
                // sent, which consumes it.
                f(unsafe { std::slice::from_raw_parts_mut(lent.start.as_ptr().cast(), len) })
            }
        }
    }
}

impl<T: Pod + Payload> ResultSlice<T> {
    /// `len` items that `fill` writes. It must write all: what they are before is not specified.
    ///
    /// # Panics
    ///
    /// If so many items do not fit into an address space, as with a `Vec`.
    pub fn new(len: usize, fill: impl FnOnce(&mut [T])) -> Self {
        Self::up_to(len, |items| {
            fill(items);
            len
        })
    }

    /// At most `most` items. `fill` writes the first ones and returns how many they are.
    ///
    /// # Panics
    ///
    /// If it returns more than there can be, or as [`new`](Self::new) does.
    pub fn up_to(most: usize, fill: impl FnOnce(&mut [T]) -> usize) -> Self {
        const { assert!(align_of::<T>() <= 128, "blocks are aligned to 128 bytes") };
        let bytes = flat_items_len::<T>(most);
        let short =
            most.saturating_mul(size_of::<T>()) <= INLINE_RESULT - size_of::<ArchivedVec<T::Archived>>();
        let long = is_flat::<T>() && !short && isize::try_from(bytes).is_ok();
        let home = if long { here() } else { None };
        let lent = home.and_then(|home| home.lend_start(bytes).map(|start| Lent { start, home }));
        let mut memory = match lent {
            Some(lent) => Memory::Lent(lent),
            None => Memory::Heap(vec![T::zeroed(); most]),
        };
        let len = memory.with(most, fill);
        assert!(len <= most, "{len} of {most} items were written");
        ResultSlice { memory, len }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Calls `f` with the items, which it may change.
    ///
    /// # Panics
    ///
    /// If it was kept beyond its task until the worker had ended.
    pub fn edit<R>(&mut self, f: impl FnOnce(&mut [T]) -> R) -> R {
        self.memory.with(self.len, f)
    }

    /// The items, copied.
    fn with<R>(mut self, f: impl FnOnce(&[T]) -> R) -> R {
        self.memory.with(self.len, |items| f(items))
    }
}

/// It becomes a `Vec` for who gets it.
impl<T: Pod + Payload> Reply for ResultSlice<T> {
    type Value = Vec<T>;

    fn put(slice: &mut Self, room: &mut Room<'_>) -> Result<usize> {
        if let Memory::Lent(lent) = &slice.memory
            && room.adopt(lent.start)
        {
            // `give_back` will not find it any more.
            return put_lying_items::<T>(slice.len, room);
        }
        slice.edit(|items| put_items(items, room.span, room)).map(|(_, used)| used)
    }

    fn push(slice: Self, writer: &mut ChunkWriter<'_, '_>) {
        slice.with(|items| writer.push_items(items));
    }
}

impl<T> fmt::Debug for ResultSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultSlice").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T: Pod + Payload> View<Vec<T>> {
    /// The items as they lie in shared memory.
    ///
    /// For types whose archives are as the types themselves, such as numbers; of others it does not compile.
    pub fn as_slice(&self) -> &[T] {
        const { assert!(is_flat::<T>() && align_of::<T>() == align_of::<T::Archived>()) };
        let items: &[T::Archived] = self;
        // SAFETY: as large and as aligned, asserted above; all bytes are values of a `Pod` type.
        unsafe { std::slice::from_raw_parts(items.as_ptr().cast(), items.len()) }
    }
}
