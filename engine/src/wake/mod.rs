//! Waking workers without losing a wake-up, without a herd, and without trusting the dead.
//!
//! `README.md` beside this file has the protocol and why it is right.

mod bell;
mod park;

pub(crate) use bell::{Bell, Masks, Seat};
pub(crate) use park::Park;
#[cfg(all(test, loom))]
pub(crate) use park::ParkState;
