//! Arguments on their way to workers: in the slot, or in a block of the client's region.

use super::Arrays;
use super::books::{Chunk, Key};
use super::spare::Spare;
use crate::arena::{Block, BlockWord, Class, LARGEST, Region};
use crate::error::Result;
use crate::payload::{Grow, Payload, Span, is_flat, put, put_flat_items, put_items};
use crate::segment::Segment;
use crate::shared_slice::Collect;
use crate::slot::{ArgWords, ArgsHandle, CHECKED_ARGS, INLINE_ARGS, Owner, Shape};
use crate::sys::Lent;
use crate::task::Task;
use rkyv::primitive::ArchivedUsize;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// Free payload memory that a client keeps when it has been idle for a while.
const KEEP: usize = 64 << 20;

/// The client's own region, as long as blocks of it are in use.
struct OwnRegion {
    segment: Arc<Segment>,
    books: Mutex<Region>,
}

impl OwnRegion {
    fn with<R>(&self, f: impl FnOnce(&mut Region, &Segment) -> R) -> R {
        f(&mut self.books.lock().unwrap_or_else(PoisonError::into_inner), &self.segment)
    }
}

/// Where a client takes memory for arguments.
pub(crate) struct ClientArena {
    region: Arc<OwnRegion>,
    /// With a block.
    spare: Spare,
    /// Without one.
    empty: Spare,
    /// Most bytes of arguments that travel inside a slot of this pool.
    inline: usize,
}

impl ClientArena {
    pub(super) fn new(segment: Arc<Segment>, quota: u64) -> Self {
        let books = Mutex::new(Region::own(Owner::new(segment.index, 0), quota));
        let inline = if segment.hardened() { CHECKED_ARGS } else { INLINE_ARGS };
        ClientArena {
            region: Arc::new(OwnRegion { segment, books }),
            spare: Spare::default(),
            empty: Spare::default(),
            inline,
        }
    }

    /// Gives free memory back to the system, but for some that is kept warm.
    pub(crate) fn trim(&self) {
        drop(self.spare.take());
        self.region.with(|region, segment| region.trim(segment, KEEP));
    }

    /// Whether it may have more than is kept warm.
    pub(crate) fn holds_much(&self) -> bool {
        self.region.with(|region, _| region.holds_more_than(KEEP))
    }

    /// Bytes of extents in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.region.with(|region, _| region.used())
    }

    /// Most bytes of arguments that travel inside a slot.
    #[inline]
    pub(crate) fn inline_most(&self) -> usize {
        self.inline
    }

    /// Takes a block of at least `bytes`.
    pub(crate) fn take(&self, bytes: usize) -> Result<ArgsBlock> {
        self.take_beside(bytes, None)
    }

    /// Takes a block of at least `bytes` for what outgrows one of `held` bytes.
    fn take_beside(&self, bytes: usize, held: Option<usize>) -> Result<ArgsBlock> {
        let block = match self.region.with(|region, segment| region.allocate_beside(segment, bytes, held)) {
            Err(error) if error.is_arena_full() && self.spare.take().is_some() => {
                self.region.with(|region, segment| region.allocate_beside(segment, bytes, held))?
            }
            block => block?,
        };
        Ok(ArgsBlock { region: self.region.clone(), block, len: bytes, padding: 0 })
    }

    /// The same, for arguments that nobody else will have.
    #[inline]
    fn take_kept(&self, bytes: usize, held: Option<usize>) -> Result<Box<Kept>> {
        if let Some(mut kept) = self.spare.take()
            && kept.renew(bytes)
        {
            return Ok(kept);
        }
        Ok(Kept::boxed(Place::Own(self.take_beside(bytes, held)?)))
    }

    /// For arguments without a block of their own.
    #[inline]
    fn empty(&self) -> Box<Kept> {
        self.empty.take().unwrap_or_else(|| Kept::boxed(Place::NOWHERE))
    }

    /// Takes back what a task that is done has needed.
    #[inline]
    pub(super) fn give_back(&self, mut kept: Box<Kept>, books: &mut Key) {
        if self.region.segment.is_here() {
            let place = if kept.clear() { &self.spare } else { &self.empty };
            drop(place.put(kept, books));
        }
    }
}

/// A block of the client's region, given back when nobody needs it any more.
pub(crate) struct ArgsBlock {
    region: Arc<OwnRegion>,
    block: Block,
    /// Bytes in use.
    len: usize,
    /// Bytes of them behind items of a chunk that are of no item, if these are flat.
    padding: u8,
}

impl ArgsBlock {
    /// For others to look at.
    fn word(&self) -> BlockWord<'_> {
        let handle = self.block.handle;
        BlockWord(&self.region.segment.words(handle.owner)[handle.block as usize])
    }

    pub(crate) fn offset(&self) -> u64 {
        self.block.offset
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn ptr(&self) -> NonNull<u8> {
        self.block.ptr
    }

    /// Lets forked children find it where it is. To be dropped before this.
    pub(crate) fn lend(&self) -> Result<Lent> {
        // SAFETY: the arena keeps the region mapped.
        unsafe { self.region.segment.lend(self.offset(), self.ptr(), self.len) }
    }

    /// The bytes in use, of which nobody else knows.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped memory of at least that length, initialized whatever it holds; and as nobody shares this
        // block, no task has it.
        unsafe { std::slice::from_raw_parts_mut(self.block.ptr.as_ptr(), self.len) }
    }
}

impl Drop for ArgsBlock {
    fn drop(&mut self) {
        if !self.region.segment.is_here() {
            return; // a forked child's copy: the block is the parent's
        }
        self.region.with(|region, segment| region.free(segment, self.block.handle));
    }
}

/// The arguments of a task.
pub(crate) enum Args {
    /// They travel in the slot.
    Inline {
        words: ArgWords,
        len: u8,
    },
    Kept(Box<Kept>),
}

/// What must stay as it is until the task is done, and what is to be done by it.
///
/// In a box from the first to the last, and the box is used again: structures of this size are not moved about.
pub(crate) struct Kept {
    place: Place,
    /// Shared arrays that the arguments refer to.
    arrays: Arrays,
    pub(super) chunk: Option<Chunk>,
}

/// Where kept arguments lie.
enum Place {
    /// In the slot: what is kept are arrays.
    Slot {
        words: ArgWords,
        len: u8,
    },
    Own(ArgsBlock),
    /// In the first bytes of a block that others have, too.
    Part(Arc<ArgsBlock>, usize),
}

impl Place {
    const NOWHERE: Self = Place::Slot { words: [0; INLINE_ARGS / 8], len: 0 };
}

impl Kept {
    fn boxed(place: Place) -> Box<Self> {
        Box::new(Kept { place, arrays: Arrays::new(), chunk: None })
    }

    /// Its block, if nobody else has it.
    fn own(&mut self) -> Option<&mut ArgsBlock> {
        match &mut self.place {
            Place::Own(block) => Some(block),
            _ => None,
        }
    }

    /// Makes it one of `bytes`, if its block is what these would get.
    #[inline]
    fn renew(&mut self, bytes: usize) -> bool {
        let Some(block) = self.own() else { return false };
        if block.block.len != Class::fitting(bytes).block_bytes() {
            return false;
        }
        (block.len, block.padding) = (bytes, 0);
        let handle = block.block.handle;
        block.word().take(Owner::new(handle.owner, 0), handle.generation);
        true
    }

    /// Lets go of all but a block of a usual size; whether there is one.
    #[inline]
    fn clear(&mut self) -> bool {
        if !self.arrays.is_empty() {
            self.arrays = Arrays::new();
        }
        self.chunk = None;
        match &self.place {
            Place::Own(block) if block.block.len <= LARGEST => {
                block.word().put_back(block.block.handle.generation); // whoever looks finds it free
                true
            }
            _ => {
                self.place = Place::NOWHERE;
                false
            }
        }
    }

    /// What stands for them in the slot, and how many bytes of that are the arguments themselves, or of a chunk are
    /// padding. `items` is the range of a chunk.
    #[inline]
    pub(super) fn words(&self, items: Option<(u32, u32)>) -> (ArgWords, u8) {
        let (block, len, padding) = match &self.place {
            Place::Slot { words, len } => return (*words, *len),
            Place::Own(block) => (block, block.len(), block.padding),
            Place::Part(block, len) => (block.as_ref(), *len, 0),
        };
        let (first, end) = items.unwrap_or((0, 0));
        (ArgsHandle { offset: block.offset(), len: len as u64, first, end }.words(), padding)
    }

    /// How a single call reads them.
    #[inline]
    pub(crate) fn shape(&self) -> Shape {
        match self.place {
            Place::Slot { .. } => Shape::Inline,
            Place::Own(_) | Place::Part(..) => Shape::Block,
        }
    }

    /// Bytes of blocks that the task reads, if it reads all of them.
    #[inline]
    pub(super) fn bytes_to_read(&self) -> usize {
        let own = match &self.place {
            Place::Slot { .. } => 0,
            Place::Own(block) => block.len(),
            Place::Part(_, len) => *len,
        };
        own + self.arrays.bytes()
    }
}

#[repr(C, align(16))]
struct First([u8; INLINE_ARGS]);

/// Growing arguments move from the stack into blocks.
struct ArgsMemory<'a> {
    arena: &'a ClientArena,
    kept: Option<Box<Kept>>,
}

impl Grow for ArgsMemory<'_> {
    fn grow(&mut self, old: Span, used: usize, needed: usize) -> Result<Span> {
        let held = self.kept.as_mut().and_then(|kept| kept.own()).map(|block| block.block.len);
        let mut kept = self.arena.take_kept(needed, held)?;
        let block = kept.own().expect("just taken");
        // SAFETY: `used` bytes are written at `old`; the new block has at least `needed >= used` bytes and
        // does not overlap it, being a block of its own.
        unsafe { std::ptr::copy_nonoverlapping(old.ptr.as_ptr(), block.ptr().as_ptr(), used) };
        let span = Span { ptr: block.ptr(), cap: block.block.len };
        self.kept = Some(kept); // the old one goes back
        Ok(span)
    }
}

impl ArgsMemory<'_> {
    /// The arguments, of which `len` bytes were written, and the arrays that they refer to.
    #[inline]
    fn finish(self, len: usize, padding: u8, arrays: Option<Arrays>) -> Option<Box<Kept>> {
        let mut kept = self.kept?;
        let block = kept.own()?;
        (block.len, block.padding) = (len, padding);
        if let Some(arrays) = arrays {
            kept.arrays = arrays;
        }
        Some(kept)
    }
}

/// Arguments as they have been written: kept, or as words.
///
/// Filled in place, and its fields looked at one by one: an [`Args`] that is passed on would be loaded in wider
/// pieces than it was stored in, and the processor waits for the stores then.
#[derive(Default)]
pub(crate) struct Archived {
    pub kept: Option<Box<Kept>>,
    pub words: ArgWords,
    /// How many bytes of the words they are.
    pub len: usize,
}

impl Archived {
    /// Archives a value where workers will read it.
    #[inline]
    pub(crate) fn write<T: Payload>(&mut self, arena: &ClientArena, value: &T) -> Result<()> {
        let mut first = First([0; INLINE_ARGS]);
        let span = Span { ptr: NonNull::from(&mut first.0).cast(), cap: arena.inline };
        let mut memory = ArgsMemory { arena, kept: None };
        let collect = Collect::begin();
        let (_, len) = put(value, span, &mut memory)?;
        let arrays = collect.end();
        if memory.kept.is_some() {
            self.kept = memory.finish(len, 0, arrays);
            return Ok(());
        }
        (self.words, self.len) = (bytemuck::cast(first.0), len);
        if let Some(arrays) = arrays {
            let mut kept = arena.empty();
            kept.place = Place::Slot { words: self.words, len: len as u8 };
            kept.arrays = arrays;
            self.kept = Some(kept);
        }
        Ok(())
    }
}

/// How many bytes are between so many items and the end of their archive, if that is known.
fn padding_of<T: Payload>(items: usize) -> u8 {
    let align = align_of::<ArchivedUsize>();
    let bytes = items * size_of::<T>();
    if is_flat::<T>() { (bytes.next_multiple_of(align) - bytes) as u8 } else { 0 }
}

impl Args {
    /// How a single call reads them.
    #[inline]
    pub(crate) fn shape(&self) -> Shape {
        match self {
            Args::Inline { .. } => Shape::Inline,
            Args::Kept(kept) => kept.shape(),
        }
    }

    /// See [`Kept::bytes_to_read`].
    pub(super) fn bytes_to_read(&self) -> usize {
        match self {
            Args::Inline { .. } => 0,
            Args::Kept(kept) => kept.bytes_to_read(),
        }
    }

    /// The block that is theirs alone.
    pub(crate) fn block(&self) -> Option<&ArgsBlock> {
        match self {
            Args::Kept(kept) => match &kept.place {
                Place::Own(block) => Some(block),
                _ => None,
            },
            Args::Inline { .. } => None,
        }
    }

    /// Archives a value where workers will read it.
    #[inline]
    pub(crate) fn archive<T: Payload>(arena: &ClientArena, value: &T) -> Result<Self> {
        let mut archived = Archived::default();
        archived.write(arena, value)?;
        Ok(match archived.kept {
            Some(kept) => Args::Kept(kept),
            None => Args::of_words(archived.words, archived.len),
        })
    }

    /// [`archive`](Self::archive) of the arguments for a task.
    #[inline]
    pub(crate) fn of_task<A: Payload, M, F: Task<A, M>>(arena: &ClientArena, args: &A) -> Result<Self> {
        match Self::short::<A, M, F>(arena, args) {
            Some((words, len)) => Ok(Self::of_words(words, len)),
            None => Self::archive(arena, args),
        }
    }

    /// Arguments that are in the first `len` bytes of these words, and refer to nothing.
    #[inline]
    pub(crate) fn of_words(words: ArgWords, len: usize) -> Self {
        Args::Inline { words, len: len as u8 }
    }

    /// The words of the arguments for a task, and how many bytes of them they are, if they are plain and fit.
    #[inline]
    pub(crate) fn short<A, M, F: Task<A, M>>(arena: &ClientArena, args: &A) -> Option<(ArgWords, usize)> {
        let mut words = ArgWords::default();
        let len = F::copy_args(args, bytemuck::cast_mut(&mut words))?;
        (len <= arena.inline).then_some((words, len))
    }

    /// Bytes as they are, which do not fit into the slot.
    pub(crate) fn of_bytes(arena: &ClientArena, bytes: &[u8]) -> Result<Self> {
        Self::filled(arena, bytes.len(), |block| block.copy_from_slice(bytes))
    }

    /// `len` bytes in a block, which `fill` writes.
    pub(crate) fn filled(arena: &ClientArena, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self> {
        let mut kept = arena.take_kept(len, None)?;
        fill(kept.own().expect("just taken").bytes_mut());
        Ok(Args::Kept(kept))
    }

    /// The first bytes of a block.
    pub(crate) fn of_block(block: Arc<ArgsBlock>, len: usize) -> Self {
        Args::Kept(Kept::boxed(Place::Part(block, len)))
    }

    /// These blocks, too, stay as they are until the task is done.
    pub(crate) fn keeping(self, blocks: impl Iterator<Item = Arc<ArgsBlock>>) -> Self {
        let mut kept = match self {
            Args::Kept(kept) => kept,
            Args::Inline { words, len } => Kept::boxed(Place::Slot { words, len }),
        };
        kept.arrays.extend(blocks);
        Args::Kept(kept)
    }

    /// The same, always in a block.
    pub(crate) fn archive_in_block<T: Payload>(arena: &ClientArena, value: &T) -> Result<Self> {
        Self::in_block(arena, 64, 0, |first, memory| put(value, first, memory))
    }

    /// Items of a chunk, archived as a vector.
    pub(crate) fn archive_items<T: Payload>(arena: &ClientArena, items: &[T]) -> Result<Self> {
        let guess = size_of_val(items) + 64;
        let padding = padding_of::<T>(items.len());
        Self::in_block(arena, guess, padding, |first, memory| put_items(items, first, memory))
    }

    /// The next `most` items, or all if there are fewer, written to `block`, which has room for so many
    /// [plain](crate::payload::is_plain) ones. Returns how many they are.
    pub(crate) fn fill_items<T: Payload>(
        mut block: ArgsBlock,
        items: &mut impl Iterator<Item = T>,
        most: usize,
    ) -> Result<(usize, Self)> {
        let span = Span { ptr: block.ptr(), cap: block.block.len };
        let (count, len) = put_flat_items(items, most, span)?;
        block.len = len;
        block.padding = padding_of::<T>(count);
        Ok((count, Args::Kept(Kept::boxed(Place::Own(block)))))
    }

    fn in_block(
        arena: &ClientArena,
        guess: usize,
        padding: u8,
        write: impl FnOnce(Span, &mut dyn Grow) -> Result<(Span, usize)>,
    ) -> Result<Self> {
        let mut memory = ArgsMemory { arena, kept: None };
        let first = memory.grow(Span { ptr: NonNull::dangling(), cap: 0 }, 0, guess)?;
        let collect = Collect::begin();
        let (_, len) = write(first, &mut memory)?;
        let kept = memory.finish(len, padding, collect.end());
        Ok(Args::Kept(kept.expect("grown above")))
    }
}
