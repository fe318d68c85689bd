//! The client's side of a pool: it owns the slots, hands out tasks and takes the results.
//!
//! All books here are private to the process: which slots are free, which task is in which, what
//! waits for it. Shared memory is believed only where it agrees with them; where it cannot be right, the
//! task fails with [`Corrupted`](crate::ErrorKind::Corrupted) and its slot goes into
//! [quarantine](quarantine).

mod answer;
mod args;
mod arrays;
mod books;
mod consume;
mod deposits;
mod first_look;
mod quarantine;
mod result_bytes;
mod spare;
mod submit;
mod wait;
mod watch;

use crate::error::{Error, Exit};
use crate::segment::Segment;
use crate::slot::Owner;
use crate::sync::Ordering;
use crate::sync::private::PrivateU32;
use crate::task::{Status, failure};
pub(crate) use args::{Archived, Args, ArgsBlock, ClientArena, Kept};
pub(crate) use arrays::Arrays;
pub(crate) use books::{Books, Key, Taken, Target, UnderBooks};
use books::{Chunk, InFlight};
pub(crate) use deposits::{Deposit, Deposits};
use first_look::FirstLook;
pub(crate) use result_bytes::{Holdings, ResultBytes, Tiny};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
pub(crate) use submit::{Call, PATIENCE_MOST, RETRIES_MOST, TaskSpec, Terms};
pub(crate) use wait::Ticket;
pub(crate) use watch::Sight;

/// What came of a task, or of a part of a chunk.
pub(crate) enum Outcome {
    /// The task returned this, as `status` says how to read it.
    Answer { status: u32, bytes: ResultBytes },
    /// Items of a chunk from `first` on: `done` of them are in `bytes`.
    Items { first: u32, done: u32, bytes: ResultBytes },
    /// These items of a chunk failed; others may follow.
    Range { first: u32, end: u32, error: Error },
    /// The task failed without an answer.
    Failed(Error),
}

impl Outcome {
    /// A task returned this.
    pub(crate) fn of_tiny(value: Tiny) -> Self {
        Outcome::Answer { status: Status::Value as u32, bytes: ResultBytes::Tiny(value) }
    }

    /// Why a call has no value.
    #[cold]
    pub(crate) fn error(&self) -> Error {
        match self {
            Outcome::Answer { status, bytes } => failure(*status, bytes.as_slice()),
            Outcome::Failed(error) | Outcome::Range { error, .. } => error.clone(),
            Outcome::Items { .. } => Error::corrupted("a call was answered as a chunk"),
        }
    }
}

/// Where outcomes go. All tasks of a sink are submitted to one client.
pub(crate) trait Sink: Send + Sync {
    /// `tag` is what was given at submission. The client's books are held: this must be quick and submit nothing.
    fn deliver(&self, tag: u64, outcome: Outcome, key: &mut Key);

    /// The same for a value of up to eight bytes.
    fn deliver_tiny(&self, tag: u64, value: Tiny, key: &mut Key) {
        self.deliver(tag, Outcome::of_tiny(value), key);
    }
}

/// How a process of the pool ended, and what it was doing.
#[derive(Clone, Copy)]
pub(crate) struct Death {
    pub who: Owner,
    pub pid: u32,
    pub exit: Exit,
    /// Its `current` word: `[slot + 1 32][items that are run as one 32]`.
    pub current: u64,
}

/// The client of a pool, shared by all threads of its process.
pub(crate) struct Client {
    pub(crate) segment: Arc<Segment>,
    pub(crate) arena: ClientArena,
    holdings: Arc<Holdings>,
    books: Mutex<Books>,
    deposits: Arc<Deposits>,
    /// Those of tasks for which nobody has said others.
    pub(crate) terms: Terms,
    /// Arguments that workers may read as long as the pool lives.
    kept: Mutex<Vec<Args>>,
    /// How long waiting threads stay awake first: see `wait`.
    spin: PrivateU32,
    first_look: FirstLook,
    /// How many CPUs the pool's processes may use.
    cpus: u32,
    /// The pool's id, if what lies in slots carries checks.
    checked: Option<u64>,
    alarm: OnceLock<Box<dyn Fn() + Send + Sync>>,
    watch: watch::Watch,
}

impl Client {
    pub(crate) fn new(segment: Arc<Segment>, patience: Duration, max_attempts: u32, quota: u64) -> Self {
        let processes = segment.processes() as usize;
        let arena = ClientArena::new(segment.clone(), quota);
        let books = Books::new(processes);
        let cpus = segment.header().cpus.load(Ordering::Relaxed) as u32;
        Client {
            arena,
            holdings: Arc::new(Holdings::new(segment.clone())),
            deposits: books.deposits(),
            books: Mutex::new(books),
            terms: Terms { patience, max_attempts },
            kept: Mutex::default(),
            spin: PrivateU32::new(wait::SPIN_MOST),
            first_look: FirstLook::default(),
            cpus,
            checked: segment.hardened().then(|| segment.pool_id()),
            alarm: OnceLock::new(),
            watch: watch::Watch::default(),
            segment,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // A panic under the lock is a bug of ours, not of the data: every step leaves the books usable.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of the outcome for the caller with this ticket.
    #[inline]
    pub(crate) fn deposit(&self, ticket: Ticket) -> &Deposit {
        self.deposits.get(ticket.caller)
    }

    /// Keeps arguments for the life of the pool.
    pub(crate) fn keep(&self, args: Args) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(args);
    }

    /// Tasks submitted whose outcome has not been taken from their slots.
    pub(crate) fn in_flight(&self) -> usize {
        self.lock().in_flight
    }

    /// Whether there may be payload memory to [give back](Self::rest) when the pool has rested for a while.
    pub(crate) fn may_give_memory(&self) -> bool {
        let worked = self.lock().worked;
        worked && self.arena.holds_much()
    }

    /// Gives free payload memory back to the system, once after each busy time.
    pub(crate) fn rest(&self) {
        let mut state = self.lock();
        if state.in_flight == 0 && state.worked {
            state.worked = false;
            drop(state);
            self.arena.trim();
        }
    }

    /// Takes all outcomes that are there.
    pub(crate) fn collect(&self) {
        let mut state = self.lock();
        self.poll(&mut state);
    }

    /// Has threads that wait look again: something came about without a task.
    pub(crate) fn wake_waiters(&self) {
        self.wake_sleepers(&mut self.lock());
    }

    /// The books, as they are.
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.lock()
    }

    /// The same, and then does something with what sinks keep.
    pub(crate) fn collect_then<R>(&self, then: impl FnOnce(&mut Books) -> R) -> R {
        let mut state = self.lock();
        self.poll(&mut state);
        then(&mut state)
    }

    /// Remembers how a process ended, for the error of the task that it ran. Before its reap.
    pub(crate) fn record_death(&self, death: Death) {
        let mut state = self.lock();
        state.remember(death);
        self.mark_dead(&mut state, death.who.index);
    }

    /// Looks at every slot after the reap of place `index`: lost chunks go on with their other items.
    pub(crate) fn after_reap(&self, index: u32) {
        let mut state = self.lock();
        self.dismiss(&mut state, index);
        self.scan(&mut state);
        self.wake_sleepers(&mut state);
    }

    /// Takes no more tasks; those that fail from now on fail with `error`.
    pub(crate) fn refuse(&self, error: Error) {
        let mut state = self.lock();
        if state.failed.is_none() {
            state.failed = Some(error);
        }
    }

    /// Ends all tasks with `error`, now and for ever. All workers are dead or will not start a task again.
    pub(crate) fn fail(&self, error: Error) {
        self.refuse(error.clone());
        let mut state = self.lock();
        self.scan(&mut state); // what is done stays done
        for number in 0..state.fresh {
            let Some(task) = state.entries[number as usize].task.take() else { continue };
            // A guest is not killed with the pool. What it may still read must never be used again.
            let word = self.segment.slot(number).word().load();
            let guest = state.guests.get(word.owner().index as usize).copied().unwrap_or(true);
            state.in_flight -= 1;
            task.fail(error.clone(), &mut state);
            if word.state() == Some(crate::slot::State::Run) && guest {
                std::mem::forget(task.kept);
            }
            // The slot itself is left alone: nobody uses this pool's memory again.
            self.segment.slot(number).word().wake();
        }
        self.wake_sleepers(&mut state);
    }
}
