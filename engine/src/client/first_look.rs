//! When the caller of a short task looks for its result for the first time.
//!
//! A look takes the slot's line to the caller's CPU. If the worker is still at it, it must get the line back before it can
//! say that it is done, and the caller must wait for it once more: a look too early makes a call a quarter longer. So
//! the caller learns how long calls take, and first looks when the last ones were just done.

use crate::sync::private::{Private, PrivateU32};
use crate::sync::spin_loop;

/// What is learnt is counted in such parts of a pause.
const PARTS: u32 = 32;
/// Most pauses, some 0.7 microseconds: for longer tasks a look too early makes no difference.
const MOST: u32 = 32;
/// Who had to look again for no more than so many pauses was a little early.
const NEAR: u32 = 4;

/// How long to wait for the first time, learnt from each call.
///
/// | the call was done | now |
/// | --- | --- |
/// | at the first look | 2 parts less: maybe that was late |
/// | a little later | 4 parts more, so that one look in three is too early |
/// | later than that | 1 part more: unless two of three calls take that long, the others decide |
/// | much later | the same |
#[derive(Default)]
pub(super) struct FirstLook {
    parts: PrivateU32,
}

impl FirstLook {
    /// To be called when a task has just been submitted.
    #[inline]
    pub(super) fn rest(&self) {
        for _ in 0..self.parts.load(Private::Relaxed) / PARTS {
            spin_loop();
        }
    }

    /// After so many pauses more, one before each look but the first, the task was done.
    #[inline]
    pub(super) fn learn(&self, more: u32) {
        // The crash sweeps replay a run, so what it does must not depend on how long calls took.
        if cfg!(feature = "crash") {
            return;
        }
        let now = self.parts.load(Private::Relaxed);
        let next = match more {
            0 => now.saturating_sub(2),
            1..=NEAR => now + 4,
            _ if more <= MOST => now + 1,
            _ => now,
        };
        self.parts.store(next.min(MOST * PARTS), Private::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long calls are waited for that take so many pauses, one after the other, many times over.
    fn learnt(calls: &[u32]) -> u32 {
        let look = FirstLook::default();
        for &call in calls.iter().cycle().take(20_000) {
            let rested = look.parts.load(Private::Relaxed) / PARTS;
            look.learn(call.saturating_sub(rested));
        }
        look.parts.load(Private::Relaxed) / PARTS
    }

    #[test]
    #[cfg(not(feature = "crash"))]
    fn looks_when_calls_are_done() {
        for call in [0, 1, 3, 15, 30] {
            assert!(learnt(&[call]).abs_diff(call) <= 1, "{call}: {}", learnt(&[call]));
        }
    }

    #[test]
    fn does_not_wait_for_long_tasks() {
        assert_eq!(learnt(&[1000]), 0);
    }

    #[test]
    #[cfg(not(feature = "crash"))]
    fn short_calls_among_others_are_not_kept_waiting() {
        assert!(learnt(&[3, 20, 20]) <= 4);
        assert!(learnt(&[3, 1000, 1000, 1000]) <= 4);
    }
}
