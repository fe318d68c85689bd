//! The worker's own region, and the blocks of it that tasks fill themselves.

use crate::arena::{Block, BlockHandle, Region};
use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::sync::private::{Private, PrivateBool};
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A worker's own region.
///
/// Tasks get at it through [`here`]: they may borrow blocks, and return one as their result. Borrowed blocks
/// are known by where they begin, so that a result needs to know nothing of blocks.
pub(crate) struct Home {
    region: RefCell<Region>,
    /// Blocks that tasks have.
    lent: RefCell<Vec<Block>>,
    /// Those among them that other threads have given back.
    returned: Arc<Returned>,
    /// The memory that the region is in, as long as the worker serves.
    segment: Cell<Option<NonNull<Segment>>>,
}

thread_local! {
    /// That of the worker that this thread is.
    static HERE: RefCell<Option<Rc<Home>>> = const { RefCell::new(None) };
}

/// The region of the worker that this thread is, if it is one.
pub(crate) fn here() -> Option<Rc<Home>> {
    HERE.try_with(|here| here.borrow().clone()).ok().flatten()
}

impl Home {
    pub(super) fn new(region: Region) -> Rc<Self> {
        Rc::new(Home {
            region: RefCell::new(region),
            lent: RefCell::default(),
            returned: Arc::default(),
            segment: Cell::new(None),
        })
    }

    /// Lets tasks find the region until the guard is dropped.
    pub(super) fn enter<'s>(self: &Rc<Self>, segment: &'s Segment) -> Entered<'s> {
        self.segment.set(Some(NonNull::from(segment)));
        let outer = HERE.replace(Some(self.clone()));
        Entered { home: self.clone(), outer, segment: PhantomData }
    }

    /// The memory that the region is in; `None` once the worker serves no more, and in a forked child.
    fn segment(&self) -> Option<&Segment> {
        // SAFETY: `Entered` borrows it, and takes the pointer back before it ends. As all of this happens on
        // one thread, that is after whoever has the reference from here is done with it: they keep none.
        let segment = self.segment.get().map(|segment| unsafe { segment.as_ref() });
        segment.filter(|segment| segment.is_here())
    }

    /// Does something with that memory; `None` if there is none.
    pub(crate) fn with_segment<R>(&self, f: impl FnOnce(&Segment) -> R) -> Option<R> {
        self.segment().map(f)
    }

    /// Begins to fetch what the next allocation will look at, if it is like the last one.
    #[inline]
    pub(super) fn prefetch(&self, segment: &Segment) {
        self.region.borrow().prefetch(segment);
    }

    pub(super) fn allocate_beside(
        &self,
        segment: &Segment,
        bytes: usize,
        held: Option<usize>,
    ) -> Result<Block> {
        self.take_returned(segment);
        self.region.borrow_mut().allocate_beside(segment, bytes, held)
    }

    /// An error if such a block can never be had beside what tasks have been lent.
    pub(super) fn check_beside(&self, bytes: usize, held: Option<usize>) -> Result<()> {
        let lent = self.lent.borrow();
        self.region.borrow().check_beside(bytes, held.into_iter().chain(lent.iter().map(|block| block.len)))
    }

    pub(super) fn free(&self, segment: &Segment, block: BlockHandle) {
        self.region.borrow_mut().free(segment, block);
    }

    pub(super) fn holds_more_than(&self, keep: usize) -> bool {
        self.region.borrow().holds_more_than(keep)
    }

    pub(super) fn trim(&self, segment: &Segment, keep: usize) {
        self.take_returned(segment);
        self.region.borrow_mut().trim(segment, keep);
    }

    /// Lends a block of at least `bytes` to a task, if there is one now.
    pub(crate) fn lend(&self, bytes: usize) -> Result<Block> {
        let segment = self.segment().ok_or_else(|| Error::invalid("the worker serves no more"))?;
        let block = self.allocate_beside(segment, bytes, None)?;
        self.lent.borrow_mut().push(block);
        Ok(block)
    }

    /// The same: where it begins.
    pub(crate) fn lend_start(&self, bytes: usize) -> Option<NonNull<u8>> {
        let block = self.allocate_beside(self.segment()?, bytes, None).ok()?;
        let start = block.ptr;
        self.lent.borrow_mut().push(block);
        Some(start)
    }

    /// Where any thread can give back what was lent.
    pub(crate) fn returned(&self) -> Arc<Returned> {
        self.returned.clone()
    }

    /// Whether that is where blocks of this worker are given back.
    pub(crate) fn is_of(&self, returned: &Arc<Returned>) -> bool {
        Arc::ptr_eq(&self.returned, returned)
    }

    /// Frees what other threads have given back.
    #[inline]
    fn take_returned(&self, segment: &Segment) {
        // Pairs with `Returned::add`. One that is missed comes with the next look.
        if self.returned.any.load(Private::Relaxed) {
            self.free_returned(segment);
        }
    }

    #[cold]
    fn free_returned(&self, segment: &Segment) {
        let mut returned = self.returned.lock();
        self.returned.any.store(false, Private::Relaxed);
        for start in returned.drain(..).filter_map(|block| self.claim(block.ptr)) {
            self.free(segment, start.handle);
        }
    }

    /// Whether what was lent can still be used.
    pub(crate) fn is_open(&self) -> bool {
        self.segment().is_some()
    }

    /// Takes a block back that nobody wants as a result. Does nothing if the worker is gone: who reaps it
    /// frees its blocks.
    pub(crate) fn give_back(&self, start: NonNull<u8>) {
        if let Some(segment) = self.segment()
            && let Some(block) = self.claim(start)
        {
            self.free(segment, block.handle);
        }
    }

    /// The lent block that begins there. It is nobody's from now on but the caller's.
    pub(super) fn claim(&self, start: NonNull<u8>) -> Option<Block> {
        let mut lent = self.lent.borrow_mut();
        let at = lent.iter().position(|block| block.ptr == start)?;
        Some(lent.swap_remove(at))
    }
}

/// Lent blocks on their way back from other threads.
#[derive(Default)]
pub(crate) struct Returned {
    blocks: Mutex<Vec<Block>>,
    /// Whether there are some, so that nobody needs the lock to find none.
    any: PrivateBool,
}

impl Returned {
    fn lock(&self) -> MutexGuard<'_, Vec<Block>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a block back. It is lent until the worker looks.
    pub(crate) fn add(&self, block: Block) {
        let mut blocks = self.lock();
        blocks.push(block);
        self.any.store(true, Private::Relaxed); // under the lock, as it is taken back
    }
}

/// See [`Home::enter`].
pub(super) struct Entered<'s> {
    home: Rc<Home>,
    /// A worker may serve another pool in the middle of a task.
    outer: Option<Rc<Home>>,
    segment: PhantomData<&'s Segment>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.home.segment.set(None);
        HERE.set(self.outer.take());
    }
}
