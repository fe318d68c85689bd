//! Hints: none is lost, none is handed out twice, and whoever follows one sees what it is about.

use super::{check, check_large, mutants};
use crate::ring::{BATCH, CompletionControl, CompletionRing, Hint, ReadyControl, ReadyRing, Requeue, Window};
use crate::slot::{Owner, Reaped, SlotWord, State};
use crate::sync::{AtomicU32, AtomicU64};
use loom::sync::Arc;
use loom::thread;

fn claim_all(ring: &ReadyRing<'_>, most: u64) -> Vec<u32> {
    let window = Window::new();
    let count = ring.claim(|_| most, &window, |slot| Hint::new(0, slot), |_| {});
    (0..count).map(|i| window.get(i).get().expect("a hint").1).collect()
}

/// Two workers and a client: every hint is claimed once, none twice, in a ring that wraps.
#[test]
fn ready_ring_hands_out_each_hint_once() {
    check_large(|| {
        let ring = Arc::new((ReadyControl::new(), [AtomicU32::new(99), AtomicU32::new(99)]));
        let workers: Vec<_> = (0..2)
            .map(|k| {
                let ring = ring.clone();
                thread::spawn(move || {
                    let ring = ReadyRing::new(&ring.0, &ring.1);
                    let mut got = claim_all(&ring, BATCH as u64);
                    if k == 0 {
                        got.extend(claim_all(&ring, 1));
                    }
                    got
                })
            })
            .collect();
        let view = ReadyRing::new(&ring.0, &ring.1);
        let (mut tail, mut head) = (0, 0);
        let mut sent = Vec::new();
        for slot in 1..=3 {
            if view.has_room(tail, &mut head) {
                view.write(tail, slot);
                tail += 1;
                view.publish(tail);
                sent.push(slot);
            }
        }
        let mut got: Vec<u32> = workers.into_iter().flat_map(|w| w.join().expect("worker")).collect();
        while view.backlog() > 0 {
            got.extend(claim_all(&view, 1));
        }
        got.sort_unstable();
        assert_eq!(got, sent);
    });
}

/// Who sees that the ring is empty sees the hint in the window of the worker that took it.
#[test]
fn a_hint_is_in_the_ring_or_in_a_window() {
    check(|| {
        let shared = Arc::new((ReadyControl::new(), [AtomicU32::new(5)], Window::new()));
        let ring = ReadyRing::new(&shared.0, &shared.1);
        ring.write(0, 5);
        ring.publish(1);
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || {
                let ring = ReadyRing::new(&shared.0, &shared.1);
                ring.claim(|most| most, &shared.2, |slot| Hint::new(0, slot), |_| {})
            })
        };
        if ring.backlog() == 0 {
            assert_eq!(shared.2.get(0), Hint::new(0, 5));
        }
        assert_eq!(worker.join().expect("worker"), 1);
    });
}

/// A reaper announces while a worker takes: nothing stays behind with `any` down.
#[test]
fn requeue_loses_no_bit() {
    check(|| {
        let shared = Arc::new((AtomicU32::new(0), [AtomicU64::new(0)]));
        let reaper = {
            let shared = shared.clone();
            thread::spawn(move || {
                let requeue = Requeue::new(&shared.0, &shared.1);
                requeue.announce(1);
                requeue.announce(5);
            })
        };
        let requeue = Requeue::new(&shared.0, &shared.1);
        let window = Window::new();
        let mut taken = Vec::new();
        let mut cursor = 3;
        let mut take = || {
            let count = requeue.claim(1, &mut cursor, &window, |slot| Hint::new(0, slot));
            taken.extend((0..count).map(|i| window.get(i).get().expect("a hint").1));
        };
        take();
        reaper.join().expect("reaper");
        while !requeue.is_empty() {
            take();
        }
        taken.sort_unstable();
        assert_eq!(taken, [1, 5]);
    });
}

/// Who takes a requeued slot sees that it is ready again, even if it looked on account of another one.
#[test]
fn a_requeued_slot_is_seen_ready() {
    check(|| {
        let slot = AtomicU64::new(0);
        let dead = Owner::new(1, 3);
        SlotWord(&slot).submit(7);
        let _ = SlotWord(&slot).claim(SlotWord(&slot).load(), dead);
        let shared = Arc::new((AtomicU32::new(0), [AtomicU64::new(0)], slot));
        let reaper = {
            let shared = shared.clone();
            thread::spawn(move || {
                let requeue = Requeue::new(&shared.0, &shared.1);
                requeue.announce(0); // another slot, of no interest here
                assert_eq!(SlotWord(&shared.2).take_from_dead(dead, 2), Reaped::Retry);
                requeue.announce(1);
            })
        };
        let requeue = Requeue::new(&shared.0, &shared.1);
        let window = Window::new();
        let mut cursor = 0;
        let mut follow = || {
            let count = requeue.claim(2, &mut cursor, &window, |slot| Hint::new(0, slot));
            for hint in (0..count).map(|i| window.get(i)) {
                if hint == Hint::new(0, 1) {
                    let word = SlotWord(&shared.2);
                    assert!(word.claim(word.load(), Owner::new(2, 0)).is_some(), "the hint is lost");
                }
            }
        };
        follow();
        reaper.join().expect("reaper");
        requeue.announce(0); // loom lets `any` be down here, as if `claim` had swapped it out of order
        follow();
        assert_eq!(SlotWord(&shared.2).load().state(), Some(State::Run));
    });
}

/// Completions: who follows a hint, or hears that one was lost, sees the slot `Done`.
#[test]
fn completions_are_heard_of_and_seen() {
    check(|| {
        let slots = [AtomicU64::new(0), AtomicU64::new(0)];
        let me = Owner::new(1, 0);
        let runs = slots.each_ref().map(|slot| {
            SlotWord(slot).submit(7);
            SlotWord(slot).claim(SlotWord(slot).load(), me).expect("ready")
        });
        let shared = Arc::new((CompletionControl::new(), [AtomicU32::new(9)], slots));
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || {
                let ring = CompletionRing::new(&shared.0, &shared.1); // has room for one
                for (number, run) in runs.into_iter().enumerate() {
                    SlotWord(&shared.2[number]).finish(run).expect("ours");
                    ring.push(number as u32);
                }
            })
        };
        let ring = CompletionRing::new(&shared.0, &shared.1);
        let seen_done = |slot: u32| SlotWord(&shared.2[slot as usize]).load().is_terminal();
        let tail = ring.tail();
        assert!((0..tail).all(|position| seen_done(ring.get(position))), "the hint is lost");
        ring.publish_head(tail);
        let told = ring.overflow().take();
        assert!(!told || (0..2).all(seen_done), "the news of lost hints are lost");
        worker.join().expect("worker");
        assert!(ring.tail() == 2 || told || ring.overflow().is_up());
    });
}

mutants! {
    ready_publish_relaxed = ready_ring_hands_out_each_hint_once
        with "ring/ready.rs" "publish" "tail.store" Relaxed;
    ready_claim_sees_no_cells = ready_ring_hands_out_each_hint_once
        with "ring/ready.rs" "claim" "tail.load" Relaxed;
    ready_head_moves_before_the_window = a_hint_is_in_the_ring_or_in_a_window
        with "ring/ready.rs" "claim" "compare_exchange" Acquire;
    ready_backlog_sees_no_window = a_hint_is_in_the_ring_or_in_a_window
        with "ring/ready.rs" "backlog" "head.load" Relaxed;
    requeue_announced_before_its_bit = requeue_loses_no_bit
        with "ring/flag.rs" "raise" "store" Relaxed;
    requeue_taken_without_its_bits = requeue_loses_no_bit
        with "ring/flag.rs" "is_up" "load" Relaxed, "ring/flag.rs" "take" "swap" Relaxed;
    requeue_bit_set_before_t7 = a_requeued_slot_is_seen_ready
        with "ring/requeue.rs" "announce" "fetch_or" Relaxed;
    requeue_bit_taken_without_t7 = a_requeued_slot_is_seen_ready
        with "ring/requeue.rs" "claim" "word.load" Relaxed, "ring/requeue.rs" "claim" "fetch_and" Relaxed;
    completion_pushed_before_t3 = completions_are_heard_of_and_seen
        with "ring/completion.rs" "push" "tail.store" Relaxed;
    completion_heard_without_t3 = completions_are_heard_of_and_seen
        with "ring/completion.rs" "tail" "load" Relaxed;
    overflow_raised_before_t3 = completions_are_heard_of_and_seen
        with "ring/flag.rs" "raise" "store" Relaxed;
    overflow_taken_without_t3 = completions_are_heard_of_and_seen
        with "ring/flag.rs" "is_up" "load" Relaxed, "ring/flag.rs" "take" "swap" Relaxed;
}
