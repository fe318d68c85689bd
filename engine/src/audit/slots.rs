//! Slot words, and what they say about the rest of their slots.

use super::blocks::{Holder, locate_args};
use super::look::{Findings, Proof};
use super::report::{Place as At, SlotCounts};
use super::{is_running, same_incarnation};
use crate::arena::{BlockHandle, Class, WORDS_PER_EXTENT};
use crate::recovery::CLIENT;
use crate::segment::{Life, LifeState, SlotWords, View};
use crate::slot::{Answer, ArgsHandle, Meta, Owner, Place, Shape, State, Word};

/// A slot that is in use, for the checks that look at several.
pub(super) struct Busy {
    pub number: u32,
    pub word: Word,
    pub state: State,
    pub lane: usize,
    /// The block that a `Done` slot names.
    pub block: Option<BlockHandle>,
}

/// Judges all slots; returns those in use.
pub(super) fn check(view: &View<'_>, findings: &mut Findings, counts: &mut SlotCounts) -> Vec<Busy> {
    let total = view.layout().sizes.slots;
    counts.total = total;
    let mut busy = Vec::new();
    let mut untouched = total;
    for number in view.slots_touched() {
        untouched -= 1;
        let word = Word(view.slot_word(number));
        check_unused(view, findings, number, word);
        let Some(state) = word.state() else {
            counts.corrupt += 1;
            findings.add(Proof::Word, 1, At::Slot(number), || {
                format!("the word {:#x} has state {}; states are 0 to 5", word.0, word.0 & 0xf)
            });
            continue;
        };
        let count = match state {
            State::Free => &mut counts.free,
            State::Ready => &mut counts.ready,
            State::Run => &mut counts.running,
            State::Done => &mut counts.done,
            State::Lost => &mut counts.lost,
            State::Cancelled => &mut counts.cancelled,
        };
        *count += 1;
        let well_formed = check_word(view, findings, number, word, state);
        if state == State::Free || !well_formed {
            continue;
        }
        let slot = view.slot(number);
        let block = check_contents(view, findings, number, word, state, &slot);
        if state != State::Cancelled {
            check_owner(view, findings, number, word, state);
        }
        let lane = crate::worker::FuncWord(slot.func).lane();
        busy.push(Busy { number, word, state, lane, block });
    }
    counts.free += untouched;
    let used = view.slots_used();
    findings.expect(used <= total, Proof::Word, 30, At::Client, || {
        format!("{used} slots have been used; the pool has {total}")
    });
    busy
}

/// Slots that were never used hold nothing.
fn check_unused(view: &View<'_>, findings: &mut Findings, number: u32, word: Word) {
    if number < view.slots_used() {
        return;
    }
    let SlotWords { func, meta, answer, tiny, handle, len, done } = view.slot(number);
    let zero = [word.0, func, meta.into(), answer.into(), tiny, handle, len, done.into()] == [0; 8];
    findings.expect(zero, Proof::Lasting, 6, At::Slot(number), || {
        format!(
            "never used, and not all zero: word {:#x}, function {func:#x}, meta {meta:#x}, answer {answer:#x}, \
             tiny {tiny:#x}, handle {handle:#x}, length {len}, done {done}",
            word.0
        )
    });
}

/// What a word can say at all.
fn check_word(view: &View<'_>, findings: &mut Findings, number: u32, word: Word, state: State) -> bool {
    let owner = word.owner();
    let at = At::Slot(number);
    let raw = word.0;
    let flags = raw >> 5 & 7;
    let wrong = |text: String| format!("{word:?}, {raw:#x}: {text}");
    let mut good = true;
    let mut expect = |holds: bool, invariant: u8, text: &dyn Fn() -> String| {
        findings.expect(holds, Proof::Word, invariant, at, || wrong(text()));
        good &= holds;
    };
    expect(flags == 0, 1, &|| format!("flags C, O, K are {flags:#05b}; nobody sets them"));
    match state {
        State::Free => {
            expect(raw << 28 == 0, 1, &|| "a free word holds a generation and nothing else".to_owned());
        }
        State::Ready | State::Cancelled => {
            expect(owner.bits() == 0, 1, &|| "a task that nobody runs names an owner".to_owned());
        }
        State::Run | State::Done | State::Lost => {
            // Loaded after the word: a place is counted before anybody is launched into it.
            let places = view.places();
            expect(owner.index != 0 && owner.index < places, 2, &|| {
                format!("the owner is process {}; workers are 1 to {}", owner.index, places.saturating_sub(1))
            });
        }
    }
    expect(word.attempt() < 15, 1, &|| "attempts are 0 to 14".to_owned());
    good
}

/// Whether the owner is somebody who may have written the word.
fn check_owner(view: &View<'_>, findings: &mut Findings, number: u32, word: Word, state: State) {
    if state == State::Ready {
        return;
    }
    let Owner { index, incarnation } = word.owner();
    let raw = view.life(index);
    let Some(life) = Life::unpack(raw) else { return };
    let current = same_incarnation(word.owner(), life);
    let at = At::Slot(number);
    match state {
        State::Run => {
            let may_run = current && matches!(life.state, LifeState::Live | LifeState::Dead);
            findings.expect(may_run, Proof::Lasting, 15, at, || {
                format!("{word:?} is run by nobody: process {index} is {life:?}")
            });
        }
        _ => {
            let ahead = (life.incarnation.wrapping_sub(incarnation) & 0x3fff) >= 0x2000;
            let unborn = current && matches!(life.state, LifeState::Free | LifeState::Joining);
            findings.expect(!ahead && !unborn, Proof::Lasting, 17, at, || {
                format!("{word:?} was written by somebody who is yet to come: process {index} is {life:?}")
            });
        }
    }
}

/// What the words of a slot in use say; returns the block that a result lies in.
fn check_contents(
    view: &View<'_>,
    findings: &mut Findings,
    number: u32,
    word: Word,
    state: State,
    slot: &SlotWords,
) -> Option<BlockHandle> {
    let at = At::Slot(number);
    let Some(meta) = Meta::unpack(slot.meta) else {
        findings.add(Proof::Lasting, 1, at, || {
            format!("{word:?} has the meta word {:#x}, which no client writes", slot.meta)
        });
        return None;
    };
    let most = if meta.is_chunk() { 1 } else { meta.max_attempts };
    findings.expect((1..=15).contains(&meta.max_attempts), Proof::Lasting, 1, at, || {
        format!("{word:?} may be tried {} times; right are 1 to 15 times", meta.max_attempts)
    });
    findings.expect(word.attempt() < most.max(1), Proof::Lasting, 1, at, || {
        format!("{word:?} is at attempt {}, but has {most}", word.attempt())
    });
    findings.expect(slot.func != 0, Proof::Lasting, 1, at, || format!("{word:?} calls no function"));
    if meta.shape != Shape::Inline {
        check_args(view, findings, number, word, state, slot, meta);
    }
    match state {
        State::Done => check_answer(view, findings, number, word, slot, meta),
        State::Lost if meta.is_chunk() && slot.handle != 0 => {
            let handle = BlockHandle::unpack(slot.handle);
            findings.expect(handle.owner == word.owner().index, Proof::Lasting, 30, at, || {
                format!("{word:?} names block {}.{}, not one of its worker's", handle.owner, handle.block)
            });
            None
        }
        _ => None,
    }
}

/// The arguments of a task that may still be run lie in a block that the client holds.
fn check_args(
    view: &View<'_>,
    findings: &mut Findings,
    number: u32,
    word: Word,
    state: State,
    slot: &SlotWords,
    meta: Meta,
) {
    let at = At::Slot(number);
    let args = ArgsHandle::from_bytes(&view.slot_args(number));
    let ArgsHandle { offset, len, first, end } = args;
    if meta.is_chunk() {
        let done = slot.done;
        let items = end.saturating_sub(first);
        findings.expect(first < end && done <= items, Proof::Lasting, 30, at, || {
            format!("{word:?} has done {done} of the items from {first} up to {end}")
        });
    }
    // Those of a finished task may be gone already, and those of all tasks once the pool has been ended.
    if !matches!(state, State::Ready | State::Run) || !is_running(view) {
        return;
    }
    match locate_args(view, offset) {
        Err(why) => findings.add(Proof::Lasting, 30, at, || {
            format!("{word:?} has its {len} argument bytes at {offset}: {why}")
        }),
        Ok((block, class)) => {
            let held = Holder::of(view.block(0, block));
            findings.expect(held == Some(CLIENT), Proof::Lasting, 26, at, || {
                format!("{word:?} has its arguments in block 0.{block}, which is not the client's: {held:?}")
            });
            findings.expect(len <= class.block_bytes() as u64, Proof::Lasting, 30, at, || {
                format!("{word:?} has {len} argument bytes in a block of {}", class.block_bytes())
            });
        }
    }
}

/// The result of a finished task.
fn check_answer(
    view: &View<'_>,
    findings: &mut Findings,
    number: u32,
    word: Word,
    slot: &SlotWords,
    meta: Meta,
) -> Option<BlockHandle> {
    let at = At::Slot(number);
    let raw = slot.answer;
    let answer = Answer::unpack(raw).filter(|answer| (1..=8).contains(&answer.status));
    let Some(answer) = answer else {
        findings.add(Proof::Lasting, 5, at, || {
            format!("{word:?} has the answer word {raw:#x}, which no worker writes")
        });
        return None;
    };
    let is_chunk = answer.status == crate::task::Status::Chunk as u32;
    findings.expect(!is_chunk || meta.is_chunk(), Proof::Lasting, 5, at, || {
        format!("{word:?} is answered as a chunk (answer {raw:#x}), and is none (meta {:#x})", slot.meta)
    });
    let (handle, len) = match answer.place {
        Place::Block => (slot.handle, slot.len),
        Place::NearBlock => (slot.tiny, answer.short_len as u64),
        Place::Tiny | Place::Inline => return None,
    };
    let handle = BlockHandle::unpack(handle);
    let BlockHandle { owner, block, .. } = handle;
    let name = format!("{word:?} has its result of {len} bytes in block {owner}.{block}");
    if owner != word.owner().index || block as usize >= view.layout().word_stride / 8 {
        findings.add(Proof::Lasting, 30, at, || format!("{name}, which is none of its worker's"));
        return None;
    }
    let (extent, within) = (block as usize / WORDS_PER_EXTENT, block as usize % WORDS_PER_EXTENT);
    let class = view.class(owner, extent);
    let fits = Class::unpack(class)
        .is_some_and(|class| within < class.blocks() && len <= class.block_bytes() as u64);
    findings.expect(fits, Proof::Lasting, 30, at, || {
        format!("{name}, block {within} of extent {extent} of class {class:#x}: it does not fit")
    });
    let held = Holder::of(view.block(owner, block as usize));
    findings.expect(held == Some(word.owner()) || held == Some(CLIENT), Proof::Lasting, 5, at, || {
        format!("{name}, which is held by {held:?} and not by its worker or the client")
    });
    Some(handle)
}
