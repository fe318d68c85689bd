//! Arguments on their way to workers: in the slot, or in a block of the client's region.

use crate::arena::{Block, Region};
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

/// The client's own region.
pub(crate) struct ClientArena {
    segment: Arc<Segment>,
    region: Mutex<Region>,
    /// Most bytes of arguments that travel inside a slot of this pool.
    inline: usize,
}

impl ClientArena {
    pub(super) fn new(segment: Arc<Segment>, quota: u64) -> Self {
        let region = Region::own(Owner::new(segment.index, 0), quota);
        let inline = if segment.hardened() { CHECKED_ARGS } else { INLINE_ARGS };
        ClientArena { segment, region: Mutex::new(region), inline }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Region, &Segment) -> R) -> R {
        f(&mut self.region.lock().unwrap_or_else(PoisonError::into_inner), &self.segment)
    }

    /// Gives free memory back to the system, but for some that is kept warm.
    pub(crate) fn trim(&self) {
        self.with(|region, segment| region.trim(segment, KEEP));
    }

    /// Whether it may have more than is kept warm.
    pub(crate) fn holds_much(&self) -> bool {
        self.with(|region, _| region.holds_more_than(KEEP))
    }

    /// Bytes of extents in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> u64 {
        self.with(|region, _| region.used())
    }

    /// Most bytes of arguments that travel inside a slot.
    #[inline]
    pub(crate) fn inline_most(&self) -> usize {
        self.inline
    }

    /// Takes a block of at least `bytes`.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<ArgsBlock> {
        self.take_beside(bytes, None)
    }

    /// Takes a block of at least `bytes` for what outgrows one of `held` bytes.
    fn take_beside(self: &Arc<Self>, bytes: usize, held: Option<usize>) -> Result<ArgsBlock> {
        let block = self.with(|region, segment| region.allocate_beside(segment, bytes, held))?;
        Ok(ArgsBlock { arena: self.clone(), block, len: bytes, padding: 0 })
    }
}

/// A block of the client's region, given back when nobody needs it any more.
pub(crate) struct ArgsBlock {
    arena: Arc<ClientArena>,
    block: Block,
    /// Bytes in use.
    len: usize,
    /// Bytes of them behind items of a chunk that are of no item, if these are flat.
    padding: u8,
}

impl ArgsBlock {
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
        unsafe { self.arena.segment.lend(self.offset(), self.ptr(), self.len) }
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
        if !self.arena.segment.is_here() {
            return; // a forked child's copy: the block is the parent's
        }
        self.arena.with(|region, segment| region.free(segment, self.block.handle));
    }
}

/// The arguments of a task, with all that must stay where it is until the task is done.
#[derive(Clone)]
pub(crate) struct Args {
    pub bytes: ArgsBytes,
    /// Shared arrays that the arguments refer to.
    pub(super) arrays: Option<Arc<[Arc<ArgsBlock>]>>,
}

/// Where arguments lie.
#[derive(Clone)]
pub(crate) enum ArgsBytes {
    Inline {
        words: ArgWords,
        len: u8,
    },
    Block(Arc<ArgsBlock>),
    /// The first bytes of a block.
    Part(Arc<ArgsBlock>, usize),
}

#[repr(C, align(16))]
struct First([u8; INLINE_ARGS]);

/// Growing arguments move from the stack into blocks.
struct ArgsMemory<'a> {
    arena: &'a Arc<ClientArena>,
    block: Option<ArgsBlock>,
}

impl Grow for ArgsMemory<'_> {
    fn grow(&mut self, old: Span, used: usize, needed: usize) -> Result<Span> {
        let held = self.block.as_ref().map(|block| block.block.len);
        let block = self.arena.take_beside(needed, held)?;
        // SAFETY: `used` bytes are written at `old`; the new block has at least `needed >= used` bytes and
        // does not overlap it, being a block of its own.
        unsafe { std::ptr::copy_nonoverlapping(old.ptr.as_ptr(), block.ptr().as_ptr(), used) };
        let span = Span { ptr: block.ptr(), cap: block.block.len };
        self.block = Some(block); // the old one goes back
        Ok(span)
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
    pub(crate) fn shape(&self) -> Shape {
        match self.bytes {
            ArgsBytes::Inline { .. } => Shape::Inline,
            ArgsBytes::Block(_) | ArgsBytes::Part(..) => Shape::Block,
        }
    }

    /// Bytes of blocks that the task reads, if it reads all of them.
    pub(super) fn bytes_to_read(&self) -> usize {
        let own = match &self.bytes {
            ArgsBytes::Inline { .. } => 0,
            ArgsBytes::Block(block) => block.len(),
            ArgsBytes::Part(_, len) => *len,
        };
        own + self.arrays.iter().flat_map(|arrays| arrays.iter()).map(|array| array.len()).sum::<usize>()
    }

    /// Archives a value where workers will read it.
    #[inline]
    pub(crate) fn archive<T: Payload>(arena: &Arc<ClientArena>, value: &T) -> Result<Self> {
        let mut first = First([0; INLINE_ARGS]);
        let span = Span { ptr: NonNull::from(&mut first.0).cast(), cap: arena.inline };
        let mut memory = ArgsMemory { arena, block: None };
        let collect = Collect::begin();
        let (_, len) = put(value, span, &mut memory)?;
        let bytes = match memory.block {
            None => ArgsBytes::Inline { words: bytemuck::cast(first.0), len: len as u8 },
            Some(mut block) => {
                block.len = len;
                ArgsBytes::Block(Arc::new(block))
            }
        };
        Ok(Args { bytes, arrays: collect.end() })
    }

    /// [`archive`](Self::archive) of the arguments for a task.
    #[inline]
    pub(crate) fn of_task<A: Payload, M, F: Task<A, M>>(arena: &Arc<ClientArena>, args: &A) -> Result<Self> {
        match Self::short::<A, M, F>(arena, args) {
            Some((words, len)) => Ok(Self::of_words(words, len)),
            None => Self::archive(arena, args),
        }
    }

    /// Arguments that are in the first `len` bytes of these words, and refer to nothing.
    #[inline]
    pub(crate) fn of_words(words: ArgWords, len: usize) -> Self {
        Args { bytes: ArgsBytes::Inline { words, len: len as u8 }, arrays: None }
    }

    /// The words of the arguments for a task, and how many bytes of them they are, if they are plain and fit.
    #[inline]
    pub(crate) fn short<A, M, F: Task<A, M>>(arena: &ClientArena, args: &A) -> Option<(ArgWords, usize)> {
        let mut words = ArgWords::default();
        let len = F::copy_args(args, bytemuck::cast_mut(&mut words))?;
        (len <= arena.inline).then_some((words, len))
    }

    /// What stands for them in the slot, and how many bytes of that are the arguments themselves, or of a chunk are
    /// padding. `items` is the range of a chunk.
    #[inline]
    pub(super) fn words(&self, items: Option<(u32, u32)>) -> (ArgWords, u8) {
        let (block, len, padding) = match &self.bytes {
            ArgsBytes::Inline { words, len } => return (*words, *len),
            ArgsBytes::Block(block) => (block, block.len(), block.padding),
            ArgsBytes::Part(block, len) => (block, *len, 0),
        };
        let (first, end) = items.unwrap_or((0, 0));
        (ArgsHandle { offset: block.offset(), len: len as u64, first, end }.words(), padding)
    }

    /// Bytes as they are, which do not fit into the slot.
    pub(crate) fn of_bytes(arena: &Arc<ClientArena>, bytes: &[u8]) -> Result<Self> {
        Self::filled(arena, bytes.len(), |block| block.copy_from_slice(bytes))
    }

    /// `len` bytes in a block, which `fill` writes.
    pub(crate) fn filled(arena: &Arc<ClientArena>, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self> {
        let mut block = arena.take(len)?;
        fill(block.bytes_mut());
        Ok(Args { bytes: ArgsBytes::Block(Arc::new(block)), arrays: None })
    }

    /// The first bytes of a block.
    pub(crate) fn of_block(block: Arc<ArgsBlock>, len: usize) -> Self {
        Args { bytes: ArgsBytes::Part(block, len), arrays: None }
    }

    /// These blocks, too, stay as they are until the task is done.
    pub(crate) fn keeping(mut self, blocks: impl Iterator<Item = Arc<ArgsBlock>>) -> Self {
        let all: Arc<[_]> = self.arrays.iter().flat_map(|kept| kept.iter().cloned()).chain(blocks).collect();
        self.arrays = (!all.is_empty()).then_some(all);
        self
    }

    /// The same, always in a block.
    pub(crate) fn archive_in_block<T: Payload>(arena: &Arc<ClientArena>, value: &T) -> Result<Self> {
        Self::in_block(arena, 64, 0, |first, memory| put(value, first, memory))
    }

    /// Items of a chunk, archived as a vector.
    pub(crate) fn archive_items<T: Payload>(arena: &Arc<ClientArena>, items: &[T]) -> Result<Self> {
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
        Ok((count, Args { bytes: ArgsBytes::Block(Arc::new(block)), arrays: None }))
    }

    fn in_block(
        arena: &Arc<ClientArena>,
        guess: usize,
        padding: u8,
        write: impl FnOnce(Span, &mut dyn Grow) -> Result<(Span, usize)>,
    ) -> Result<Self> {
        let mut memory = ArgsMemory { arena, block: None };
        let first = memory.grow(Span { ptr: NonNull::dangling(), cap: 0 }, 0, guess)?;
        let collect = Collect::begin();
        let (_, len) = write(first, &mut memory)?;
        let mut block = memory.block.expect("grown above");
        block.len = len;
        block.padding = padding;
        Ok(Args { bytes: ArgsBytes::Block(Arc::new(block)), arrays: collect.end() })
    }
}
