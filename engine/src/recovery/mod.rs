//! Repairing what a dead process left, from nothing but the words that name it.

#[cfg(feature = "crash")]
mod rehearsal;

use crate::arena::{Adoption, BlockHandle, BlockWord, Class, WORDS_PER_EXTENT};
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
pub(crate) fn reap(segment: &Segment, index: u32, incarnation: u32) {
    let entry = segment.process(index);
    let dead = Owner::new(index, incarnation);
    let dying = Life { state: LifeState::Dead, incarnation };
    entry.change_life(incarnation, &[LifeState::Joining, LifeState::Live, LifeState::Leaving], dying);
    if entry.life() != Some(dying) {
        return; // another reaper has finished it already
    }

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
        let _: Adoption = block.adopt(dead, CLIENT);
    }
}

/// The block that a terminal slot names: a result's, or what a lost chunk had got to.
pub(crate) fn named_block(slot: &Slot, word: Word) -> Option<BlockHandle> {
    let names = match word.state()? {
        State::Done => Answer::unpack(slot.answer.load(Ordering::Relaxed))?.place == Place::Block,
        State::Lost => Meta::unpack(slot.meta.load(Ordering::Relaxed))?.is_chunk(),
        _ => false,
    };
    let handle = slot.handle.load(Ordering::Acquire);
    (names && handle != 0).then(|| BlockHandle::unpack(handle))
}

/// The word of a block, if the handle is possible at all.
pub(crate) fn block_word(segment: &Segment, handle: BlockHandle) -> Option<BlockWord<'_>> {
    if handle.owner >= segment.processes() {
        return None;
    }
    segment.words(handle.owner).get(handle.block as usize).map(BlockWord)
}

/// Frees every block that the dead process holds; only its own region can hold such blocks.
fn free_blocks(segment: &Segment, index: u32, dead: Owner) {
    let classes = segment.classes(index);
    let words = segment.words(index);
    let used = (segment.process(index).extents.load(Ordering::Acquire) as usize).min(classes.len());
    for (extent, class) in classes[..used].iter().enumerate() {
        let blocks = Class::unpack(class.load(Ordering::Acquire)).map_or(WORDS_PER_EXTENT, Class::blocks);
        let first = extent * WORDS_PER_EXTENT;
        for word in &words[first..first + blocks] {
            BlockWord(word).release(dead);
        }
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
