//! One word after the other is spoilt in a sound pool, and exactly that is found.

mod scene;

use super::*;
use crate::arena::Class;
use crate::ring::Hint;
use crate::segment::Layout;
use crate::slot::{Answer, ArgsHandle, Place as Lies};
use crate::sync::Ordering::Relaxed;
use scene::*;

#[test]
fn a_sound_pool_is_clean() {
    let scene = Scene::new();
    let audit = scene.audit();
    assert!(audit.is_clean() && !audit.is_quiescent(), "{audit}");
    let slots = audit.slots;
    assert_eq!((slots.ready, slots.running, slots.done, slots.free, slots.total), (2, 1, 2, 59, 64));
    let BlockCounts { arguments, results, workers } = audit.blocks;
    assert_eq!((arguments, results, workers), (2, 0, 1));
    assert_eq!((audit.processes.used, audit.processes.live), (3, 3));
    assert_eq!(audit.memory.extents, 5);
    assert_eq!(audit.looks, 1);
    assert!(audit.to_string().ends_with("no violation"), "{audit}");
}

/// What is spoilt, and what is found: `(invariant, place)`, in any order.
type Case = (&'static str, fn(&Scene), &'static [(u8, Place)]);

#[track_caller]
fn run(cases: &[Case]) {
    for (name, spoil, expected) in cases {
        let scene = Scene::new();
        spoil(&scene);
        let audit = scene.audit();
        let mut found: Vec<(u8, Place)> = audit.violations.iter().map(|v| (v.invariant, v.place)).collect();
        let mut expected = expected.to_vec();
        let key = |&(invariant, place): &(u8, Place)| (invariant, place.to_string());
        found.sort_by_key(key);
        expected.sort_by_key(key);
        // The block of a test is where the allocator put it.
        let at = |(invariant, place)| match place {
            Place::Block(0, ARGS) => (invariant, Place::Block(0, scene.args)),
            Place::Block(2, RESULT) => (invariant, Place::Block(2, scene.result)),
            other => (invariant, other),
        };
        let expected: Vec<_> = expected.into_iter().map(at).collect();
        assert_eq!(found, expected, "{name}: {audit}");
    }
}

/// Has the first line alone describe the result in a block.
fn near(scene: &Scene, handle: u64, len: usize) {
    let slot = scene.slot(DONE_IN_BLOCK);
    let answer = Answer { status: 1, place: Lies::NearBlock, short_len: len };
    slot.answer.store(answer.pack(), Relaxed);
    slot.tiny.store(handle, Relaxed);
    slot.handle.store(0, Relaxed);
    slot.len.store(0, Relaxed);
}

const ARGS: u32 = u32::MAX;
const RESULT: u32 = u32::MAX - 1;

#[test]
fn spoilt_slots_are_found() {
    run(&[
        ("state", |s| s.slot(FREE).word.store(word(8, 0, 0, 9), Relaxed), &[(1, Place::Slot(FREE))]),
        (
            "flag",
            |s| s.slot(READY).word.store(word(3, 0, 0, 1 | 1 << 6), Relaxed),
            &[(1, Place::Slot(READY))],
        ),
        (
            "free with owner",
            |s| s.slot(FREE).word.store(word(8, 0, 1, 0), Relaxed),
            &[(1, Place::Slot(FREE))],
        ),
        (
            "ready with owner",
            |s| s.slot(READY).word.store(word(3, 0, 1, 1), Relaxed),
            &[(1, Place::Slot(READY))],
        ),
        ("attempt", |s| s.slot(READY).word.store(word(3, 3, 0, 1), Relaxed), &[(1, Place::Slot(READY))]),
        (
            "run by the client",
            |s| s.slot(RUNNING).word.store(word(4, 0, 0, 2), Relaxed),
            &[(2, Place::Slot(RUNNING))],
        ),
        (
            "run by nobody",
            |s| s.slot(RUNNING).word.store(word(4, 0, 3, 2), Relaxed),
            &[(2, Place::Slot(RUNNING))],
        ),
        (
            "run by a former incarnation",
            |s| s.slot(RUNNING).word.store(word(4, 0, 1, 2) - (1 << 18), Relaxed),
            &[(15, Place::Slot(RUNNING))],
        ),
        (
            "done by a former incarnation",
            |s| s.slot(DONE).word.store(word(5, 0, 1, 3) - (1 << 18), Relaxed),
            &[],
        ),
        (
            "done by a coming incarnation",
            |s| s.slot(DONE).word.store(word(5, 0, 1, 3) + (1 << 18), Relaxed),
            &[(17, Place::Slot(DONE))],
        ),
        ("meta", |s| s.slot(READY).meta.store(9 << 24, Relaxed), &[(1, Place::Slot(READY))]),
        ("function", |s| s.slot(READY).func.store(0, Relaxed), &[(1, Place::Slot(READY))]),
        ("answer", |s| s.slot(DONE).answer.store(1 << 24 | 9 << 16, Relaxed), &[(5, Place::Slot(DONE))]),
        ("status", |s| s.slot(DONE).answer.store(9 << 24 | 1 << 16, Relaxed), &[(5, Place::Slot(DONE))]),
        ("unused", |s| s.slot(UNUSED).len.store(1, Relaxed), &[(6, Place::Slot(UNUSED))]),
        ("used", |s| s.segment.client().slots_used.store(SLOTS + 1, Relaxed), &[(30, Place::Client)]),
        (
            "arguments out of range",
            |s| s.slot(READY_IN_BLOCK).args.fill(&u64::MAX.to_ne_bytes()),
            &[(30, Place::Slot(READY_IN_BLOCK))],
        ),
        (
            "arguments inside of a block",
            |s| s.slot(READY_IN_BLOCK).args.fill(&8u64.to_ne_bytes()),
            &[(30, Place::Slot(READY_IN_BLOCK))],
        ),
        (
            "arguments longer than their block",
            |s| {
                s.slot(READY_IN_BLOCK)
                    .args
                    .fill_words(&ArgsHandle { offset: 0, len: 1 << 30, first: 0, end: 0 }.words())
            },
            &[(30, Place::Slot(READY_IN_BLOCK))],
        ),
        (
            "arguments freed",
            |s| s.segment.words(0)[s.args as usize].store(0, Relaxed),
            &[(26, Place::Slot(READY_IN_BLOCK))],
        ),
        (
            "result freed",
            |s| s.segment.words(2)[s.result as usize].store(7 << 40, Relaxed),
            &[(5, Place::Slot(DONE_IN_BLOCK))],
        ),
        (
            "result of another worker",
            |s| s.slot(DONE_IN_BLOCK).handle.store(1 << 31, Relaxed),
            &[(27, Place::Block(2, RESULT)), (30, Place::Slot(DONE_IN_BLOCK))],
        ),
        (
            "result out of range",
            |s| s.slot(DONE_IN_BLOCK).handle.store(2 << 31 | 0x7fff_ffff, Relaxed),
            &[(27, Place::Block(2, RESULT)), (30, Place::Slot(DONE_IN_BLOCK))],
        ),
        ("a result described by one line", |s| near(s, s.result_handle(), 5000), &[]),
        (
            "such a result of another worker",
            |s| near(s, 1 << 31, 5000),
            &[(27, Place::Block(2, RESULT)), (30, Place::Slot(DONE_IN_BLOCK))],
        ),
        (
            "such a result longer than its block",
            |s| near(s, s.result_handle(), 0xffff),
            &[(30, Place::Slot(DONE_IN_BLOCK))],
        ),
        (
            "result longer than its block",
            |s| s.slot(DONE_IN_BLOCK).len.store(1 << 20, Relaxed),
            &[(30, Place::Slot(DONE_IN_BLOCK))],
        ),
    ]);
}

#[test]
fn spoilt_blocks_are_found() {
    run(&[
        ("state", |s| s.segment.words(2)[9].store(2, Relaxed), &[(1, Place::Block(2, 9))]),
        ("free with owner", |s| s.segment.words(2)[9].store(1 << 8, Relaxed), &[(1, Place::Block(2, 9))]),
        (
            "retained",
            |s| s.segment.words(0)[s.args as usize].store(1 << 32 | 1, Relaxed),
            &[(1, Place::Block(0, ARGS))],
        ),
        ("a stranger's", |s| s.segment.words(2)[9].store(1 | 1 << 8, Relaxed), &[(1, Place::Block(2, 9))]),
        (
            "a former incarnation's",
            |s| s.segment.words(1)[0].store(Owner::new(1, 4).bits() << 8 | 1, Relaxed),
            &[(15, Place::Block(1, 0)), (26, Place::Block(1, 0))],
        ),
        (
            "leaked",
            |s| s.segment.words(2)[9].store(Owner::new(2, INCARNATION).bits() << 8 | 1, Relaxed),
            &[(27, Place::Block(2, 9))],
        ),
        ("never used", |s| s.segment.words(1)[3].store(1 << 40, Relaxed), &[(6, Place::Block(1, 3))]),
        ("no block", |s| s.segment.words(0)[4000].store(1, Relaxed), &[(26, Place::Block(0, 4000))]),
        (
            "inside of a run",
            |s| s.segment.words(0)[2 * crate::arena::WORDS_PER_EXTENT].store(1, Relaxed),
            &[(26, Place::Block(0, 2 * crate::arena::WORDS_PER_EXTENT as u32))],
        ),
        (
            "no class",
            |s| s.segment.classes(2)[0].store(99, Relaxed),
            &[(26, Place::Block(2, RESULT)), (30, Place::Extent(2, 0)), (30, Place::Slot(DONE_IN_BLOCK))],
        ),
        (
            "a run out of the region",
            |s| s.segment.classes(0)[1].store(Class::Run(8).pack(), Relaxed),
            &[(28, Place::Process(0)), (30, Place::Extent(0, 1)), (30, Place::Extent(0, 1))],
        ),
        (
            "a run past the mark",
            |s| s.segment.classes(0)[1].store(Class::Run(4).pack(), Relaxed),
            &[(30, Place::Extent(0, 1))],
        ),
        ("a class past the mark", |s| s.segment.classes(1)[0].store(1, Relaxed), &[(6, Place::Extent(1, 0))]),
        ("extents", |s| s.segment.process(1).extents.store(9, Relaxed), &[(30, Place::Process(1))]),
        ("over the quota", |s| s.segment.header().quota.store(2 << 20, Relaxed), &[(28, Place::Process(0))]),
    ]);
}

#[test]
fn spoilt_hints_are_found() {
    run(&[
        (
            "head past tail",
            |s| s.segment.ready(0).publish(u64::MAX),
            &[(9, Place::Slot(READY)), (12, Place::Lane(0))],
        ),
        ("too many", |s| s.segment.ready(0).publish(1000), &[(9, Place::Slot(READY)), (12, Place::Lane(0))]),
        ("a cell", |s| s.segment.ready(1).write(0, SLOTS), &[(12, Place::Lane(1))]),
        ("a lost hint", |s| s.segment.ready(0).write(0, DONE), &[(9, Place::Slot(READY))]),
        ("in the wrong lane", |s| s.slot(READY).func.store(1 << 63, Relaxed), &[(9, Place::Slot(READY))]),
        ("a window", |s| s.segment.window(2).set(3, Hint::new(0, SLOTS)), &[(6, Place::Process(2))]),
        ("another client's hint", |s| s.segment.window(2).set(3, Hint::new(1, 0)), &[(6, Place::Process(2))]),
        ("requeue mark", |s| s.segment.client().requeue_any[1].store(2, Relaxed), &[(6, Place::Lane(1))]),
        ("a completion's cell", |s| s.segment.completions(1).push(SLOTS), &[(10, Place::Completions(1))]),
        (
            "a completion ring's head",
            |s| s.segment.completions(1).publish_head(7),
            &[(10, Place::Slot(DONE)), (12, Place::Completions(1))],
        ),
        ("a lost completion", |s| s.segment.completions(1).publish_head(1), &[(10, Place::Slot(DONE))]),
        ("rescan", |s| s.segment.client().rescan.store(3, Relaxed), &[(6, Place::Client)]),
    ]);
    // What needs no hint, or has another.
    run(&[
        (
            "a requeued slot",
            |s| {
                s.segment.ready(0).write(0, DONE);
                s.segment.requeue(0).announce(READY);
            },
            &[],
        ),
        (
            "a completion and a rescan mark",
            |s| {
                s.segment.completions(1).publish_head(1);
                s.segment.client().rescan.store(1, Relaxed);
            },
            &[],
        ),
    ]);
}

#[test]
fn spoilt_processes_are_found() {
    fn park(s: &Scene, index: u32, idle: bool) {
        s.segment.park(index).announce(INCARNATION);
        s.segment.masks().set_idle(index, idle);
    }
    run(&[
        ("life", |s| s.segment.process(2).life.store(7 << 60, Relaxed), &[(1, Place::Process(2))]),
        (
            "unused bits of life",
            |s| s.segment.process(1).life.store(2 << 60 | 1 << 40 | 5, Relaxed),
            &[(1, Place::Process(1))],
        ),
        (
            "the client's life",
            |s| s.segment.process(0).life.store(2 << 60 | 1, Relaxed),
            &[(1, Place::Process(0))],
        ),
        ("role", |s| s.segment.process(1).role.store(1, Relaxed), &[(6, Place::Process(1))]),
        ("lanes", |s| s.segment.process(1).lanes.store(4, Relaxed), &[(6, Place::Process(1))]),
        ("starved", |s| s.segment.process(1).starved.store(2, Relaxed), &[(6, Place::Process(1))]),
        ("current", |s| s.segment.process(1).current.store(65 << 32, Relaxed), &[(6, Place::Process(1))]),
        ("unused place", |s| s.segment.process(3).tasks.store(1, Relaxed), &[(6, Place::Process(3))]),
        ("start time", |s| s.segment.process(1).start_time.store(1, Relaxed), &[(15, Place::Process(1))]),
        (
            "dead for ever",
            |s| s.segment.process(1).life.store(4 << 60 | 5, Relaxed),
            &[(15, Place::Process(1))],
        ),
        ("the park word of another", |s| s.segment.park(1).search(4), &[(16, Place::Process(1))]),
        (
            "not among the idle",
            |s| park(s, 1, false),
            &[(21, Place::Process(1)), (22, Place::Slot(READY)), (22, Place::Slot(READY_IN_BLOCK))],
        ),
        ("asleep", |s| park(s, 1, true), &[(22, Place::Slot(READY)), (22, Place::Slot(READY_IN_BLOCK))]),
        (
            "asleep while another searches",
            |s| {
                park(s, 1, true);
                s.segment.park(2).search(INCARNATION);
            },
            &[],
        ),
        (
            "asleep and being woken",
            |s| {
                park(s, 1, true);
                assert!(s.segment.park(1).notify());
            },
            &[],
        ),
        ("the client asleep", |s| s.segment.masks().set_idle(0, true), &[(6, Place::Process(0))]),
        ("places", |s| s.segment.header().places.store(5, Relaxed), &[(30, Place::Pool)]),
        ("state", |s| s.segment.header().state.store(3, Relaxed), &[(30, Place::Pool)]),
        ("functions", |s| s.segment.header().functions.store(1025, Relaxed), &[(30, Place::Pool)]),
    ]);
}

#[test]
fn what_does_not_last_is_no_violation() {
    let scene = Scene::new();
    let spoil = |tasks: u64| scene.segment.process(3).tasks.store(tasks, Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for tasks in 1..200 {
                spoil(tasks);
                std::thread::sleep(Duration::from_millis(1));
            }
            spoil(0);
        });
        let [control, data] = scene.segment.fds();
        let audit = audit(&scene.segment, control, data, &[Duration::from_millis(30); 3]);
        assert!(audit.is_clean(), "it is another finding each time: {audit}");
    });
}

#[test]
fn noise_is_survived() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let layout = Layout::new(free_sizes());
    // Page by page, so that every structure gets its share.
    let starts = [
        0,
        layout.masks,
        layout.processes,
        layout.client,
        layout.ready_cells,
        layout.requeue_bits,
        layout.slots,
        layout.completions,
        layout.classes,
        layout.words,
        layout.words + layout.word_stride,
        layout.words + 2 * layout.word_stride,
    ];
    for round in 0..100 {
        let scene = Scene::new();
        for _ in 0..1 << (round % 10) {
            let at = starts[random.usize(..starts.len())] + 8 * random.usize(..512);
            let value = match random.u32(..5) {
                0 => random.u64(..),
                1 => random.u64(..16),
                2 => random.u64(..4) << 60 | random.u64(..8),
                3 => u64::MAX >> random.u32(..64),
                _ => 1 << random.u32(..64),
            };
            scene.segment.word_at(at).store(value, Relaxed);
        }
        let audit = scene.audit();
        assert!(audit.to_string().lines().count() >= 6);
    }
}

#[test]
fn looking_takes_no_memory() {
    let scene = Scene::new();
    let committed = || scene.segment.fds().map(|fd| rustix::fs::fstat(fd).expect("stat").st_blocks);
    scene.audit();
    let before = committed();
    scene.audit();
    assert_eq!(committed(), before);
    // Nearly nothing of the control memory has ever been written.
    assert!(before[0] * 512 < 128 << 10, "{} bytes", before[0] * 512);
}

#[test]
fn a_foreign_pool_is_mapped_for_reading_only() {
    let scene = Scene::new();
    let [control, data] = scene.segment.fds();
    let pool_id = scene.segment.pool_id();
    let files = sys::memfds_of(std::process::id()).expect("own descriptors");
    let names = [crate::segment::control_name(pool_id), crate::segment::data_name(pool_id)];
    let [their_control, their_data] = names.map(|name| {
        let (_, path) = files.iter().find(|(known, _)| *known == name).expect("it is open");
        sys::open_sealed(path, &name).expect("it is sealed").expect("it is still open")
    });
    assert!(Mapping::read_write(their_control.as_fd(), 0, 4096).is_err(), "opened for reading");
    let foreign = Foreign {
        memory: Foreign::map(their_control.as_fd()).expect("a pool's"),
        control: their_control,
        data: their_data,
    };
    let theirs = foreign.audit();
    let ours = audit(&scene.segment, control, data, &[]);
    assert_eq!(theirs.to_string(), ours.to_string());
    scene.segment.header().magic.store(1, Relaxed);
    let error = Foreign::map(foreign.control.as_fd()).err().expect("no pool's").to_string();
    assert!(error.contains("0x1, not a pool's"), "{error}");
}
