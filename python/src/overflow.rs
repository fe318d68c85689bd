//! Tasks that wait in the client's memory until there is a slot for them: submitting blocks nobody.

use engine::raw::{Buffer, Caller, Input, MapFeed, Name, Pending};
use engine::{Error, ErrorKind};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the thread waits for a slot before it looks whether the pool is still wanted.
const PATIENCE: Duration = Duration::from_millis(200);

/// What is to be done with a call once it has been submitted, or cannot be.
pub(crate) type Placed = Box<dyn FnOnce(Result<Pending, Error>) + Send>;

/// A task that waits.
pub(crate) enum Task {
    Call { caller: Caller, bytes: Vec<u8>, keep: Vec<Arc<Buffer>>, placed: Placed },
    Chunk { feed: MapFeed, first: usize, chunk: Chunk, keep: Vec<Arc<Buffer>> },
}

/// So many items of a map, as bytes; a single one is a call.
pub(crate) struct Chunk {
    pub bytes: Vec<u8>,
    pub count: usize,
}

impl Chunk {
    pub(crate) fn push(&self, feed: &MapFeed, first: usize, keep: &[Arc<Buffer>]) -> Result<(), Error> {
        match self.count {
            1 => feed.push(first, &[&self.bytes], keep), // it is a call
            count => feed.push_whole(first, count, &self.bytes, keep),
        }
    }
}

/// Submits a call.
pub(crate) fn submit(
    caller: &Caller,
    name: Name,
    bytes: &[u8],
    keep: &[Arc<Buffer>],
) -> Result<Pending, Error> {
    let input = Input::Bytes(bytes);
    if keep.is_empty() {
        return caller.apply_async(name, input);
    }
    caller.apply_async(name, Input::Keeping { input: &input, buffers: keep })
}

/// Whether trying again later may help.
pub(crate) fn is_full(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Full { .. } => true,
        ErrorKind::ArenaFull { needed, quota, .. } => needed <= quota,
        _ => false,
    }
}

/// The tasks of a pool that wait, in the order in which they came.
pub(crate) struct Overflow {
    shared: Arc<Shared>,
}

struct Shared {
    hasty: Caller,
    name: Name,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    /// A thread submits them.
    serving: bool,
    /// Nothing will be submitted any more.
    ended: Option<Error>,
    /// To be done once nothing waits.
    then: Option<Box<dyn FnOnce() + Send>>,
    /// Iterations that still have items to submit.
    holds: usize,
}

impl State {
    /// Whether there may be something to submit.
    fn is_busy(&self) -> bool {
        self.serving || self.holds > 0 || !self.tasks.is_empty()
    }
}

/// Something is still to be submitted.
pub(crate) struct Hold {
    shared: Arc<Shared>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.holds -= 1;
        let then = if state.is_busy() { None } else { state.then.take() };
        drop(state);
        if let Some(then) = then {
            then();
        }
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut state = self.lock();
        loop {
            let Some(task) = state.tasks.pop_front() else {
                if state.holds == 0
                    && let Some(then) = state.then.take()
                {
                    drop(state);
                    then();
                    state = self.lock();
                    continue;
                }
                state.serving = false;
                drop(state);
                self.changed.notify_all();
                return;
            };
            drop(state);
            let left = self.attempt(task);
            state = self.lock();
            if let Some(task) = left {
                match state.ended.clone() {
                    Some(error) => {
                        drop(state);
                        refuse(task, &error);
                        state = self.lock();
                    }
                    None => state.tasks.push_front(task),
                }
            }
        }
    }

    /// Submits a task, waiting a while if need be; gives it back if that was in vain.
    fn attempt(&self, task: Task) -> Option<Task> {
        // Without tasks on their way nobody gives anything back.
        let hope = self.hasty.in_flight() > 0;
        match task {
            Task::Call { caller, bytes, keep, placed } => {
                match submit(&caller.patience(PATIENCE), self.name, &bytes, &keep) {
                    Err(error) if is_full(&error) && hope => Some(Task::Call { caller, bytes, keep, placed }),
                    submitted => {
                        placed(submitted);
                        None
                    }
                }
            }
            Task::Chunk { feed, first, chunk, keep } => {
                match chunk.push(&feed, first, &keep) {
                    Err(error) if is_full(&error) && hope => {
                        std::thread::sleep(Duration::from_millis(1));
                        return Some(Task::Chunk { feed, first, chunk, keep });
                    }
                    Err(error) => feed.fail(first, chunk.count, error),
                    Ok(()) => {}
                }
                None
            }
        }
    }
}

fn refuse(task: Task, error: &Error) {
    match task {
        Task::Call { placed, .. } => placed(Err(error.clone())),
        Task::Chunk { feed, first, chunk, .. } => feed.fail(first, chunk.count, error.clone()),
    }
}

impl Overflow {
    pub(crate) fn new(hasty: Caller, name: Name) -> Self {
        Overflow {
            shared: Arc::new(Shared { hasty, name, state: Mutex::default(), changed: Condvar::new() }),
        }
    }

    /// Whether nothing waits, so that the next task may be submitted at once.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.shared.lock();
        state.tasks.is_empty() && !state.serving
    }

    /// The pool is not closed before this is dropped.
    pub(crate) fn hold(&self) -> Hold {
        self.shared.lock().holds += 1;
        Hold { shared: self.shared.clone() }
    }

    /// How many tasks wait.
    pub(crate) fn len(&self) -> usize {
        self.shared.lock().tasks.len()
    }

    /// Has a task wait.
    pub(crate) fn push(&self, task: Task) {
        let mut state = self.shared.lock();
        if let Some(error) = state.ended.clone() {
            drop(state);
            return refuse(task, &error);
        }
        state.tasks.push_back(task);
        if state.serving {
            return;
        }
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name("ringpool-overflow".to_owned());
        match thread.spawn(move || shared.serve()) {
            Ok(_) => state.serving = true,
            Err(source) => {
                let error = Error::from(ErrorKind::Io { what: "starting a thread", source });
                let tasks = std::mem::take(&mut state.tasks);
                drop(state);
                tasks.into_iter().for_each(|task| refuse(task, &error));
            }
        }
    }

    /// Has something done once nothing waits any more: at once, if that is so already.
    pub(crate) fn then(&self, f: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        if state.is_busy() {
            state.then = Some(Box::new(f));
            return;
        }
        drop(state);
        f();
    }

    /// Waits until nothing waits any more, at most for `limit`; whether that is so.
    pub(crate) fn drained(&self, limit: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, limit, |state| state.is_busy());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !state.is_busy()
    }

    /// Submits nothing any more: what waits fails.
    pub(crate) fn end(&self, error: Error) {
        let mut state = self.shared.lock();
        state.ended.get_or_insert_with(|| error.clone());
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        tasks.into_iter().for_each(|task| refuse(task, &error));
    }
}
