//! Models of ringpool's protocols, explored completely.
//!
//! `README.md` beside this crate says what each model covers and what it does not.

pub mod bell;
pub mod blocks;
pub mod core;
pub mod explore;
mod hash;
pub mod proof;
mod show;
pub mod wake;
