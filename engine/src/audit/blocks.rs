//! Class words and block words: every block is free, or held by a process that may hold it.

use super::look::{Findings, Proof};
use super::report::{BlockCounts, Place as At};
use super::same_incarnation;
use super::slots::Busy;
use crate::arena::{Class, EXTENT, WORDS_PER_EXTENT};
use crate::recovery::CLIENT;
use crate::segment::{Life, LifeState, View};
use crate::slot::{Owner, State};
use std::collections::HashSet;

/// Who holds a block, as its word says.
pub(super) struct Holder;

impl Holder {
    /// `None` if nobody does.
    pub(super) fn of(word: u64) -> Option<Owner> {
        (word & 3 == 1).then(|| Owner::from_bits(word >> 8 & 0xff_ffff))
    }
}

/// The block of the client's region that begins at `offset`.
pub(super) fn locate_args(view: &View<'_>, offset: u64) -> Result<(usize, Class), String> {
    let used = view.extents(0);
    let extent = (offset / EXTENT as u64) as usize;
    if offset >= view.layout().sizes.region || extent >= used {
        return Err(format!("the client's region is used up to extent {used}"));
    }
    let raw = view.class(0, extent);
    let class = Class::unpack(raw).filter(|&class| class != Class::Unused);
    let Some(class) = class else { return Err(format!("extent {extent} has the class word {raw:#x}")) };
    let within = (offset % EXTENT as u64) as usize;
    let number = within / class.block_bytes();
    if !within.is_multiple_of(class.block_bytes()) || number >= class.blocks() {
        return Err(format!("extent {extent} has blocks of {} bytes, none at {within}", class.block_bytes()));
    }
    Ok((extent * WORDS_PER_EXTENT + number, class))
}

/// Judges the blocks of the region of process `owner`.
pub(super) fn check(
    view: &View<'_>,
    findings: &mut Findings,
    counts: &mut BlockCounts,
    owner: u32,
    busy: &[Busy],
) {
    let classes = check_classes(view, findings, owner);
    let named: HashSet<u32> =
        busy.iter().filter_map(|slot| slot.block).filter(|b| b.owner == owner).map(|b| b.block).collect();
    let runs_task = busy.iter().any(|slot| slot.state == State::Run && slot.word.owner().index == owner);
    let mut held_extents = HashSet::new();
    for (block, word) in view.blocks_written(owner) {
        let at = At::Block(owner, block as u32);
        if !check_word(findings, at, owner, word) {
            continue;
        }
        let extent = block / WORDS_PER_EXTENT;
        let class = classes.get(extent).copied().unwrap_or(Covered::Nothing);
        let Some(holder) = Holder::of(word) else {
            findings.expect(class != Covered::Nothing, Proof::Lasting, 6, at, || {
                format!("never used, and its word is {word:#x}; right is 0")
            });
            continue;
        };
        let exists = match class {
            Covered::By(class) => block % WORDS_PER_EXTENT < class.blocks(),
            Covered::Inside | Covered::Nothing => false,
        };
        findings.expect(exists, Proof::Lasting, 26, at, || {
            format!("held (word {word:#x}), and no block: its extent is {class:?}")
        });
        held_extents.insert((extent, if let Covered::By(Class::Run(len)) = class { len } else { 1 }));
        if holder == CLIENT {
            *(if owner == 0 { &mut counts.arguments } else { &mut counts.results }) += 1;
            continue;
        }
        counts.workers += 1;
        let reaped = check_holder(view, findings, at, word, holder);
        findings.expect(
            reaped || runs_task || named.contains(&(block as u32)),
            Proof::Lasting,
            27,
            at,
            || format!("held by process {owner} (word {word:#x}), which runs no task, and named by no slot"),
        );
    }
    let quota = view.header().quota;
    let held = held_extents.iter().map(|&(_, len)| (len as u64).saturating_mul(EXTENT as u64));
    let held = held.fold(0, u64::saturating_add);
    findings.expect(held <= quota, Proof::Lasting, 28, At::Process(owner), || {
        format!("blocks in extents of {held} bytes are held in its region; its quota is {quota}")
    });
}

/// What one block word can say at all.
fn check_word(findings: &mut Findings, at: At, owner: u32, word: u64) -> bool {
    let state = word & 3;
    let mut good = true;
    let mut expect = |holds: bool, text: &dyn Fn() -> String| {
        findings.expect(holds, Proof::Word, 1, at, || format!("the word {word:#x}: {}", text()));
        good &= holds;
    };
    expect(state < 2, &|| format!("state {state} is neither free (0) nor held (1)"));
    if state == 0 {
        expect(word << 24 == 0, &|| "a free word holds a generation and nothing else".to_owned());
    } else {
        expect(word & 0xff_0000_00fc == 0, &|| "bits are set that nobody sets".to_owned());
        let holder = Owner::from_bits(word >> 8 & 0xff_ffff);
        let may = holder == CLIENT || (holder.index == owner && owner != 0);
        expect(may, &|| format!("held by process {}.{}, which never can", holder.index, holder.incarnation));
    }
    good
}

/// Judges whether the worker that holds a block is still there; `true` if its blocks are just being freed.
fn check_holder(view: &View<'_>, findings: &mut Findings, at: At, word: u64, holder: Owner) -> bool {
    let Some(life) = Life::unpack(view.life(holder.index)) else { return false };
    let there = matches!(life.state, LifeState::Live | LifeState::Leaving | LifeState::Dead);
    findings.expect(there && same_incarnation(holder, life), Proof::Lasting, 15, at, || {
        format!("the word {word:#x} says held by incarnation {}, which is gone: {life:?}", holder.incarnation)
    });
    life.state == LifeState::Dead
}

/// What the class words say about an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Covered {
    By(Class),
    /// In a run that begins earlier.
    Inside,
    /// Never used.
    Nothing,
}

/// Judges the class words of a region; returns what each extent below the high-water mark is.
fn check_classes(view: &View<'_>, findings: &mut Findings, owner: u32) -> Vec<Covered> {
    let all = view.layout().sizes.extents();
    for (extent, raw) in view.classes_written(owner) {
        let at = At::Extent(owner, extent as u32);
        let class = Class::unpack(raw);
        let fits = match class {
            Some(Class::Run(len)) => len <= all - extent,
            Some(_) => true,
            None => false,
        };
        findings.expect(fits, Proof::Word, 30, at, || {
            format!("its class word {raw:#x} is {class:?}; the region has {all} extents")
        });
        // Loaded after the class: extents are counted before they are used.
        let used = view.extents(owner);
        findings.expect(extent < used, Proof::Lasting, 6, at, || {
            format!("its class word is {raw:#x}, but {used} extents have been used")
        });
    }
    let used = view.extents(owner);
    let mut classes = Vec::with_capacity(used);
    while classes.len() < used {
        let extent = classes.len();
        let raw = view.class(owner, extent);
        let class = Class::unpack(raw).unwrap_or(Class::Unused);
        classes.push(Covered::By(class));
        if let Class::Run(len) = class {
            findings.expect(
                extent + len <= used,
                Proof::Lasting,
                30,
                At::Extent(owner, extent as u32),
                || format!("it begins a run of {len} extents, but {used} have been used"),
            );
            classes.resize((extent + len).min(used), Covered::Inside);
        }
    }
    classes
}
