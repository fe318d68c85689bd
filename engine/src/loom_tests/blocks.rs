//! The word of a payload block, and the slot that hands the block over.

use super::{check, mutants};
use crate::arena::{Adoption, BlockWord};
use crate::slot::{Owner, SlotWord, Word};
use crate::sync::AtomicU64;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

const CLIENT: Owner = Owner { index: 0, incarnation: 0 };
const WORKER: Owner = Owner { index: 1, incarnation: 3 };

/// A block of the worker's region, and a slot that may name it.
struct Memory {
    block: AtomicU64,
    bytes: UnsafeCell<u32>,
    slot: AtomicU64,
}

// SAFETY: the bytes are touched only by who holds the block, which loom checks.
unsafe impl Sync for Memory {}
// SAFETY: as above.
unsafe impl Send for Memory {}

impl Memory {
    /// The slot runs the worker's task.
    fn new() -> (Arc<Self>, Word) {
        let slot = AtomicU64::new(0);
        SlotWord(&slot).submit(7);
        let run = SlotWord(&slot).claim(SlotWord(&slot).load(), WORKER).expect("ready");
        (Arc::new(Memory { block: AtomicU64::new(0), bytes: UnsafeCell::new(0), slot }), run)
    }

    fn block(&self) -> BlockWord<'_> {
        BlockWord(&self.block)
    }

    fn slot(&self) -> SlotWord<'_> {
        SlotWord(&self.slot)
    }

    /// What the worker does to write a result; `false` if the block is not free.
    fn write(&self, value: u32) -> bool {
        let free = self.block().is_free();
        if free {
            self.block().take(WORKER, value); // a generation for each value
            // SAFETY: we hold the block; loom would report another access at the same time.
            self.bytes.with_mut(|p| unsafe { *p = value });
        }
        free
    }

    /// What the client does with a slot that is done: T11, a look, T12, T4.
    fn consume(&self) -> Option<u32> {
        let word = self.slot().load();
        if !word.is_terminal() {
            return None;
        }
        assert_eq!(self.block().adopt(word.owner(), CLIENT, 1), Adoption::Held);
        // SAFETY: we hold the block.
        let value = self.bytes.with(|p| unsafe { *p });
        assert!(self.block().release(CLIENT, 1));
        self.slot().recycle(7);
        Some(value)
    }
}

/// A block goes from the worker to the client and back, and is written again.
#[test]
fn a_block_comes_back_when_its_reader_is_done() {
    check(|| {
        let (memory, run) = Memory::new();
        let worker = {
            let memory = memory.clone();
            thread::spawn(move || {
                assert!(memory.write(1));
                memory.slot().finish(run).expect("ours");
                memory.write(2);
            })
        };
        let early = memory.consume();
        worker.join().expect("worker");
        let value = early.or_else(|| memory.consume());
        assert_eq!(value, Some(1));
    });
}

/// The worker is dead, its result done. A reaper adopts for the client, then frees what the dead holds;
/// the client adopts, too. The result is read once, the block is free in the end, once.
#[test]
fn a_reaper_and_the_client_adopt_at_once() {
    check(|| {
        let (memory, run) = Memory::new();
        assert!(memory.write(1));
        memory.slot().finish(run).expect("ours");
        let reaper = {
            let memory = memory.clone();
            thread::spawn(move || {
                let word = memory.slot().load();
                if word.is_terminal() && word.owner() == WORKER {
                    let _: Adoption = memory.block().adopt(WORKER, CLIENT, 1);
                }
                memory.block().release_any(WORKER)
            })
        };
        assert_eq!(memory.consume(), Some(1));
        assert!(!reaper.join().expect("reaper"), "freed under the client's eyes");
        assert!(memory.block().is_free());
        assert!(memory.write(2));
    });
}

/// The worker dies before its task is done, and its block is freed; its successor uses it.
#[test]
fn a_successor_writes_the_blocks_of_the_dead() {
    check(|| {
        let (memory, _) = Memory::new();
        let reaper = {
            let memory = memory.clone();
            thread::spawn(move || {
                let first = {
                    let memory = memory.clone();
                    thread::spawn(move || memory.write(1))
                };
                first.join().expect("first"); // the kernel confirms the death
                assert!(memory.block().release_any(WORKER));
            })
        };
        // Only a successor asks this, but it may ask at any time.
        let held = memory.block.load(crate::sync::Ordering::Relaxed) & 1 == 1;
        if held {
            memory.write(2);
        }
        reaper.join().expect("reaper");
    });
}

mutants! {
    t12_without_release = a_block_comes_back_when_its_reader_is_done
        with "arena/block.rs" "free" "compare_exchange" Acquire;
    free_block_seen_without_acquire = a_block_comes_back_when_its_reader_is_done
        with "arena/block.rs" "is_free" "load" Relaxed;
    block_named_before_its_bytes = a_block_comes_back_when_its_reader_is_done
        with "slot/word.rs" "finish" "compare_exchange" Acquire;
    reapers_release_relaxed = a_successor_writes_the_blocks_of_the_dead
        with "arena/block.rs" "free" "compare_exchange" Acquire;
}
