//! Waking workers without losing a wake-up, without a herd, and without trusting the dead.
//!
//! `README.md` beside this file has the protocol and why it is right.

mod bell;
mod berth;
mod lull;
mod park;
mod sleep;

pub(crate) use bell::{Bell, Freed, Masks, Seat};
pub(crate) use berth::Berth;
pub(crate) use lull::Lull;
pub(crate) use park::{Park, ParkState};
pub(crate) use sleep::SleepWord;
