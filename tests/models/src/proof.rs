//! What a run of the checker says: proofs pass, mutants meet the fate that is written down for them.

use crate::explore::{Explored, Flaw, Model, Violation, explore, explore_compact};
pub use ringpool_proof::Extent;
use ringpool_proof::Proof;

/// More states than any configuration has; beyond it memory would run out.
const LIMIT: u32 = 200_000_000;
/// The same for explorations that keep their states.
const LIMIT_KEPT: u32 = 40_000_000;

fn line(kind: &str, runs: u64, kills: u64, delivered: u64) {
    Proof { runs, kills, delivered, ..Proof::of(kind) }.report();
}

fn expect(kind: &str, found: Result<Explored, Violation>) {
    match found {
        Ok(Explored { states, faults, goals, .. }) => line(kind, states, faults, goals),
        Err(violation) => panic!("{kind}: {violation}"),
    }
}

/// Proves safety, no deadlock, and that the goal stays in reach; prints states, faults and goals.
///
/// # Panics
///
/// If there is a flaw, with the way to it; or more states than memory.
pub fn prove<M: Model>(kind: &str, model: &M) {
    expect(kind, explore(model, LIMIT_KEPT));
}

/// As [`prove`], safety and deadlocks only: for what is too large for more.
///
/// # Panics
///
/// As [`prove`].
pub fn prove_compact<M: Model>(kind: &str, model: &M) {
    expect(kind, explore_compact(model, LIMIT));
}

/// What becomes of a protocol without some of its rules.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// One of the configurations finds a flaw.
    Caught,
    /// None does, because another rule covers this one; the text says which.
    Redundant(&'static str),
}

/// Tries each mutant under its configurations and compares what comes of it with the list.
///
/// # Panics
///
/// If a mutant survives that is not listed as redundant, or one is caught that is.
pub fn judge<M: Model>(kind: &str, mutants: impl IntoIterator<Item = (String, Fate, Vec<M>)>) {
    let (mut tried, mut caught, mut wrong) = (0, 0, vec![]);
    for (name, fate, models) in mutants {
        tried += 1;
        let flaw = models.iter().find_map(|model| match explore(model, LIMIT_KEPT) {
            Ok(_) => None,
            Err(violation) if violation.flaw == Flaw::TooLarge => panic!("{kind}: {name}: {violation}"),
            Err(violation) => Some(violation),
        });
        caught += u64::from(flaw.is_some());
        match (fate, flaw) {
            (Fate::Caught, Some(violation)) => {
                let Violation { flaw, what, trace } = violation;
                println!("caught     {name}: {flaw:?} after {} steps: {what}", trace.len());
            }
            (Fate::Redundant(why), None) => println!("redundant  {name}: {why}"),
            (Fate::Caught, None) => wrong.push(format!("{name} survives and is not listed as redundant")),
            (Fate::Redundant(why), Some(violation)) => {
                wrong.push(format!("{name} is caught, but listed as redundant ({why}): {violation}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{kind}:\n{}", wrong.join("\n"));
    line(kind, tried, caught, tried);
}
