//! The model of waking and sleeping.

use ringpool_models::proof::{Extent, Fate, judge, prove, prove_compact};
use ringpool_models::wake::{Rule, Wake};

const BASE: Wake = Wake::BASE;
/// One task for each of two submitters.
const TWO: Wake = Wake { submitters: 2, tasks: 1, ..BASE };

#[test]
fn no_fault() {
    prove("model wake: 2 workers, 2 clients", &TWO);
    prove("model wake: 3 workers, 1 task", &Wake { workers: 3, tasks: 1, ..BASE });
    prove("model wake: a guest and both lanes", &Wake { guest: true, lanes: [0, 1], ..TWO });
}

#[test]
fn work_conservation() {
    prove("model wake: an endless task, 2 clients", &Wake { endless: true, ..TWO });
    let guest = Wake { workers: 3, guest: true, endless: true, ..BASE };
    prove("model wake: an endless task and a guest", &guest);
}

#[test]
fn leaving() {
    prove("model wake: a worker leaves", &Wake { quota: true, reapers: 1, ..BASE });
}

#[test]
fn worker_crash() {
    prove("model wake: crash, 2 reapers", &Wake { crashes: 1, tasks: 1, ..BASE });
    prove(
        "model wake: crash, 1 reaper, no successor",
        &Wake { crashes: 1, respawn: false, reapers: 1, ..BASE },
    );
}

#[test]
fn client_crash() {
    prove("model wake: client crash", &Wake { client_crashes: 1, reapers: 1, ..TWO });
}

#[test]
fn stop() {
    prove("model wake: a worker stopped for ever", &Wake { stop: true, ..BASE });
}

#[test]
fn mutants() {
    use Fate::{Caught, Redundant};
    let crash = Wake { crashes: 1, tasks: 1, reapers: 1, respawn: false, ..BASE };
    let late = Wake { crashes: 1, tasks: 1, ..BASE };
    let client = Wake { client_crashes: 1, reapers: 1, ..TWO };
    let stop = Wake { stop: true, ..BASE };
    let endless = Wake { endless: true, ..BASE };
    let endless_two = Wake { endless: true, ..TWO };
    let guest = Wake { guest: true, endless: false, ..BASE };
    let leave = Wake { quota: true, reapers: 1, ..BASE };
    let own_broadcast = "the broadcast at the end of the late reap wakes whom it misled";
    let rules: Vec<(&'static [Rule], Fate, Vec<Wake>)> = vec![
        (&[Rule::PassOn], Caught, vec![endless, endless_two]),
        (&[Rule::RunBeforePassOn], Caught, vec![endless, endless_two]),
        (&[Rule::ParkRecheck], Caught, vec![BASE]),
        (&[Rule::AnnounceBeforeRecheck], Caught, vec![BASE]),
        (&[Rule::IdleBeforeRecheck], Caught, vec![BASE]),
        (&[Rule::NotifyLooksAtIdle], Caught, vec![BASE]),
        (&[Rule::ParkIsTruth], Caught, vec![crash]),
        (&[Rule::SearcherServesLane], Caught, vec![guest]),
        (&[Rule::Broadcast], Caught, vec![crash, client]),
        (&[Rule::BroadcastWakesAlways], Caught, vec![client, late]),
        (&[Rule::TaggedTake], Caught, vec![late]),
        (&[Rule::CompareBeforeSleep], Caught, vec![BASE]),
        (&[Rule::Backstop], Caught, vec![stop]),
        (&[Rule::BackstopForces], Caught, vec![stop]),
        (&[Rule::TaggedPark], Redundant(own_broadcast), vec![late]),
        (&[Rule::NotifyTriesOthers], Caught, vec![crash]),
        (&[Rule::Withdraw], Redundant("the reap of whoever left ends with a broadcast"), vec![leave]),
    ];
    judge(
        "model wake: mutants",
        rules.into_iter().map(|(without, fate, models)| {
            let models = models.into_iter().map(|model| Wake { without, ..model }).collect();
            (format!("without {without:?}"), fate, models)
        }),
    );
}

#[test]
fn larger() {
    if Extent::now() < Extent::Quick {
        return;
    }
    prove("model wake: 3 workers, 2 tasks", &Wake { workers: 3, ..BASE });
    prove("model wake: 2 workers, 2 clients x2", &Wake { submitters: 2, ..BASE });
    prove("model wake: an endless task, 2 clients x2", &Wake { submitters: 2, endless: true, ..BASE });
    let both = Wake { crashes: 1, reaper_crashes: 1, tasks: 1, respawn: false, ..BASE };
    prove_compact("model wake: crash and reaper crash", &both);
}

#[test]
fn largest() {
    if Extent::now() < Extent::Full {
        return;
    }
    let guest = Wake { workers: 3, guest: true, endless: true, lanes: [0, 1], ..TWO };
    prove_compact("model wake: 3 workers, an endless task, a guest, 2 lanes", &guest);
    prove_compact("model wake: 3 workers, 3 tasks", &Wake { workers: 3, tasks: 3, ..BASE });
    prove_compact("model wake: crash, 2 reapers, 2 tasks", &Wake { crashes: 1, ..BASE });
    let leave = Wake { quota: true, reapers: 1, ..TWO };
    prove_compact("model wake: a worker leaves, 2 clients", &leave);
}
