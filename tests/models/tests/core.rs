//! The model of the core.

use ringpool_models::core::{Core, Rule, Waiting};
use ringpool_models::proof::{Extent, Fate, judge, prove, prove_compact};

/// Two workers, one task, a client that takes whatever is done.
const ANY: Core = Core::BASE;
/// The same with a client that waits for its task.
const ONE: Core = Core { waiting: Waiting::One, ..ANY };
/// One worker with successors, two tasks.
const ALONE: Core = Core { workers: 1, tasks: 2, respawn: true, ..ANY };
const ALONE_ONE: Core = Core { waiting: Waiting::One, ..ALONE };

#[test]
fn no_fault() {
    prove("model core: no fault, any", &ANY);
    prove("model core: no fault, apply", &ONE);
    prove("model core: full rings, any", &FULL);
    prove("model core: 1 worker stopped for ever, any", &Core { stop: true, ..ALONE });
}

#[test]
fn successors() {
    prove("model core: 1 worker, 2 tasks, 2 crashes, any", &Core { crashes: 2, ..ALONE });
    prove("model core: 1 worker, 2 tasks, 2 crashes, apply", &Core { crashes: 2, ..ALONE_ONE });
    let reaper = Core { crashes: 1, reaper_crashes: 1, ..ALONE };
    prove("model core: 1 worker, crash and reaper crash, any", &reaper);
    prove("model core: 1 worker, crash and reaper crash, lost", &Core { attempts: 1, ..reaper });
    prove("model core: 1 worker, full rings, crash, any", &FULL_CRASH);
}

#[test]
fn crash_anywhere() {
    prove("model core: crash anywhere, apply", &PAIR_ONE);
}

/// One task and one death for one worker.
const CRASH: Core = Core { crashes: 1, tasks: 1, ..ALONE };
const CRASH_ONE: Core = Core { waiting: Waiting::One, ..CRASH };
const REAPER: Core = Core { reaper_crashes: 1, ..CRASH };
const LOST_ONE: Core = Core { attempts: 1, ..CRASH_ONE };
/// One death for two workers, no successor.
const PAIR: Core = Core { crashes: 1, ..ANY };
const PAIR_ONE: Core = Core { waiting: Waiting::One, ..PAIR };
/// Rings of one cell.
const FULL: Core = Core { cells: 1, completions: 1, ..ALONE };
const FULL_CRASH: Core = Core { batch: 1, crashes: 1, ..FULL };

type Mutants = Vec<(&'static [Rule], Fate, Vec<Core>)>;

fn judge_all(kind: &str, mutants: Mutants) {
    judge(
        kind,
        mutants.into_iter().map(|(without, fate, models)| {
            let models = models.into_iter().map(|model| Core { without, ..model }).collect();
            (format!("without {without:?}"), fate, models)
        }),
    );
}

#[test]
fn mutants_without_faults() {
    let mutants: Mutants = vec![
        (&[Rule::ParkRecheck], Fate::Caught, vec![ANY]),
        (&[Rule::ClientRecheck], Fate::Caught, vec![ANY]),
        (&[Rule::HintAfterDone], Fate::Caught, vec![ANY]),
        (&[Rule::CompareBeforeSleep], Fate::Caught, vec![ONE]),
        (&[Rule::ClaimKeepsWaiter], Fate::Caught, vec![ONE]),
        (&[Rule::WakeAfterDone], Fate::Caught, vec![ONE]),
        (&[Rule::TellClient], Fate::Caught, vec![ANY]),
        (&[Rule::Overflow], Fate::Caught, vec![FULL]),
        (&[Rule::CellsBeforeHead], Fate::Caught, vec![FULL]),
        (&[Rule::AnyAfterBit], Fate::Caught, vec![FULL]),
    ];
    judge_all("model core: mutants, no fault", mutants);
}

#[test]
fn mutants_under_crashes() {
    let mutants: Mutants = vec![
        (&[Rule::ReapKeepsWaiter], Fate::Caught, vec![CRASH_ONE]),
        (&[Rule::AnnounceAll], Fate::Caught, vec![REAPER]),
        (&[Rule::WakeAllTerminal], Fate::Caught, vec![CRASH_ONE, LOST_ONE]),
        (&[Rule::Rescan], Fate::Caught, vec![CRASH]),
        (&[Rule::WakeClient], Fate::Caught, vec![CRASH]),
        (&[Rule::FreeLast], Fate::Caught, vec![REAPER]),
        (&[Rule::AnyRaisedAgain], Fate::Caught, vec![FULL_CRASH]),
        (&[Rule::TakeOnlyTheirs], Fate::Caught, vec![PAIR]),
        (&[Rule::Broadcast], Fate::Caught, vec![PAIR_ONE]),
        (&[Rule::ParkIsTruth], Fate::Caught, vec![PAIR_ONE]),
        (&[Rule::WindowBeforeHead, Rule::AnnounceAll], Fate::Caught, vec![CRASH]),
        (&[Rule::Backstop], Fate::Caught, vec![Core { crashes: 0, stop: true, ..CRASH }]),
        (&[Rule::BackstopScans], Fate::Caught, vec![Core { crashes: 0, stop: true, ..CRASH }]),
    ];
    judge_all("model core: mutants, crashes and stops", mutants);
}

#[test]
fn second_lines_of_defence() {
    let mut every = vec![ONE, FULL, FULL_CRASH, CRASH, CRASH_ONE, REAPER, LOST_ONE];
    if Extent::now() >= Extent::Quick {
        every.extend([ANY, PAIR_ONE]);
    }
    let sweep = "every reap announces all ready slots";
    let mutants: Mutants = vec![
        (&[Rule::LateBits], Fate::Redundant("whoever sets a bit raises `any` after it"), every.clone()),
        (&[Rule::WindowBeforeHead], Fate::Redundant(sweep), every.clone()),
        (&[Rule::WindowBeforeRequeue], Fate::Redundant(sweep), every.clone()),
        (&[Rule::Steal], Fate::Redundant("sweep and back-stop announce what a window hides"), every.clone()),
        (&[Rule::PassOn], Fate::Redundant("a busy worker looks again; an endless task shows it"), every),
    ];
    judge_all("model core: second lines of defence", mutants);
}

#[test]
fn larger() {
    if Extent::now() < Extent::Quick {
        return;
    }
    prove("model core: crash anywhere, any", &PAIR);
    prove("model core: crash anywhere, lost, apply", &Core { crashes: 1, attempts: 1, ..ONE });
    prove("model core: 2 tasks, apply", &Core { tasks: 2, ..ONE });
    let stop = Core { stop: true, ..ONE };
    prove("model core: a worker stopped for ever, apply", &stop);
    judge_all(
        "model core: mutants, stops",
        vec![
            (&[Rule::BackstopForces], Fate::Caught, vec![stop]),
            (&[Rule::BackstopAnnounces], Fate::Redundant("idle workers steal"), vec![stop]),
        ],
    );
}

#[test]
fn largest() {
    if Extent::now() < Extent::Full {
        return;
    }
    prove("model core: a worker stopped for ever, any", &Core { stop: true, ..ANY });
    prove("model core: crash and reaper crash, any", &Core { crashes: 1, reaper_crashes: 1, ..ANY });
    prove("model core: crash, a successor, any", &Core { crashes: 1, respawn: true, ..ANY });
    prove("model core: 2 tasks, any", &Core { tasks: 2, ..ANY });
    let reaper = Core { crashes: 1, reaper_crashes: 1, attempts: 1, ..ONE };
    prove("model core: crash and reaper crash, lost, apply", &reaper);
}

/// Eighty million states each.
#[test]
#[ignore = "takes minutes and gigabytes: run it by name after a change of the protocol"]
fn largest_of_all() {
    let two = Core { crashes: 2, respawn: true, ..ONE };
    prove_compact("model core: 2 crashes, successors, apply", &two);
    prove_compact("model core: 2 tasks, crash anywhere, apply", &Core { tasks: 2, crashes: 1, ..ONE });
}
