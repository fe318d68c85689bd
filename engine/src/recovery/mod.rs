//! Repairing what a dead process left, from nothing but the words that name it.

#[cfg(feature = "crash")]
mod rehearsal;

use crate::arena::{Adoption, BlockHandle, BlockWord, Class, WORDS_PER_EXTENT, used_extents};
use crate::segment::{Life, LifeState, Segment};
use crate::slot::{Answer, Meta, Owner, Place, Reaped, Slot, State, Word};
use crate::sync::Ordering;
use crate::worker::FuncWord;

#[cfg(feature = "crash")]
pub(crate) use rehearsal::rehearse;

/// The client that adopts results: entry 0, which lives as long as the pool.
pub(crate) const CLIENT: Owner = Owner { index: 0, incarnation: 0 };

/// Repairs the pool after the death of process `index`, incarnation `incarnation`.
///
/// To be called only when the kernel has confirmed the death (its pidfd is readable). Each step is a
/// CAS that names the dead incarnation, or sets a hint, so it may be repeated, run twice at once, or
/// be cut short by the death of whoever runs it and started again. It never waits.
///
/// Nothing depends on the life word: it may be corrupt, or a later incarnation's by now, and every step is
/// right all the same.
pub(crate) fn reap(segment: &Segment, index: u32, incarnation: u32) {
    let entry = segment.process(index);
    let dead = Owner::new(index, incarnation);
    let dying = Life { state: LifeState::Dead, incarnation };
    entry.change_life(incarnation, &[LifeState::Joining, LifeState::Live, LifeState::Leaving], dying);

    let used = segment.client().slots_used.load(Ordering::Acquire).min(segment.layout.sizes.slots);
    for number in 0..used {
        reap_slot(segment, number, dead);
    }
    // Only now: a block that a terminal slot names has been adopted above.
    free_blocks(segment, index, dead);
    segment.park(index).take_from_dead(incarnation);
    wake_client(segment);
    segment.bell().broadcast();
    // Last, so that a reap that is cut short is repeated.
    let free = Life { state: LifeState::Free, incarnation: incarnation.wrapping_add(1) };
    entry.change_life(incarnation, &[LifeState::Dead], free);
}

fn reap_slot(segment: &Segment, number: u32, dead: Owner) {
    let slot = segment.slot(number);
    let meta = Meta::unpack(slot.meta.load(Ordering::Relaxed));
    // A chunk is not repeated as a whole: its client goes on behind the item that failed.
    let attempts = meta.map_or(1, |m| if m.is_chunk() { 1 } else { m.max_attempts });
    let word = match slot.word().take_from_dead(dead, attempts) {
        Reaped::Retry => slot.word().load(),
        Reaped::Lost(word) | Reaped::NotTheirs(word) => word,
    };
    match word.state() {
        // Whoever's it is: the dead may have held the only hint to it, or a dead reaper may have.
        Some(State::Ready) => segment.requeue(FuncWord::lane_of(slot)).announce(number),
        Some(State::Done | State::Lost | State::Cancelled) => {
            adopt_for_client(segment, slot, word, dead);
            if word.has_waiter() {
                slot.word().wake(); // perhaps a dead process owed this
            }
        }
        _ => {}
    }
}

/// T11 on behalf of the client, for a terminal slot whose result lies in a block of the dead.
fn adopt_for_client(segment: &Segment, slot: &Slot, word: Word, dead: Owner) {
    if word.owner() == dead
        && let Some(handle) = named_block(slot, word)
        && let Some(block) = block_word(segment, handle)
    {
        let _: Adoption = block.adopt(dead, CLIENT, handle.generation);
    }
}

/// The block that a terminal slot names: a result's, or what a lost chunk had got to.
pub(crate) fn named_block(slot: &Slot, word: Word) -> Option<BlockHandle> {
    let named_by = match word.state()? {
        State::Done => match Answer::unpack(slot.answer.load(Ordering::Relaxed))?.place {
            Place::Block => &slot.handle,
            Place::NearBlock => &slot.tiny,
            Place::Tiny | Place::Inline => return None,
        },
        State::Lost if Meta::unpack(slot.meta.load(Ordering::Relaxed))?.is_chunk() => &slot.handle,
        _ => return None,
    };
    let handle = named_by.load(Ordering::Acquire);
    (handle != 0).then(|| BlockHandle::unpack(handle))
}

/// The word of a block, if the handle is possible at all.
pub(crate) fn block_word(segment: &Segment, handle: BlockHandle) -> Option<BlockWord<'_>> {
    if handle.owner >= segment.processes() {
        return None;
    }
    segment.words(handle.owner).get(handle.block as usize).map(BlockWord)
}

/// The words of the blocks of a region, as far as it has been used.
fn region_words(segment: &Segment, index: u32) -> impl Iterator<Item = BlockWord<'_>> {
    let classes = segment.classes(index);
    let words = segment.words(index);
    let used = used_extents(classes, segment.process(index).extents.load(Ordering::Acquire) as usize);
    classes[..used].iter().enumerate().flat_map(|(extent, class)| {
        let blocks = Class::unpack(class.load(Ordering::Acquire)).map_or(WORDS_PER_EXTENT, Class::blocks);
        let first = extent * WORDS_PER_EXTENT;
        words[first..first + blocks].iter().map(BlockWord)
    })
}

/// Frees every block that the dead process holds; only its own region can hold such blocks.
fn free_blocks(segment: &Segment, index: u32, dead: Owner) {
    for word in region_words(segment, index) {
        word.release_any(dead);
    }
}

/// Makes the client take all that is done, whatever its threads sleep on: a worker that waits for memory
/// may be waiting for just that.
pub(crate) fn urge_client(segment: &Segment) {
    wake_client(segment);
    let used = segment.client().slots_used.load(Ordering::Acquire).min(segment.layout.sizes.slots);
    for number in 0..used {
        let word = segment.slot(number).word();
        if word.load().has_waiter() {
            word.wake();
        }
    }
}

/// Makes the client look at all its slots, asleep or not, unless it waits for one of them only.
fn wake_client(segment: &Segment) {
    segment.rescan().raise();
    segment.sleep().wake_always();
}

/// Makes the region of an empty place new again if its words make no sense.
///
/// For the supervisor after a reap: it alone fills places, and the caller has made sure by the client's
/// private books that no block of the region is in use. Without this, what corrupt words cost would
/// stay lost for all successors.
pub(crate) fn renew_region(segment: &Segment, index: u32) {
    let classes = segment.classes(index);
    let extents = &segment.process(index).extents;
    let counted = extents.load(Ordering::Acquire) as usize;
    let used = used_extents(classes, counted);
    let labelled = classes[..used].iter().all(|class| Class::unpack(class.load(Ordering::Relaxed)).is_some());
    if counted == used && labelled && region_words(segment, index).all(BlockWord::is_free) {
        return;
    }
    if segment.clear_words(index).is_err() {
        return; // what is lost stays lost, that is all
    }
    for class in &classes[..used] {
        class.store(0, Ordering::Relaxed);
    }
    extents.store(0, Ordering::Release);
}
