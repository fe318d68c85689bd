//! Atomics that no other process sees: plain ones in every build, and no crash points.
//!
//! Their orderings are written `Private::Relaxed`, so that a reader (and the test that counts crash
//! points) can tell them from shared words.

#![expect(clippy::disallowed_types, reason = "the aliases by which the rest of the crate names them")]

/// Orderings of private words.
pub(crate) use std::sync::atomic::Ordering as Private;

pub(crate) type PrivateBool = std::sync::atomic::AtomicBool;
pub(crate) type PrivateU8 = std::sync::atomic::AtomicU8;
pub(crate) type PrivateU32 = std::sync::atomic::AtomicU32;
pub(crate) type PrivateU64 = std::sync::atomic::AtomicU64;
pub(crate) type PrivatePtr<T> = std::sync::atomic::AtomicPtr<T>;
pub(crate) type PrivateUsize = std::sync::atomic::AtomicUsize;
