//! The model of result blocks.

use ringpool_models::blocks::{Blocks, Rule};
use ringpool_models::proof::{Fate, judge, prove};

const PLAIN: Blocks = Blocks::BASE;
const CHUNK: Blocks = Blocks { chunk: true, ..Blocks::BASE };

#[test]
fn plain_results() {
    prove("model blocks: no fault", &PLAIN);
    let lost = Blocks { attempts: 1, crashes: 2, reaper_crashes: 1, ..PLAIN };
    prove("model blocks: 2 crashes, reaper crash, lost", &lost);
    prove("model blocks: 2 crashes, reaper crash, retry", &Blocks { attempts: 3, ..lost });
}

#[test]
fn chunks() {
    prove("model blocks: chunks, no fault", &CHUNK);
    let crashes = Blocks { crashes: 2, reaper_crashes: 1, ..CHUNK };
    prove("model blocks: chunks, 2 crashes, reaper crash", &crashes);
}

#[test]
fn mutants() {
    use Fate::Caught;
    let rules: [(&'static [Rule], Fate); _] = [
        (&[Rule::AdoptBeforeRecycle], Caught),
        (&[Rule::SlotsBeforeBlocks], Caught),
        (&[Rule::ReaperAdopts], Caught),
        (&[Rule::ReaperAdoptsLost], Caught),
        (&[Rule::AdoptTwice], Caught),
        (&[Rule::Incarnations], Caught),
        (&[Rule::NameBeforeDone], Caught),
        (&[Rule::CopyBeforeName], Caught),
        (&[Rule::NameBeforeFree], Caught),
        (&[Rule::ClearHandle], Caught),
        (&[Rule::FreeLast], Caught),
        (&[Rule::TakeOnlyTheirs], Caught),
    ];
    let base = Blocks { crashes: 1, reaper_crashes: 1, ..PLAIN };
    judge(
        "model blocks: mutants",
        rules.map(|(without, fate)| {
            let lost = Blocks { without, attempts: 1, ..base };
            let models = vec![lost, Blocks { attempts: 3, ..lost }, Blocks { chunk: true, ..lost }];
            (format!("without {without:?}"), fate, models)
        }),
    );
}
