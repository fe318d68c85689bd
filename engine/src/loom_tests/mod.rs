//! The hand-overs between processes under every interleaving and every reordering that the memory
//! model allows, with threads for processes and tiny sizes.
//!
//! A *model* runs the engine's own types and must pass. A *mutant* is a model in which one access of
//! the engine is weaker than it is written, or one fence is left out; it must fail, which shows that
//! the engine needs the access as it is and that the model would notice. [`inventory`] checks that no
//! fence, acquire or release of the modelled files is without either a mutant or a reason.
//!
//! | file | holds |
//! | --- | --- |
//! | `ring.rs` | ready ring, windows, requeue bits, completion rings, and the flags beside them |
//! | `slot.rs` | T1 to T7 of the slot's word, with the bytes that it guards |
//! | `blocks.rs` | T10 to T12 of the block's word, alone and together with the slot's |
//! | `wake.rs` | workers that park, search, leave and are woken |
//! | `sleep.rs` | sleeping clients, and processes without payload memory |
//!
//! `LOOM_MAX_PREEMPTIONS` bounds the interleavings; `RINGPOOL_PROOF` set to `quick` or `full` raises
//! the bound to 3 or 4.

mod blocks;
mod inventory;
mod ring;
mod sleep;
mod slot;
mod wake;

use crate::sync::Ordering;
use crate::sync::weak::{Site, Weakening};
use std::panic::catch_unwind;

/// Runs a model in all interleavings that this run is to see.
fn check(model: impl Fn() + Sync + Send + 'static) {
    check_with(usize::MAX, model);
}

/// The same for a model of three threads that do much: with two preemptions at most, unless this run is a
/// proof.
fn check_large(model: impl Fn() + Sync + Send + 'static) {
    check_with(2, model);
}

fn check_with(most: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = match std::env::var("RINGPOOL_PROOF").as_deref() {
        Ok("full") => Some(4),
        Ok("quick") => Some(3),
        _ => Some(builder.preemption_bound.map_or(most, |bound| bound.min(most))),
    };
    builder.check(model);
}

/// Panics with "caught" if the model fails when these sites are weakened.
fn expect_failure(sites: &[(Site, Ordering)], model: fn()) {
    let weakening = Weakening::begin(sites);
    let outcome = catch_unwind(model);
    assert!(weakening.was_met(), "the model does not come past {sites:?}");
    if let Err(failure) = outcome {
        let text = failure.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| failure.downcast_ref::<&str>().copied());
        panic!("caught: {}", text.unwrap_or("a panic"));
    }
}

/// Mutants of a model: tests that pass if the model fails.
macro_rules! mutants {
    ($($name:ident = $model:ident with $($file:literal $function:literal $code:literal $to:ident),+;)*) => {
        $(
            #[test]
            #[should_panic(expected = "caught: ")]
            fn $name() {
                let sites = [$((
                    crate::sync::weak::Site { file: $file, function: $function, code: $code },
                    crate::sync::Ordering::$to,
                )),+];
                crate::loom_tests::expect_failure(&sites, $model);
            }
        )*

        /// The places in the engine that the mutants of this file weaken.
        pub(super) const SITES: &[crate::sync::weak::Site] = &[$($(
            crate::sync::weak::Site { file: $file, function: $function, code: $code },
        )+)*];
    };
}
use mutants;
