//! No fence, acquire or release of the modelled files without a mutant, or a reason why it has none.

use super::{blocks, ring, sleep, slot, wake};
use crate::sync::Ordering;
use crate::sync::weak::{Site, Weakening, source};

const FILES: &[&str] = &[
    "arena/block.rs",
    "ring/completion.rs",
    "ring/flag.rs",
    "ring/ready.rs",
    "ring/requeue.rs",
    "ring/window.rs",
    "slot/word.rs",
    "wake/bell.rs",
    "wake/berth.rs",
    "wake/park.rs",
    "wake/sleep.rs",
];

const fn site(file: &'static str, function: &'static str, code: &'static str) -> Site {
    Site { file, function, code }
}

/// Keeps a load from running ahead of a later store, which loom never lets it do.
const NOT_IN_LOOM: &[Site] = &[
    site("ring/ready.rs", "has_room", "head.load"),
    site("ring/completion.rs", "push", "head.load"),
    site("ring/completion.rs", "publish_head", "head.store"),
];

/// The word itself is all that changes hands, or something else carries the rest.
const CARRIES_NOTHING: &[Site] = &[
    // An old head fails the CAS, an old tail is looked at again.
    site("ring/ready.rs", "claim", "head.load"),
    site("ring/ready.rs", "backlog", "tail.load"),
    // The first look has acquired T1.
    site("slot/word.rs", "claim", ".ok().map"),
    // Nobody acts on a free slot.
    site("slot/word.rs", "recycle", "store"),
    // The client itself wrote the arguments that it gets back.
    site("slot/word.rs", "cancel", "compare_exchange"),
    // Announcement and state are one word.
    site("slot/word.rs", "announce_wait", "compare_exchange"),
    // Only a corrupt head is repaired: it names nothing.
    site("ring/ready.rs", "repair", "compare_exchange"),
    // Of an empty place.
    site("wake/park.rs", "vacate", "store"),
    // The bytes come with T3.
    site("arena/block.rs", "adopt", "load"),
    site("arena/block.rs", "adopt", "compare_exchange"),
];

/// An auditor's looks: they change nothing, and compare words only if these stay as they are.
const AUDITS: &[Site] = &[
    site("ring/completion.rs", "positions", "tail.load"),
    site("ring/completion.rs", "positions", "head.load"),
    site("ring/completion.rs", "positions", "overflow.load"),
    site("ring/ready.rs", "positions", "tail.load"),
    site("ring/ready.rs", "positions", "head.load"),
    site("wake/bell.rs", "words", "word.load"),
];

/// The fences do all the ordering: see the test below.
const FENCED: &[Site] = &[
    site("wake/bell.rs", "set", "fetch_or"),
    site("wake/bell.rs", "set", "fetch_and"),
    site("wake/park.rs", "state", "load"),
    site("wake/park.rs", "is_awake", "load"),
    site("wake/park.rs", "is_parked", "load"),
    site("wake/park.rs", "search", "swap"),
    site("wake/park.rs", "run", "store"),
    site("wake/park.rs", "announce", "store"),
    site("wake/park.rs", "notify", "compare_exchange"),
    site("wake/park.rs", "take_from_dead", "compare_exchange"),
    site("wake/sleep.rs", "wake_announced", "fetch_and"),
    site("wake/sleep.rs", "wake_always", "fetch_and"),
];

/// The line of the access that an ordering on line `number` (from 0) belongs to.
fn access(lines: &[&str], number: usize) -> u32 {
    let alone = lines[number].trim_start().starts_with("Ordering::");
    let back = if alone {
        lines[..number].iter().rev().position(|line| line.contains("compare_exchange("))
    } else {
        None
    };
    (number - back.map_or(0, |lines| lines + 1)) as u32 + 1
}

#[test]
fn every_ordering_is_accounted_for() {
    let mutants = [blocks::SITES, ring::SITES, sleep::SITES, slot::SITES, wake::SITES];
    let known: Vec<(&str, u32)> = (mutants.iter().chain(&[NOT_IN_LOOM, CARRIES_NOTHING, AUDITS, FENCED]))
        .flat_map(|sites| sites.iter())
        .map(|site| (site.file, site.line()))
        .collect();
    let mut missing = Vec::new();
    for &file in FILES {
        let text = source(file);
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let strong = ["Acquire", "Release", "AcqRel", "SeqCst"];
            let ordered = strong.iter().any(|order| line.contains(&format!("Ordering::{order}")))
                || line.contains("fence_behind_rmw();");
            if ordered
                && !line.trim_start().starts_with("//")
                && !known.contains(&(file, access(&lines, number)))
            {
                missing.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(missing.is_empty(), "neither mutant nor reason:\n{}", missing.join("\n"));
}

/// All fences are where models reach them.
#[test]
fn no_fence_is_outside_the_modelled_files() {
    fn look(folder: &std::path::Path, found: &mut Vec<String>) {
        for entry in
            std::fs::read_dir(folder).expect("the sources").map(|entry| entry.expect("an entry").path())
        {
            let name = entry.to_string_lossy().into_owned();
            if entry.is_dir() {
                look(&entry, found);
            } else if !FILES.iter().any(|file| name.ends_with(file))
                && !["loom_tests", "src/sync/"].iter().any(|part| name.contains(part))
                && std::fs::read_to_string(&entry).is_ok_and(|text| {
                    text.contains(" fence(Ordering") || text.contains(" fence_behind_rmw();")
                })
            {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    look(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert_eq!(found, [""; 0]);
}

/// The models of sleep hold with nothing but the fences.
#[test]
fn fences_do_all_the_ordering_of_sleep() {
    let sites: Vec<_> = FENCED.iter().map(|&site| (site, Ordering::Relaxed)).collect();
    let _weakening = Weakening::begin(&sites);
    wake::MODELS.iter().chain(sleep::MODELS).for_each(|model| model());
}
