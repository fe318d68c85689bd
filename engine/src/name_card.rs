//! The one named thing that a named pool has: a page that says where to knock.
//!
//! A card is a `shared_memory` segment `/ringpool.<name>`. It names the pool's process by pid and start
//! time and carries a nonce (the pool's id), from which the name of the pool's socket follows. The memory itself is
//! handed out through that socket and has no name, so a card that outlives its pool holds nothing.

use crate::error::{Error, ErrorKind, Result};
use crate::segment::{MAGIC, VERSION};
use crate::sync::{AtomicU64, Ordering};
use crate::sys;
use shared_memory::{Shmem, ShmemConf, ShmemError};
use std::time::{Duration, Instant};

const CARD_BYTES: usize = 4096;
/// Longest name of a pool.
pub(crate) const MAX_NAME: usize = 64;
/// A creator fills its card within microseconds.
const READY_LIMIT: Duration = Duration::from_secs(1);

/// The words of a card. `magic` is written last.
#[repr(C)]
struct Words {
    magic: AtomicU64,
    version: AtomicU64,
    pid: AtomicU64,
    start_time: AtomicU64,
    nonce: AtomicU64,
}

/// What a card says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Card {
    pub pid: u32,
    pub start_time: u64,
    pub nonce: u64,
}

impl Card {
    /// Whether its pool's process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        sys::start_time(self.pid) == Some(self.start_time)
    }

    /// The abstract socket at which the pool takes guests.
    pub(crate) fn socket(&self) -> Vec<u8> {
        format!("ringpool.{}.{:x}", self.pid, self.nonce).into_bytes()
    }
}

fn os_id(name: &str) -> String {
    format!("/ringpool.{name}")
}

/// Refuses names that no file can have.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(good) {
        return Err(Error::invalid(format!(
            "the pool's name is {name:?}; it must be 1 to {MAX_NAME} letters, digits, '-', '_' or '.'"
        )));
    }
    Ok(())
}

fn words(segment: &Shmem) -> Option<&Words> {
    if segment.len() < size_of::<Words>() {
        return None;
    }
    // SAFETY: the mapping is at least as large, page-aligned, lives as long as the reference, and holds
    // only atomics, for which every value is valid.
    Some(unsafe { &*segment.as_ptr().cast::<Words>() })
}

fn read(segment: &Shmem) -> Option<Card> {
    let words = words(segment)?;
    if words.magic.load(Ordering::Acquire) != MAGIC || words.version.load(Ordering::Relaxed) != VERSION {
        return None;
    }
    Some(Card {
        pid: words.pid.load(Ordering::Relaxed) as u32,
        start_time: words.start_time.load(Ordering::Relaxed),
        nonce: words.nonce.load(Ordering::Relaxed),
    })
}

/// A card that this process has put up; taken down when dropped.
pub(crate) struct OwnCard {
    _segment: Shmem,
    pub(crate) card: Card,
}

impl OwnCard {
    /// Puts up the card of a new pool with this id; sweeps away one whose pool is dead.
    pub(crate) fn create(name: &str, pool_id: u64) -> Result<Self> {
        check_name(name)?;
        let taken = |pid: u32| -> Error {
            let message = format!("process {pid} runs a pool of this name already");
            ErrorKind::Attach { name: name.to_owned(), message }.into()
        };
        for _ in 0..8 {
            match ShmemConf::new().size(CARD_BYTES).os_id(os_id(name)).create() {
                Ok(segment) => return Self::fill(segment, name, pool_id),
                Err(ShmemError::MappingIdExists) => {}
                Err(error) => return Err(Error::start(format!("creating the pool's name card: {error}"))),
            }
            match wait_for_card(name, READY_LIMIT) {
                Some(card) if card.is_alive() => return Err(taken(card.pid)),
                Some(card) => remove_stale(name, card.nonce),
                None => remove_unfinished(name),
            }
        }
        Err(Error::start(format!("the name card of pool {name:?} keeps coming back")))
    }

    fn fill(segment: Shmem, name: &str, pool_id: u64) -> Result<Self> {
        // `create` reserves no memory: without this a full file system would be a SIGBUS below.
        let path = format!("/dev/shm{}", os_id(name));
        if let Ok(file) = std::fs::OpenOptions::new().write(true).open(path) {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, CARD_BYTES as u64)
                .map_err(|e| Error::io("reserving the pool's name card", e))?;
        }
        let pid = std::process::id();
        let card = Card { pid, start_time: sys::start_time(pid).unwrap_or(0), nonce: pool_id };
        let words = words(&segment).ok_or_else(|| Error::start("the name card is too short"))?;
        words.version.store(VERSION, Ordering::Relaxed);
        words.pid.store(u64::from(card.pid), Ordering::Relaxed);
        words.start_time.store(card.start_time, Ordering::Relaxed);
        words.nonce.store(card.nonce, Ordering::Relaxed);
        words.magic.store(MAGIC, Ordering::Release); // pairs with `read`
        Ok(OwnCard { _segment: segment, card })
    }
}

/// Reads the card of a pool; `None` if there is no finished one within `limit`.
fn wait_for_card(name: &str, limit: Duration) -> Option<Card> {
    let deadline = Instant::now() + limit;
    loop {
        // A card that is just being made may be empty or unfinished.
        match ShmemConf::new().os_id(os_id(name)).open() {
            Ok(segment) => {
                if let Some(card) = read(&segment) {
                    return Some(card);
                }
            }
            Err(ShmemError::MapOpenFailed(code)) if code == libc::EINVAL as u32 => {}
            Err(_) => return None,
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

const DEAD: &str = "its process is dead";

fn refuse(name: &str, message: &str) -> Error {
    ErrorKind::Attach { name: name.to_owned(), message: message.to_owned() }.into()
}

fn read_card(name: &str) -> Result<Card> {
    check_name(name)?;
    wait_for_card(name, READY_LIMIT).ok_or_else(|| refuse(name, "there is no pool of this name"))
}

/// The card of a running pool; takes down that of a dead one.
pub(crate) fn find(name: &str) -> Result<Card> {
    let card = read_card(name)?;
    if !card.is_alive() {
        remove_stale(name, card.nonce);
        return Err(refuse(name, DEAD));
    }
    Ok(card)
}

/// The card of a running pool, for those who change nothing.
pub(crate) fn look_up(name: &str) -> Result<Card> {
    let card = read_card(name)?;
    if card.is_alive() { Ok(card) } else { Err(refuse(name, DEAD)) }
}

/// Takes down the card of a dead pool, if it still is that pool's.
fn remove_stale(name: &str, nonce: u64) {
    if let Ok(mut segment) = ShmemConf::new().os_id(os_id(name)).open()
        && read(&segment).is_some_and(|card| card.nonce == nonce)
    {
        segment.set_owner(true); // dropping it removes the name
    }
}

/// Takes down the card of a pool whose process has ended, however far it had got with it.
pub(crate) fn remove_after(name: &str, nonce: u64) {
    match wait_for_card(name, READY_LIMIT) {
        Some(card) if card.nonce == nonce => remove_stale(name, nonce),
        Some(_) => {} // somebody else's
        None => remove_unfinished(name),
    }
}

/// Takes down a card whose creator died before it was finished.
fn remove_unfinished(name: &str) {
    if let Ok(mut segment) = ShmemConf::new().os_id(os_id(name)).open()
        && read(&segment).is_none()
    {
        segment.set_owner(true);
        return;
    }
    // An empty file cannot be opened as a segment.
    let path = format!("/dev/shm{}", os_id(name));
    if std::fs::metadata(&path).is_ok_and(|m| m.len() == 0) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_can_be_found_while_it_is_up() {
        let name = format!("card-test-{}", std::process::id());
        let own = OwnCard::create(&name, 7).expect("a fresh name");
        assert_eq!(find(&name).expect("up"), own.card);
        assert!(OwnCard::create(&name, 7).is_err(), "the name is taken");
        drop(own);
        assert!(find(&name).is_err());
    }

    #[test]
    fn a_dead_pools_card_is_swept() {
        let name = format!("stale-test-{}", std::process::id());
        let own = OwnCard::create(&name, 7).expect("a fresh name");
        words(&own._segment).expect("long enough").start_time.store(1, Ordering::Relaxed);
        assert!(find(&name).is_err(), "its process is dead");
        let again = OwnCard::create(&name, 7).expect("the stale card is gone");
        std::mem::forget(own); // its name is the second card's now
        drop(again);
    }

    /// Whatever a card says: it is none, or one that can be asked whether its pool lives.
    #[test]
    fn any_words_on_a_card() {
        let name = format!("fuzz-test-{}", std::process::id());
        let own = OwnCard::create(&name, 7).expect("a fresh name");
        let card = words(&own._segment).expect("long enough");
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..5000 {
            let word = [&card.magic, &card.version, &card.pid, &card.start_time, &card.nonce];
            word[random.usize(..5)].store(random.u64(..) >> random.u32(..64), Ordering::Relaxed);
            if random.bool() {
                card.magic.store(MAGIC, Ordering::Relaxed);
                card.version.store(VERSION, Ordering::Relaxed);
            }
            if let Some(card) = read(&own._segment) {
                let _ = (card.is_alive(), card.socket());
            }
        }
    }

    #[test]
    fn names_that_no_file_can_have_are_refused() {
        for name in ["", "a/b", "ü", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
