//! The one named thing that a named pool has: a page that says where to knock.
//!
//! A card is a `shared_memory` segment `/ringpool.<name>`. It names the pool's process by pid and start
//! time and carries a nonce (the pool's id), from which the name of the pool's socket follows. The memory itself is
//! handed out through that socket and has no name, so a card that outlives its pool holds nothing.

use crate::error::{Error, ErrorKind, Result};
use crate::segment::{MAGIC, VERSION};
use crate::sync::{AtomicU64, Ordering};
use crate::sys::{self, Listener};
use shared_memory::{Shmem, ShmemConf, ShmemError};
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// Whoever holds it alone says which card a name has: cards are put up and taken down under it.
///
/// A bound abstract socket, because the kernel gives it back when its holder dies. It would outlive its holder
/// in a forked child; so this process does not fork meanwhile: see [`hold_still`].
struct NameLock {
    _socket: Listener,
    _here: MutexGuard<'static, ()>,
}

static CHANGING: Mutex<()> = Mutex::new(());

/// No card is put up or taken down by this process while this is held.
pub(crate) fn hold_still() -> MutexGuard<'static, ()> {
    CHANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NameLock {
    /// Others hold it for less than a millisecond, unless they are stopped.
    fn take(name: &str) -> Result<Self> {
        let here = hold_still();
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            match Listener::bind(format!("ringpool-name.{name}").as_bytes()) {
                Ok(socket) => return Ok(NameLock { _socket: socket, _here: here }),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

/// A card that this process has put up; taken down when dropped.
pub(crate) struct OwnCard {
    segment: Option<Shmem>,
    name: String,
    pub(crate) card: Card,
}

// SAFETY: what keeps the library's type from it is the address of its mapping. Nobody reads or writes there
// after the card is filled, and unmapping it and removing its file can be done by any thread.
unsafe impl Send for OwnCard {}

impl Drop for OwnCard {
    fn drop(&mut self) {
        let _lock = NameLock::take(&self.name); // without it, too: it is our card
        drop(self.segment.take());
    }
}

impl OwnCard {
    /// Puts up the card of a new pool with this id; sweeps away one whose pool is dead.
    pub(crate) fn create(name: &str, pool_id: u64) -> Result<Self> {
        check_name(name)?;
        let _lock = NameLock::take(name)?;
        for _ in 0..2 {
            match ShmemConf::new().size(CARD_BYTES).os_id(os_id(name)).create() {
                Ok(segment) => return Self::fill(segment, name, pool_id),
                Err(ShmemError::MappingIdExists) => {}
                Err(error) => return Err(Error::start(format!("creating the pool's name card: {error}"))),
            }
            match read_now(name) {
                Some(card) if card.is_alive() => {
                    let message = format!("process {} runs a pool of this name already", card.pid);
                    return Err(refuse(name, &message));
                }
                _ => remove(name),
            }
        }
        Err(Error::start(format!("the name card of pool {name:?} cannot be removed")))
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
        Ok(OwnCard { segment: Some(segment), name: name.to_owned(), card })
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

/// The finished card of this name, if there is one.
fn read_now(name: &str) -> Option<Card> {
    ShmemConf::new().os_id(os_id(name)).open().ok().as_ref().and_then(read)
}

/// Takes down the card of a dead pool, if it still is that pool's.
fn remove_stale(name: &str, nonce: u64) {
    let Ok(_lock) = NameLock::take(name) else { return };
    if read_now(name).is_some_and(|card| card.nonce == nonce) {
        remove(name);
    }
}

/// Takes down the card of a pool whose process has ended, however far it had got with it.
pub(crate) fn remove_after(name: &str, nonce: u64) {
    let Ok(_lock) = NameLock::take(name) else { return };
    // Cards are written under the lock: one that is not finished has nobody.
    if read_now(name).is_none_or(|card| card.nonce == nonce) {
        remove(name);
    }
}

/// The caller holds the lock.
fn remove(name: &str) {
    let _ = std::fs::remove_file(format!("/dev/shm{}", os_id(name)));
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
        words(own.segment.as_ref().expect("up")).expect("long enough").start_time.store(1, Ordering::Relaxed);
        assert!(find(&name).is_err(), "its process is dead");
        let again = OwnCard::create(&name, 7).expect("the stale card is gone");
        std::mem::forget(own); // its name is the second card's now
        drop(again);
    }

    /// Somebody who takes down cards of dead pools takes no other's.
    #[test]
    fn a_card_is_nobody_elses_to_take_down() {
        let name = format!("stress-test-{}", std::process::id());
        let over = crate::sync::private::PrivateBool::new(false);
        std::thread::scope(|scope| {
            for nonce in [8, 9] {
                let (name, over) = (&name, &over);
                scope.spawn(move || {
                    while !over.load(crate::sync::private::Private::Relaxed) {
                        remove_after(name, nonce);
                    }
                });
            }
            for _ in 0..500 {
                let own = OwnCard::create(&name, 7).expect("nobody else has the name");
                assert_eq!(read_now(&name), Some(own.card), "taken down by somebody else");
            }
            over.store(true, crate::sync::private::Private::Relaxed);
        });
        assert_eq!(read_now(&name), None);
    }

    /// Whatever a card says: it is none, or one that can be asked whether its pool lives.
    #[test]
    fn any_words_on_a_card() {
        let name = format!("fuzz-test-{}", std::process::id());
        let own = OwnCard::create(&name, 7).expect("a fresh name");
        let card = words(own.segment.as_ref().expect("up")).expect("long enough");
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..5000 {
            let word = [&card.magic, &card.version, &card.pid, &card.start_time, &card.nonce];
            word[random.usize(..5)].store(random.u64(..) >> random.u32(..64), Ordering::Relaxed);
            if random.bool() {
                card.magic.store(MAGIC, Ordering::Relaxed);
                card.version.store(VERSION, Ordering::Relaxed);
            }
            if let Some(card) = read(own.segment.as_ref().expect("up")) {
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
