//! The allocator of one region. Its books are private to the region's owner: nobody can corrupt them,
//! and a successor in the same place rebuilds them from class and block words.

#[cfg(test)]
mod tests;

use super::block::{BlockHandle, BlockWord, GENERATIONS};
use super::class::{CLASSES, Class, EXTENT, WORDS_PER_EXTENT};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::Segment;
use crate::slot::Owner;
use crate::sync::{AtomicU32, Ordering};
use std::collections::{BTreeMap, VecDeque};
use std::ptr::NonNull;

/// How many words an allocation looks at for blocks that others have given back, before it takes
/// fresh memory.
const SWEEP: usize = 256;
/// How many blocks of a class that were handed out last are looked at before others. Who takes one result after the
/// other gives each back before the next is made, and so all lie in the same few blocks, which stay in caches.
const RECENT: usize = 16;
/// Bytes of the largest block of which that is done. Larger ones go round all of their extent: it takes longer to get many
/// lines back from the CPU that has just read them than from the cache that all share.
const WARM: usize = 8 << 10;
/// Memory is committed ahead of its use in steps of this size.
const COMMIT: usize = 64 << 10;

/// A block of our region, held by us and writable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub handle: BlockHandle,
    /// Offset in the region.
    pub offset: u64,
    pub ptr: NonNull<u8>,
    /// Usable bytes.
    pub len: usize,
}

// SAFETY: the pointer is into a mapping that lives as long as the pool; who may write is the block's holder.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

#[derive(Default)]
struct SmallClass {
    /// Blocks known to be free, the warmest last.
    free: Vec<u32>,
    /// If others give blocks back: those handed out last, the latest at the end.
    recent: VecDeque<u32>,
    extents: Vec<u32>,
    /// Where the next sweep begins: index into `extents`, block in it.
    cursor: (usize, usize),
}

/// Who gives the blocks of a region back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Releases {
    /// Its owner alone: a client's arguments. The books know all, and no shared word is believed.
    Own,
    /// Others too: results. Their words say which are free.
    ByOthers,
}

/// How many extents of a region have been used: those that its owner counted, and those that are labelled
/// behind them, in case the count is corrupt.
pub(crate) fn used_extents(classes: &[AtomicU32], counted: usize) -> usize {
    let mut at = 0;
    while let Some(class) = classes.get(at) {
        at += match Class::unpack(class.load(Ordering::Acquire)) {
            Some(Class::Unused) if at >= counted => break,
            Some(Class::Run(len)) if len <= classes.len() - at => len,
            _ => 1,
        };
    }
    at
}

/// The books of one region.
pub(crate) struct Region {
    me: Owner,
    quota: usize,
    releases: Releases,
    /// That of the block handed out last: see [`BlockWord::take`].
    generation: u32,
    classes: Vec<SmallClass>,
    /// The class of the last small block.
    last: usize,
    /// Free extents by first extent: length in extents.
    free_runs: BTreeMap<usize, usize>,
    /// Large blocks handed out: first extent and length.
    held_runs: Vec<(usize, usize)>,
    /// Extents ever used; the same number stands in the process entry.
    high_water: usize,
    /// Extents not in `free_runs`.
    used: usize,
    /// Bytes of each extent that are backed by memory.
    committed: Vec<u32>,
    /// Whether an extent may have more: what a predecessor left in it, whole or in part.
    inherited: Vec<bool>,
    /// Bytes of the extents in `free_runs` that are, or may be, backed.
    free_committed: usize,
    /// What the first extent of each run and all others were labelled last; the class words tell others.
    labels: Vec<Class>,
    /// How many small blocks of each extent are handed out, if nobody else can know.
    held: Vec<u32>,
}

impl Region {
    fn new(me: Owner, quota: u64, releases: Releases) -> Self {
        Region {
            me,
            quota: quota as usize,
            releases,
            // Each incarnation begins somewhere else than its predecessor stopped, most likely.
            generation: me.incarnation.wrapping_mul(0x9e37_79b1),
            classes: (0..CLASSES).map(|_| SmallClass::default()).collect(),
            last: 0,
            free_runs: BTreeMap::new(),
            held_runs: Vec::new(),
            high_water: 0,
            used: 0,
            committed: Vec::new(),
            inherited: Vec::new(),
            free_committed: 0,
            labels: Vec::new(),
            held: Vec::new(),
        }
    }

    /// A fresh region of which nobody but its owner gives blocks back.
    pub(crate) fn own(me: Owner, quota: u64) -> Self {
        Self::new(me, quota, Releases::Own)
    }

    /// Takes over the region of `segment.index`, as its predecessors in that place left it.
    ///
    /// From a class word on that no owner writes, nothing is known of what is in use: all that follows
    /// counts as used, until the place is empty and the supervisor resets it.
    pub(crate) fn open(segment: &Segment, me: Owner, quota: u64) -> Self {
        let mut region = Self::new(me, quota, Releases::ByOthers);
        let classes = segment.classes(segment.index);
        let counted = segment.process(segment.index).extents.load(Ordering::Acquire) as usize;
        let extents = used_extents(classes, counted);
        region.grow_books(extents);
        let mut at = 0;
        while at < extents {
            let class = Class::unpack(classes[at].load(Ordering::Relaxed));
            region.labels[at] = class.unwrap_or(Class::Unused);
            match class {
                Some(Class::Small(class)) => {
                    region.used += 1;
                    region.inherited[at] = true;
                    region.classes[class].extents.push(at as u32);
                    at += 1;
                }
                Some(Class::Run(len)) if len <= extents - at => {
                    region.used += len;
                    if region.word(segment, at * WORDS_PER_EXTENT).is_free() {
                        region.free_run(at, len);
                    } else {
                        region.inherited[at..at + len].fill(true);
                        region.held_runs.push((at, len));
                    }
                    at += len;
                }
                // Counted but never labelled: its owner died in between.
                Some(Class::Unused) => {
                    region.used += 1;
                    region.free_run(at, 1);
                    at += 1;
                }
                _ => {
                    region.used += extents - at;
                    at = extents;
                }
            }
        }
        // How much of what is free has memory, only the predecessor knew.
        for (&start, &len) in &region.free_runs {
            let _ = segment.region().remove(start * EXTENT, len * EXTENT);
        }
        region
    }

    fn grow_books(&mut self, extents: usize) {
        self.high_water = extents;
        self.committed.resize(extents, 0);
        self.inherited.resize(extents, false);
        self.labels.resize(extents, Class::Unused);
        self.held.resize(extents, 0);
    }

    fn word<'s>(&self, segment: &'s Segment, block: usize) -> BlockWord<'s> {
        BlockWord(&segment.words(segment.index)[block])
    }

    /// Bytes of extents in use.
    pub(crate) fn used(&self) -> u64 {
        (self.used * EXTENT) as u64
    }

    /// Takes a block of at least `bytes`, or says that there is none now.
    pub(crate) fn allocate(&mut self, segment: &Segment, bytes: usize) -> Result<Block> {
        let class = Class::fitting(bytes);
        let found = match class {
            Class::Small(number) => self.small(segment, number),
            Class::Run(len) => self.run(segment, len),
            Class::Unused => None,
        };
        let Some(block) = found else { return Err(self.full(bytes)) };
        let extent = block as usize / WORDS_PER_EXTENT;
        let offset = extent * EXTENT + block as usize % WORDS_PER_EXTENT * class.block_bytes();
        // A run may end in address space that nobody pays for until it is needed.
        let len = match class {
            Class::Run(extents) => bytes.next_multiple_of(COMMIT).min(extents * EXTENT),
            _ => class.block_bytes(),
        };
        if let Err(error) = self.commit(segment, offset, len) {
            // The word is still free; the next allocation may use the block.
            match class {
                Class::Small(number) => self.classes[number].free.push(block),
                Class::Run(len) => self.release_run(extent, len),
                Class::Unused => {}
            }
            return Err(error);
        }
        self.generation = self.generation.wrapping_add(1) & GENERATIONS;
        self.word(segment, block as usize).take(self.me, self.generation);
        if self.releases == Releases::Own {
            self.held[extent] += 1;
        }
        // SAFETY: the block lies inside the region's mapping: extents are below the layout's count.
        let ptr = unsafe { segment.region().ptr().byte_add(offset) };
        let handle = BlockHandle { owner: segment.index, block, generation: self.generation };
        Ok(Block { handle, offset: offset as u64, ptr, len })
    }

    /// [`allocate`](Self::allocate) for a payload that outgrows a block of `held` bytes, from which it will move.
    pub(crate) fn allocate_beside(
        &mut self,
        segment: &Segment,
        bytes: usize,
        held: Option<usize>,
    ) -> Result<Block> {
        self.check_beside(bytes, held.into_iter())?;
        self.allocate(segment, bytes)
    }

    /// An error if a block of at least `bytes` can never be had beside blocks of these sizes: both exist for a moment. If
    /// the quota is too small for that, no waiting helps.
    pub(crate) fn check_beside(&self, bytes: usize, held: impl Iterator<Item = usize>) -> Result<()> {
        let all = held.map(Class::footprint).fold(Class::footprint(bytes), usize::saturating_add);
        if all > self.quota { Err(self.full(all)) } else { Ok(()) }
    }

    /// Gives back a block that this process holds.
    pub(crate) fn free(&mut self, segment: &Segment, block: BlockHandle) {
        debug_assert_eq!(block.owner, segment.index);
        let extent = block.block as usize / WORDS_PER_EXTENT;
        let word = self.word(segment, block.block as usize);
        match (self.releases, self.labels[extent]) {
            (Releases::Own, class) => {
                word.put_back(block.generation);
                self.held[extent] -= 1;
                match class {
                    Class::Small(number) => self.classes[number].free.push(block.block),
                    Class::Run(len) => self.release_run(extent, len),
                    Class::Unused => {}
                }
            }
            (Releases::ByOthers, class) => {
                // Runs are found free by the next large allocation.
                if word.release(self.me, block.generation)
                    && let Class::Small(number) = class
                    && !self.classes[number].recent.contains(&block.block)
                {
                    self.classes[number].free.push(block.block);
                }
            }
        }
    }

    #[cold]
    fn full(&self, needed: usize) -> Error {
        ErrorKind::ArenaFull { needed: needed as u64, used: self.used(), quota: self.quota as u64 }.into()
    }

    /// Makes sure that memory is there, so that lack of it is an error here and no SIGBUS later.
    fn commit(&mut self, segment: &Segment, offset: usize, bytes: usize) -> Result<()> {
        let mut at = offset;
        let end = offset + bytes;
        while at < end {
            let extent = at / EXTENT;
            let from = self.committed[extent] as usize;
            let want = (end - extent * EXTENT).min(EXTENT);
            if from < want {
                let to = want.next_multiple_of(COMMIT).min(EXTENT);
                segment
                    .region()
                    .populate_write(extent * EXTENT + from, to - from)
                    .map_err(|error| Error::io("committing payload memory", error))?;
                self.committed[extent] = to as u32;
            }
            at = (extent + 1) * EXTENT;
        }
        Ok(())
    }

    fn small(&mut self, segment: &Segment, class: usize) -> Option<u32> {
        if self.releases == Releases::Own || Class::Small(class).block_bytes() > WARM {
            return self.small_of(segment, class);
        }
        self.last = class;
        // The oldest of them: so as many are in turn as are in use at a time.
        let oldest = self.classes[class].recent.front().copied();
        let again = oldest.filter(|&block| self.word(segment, block as usize).is_free());
        let block = again.or_else(|| self.small_of(segment, class))?;
        let recent = &mut self.classes[class].recent;
        if again.is_some() || recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(block);
        Some(block)
    }

    /// Begins to fetch the word of the block that the next allocation is likely to take.
    #[inline]
    pub(crate) fn prefetch(&self, segment: &Segment) {
        if let Some(&block) = self.classes[self.last].recent.front() {
            self.word(segment, block as usize).prefetch();
        }
    }

    fn small_of(&mut self, segment: &Segment, class: usize) -> Option<u32> {
        if let Some(block) = self.pop(segment, class) {
            return Some(block);
        }
        self.sweep(segment, class, SWEEP);
        if let Some(block) = self.pop(segment, class) {
            return Some(block);
        }
        if let Some(extent) = self.take_extents(segment, 1) {
            self.label(segment, extent, Class::Small(class));
            let blocks = Class::Small(class).blocks();
            self.classes[class].extents.push(extent as u32);
            let first = (extent * WORDS_PER_EXTENT) as u32;
            self.classes[class].free.extend((first..first + blocks as u32).rev());
        } else {
            self.sweep(segment, class, usize::MAX);
        }
        self.pop(segment, class)
    }

    fn pop(&mut self, segment: &Segment, class: usize) -> Option<u32> {
        while let Some(block) = self.classes[class].free.pop() {
            if self.releases == Releases::Own || self.word(segment, block as usize).is_free() {
                return Some(block);
            }
            // Found free twice, or its word is corrupt: the next sweep sees what it is.
        }
        None
    }

    /// Collects blocks of a class that others have given back, looking at no more than `most` words.
    fn sweep(&mut self, segment: &Segment, class: usize, most: usize) {
        if self.releases == Releases::Own {
            return;
        }
        let blocks = Class::Small(class).blocks();
        let state = &mut self.classes[class];
        let words = segment.words(segment.index);
        let total = state.extents.len() * blocks;
        let (mut extent, mut block) = state.cursor;
        for _ in 0..most.min(total) {
            if extent >= state.extents.len() {
                (extent, block) = (0, 0);
            }
            let id = state.extents[extent] as usize * WORDS_PER_EXTENT + block;
            if BlockWord(&words[id]).is_free() {
                state.free.push(id as u32);
            }
            block += 1;
            if block == blocks {
                (extent, block) = (extent + 1, 0);
            }
        }
        state.cursor = (extent, block);
    }

    /// Gives memory back to the system, all but `keep` bytes of what is committed and free.
    ///
    /// For idle moments: the next use has to fetch the memory again.
    pub(crate) fn trim(&mut self, segment: &Segment, keep: usize) {
        self.collect_runs(segment);
        self.reclaim(segment, usize::MAX);
        self.keep_free(segment, keep);
    }

    /// Whether more than `keep` bytes may be committed, free or not.
    pub(crate) fn holds_more_than(&self, keep: usize) -> bool {
        self.high_water * EXTENT > keep && self.committed_in(0, self.high_water) > keep
    }

    /// Gives memory of free extents back, all but `keep` bytes.
    fn keep_free(&mut self, segment: &Segment, keep: usize) {
        let mut kept = 0;
        for (&start, &len) in &self.free_runs {
            for extent in start..start + len {
                if kept + self.backed(extent) > keep
                    && segment.region().remove(extent * EXTENT, EXTENT).is_ok()
                {
                    (self.committed[extent], self.inherited[extent]) = (0, false);
                }
                kept += self.backed(extent);
            }
        }
        self.free_committed = kept;
    }

    fn run(&mut self, segment: &Segment, len: usize) -> Option<u32> {
        self.collect_runs(segment);
        let start = self.take_extents(segment, len)?;
        self.label(segment, start, Class::Run(len));
        self.held_runs.push((start, len));
        Some((start * WORDS_PER_EXTENT) as u32)
    }

    /// Finds large blocks that others have given back.
    fn collect_runs(&mut self, segment: &Segment) {
        if self.releases == Releases::Own {
            return;
        }
        let mut index = 0;
        while index < self.held_runs.len() {
            let (start, extents) = self.held_runs[index];
            if self.word(segment, start * WORDS_PER_EXTENT).is_free() {
                self.held_runs.swap_remove(index);
                self.free_run(start, extents);
            } else {
                index += 1;
            }
        }
    }

    /// Takes back a run that nobody uses.
    fn release_run(&mut self, start: usize, len: usize) {
        self.held_runs.retain(|&run| run != (start, len));
        self.free_run(start, len);
    }

    fn label(&mut self, segment: &Segment, extent: usize, class: Class) {
        self.labels[extent] = class;
        // Release pairs with whoever computes a block's place from its handle.
        segment.classes(segment.index)[extent].store(class.pack(), Ordering::Release);
    }

    /// Puts extents on the free list, joined with their neighbours. Their words are free.
    fn free_run(&mut self, mut start: usize, mut len: usize) {
        self.used -= len;
        self.free_committed += self.committed_in(start, len);
        if let Some((&before, &before_len)) = self.free_runs.range(..start).next_back()
            && before + before_len == start
        {
            self.free_runs.remove(&before);
            (start, len) = (before, len + before_len);
        }
        if let Some(after_len) = self.free_runs.remove(&(start + len)) {
            len += after_len;
        }
        self.free_runs.insert(start, len);
    }

    /// Takes extents that are beside each other. What is free elsewhere may then have to give its memory
    /// back: that of a region is never more than its quota.
    fn take_extents(&mut self, segment: &Segment, len: usize) -> Option<usize> {
        let start = self.find_extents(segment, len)?;
        let room = self.quota.saturating_sub(self.used * EXTENT);
        if self.free_committed > room {
            self.keep_free(segment, room);
        }
        Some(start)
    }

    fn find_extents(&mut self, segment: &Segment, len: usize) -> Option<usize> {
        if (self.used + len) * EXTENT > self.quota {
            self.collect_runs(segment);
            if !self.reclaim(segment, len) {
                return None;
            }
        }
        if let Some(start) = self.take_free(segment, len) {
            return Some(start);
        }
        let all = segment.classes(segment.index).len();
        if self.high_water + len > all {
            // Address space is used up: give what is free elsewhere a new use.
            self.collect_runs(segment);
            self.reclaim(segment, usize::MAX);
            if let Some(start) = self.take_free(segment, len) {
                return Some(start);
            }
            // What is free at the end may be enough together with what was never used.
            let (&start, &have) = self.free_runs.last_key_value()?;
            if start + have != self.high_water || start + len > all {
                return None;
            }
            self.free_runs.remove(&start);
            self.free_committed -= self.committed_in(start, have);
            return Some(self.take_fresh(segment, start, len));
        }
        Some(self.take_fresh(segment, self.high_water, len))
    }

    /// Takes free extents from `start` on, of which the last ones were never used.
    fn take_fresh(&mut self, segment: &Segment, start: usize, len: usize) -> usize {
        self.grow_books(start + len);
        self.used += len;
        // Counted before used, so that a reap looks at their words.
        segment.process(segment.index).extents.store(self.high_water as u32, Ordering::Release);
        start
    }

    fn committed_in(&self, start: usize, len: usize) -> usize {
        (start..start + len).map(|extent| self.backed(extent)).sum()
    }

    /// Bytes of an extent that are backed by memory, at most.
    fn backed(&self, extent: usize) -> usize {
        if self.inherited[extent] { EXTENT } else { self.committed[extent] as usize }
    }

    fn take_free(&mut self, segment: &Segment, len: usize) -> Option<usize> {
        let (&start, &have) = self.free_runs.iter().find(|&(_, &have)| have >= len)?;
        self.free_runs.remove(&start);
        self.free_committed -= self.committed_in(start, len);
        if have > len {
            // The rest is labelled first: until the front is relabelled, its old label covers both.
            self.label(segment, start + len, Class::Run(have - len));
            self.free_runs.insert(start + len, have - len);
        }
        self.used += len;
        Some(start)
    }

    /// Frees extents whose small blocks are all free, until `len` more extents fit the quota.
    fn reclaim(&mut self, segment: &Segment, len: usize) -> bool {
        let words = segment.words(segment.index);
        let is_empty = |first: usize, blocks: usize| match self.releases {
            Releases::Own => self.held[first / WORDS_PER_EXTENT] == 0,
            Releases::ByOthers => words[first..first + blocks].iter().all(|w| BlockWord(w).is_free()),
        };
        let fits = |used: usize| used.saturating_add(len).saturating_mul(EXTENT) <= self.quota;
        let mut emptied = Vec::new();
        let mut used = self.used;
        for (number, class) in self.classes.iter_mut().enumerate() {
            let blocks = Class::Small(number).blocks();
            class.extents.retain(|&extent| {
                let first = extent as usize * WORDS_PER_EXTENT;
                let empty = !fits(used) && is_empty(first, blocks);
                if empty {
                    used -= 1;
                    emptied.push(extent as usize);
                }
                !empty
            });
            let stays = |&block: &u32| !emptied.contains(&(block as usize / WORDS_PER_EXTENT));
            class.free.retain(stays);
            class.recent.retain(stays);
            class.cursor = (0, 0);
        }
        for extent in emptied {
            self.label(segment, extent, Class::Run(1));
            self.free_run(extent, 1);
        }
        (self.used.saturating_add(len)).saturating_mul(EXTENT) <= self.quota
    }
}
