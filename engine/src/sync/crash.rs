//! Dying, or stopping, at a chosen access to shared memory. For tests, under the feature `crash`.
//!
//! A thread that is [armed](arm) counts its accesses to shared words and strikes its own process at the
//! k-th. Workers are armed at birth by a [plan](plan_birth) that they inherit from the process that made
//! the pool (with [`Context::Fork`](crate::Context::Fork)), or by a task that calls [`arm`].
//!
//! Each place in the code from which an access is made is a *site*. If the environment variable
//! [`SITES`] names a file, all processes note there which sites they have passed and at which they were
//! struck, so that a test can compare them with those that the code has.

#![expect(clippy::disallowed_types, reason = "the words of the tests themselves must not be crash points")]

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use std::cell::Cell;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// What happens to a process at its chosen access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: it goes on when somebody sends SIGCONT.
    Stop,
}

thread_local! {
    /// Accesses of this thread until the blow; 0 if it is not armed.
    static LEFT: Cell<u64> = const { Cell::new(0) };
    static BLOW: Cell<Blow> = const { Cell::new(Blow::Kill) };
    /// Accesses of this thread since it was armed.
    static PASSED: Cell<u64> = const { Cell::new(0) };
}

/// A blow that is planned for a process that does not exist yet.
struct Plan {
    /// Place of the process; 0 for no plan.
    whom: AtomicU32,
    incarnation: AtomicU32,
    after: AtomicU64,
    stop: AtomicBool,
}

impl Plan {
    const fn none() -> Self {
        Plan {
            whom: AtomicU32::new(0),
            incarnation: AtomicU32::new(0),
            after: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    fn set(&self, whom: u32, incarnation: u32, after: u64, blow: Blow) {
        self.incarnation.store(incarnation, Ordering::Relaxed);
        self.after.store(after, Ordering::Relaxed);
        self.stop.store(blow == Blow::Stop, Ordering::Relaxed);
        self.whom.store(whom, Ordering::Release);
    }

    fn blow(&self) -> Blow {
        if self.stop.load(Ordering::Relaxed) { Blow::Stop } else { Blow::Kill }
    }
}

static BIRTH: Plan = Plan::none();
static REAP: Mutex<Option<Rehearsal>> = Mutex::new(None);
static HELPERS: Mutex<Vec<u32>> = Mutex::new(Vec::new());
static TIMERS_OFF: AtomicBool = AtomicBool::new(false);
static STEALING_OFF: AtomicBool = AtomicBool::new(false);

/// Arms the calling thread: its `after`-th access to shared memory from here on is followed by the blow.
/// 0 disarms it.
pub fn arm(after: u64, blow: Blow) {
    BLOW.set(blow);
    PASSED.set(0);
    LEFT.set(after);
}

/// How many accesses the calling thread has made since it was armed.
pub fn passed() -> u64 {
    PASSED.get()
}

/// Has incarnation `incarnation` of place `place` (workers count from 1) armed as it begins, in all pools
/// that are started from now on. Place 0 takes the plan back.
pub fn plan_birth(place: u32, incarnation: u32, after: u64, blow: Blow) {
    BIRTH.set(place, incarnation, after, blow);
}

/// What happens to a reap besides its being done by the supervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rehearsal {
    /// A helper process reaps first, and is struck after so many accesses. The supervisor begins when the
    /// helper has ended or is stopped.
    First(u64, Blow),
    /// A helper process reaps at the same time.
    Beside,
    /// The supervisor itself, and its process with it, is struck after so many accesses.
    InPlace(u64, Blow),
}

/// Has the next reap of this process done in such a way.
pub fn plan_reap(rehearsal: Rehearsal) {
    *REAP.lock().unwrap_or_else(PoisonError::into_inner) = Some(rehearsal);
}

/// Lets stopped helpers of earlier reaps go on, and waits for all; whether all that were not killed ended
/// well.
pub fn finish_helpers() -> bool {
    let helpers = std::mem::take(&mut *HELPERS.lock().unwrap_or_else(PoisonError::into_inner));
    helpers.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())).fold(true, |well, pid| {
        let _ = kill_process(pid, Signal::CONT);
        let status = waitpid(Some(pid), WaitOptions::empty()).ok().flatten();
        well && status.is_some_and(|(_, status)| status.exit_status() == Some(0))
    })
}

pub(crate) fn add_helper(pid: u32) {
    HELPERS.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
}

/// Whether back-stop timers end waits of this process, and of those that it forks from now on. Without
/// them whoever is not woken sleeps until the deadline that its caller gave, if any.
pub fn set_timers(on: bool) {
    TIMERS_OFF.store(!on, Ordering::Relaxed);
}

pub(crate) fn timers_are_off() -> bool {
    TIMERS_OFF.load(Ordering::Relaxed)
}

/// Whether workers of this process's pools that are started from now on look into each other's windows. If they do
/// not, what a worker has taken from a ring waits until that worker comes to it.
pub fn set_stealing(on: bool) {
    STEALING_OFF.store(!on, Ordering::Relaxed);
}

pub(crate) fn stealing_is_off() -> bool {
    STEALING_OFF.load(Ordering::Relaxed)
}

/// A worker begins.
pub(crate) fn born(place: u32, incarnation: u32) {
    arm(0, Blow::Kill); // whatever the thread that was forked had in mind
    if BIRTH.whom.load(Ordering::Acquire) == place && BIRTH.incarnation.load(Ordering::Relaxed) == incarnation
    {
        arm(BIRTH.after.load(Ordering::Relaxed), BIRTH.blow());
    }
}

/// The plan for the next reap, if there is one; it is used up.
pub(crate) fn take_reap_plan() -> Option<Rehearsal> {
    REAP.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Behind each access. The site is the caller's place in the code.
#[inline(never)]
#[track_caller]
pub(crate) fn point() {
    let site = note(Location::caller());
    let left = LEFT.get();
    PASSED.set(PASSED.get() + 1);
    if left == 0 {
        return;
    }
    LEFT.set(left - 1);
    if left == 1 {
        if let Some(site) = site {
            site.blows.fetch_add(1, Ordering::Relaxed);
        }
        let signal = match BLOW.get() {
            Blow::Kill => Signal::KILL,
            Blow::Stop => Signal::STOP,
        };
        let _ = kill_process(getpid(), signal);
    }
}

/// The environment variable that names the file of sites.
pub const SITES: &str = "RINGPOOL_CRASH_SITES";
/// How many sites the file has room for.
const ROOM: usize = 4096;

/// A site in the file.
#[repr(C)]
struct Noted {
    /// See [`site_key`]; 0 for an entry that is free.
    key: AtomicU64,
    passes: AtomicU64,
    blows: AtomicU64,
}

/// Which number a site has in the file: of its path below `src/`, its line and its column, all as the
/// compiler tells them.
pub fn site_key(path: &str, line: u32, column: u32) -> u64 {
    let below = path.rsplit_once("src/").map_or(path, |(_, below)| below);
    let hash = below.bytes().chain(line.to_le_bytes()).chain(column.to_le_bytes());
    hash.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)) | 1
}

fn table() -> Option<&'static [Noted]> {
    static TABLE: OnceLock<Option<&'static [Noted]>> = OnceLock::new();
    *TABLE.get_or_init(|| {
        let path = std::env::var_os(SITES)?;
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.ok()?;
        let bytes = ROOM * size_of::<Noted>();
        file.set_len(bytes as u64).ok()?;
        // SAFETY: the file is as long as the mapping and nobody shortens it.
        let map = unsafe { memmap2::MmapOptions::new().len(bytes).map_mut(&file) }.ok()?;
        let start = Box::leak(Box::new(map)).as_ptr().cast::<Noted>();
        // SAFETY: page-aligned, long enough, made of atomics only, and never unmapped.
        Some(unsafe { std::slice::from_raw_parts(start, ROOM) })
    })
}

fn note(at: &Location<'_>) -> Option<&'static Noted> {
    let table = table()?;
    let key = site_key(at.file(), at.line(), at.column());
    let start = key as usize % ROOM;
    let (behind, before) = table.split_at(start);
    let mine = before.iter().chain(behind).find(|noted| {
        let free = noted.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed);
        free.is_ok() || free == Err(key)
    })?;
    mine.passes.fetch_add(1, Ordering::Relaxed);
    Some(mine)
}

/// What is noted about a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Site {
    /// See [`site_key`].
    pub key: u64,
    /// How often it was passed.
    pub passes: u64,
    /// How many processes were struck there.
    pub blows: u64,
}

/// All sites that were noted by any process that uses the same file.
pub fn sites() -> Vec<Site> {
    let noted = table().unwrap_or_default().iter();
    let get = |word: &AtomicU64| word.load(Ordering::Relaxed);
    let sites = noted.map(|n| Site { key: get(&n.key), passes: get(&n.passes), blows: get(&n.blows) });
    sites.filter(|site| site.key != 0).collect()
}
