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
    prove("model core: full rings, any", &Core { cells: 1, completions: 1, ..ALONE });
    prove("model core: full rings, batch 1, any", &Core { cells: 1, completions: 1, batch: 1, ..ALONE });
}

#[test]
fn successors() {
    prove("model core: 1 worker, 2 tasks, 2 crashes, any", &Core { crashes: 2, ..ALONE });
    prove("model core: 1 worker, 2 tasks, 2 crashes, apply", &Core { crashes: 2, ..ALONE_ONE });
    let reaper = Core { crashes: 1, reaper_crashes: 1, ..ALONE };
    prove("model core: 1 worker, crash and reaper crash, any", &reaper);
    prove("model core: 1 worker, crash and reaper crash, lost", &Core { attempts: 1, ..reaper });
    let small = Core { crashes: 1, cells: 1, completions: 1, batch: 1, ..ALONE };
    prove("model core: 1 worker, full rings, crash, any", &small);
}

#[test]
fn crash_anywhere() {
    prove("model core: crash anywhere, apply", &Core { crashes: 1, ..ONE });
}

#[test]
fn mutants() {
    use Fate::{Caught, Redundant};
    let crash = Core { crashes: 1, ..ANY };
    let crash_one = Core { crashes: 1, ..ONE };
    let lost = Core { attempts: 1, ..crash_one };
    let alone = Core { crashes: 1, tasks: 1, ..ALONE };
    let alone_one = Core { crashes: 1, tasks: 1, ..ALONE_ONE };
    let alone_reaper = Core { reaper_crashes: 1, ..alone };
    let alone_lost = Core { attempts: 1, ..alone_one };
    let small = Core { cells: 1, completions: 1, batch: 1, ..ALONE };
    let small_crash = Core { crashes: 1, ..small };
    let full = Core { cells: 1, completions: 1, ..ALONE };
    let stop = Core { stop: true, ..ANY };
    let stop_one = Core { stop: true, ..ONE };
    // What finds nothing is searched through: these are small.
    let every = vec![ONE, full, small, small_crash, alone_one, alone_reaper, alone_lost];
    let sweep = "every reap announces all ready slots";
    let rules: Vec<(&'static [Rule], Fate, Vec<Core>)> = vec![
        (&[Rule::ParkRecheck], Caught, vec![ANY]),
        (&[Rule::ClientRecheck], Caught, vec![ANY]),
        (&[Rule::HintAfterDone], Caught, vec![ANY]),
        (&[Rule::Overflow], Caught, vec![full]),
        (&[Rule::CompareBeforeSleep], Caught, vec![ONE]),
        (&[Rule::ClaimKeepsWaiter], Caught, vec![ONE]),
        (&[Rule::ReapKeepsWaiter], Caught, vec![alone_one]),
        (&[Rule::WakeAfterDone], Caught, vec![ONE]),
        (&[Rule::TakeOnlyTheirs], Caught, vec![crash]),
        (&[Rule::AnnounceAll], Caught, vec![alone_reaper, crash]),
        (&[Rule::WakeAllTerminal], Caught, vec![alone_one, lost]),
        (&[Rule::Rescan], Caught, vec![alone]),
        (&[Rule::WakeClient], Caught, vec![alone]),
        (&[Rule::Broadcast], Caught, vec![crash_one]),
        (&[Rule::FreeLast], Caught, vec![alone_reaper]),
        (&[Rule::CellsBeforeHead], Caught, vec![full]),
        (&[Rule::AnyAfterBit], Caught, vec![small]),
        (&[Rule::AnyRaisedAgain], Caught, vec![small_crash]),
        (&[Rule::ParkIsTruth], Caught, vec![crash_one]),
        (&[Rule::Backstop], Caught, vec![stop_one]),
        (&[Rule::BackstopScans], Caught, vec![stop]),
        (&[Rule::BackstopForces], Caught, vec![stop_one]),
        (&[Rule::LateBits], Redundant("whoever sets a bit raises any after it"), every.clone()),
        (&[Rule::WindowBeforeHead], Redundant(sweep), every.clone()),
        (&[Rule::WindowBeforeRequeue], Redundant(sweep), every.clone()),
        (&[Rule::Steal], Redundant(sweep), every.clone()),
        (
            &[Rule::PassOn],
            Redundant("a busy worker looks again; only an endless task shows it: see wake"),
            every,
        ),
        (&[Rule::WindowBeforeHead, Rule::AnnounceAll], Caught, vec![alone, crash_one]),
    ];
    judge(
        "model core: mutants",
        rules.into_iter().map(|(without, fate, models)| {
            let models = models.into_iter().map(|model| Core { without, ..model }).collect();
            (format!("without {without:?}"), fate, models)
        }),
    );
}

#[test]
fn larger() {
    if Extent::now() < Extent::Quick {
        return;
    }
    prove("model core: crash anywhere, any", &Core { crashes: 1, ..ANY });
    prove("model core: crash anywhere, lost, apply", &Core { crashes: 1, attempts: 1, ..ONE });
    prove("model core: 2 tasks, apply", &Core { tasks: 2, ..ONE });
    prove("model core: a worker stopped for ever, apply", &Core { stop: true, ..ONE });
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
    let two = Core { crashes: 2, respawn: true, ..ONE };
    prove_compact("model core: 2 crashes, successors, apply", &two);
    prove_compact("model core: 2 tasks, crash anywhere, apply", &Core { tasks: 2, crashes: 1, ..ONE });
}
