//! A pool in the middle of some tasks, for tests to spoil.

use super::super::*;
use crate::arena::Region;
use crate::ring::Hint;
use crate::segment::{Life, Role, Sizes};
use crate::slot::{Answer, ArgsHandle, Meta, Place as Lies, Shape};
use crate::sync::Ordering::Relaxed;

pub(super) const SLOTS: u32 = 64;
pub(super) const EXTENTS: u64 = 8;
/// Of the workers in places 1 and 2.
pub(super) const INCARNATION: u32 = 5;

pub(super) const READY: u32 = 0;
pub(super) const RUNNING: u32 = 1;
pub(super) const DONE: u32 = 2;
pub(super) const READY_IN_BLOCK: u32 = 3;
pub(super) const DONE_IN_BLOCK: u32 = 4;
pub(super) const FREE: u32 = 5;
pub(super) const UNUSED: u32 = 6;

pub(super) fn word(generation: u64, attempt: u64, owner: u64, state: u64) -> u64 {
    let owner = if owner == 0 { 0 } else { u64::from(INCARNATION) << 10 | owner };
    generation << 36 | attempt << 32 | owner << 8 | state
}

pub(super) fn free_sizes() -> Sizes {
    Sizes { processes: 4, slots: SLOTS, completions: 64, region: EXTENTS << 21 }
}

pub(super) struct Scene {
    pub(super) segment: Segment,
    /// Block numbers: of arguments in region 0, of a result in region 2.
    pub(super) args: u32,
    pub(super) result: u32,
}

impl Scene {
    /// A pool with a client and two workers, both of them this process, in the middle of some tasks.
    pub(super) fn new() -> Self {
        let segment = Segment::create(free_sizes()).expect("memory");
        let header = segment.header();
        let me = std::process::id();
        header.payload_format.store(crate::payload::format_fingerprint(), Relaxed);
        header.creator_pid.store(me.into(), Relaxed);
        header.creator_start.store(sys::start_time(me).expect("own"), Relaxed);
        header.quota.store(EXTENTS << 21, Relaxed);
        header.places.store(3, Relaxed);
        segment.publish();
        for index in [1, 2] {
            let entry = segment.process(index);
            let live = Life { state: crate::segment::LifeState::Live, incarnation: INCARNATION };
            entry.life.store(live.pack(), Relaxed);
            entry.pid.store(me, Relaxed);
            entry.start_time.store(sys::start_time(me).expect("own"), Relaxed);
            entry.role.store(Role::Worker as u32, Relaxed);
            entry.lanes.store(3, Relaxed);
            segment.park(index).run(INCARNATION);
        }
        let [control, data] = segment.fds().map(|fd| fd.try_clone_to_owned().expect("a descriptor"));
        let second = Segment::attach(control, data, 2).expect("the same memory");
        let client = Owner::new(0, 0);
        let quota = EXTENTS << 21;
        let mut own = Region::open(&segment, client, quota);
        let args = own.allocate(&segment, 1000).expect("fits");
        own.allocate(&segment, 5 << 20).expect("fits");
        let mut theirs = Region::open(&second, Owner::new(2, INCARNATION), quota);
        let result = theirs.allocate(&second, 5000).expect("fits");
        drop(second);
        let scene = Scene { segment, args: args.handle.block, result: result.handle.block };

        let meta = Meta { shape: Shape::Inline, max_attempts: 3, inline_len: 8 };
        let short = Answer { status: 1, place: Lies::Tiny, short_len: 8 };
        let slot = |number: u32, word: u64| {
            let slot = scene.segment.slot(number);
            slot.func.store(4096, Relaxed);
            slot.meta.store(meta.pack(), Relaxed);
            slot.answer.store(short.pack(), Relaxed);
            slot.word.store(word, Relaxed);
            slot
        };
        slot(READY, word(3, 1, 0, 1));
        slot(RUNNING, word(4, 0, 1, 2));
        slot(DONE, word(5, 2, 1, 3));
        let in_block = slot(READY_IN_BLOCK, word(6, 0, 0, 1));
        in_block.meta.store(Meta { shape: Shape::Block, inline_len: 0, ..meta }.pack(), Relaxed);
        in_block.args.fill_words(&ArgsHandle { offset: args.offset, len: 1000, first: 0, end: 0 }.words());
        let in_block = slot(DONE_IN_BLOCK, word(7, 0, 2, 3));
        in_block.answer.store(Answer { status: 1, place: Lies::Block, short_len: 0 }.pack(), Relaxed);
        in_block.handle.store(result.handle.pack(), Relaxed);
        in_block.len.store(5000, Relaxed);
        slot(FREE, word(8, 0, 0, 0));
        scene.segment.client().slots_used.store(FREE + 1, Relaxed);
        let ring = scene.segment.ready(0);
        ring.write(0, READY);
        ring.publish(1);
        scene.segment.window(1).set(0, Hint::new(0, READY_IN_BLOCK));
        scene.segment.completions(1).push(DONE);
        scene.segment.completions(2).push(DONE_IN_BLOCK);
        scene
    }

    pub(super) fn audit(&self) -> Audit {
        let [control, data] = self.segment.fds();
        audit(&self.segment, control, data, &[Duration::ZERO; 2])
    }

    /// What names the result in a block.
    pub(super) fn result_handle(&self) -> u64 {
        self.slot(DONE_IN_BLOCK).handle.load(Relaxed)
    }

    pub(super) fn slot(&self, number: u32) -> &crate::slot::Slot {
        self.segment.slot(number)
    }
}
