//! The thread that runs callbacks: one for each pool that has any.

use super::inner::Inner;
use crate::client::Client;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs in the order in which they come. While results with callbacks are on their way it takes
/// results from workers, so that callbacks need nobody to wait for anything.
pub(crate) struct Callbacks {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    client: Arc<Client>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Jobs that will come when their results do.
    expected: usize,
    /// The thread is there and will look at `jobs` again.
    serving: bool,
    ending: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        loop {
            let mut state = self.lock();
            let job = loop {
                if let Some(job) = state.jobs.pop_front() {
                    break job;
                }
                if state.expected > 0 {
                    drop(state);
                    let come = || {
                        let state = self.lock();
                        !state.jobs.is_empty() || state.expected == 0
                    };
                    self.client.wait_any(&come, None);
                    state = self.lock();
                } else if state.ending {
                    state.serving = false; // under the lock: later jobs find no thread
                    return;
                } else {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            drop(state);
            // A callback's panic is its own affair; the hook has told of it.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}

impl Callbacks {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        let shared = Shared { client, state: Mutex::default(), changed: Condvar::new() };
        Callbacks { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// Starts the thread if none will look at the jobs.
    fn ensure_thread(&self, state: &mut State) {
        if state.serving {
            return;
        }
        let shared = self.shared.clone();
        let thread =
            std::thread::Builder::new().name("ringpool-callbacks".to_owned()).spawn(move || shared.serve());
        if let Ok(thread) = thread {
            state.serving = true;
            *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
    }

    /// One more job will come with a result.
    pub(crate) fn expect_one(&self) {
        let mut state = self.shared.lock();
        state.expected += 1;
        self.ensure_thread(&mut state);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Has jobs run; `expected` if they were announced.
    pub(crate) fn run(&self, jobs: Vec<Job>, expected: bool) {
        if jobs.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        if expected {
            state.expected = state.expected.saturating_sub(jobs.len());
        }
        state.jobs.extend(jobs);
        self.ensure_thread(&mut state);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Lets all jobs run and ends the thread. All results have come.
    pub(crate) fn finish(&self) {
        self.shared.lock().ending = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// The callbacks of one result: kept until it comes, then handed to the pool's callback thread.
#[derive(Default)]
pub(crate) struct Followers {
    jobs: Mutex<Vec<Job>>,
    pool: OnceLock<Arc<Inner>>,
}

impl Followers {
    /// The result has come. Called once, after `is_done` of [`add`](Self::add) has become true.
    pub(crate) fn release(&self) {
        if let Some(pool) = self.pool.get() {
            let jobs = std::mem::take(&mut *self.jobs.lock().unwrap_or_else(PoisonError::into_inner));
            pool.callbacks.run(jobs, true);
        }
    }

    /// Has `job` run when the result has come; at once, if `is_done` says that it has.
    pub(crate) fn add(&self, pool: &Arc<Inner>, is_done: impl Fn() -> bool, job: Job) {
        let _ = self.pool.set(pool.clone());
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if is_done() {
            drop(jobs);
            pool.callbacks.run(vec![job], false);
        } else {
            pool.callbacks.expect_one(); // before `release` can count it as come
            jobs.push(job);
        }
    }
}
