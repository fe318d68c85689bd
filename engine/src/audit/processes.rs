//! The process table, the park words and the masks, compared with what the kernel says.

use super::look::{Findings, Proof};
use super::report::{Place as At, ProcessCounts};
use crate::ring::Hint;
use crate::segment::{LANES, Life, LifeState, ProcessWords, Role, View};
use crate::sys;
use crate::wake::{Park, ParkState};

/// A worker that takes part, as far as waking it goes.
pub(super) struct Awake {
    pub index: u32,
    pub park: ParkState,
    pub lanes: u32,
}

/// The processes of a pool, as the kernel knows them.
pub(super) struct Peers {
    pub creator_lives: bool,
    /// How many of them are stopped: whatever they were about to do has to wait.
    pub stopped: u32,
    pub workers: Vec<Awake>,
}

/// Judges all places.
pub(super) fn check(view: &View<'_>, findings: &mut Findings, counts: &mut ProcessCounts) -> Peers {
    let header = view.header();
    let creator = (header.creator_pid as u32, header.creator_start);
    let fate = sys::fate(creator.0, creator.1);
    let mut peers =
        Peers { creator_lives: fate.is_alive(), stopped: u32::from(fate.is_stopped()), workers: Vec::new() };
    if peers.creator_lives {
        peers.stopped += sys::children(creator.0)
            .into_iter()
            .filter(|&pid| sys::name_of(pid).is_some_and(|name| name == crate::launch::TEMPLATE_NAME[..15]))
            .filter(|&pid| sys::start_time(pid).is_some_and(|start| sys::fate(pid, start).is_stopped()))
            .count() as u32;
    }
    counts.used = view.places();
    let (idle, searching) = view.masks();
    for (words, what) in [(&idle, "idle"), (&searching, "searching")] {
        check_mask(view, findings, words, what);
    }
    for index in 0..view.layout().sizes.processes {
        let words = view.process(index);
        if index >= view.places() {
            check_unused(findings, index, &words);
            continue;
        }
        check_words(view, findings, index, &words);
        let Some(life) = Life::unpack(words.life) else {
            counts.corrupt += 1;
            continue;
        };
        *match life.state {
            LifeState::Free => &mut counts.free,
            LifeState::Joining => &mut counts.joining,
            LifeState::Live => &mut counts.live,
            LifeState::Leaving => &mut counts.leaving,
            LifeState::Dead => &mut counts.dead,
        } += 1;
        if index == 0 {
            continue;
        }
        let has_idle_bit = idle[index as usize / 64] >> (index % 64) & 1 == 1;
        check_worker(findings, index, &words, life, has_idle_bit, &mut peers);
    }
    counts.stopped = peers.stopped;
    peers
}

/// Places that nobody ever had are untouched.
fn check_unused(findings: &mut Findings, index: u32, words: &ProcessWords) {
    let ProcessWords { life, pid, role, start_time, park, lanes, window, current, tasks, extents, starved } =
        *words;
    let halves = pid | role | park | lanes | extents | starved;
    let wholes = life | start_time | current | tasks;
    let zero = halves == 0 && wholes == 0 && window.iter().all(|&hint| hint == Hint::NONE);
    findings.expect(zero, Proof::Lasting, 6, At::Process(index), || {
        format!(
            "its place was never used, and is not all zero: life {life:#x}, pid {pid}, role {role}, start \
             {start_time}, park {park:#x}, lanes {lanes:#x}, current {current:#x}, tasks {tasks}, extents \
             {extents}, starved {starved}, or its window"
        )
    });
}

fn check_mask(view: &View<'_>, findings: &mut Findings, words: &[u64], what: &str) {
    for (index, word) in words.iter().enumerate() {
        for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
            let process = index as u32 * 64 + bit;
            let places = view.places();
            findings.expect(process != 0 && process < places, Proof::Word, 6, At::Process(process), || {
                format!("it is among the {what}; workers are 1 to {}", places.saturating_sub(1))
            });
        }
    }
}

/// What each word of an entry can say at all.
fn check_words(view: &View<'_>, findings: &mut Findings, index: u32, words: &ProcessWords) {
    let slots = u64::from(view.layout().sizes.slots);
    let extents = view.layout().sizes.extents() as u64;
    let client = index == 0;
    let at = At::Process(index);
    let mut expect = |holds: bool, invariant: u8, text: &dyn Fn() -> String| {
        findings.expect(holds, Proof::Word, invariant, at, text);
    };
    let life = words.life;
    let valid = Life::unpack(life).is_some_and(|unpacked| unpacked.pack() == life);
    expect(valid, 1, &|| format!("the life word {life:#x} has a state above 4 or bits that nobody sets"));
    let alive = Life { state: LifeState::Live, incarnation: 0 }.pack();
    expect(!client || life == alive, 1, &|| {
        format!("the client's life word is {life:#x}; it is {alive:#x} as long as there is the pool")
    });
    let role = words.role;
    expect(role <= Role::Guest as u32 && (role == Role::Client as u32) == client, 6, &|| {
        format!("its role is {role}; the client's is 1, workers' are 2 or 3")
    });
    expect(words.lanes < 1 << LANES, 6, &|| format!("it serves lanes {:#x}; there are {LANES}", words.lanes));
    expect(words.starved <= 1, 6, &|| format!("starved is {:#x}; it is 0 or 1", words.starved));
    expect(words.current >> 32 <= slots, 6, &|| {
        format!("it runs slot {}; there are {slots}", (words.current >> 32) - 1)
    });
    expect(u64::from(words.extents) <= extents, 30, &|| {
        format!("{} extents of its region have been used; it has {extents}", words.extents)
    });
}

fn check_worker(
    findings: &mut Findings,
    index: u32,
    words: &ProcessWords,
    life: Life,
    has_idle_bit: bool,
    peers: &mut Peers,
) {
    let at = At::Process(index);
    let ProcessWords { pid, start_time, park, lanes, .. } = *words;
    let state = Park::state_of(park);
    let here = matches!(life.state, LifeState::Live | LifeState::Leaving);
    let current = Park::incarnation_of(park) == Park::stored(life.incarnation);
    // An incarnation that is new writes its park word only when it first looks for work.
    let own = match life.state {
        LifeState::Free | LifeState::Joining => state == ParkState::Run,
        LifeState::Live => state == ParkState::Run || current,
        LifeState::Leaving | LifeState::Dead => true,
    };
    findings.expect(own, Proof::Lasting, 16, at, || {
        let incarnation = Park::incarnation_of(park);
        format!("its park word {park:#x} says {state:?} of incarnation {incarnation}, and it is {life:?}")
    });
    if life.state == LifeState::Dead && peers.creator_lives {
        findings.add(Proof::Stuck, 15, at, || format!("it is {life:?}, and nobody ends its reap"));
    }
    let fate = sys::fate(pid, start_time);
    peers.stopped += u32::from(fate.is_stopped());
    if !here {
        return;
    }
    if !fate.is_alive() {
        // Without the creator there is no pool that would need it.
        findings.expect(!peers.creator_lives, Proof::Stuck, 15, at, || {
            format!(
                "it is {life:?}, but its process {pid} (started at {start_time}) is dead, and nobody reaps it"
            )
        });
        return;
    }
    if life.state == LifeState::Live && current && !fate.is_stopped() {
        findings.expect(state != ParkState::Parked || has_idle_bit, Proof::Stuck, 21, at, || {
            format!(
                "its park word {park:#x} says {state:?}, but it is not among the idle: nobody would wake it"
            )
        });
        peers.workers.push(Awake { index, park: state, lanes });
    }
}
