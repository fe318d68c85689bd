//! Rings, requeue bits, windows: hints are never the truth, but every ready slot has one.

use super::look::{Findings, Proof};
use super::processes::Peers;
use super::report::Place as At;
use super::slots::Busy;
use crate::ring::Hint;
use crate::segment::{LANES, View};
use crate::slot::State;
use crate::wake::ParkState;
use std::collections::HashSet;

/// Judges all hints, and whether every slot that needs one has one.
pub(super) fn check(view: &View<'_>, findings: &mut Findings, busy: &[Busy], peers: &Peers) {
    // In this order: a hint is in a window before it leaves its ring.
    let mut hinted: [HashSet<u32>; LANES] = std::array::from_fn(|lane| {
        let mut named = requeued(view, findings, lane);
        named.extend(ready(view, findings, lane));
        named
    });
    for slot in windows(view, findings) {
        hinted.iter_mut().for_each(|lane| _ = lane.insert(slot));
    }
    let mut announced = HashSet::new();
    let mut everything = word_of_two(findings, At::Client, "rescan", view.rescan());
    for worker in 1..view.places() {
        everything |= completions(view, findings, worker, &mut announced);
    }
    for slot in busy {
        let at = At::Slot(slot.number);
        let word = slot.word;
        match slot.state {
            State::Ready => {
                findings.expect(hinted[slot.lane].contains(&slot.number), Proof::Stuck, 9, at, || {
                    format!("{word:?}, and no ring, requeue bit or window names it")
                });
                check_conserving(findings, slot, peers);
            }
            State::Done | State::Lost | State::Cancelled => {
                findings.expect(everything || announced.contains(&slot.number), Proof::Stuck, 10, at, || {
                    format!("{word:?}, and no completion ring, overflow or rescan mark tells its client")
                });
            }
            State::Free | State::Run => {}
        }
    }
}

/// A word that is 0 or 1; whether it is set.
fn word_of_two(findings: &mut Findings, at: At, name: &str, word: u32) -> bool {
    findings.expect(word <= 1, Proof::Word, 6, at, || format!("{name} is {word:#x}; it is 0 or 1"));
    word != 0
}

/// Slots that a lane's requeue bits name.
fn requeued(view: &View<'_>, findings: &mut Findings, lane: usize) -> HashSet<u32> {
    let at = At::Lane(lane as u32);
    word_of_two(findings, at, "requeue_any", view.requeue_any(lane));
    let slots = view.layout().sizes.slots;
    let mut named = HashSet::new();
    for (index, word) in view.requeued(lane) {
        for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
            let slot = index as u32 * 64 + bit;
            findings.expect(slot < slots, Proof::Word, 6, at, || {
                format!("a requeue bit names slot {slot}; there are {slots}")
            });
            named.insert(slot);
        }
    }
    named
}

/// Slots that a lane's ready ring names.
fn ready(view: &View<'_>, findings: &mut Findings, lane: usize) -> HashSet<u32> {
    let at = At::Lane(lane as u32);
    let slots = view.layout().sizes.slots;
    let capacity = 2 * u64::from(slots);
    for (index, slot) in view.ready_written(lane) {
        findings.expect(slot < slots, Proof::Word, 12, at, || {
            format!("cell {index} of the ready ring names slot {slot}; there are {slots}")
        });
    }
    let ring = view.ready(lane);
    // Both only grow. The head that was loaded is not behind the tail of before by more than the ring holds,
    // and not in front of the tail of after.
    let full = (ring.tail_before.wrapping_sub(ring.head) as i64) <= capacity as i64;
    let behind = (ring.tail.wrapping_sub(ring.head) as i64) >= 0;
    findings.expect(full && behind, Proof::Lasting, 12, at, || {
        let (head, tail) = (ring.head, ring.tail);
        format!("the ready ring goes from {head} to {tail}; it holds {capacity} and its head does not pass its tail")
    });
    if !full || !behind {
        return HashSet::new();
    }
    let waiting = ring.tail.wrapping_sub(ring.head).min(capacity);
    (0..waiting).map(|i| view.ready_cell(lane, ring.head.wrapping_add(i))).collect()
}

/// Slots that the windows of all workers name, dead ones included.
fn windows(view: &View<'_>, findings: &mut Findings) -> HashSet<u32> {
    let slots = view.layout().sizes.slots;
    let mut named = HashSet::new();
    for process in 0..view.places() {
        for hint in view.process(process).window.into_iter().filter(|&hint| hint != Hint::NONE) {
            match hint.get() {
                Some((0, slot)) if slot < slots => {
                    named.insert(slot);
                }
                _ => findings.add(Proof::Word, 6, At::Process(process), || {
                    format!("its window holds {:#x}; right is 0x100000000 and a slot below {slots}", hint.0)
                }),
            }
        }
    }
    named
}

/// Judges a completion ring and collects the slots that it names; whether it has overflowed.
fn completions(view: &View<'_>, findings: &mut Findings, worker: u32, announced: &mut HashSet<u32>) -> bool {
    let at = At::Completions(worker);
    let slots = view.layout().sizes.slots;
    let capacity = view.layout().sizes.completions;
    let (ring, overflow) = view.completions(worker);
    let full = (ring.tail_before.wrapping_sub(ring.head) as i32) <= capacity as i32;
    let behind = (ring.tail.wrapping_sub(ring.head) as i32) >= 0;
    findings.expect(full && behind, Proof::Lasting, 12, at, || {
        let (head, tail) = (ring.head, ring.tail);
        format!("it goes from {head} to {tail}; it holds {capacity} and its head does not pass its tail")
    });
    if full && behind {
        let waiting = ring.tail.wrapping_sub(ring.head).min(capacity);
        for position in (0..waiting).map(|i| ring.head.wrapping_add(i)) {
            let slot = view.completion_cell(worker, position);
            findings.expect(slot < slots, Proof::Word, 10, at, || {
                format!("the cell for {position} names slot {slot}; there are {slots}")
            });
            announced.insert(slot);
        }
    }
    word_of_two(findings, at, "overflow", overflow)
}

/// Nobody sleeps who could run the slot, unless somebody is about to look at it.
fn check_conserving(findings: &mut Findings, slot: &Busy, peers: &Peers) {
    let serving = || peers.workers.iter().filter(|worker| worker.lanes >> slot.lane & 1 == 1);
    let awake = |state| matches!(state, ParkState::Notified | ParkState::Search);
    if serving().any(|worker| awake(worker.park)) {
        return;
    }
    if let Some(idle) = serving().find(|worker| worker.park == ParkState::Parked) {
        findings.add(Proof::Stuck, 22, At::Slot(slot.number), || {
            format!(
                "{:?}, while process {} sleeps, who could run it, and nobody searches or is being woken",
                slot.word, idle.index
            )
        });
    }
}
