//! Iterations over what may take its time, generators above all: a thread takes the items, so that results can be had
//! while it waits for one.

use crate::error::to_py;
use crate::imap::{Items, Iteration, Plan, Step, lock};
use crate::overflow::{Hold, is_full};
use crate::wait;
use engine::raw::{Bytes, Caller, Input, Name, Queue};
use engine::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most outputs that are taken from the engine at once.
const MOST: usize = 64;

pub(crate) struct Fed {
    queue: Queue,
    name: Name,
    state: Mutex<State>,
    changed: Condvar,
    ordered: bool,
    limited: bool,
}

struct State {
    /// Items that were taken, and submitted.
    submitted: u64,
    /// Results that the caller has got.
    returned: u64,
    /// So many items may be submitted and their results not returned.
    limit: u64,
    /// Nothing more is taken.
    ended: bool,
    /// Nobody wants more.
    stopped: bool,
    /// What follows the last result.
    last_word: Option<Error>,
    /// What has come, by the number of its item.
    come: BTreeMap<u64, Result<Bytes, Error>>,
}

impl Fed {
    pub(crate) fn start(py: Python<'_>, caller: &Caller, items: Items, plan: &Plan) -> PyResult<Arc<Self>> {
        let engine = items.engine.get();
        // As many as in iterations over what is at hand.
        let least = plan.chunksize.saturating_mul((4 * engine.processes).max(16));
        let queue = caller.patience(wait::SLICE).queue().map_err(|error| to_py(py, &error, None))?;
        let fed = Arc::new(Fed {
            queue,
            name: engine.name,
            state: Mutex::new(State {
                submitted: 0,
                returned: 0,
                limit: plan.buffersize.unwrap_or(least) as u64,
                ended: false,
                stopped: false,
                last_word: None,
                come: BTreeMap::new(),
            }),
            changed: Condvar::new(),
            ordered: plan.ordered,
            limited: plan.buffersize.is_some(),
        });
        let feeder =
            Feeder { fed: fed.clone(), _hold: engine.overflow.hold(), items: Mutex::new(Some(items)) };
        let options = PyDict::new(py);
        options.set_item("target", Bound::new(py, feeder)?)?;
        options.set_item("name", "ringpool-feeder")?;
        options.set_item("daemon", true)?;
        let thread = PyModule::import(py, "threading")?.getattr("Thread")?.call((), Some(&options))?;
        if let Err(error) = thread.call_method0("start") {
            fed.end(py)?; // something urgent may have come when it had started
            return Err(error);
        }
        Ok(fed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, limit: Duration) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until there is room for an item; `false` if nobody wants one.
    fn wait_for_room(&self) -> bool {
        let mut state = self.lock();
        while !state.stopped && state.submitted - state.returned >= state.limit {
            state = self.wait(state, Duration::from_secs(60));
        }
        !state.stopped
    }

    /// Takes items until the end; the error is the last word.
    fn feed(&self, py: Python<'_>, items: &mut Items) -> Result<(), Error> {
        while py.detach(|| self.wait_for_room()) {
            let Some(message) = items.next(py).transpose()? else { return Ok(()) };
            py.detach(|| {
                let tag = self.lock().submitted;
                let input = Input::Bytes(&message.bytes);
                let input = match &message.keep[..] {
                    [] => input,
                    buffers => Input::Keeping { input: &input, buffers },
                };
                loop {
                    match self.queue.submit(self.name, [(tag, input)]).1 {
                        Err(error) if is_full(&error) => {
                            if self.lock().stopped {
                                return Ok(());
                            }
                        }
                        Err(error) => return Err(error),
                        Ok(()) => break,
                    }
                }
                self.lock().submitted += 1;
                self.changed.notify_all();
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The next result of those that have come, if it is its turn.
    fn pop(&self, state: &mut State) -> Option<Result<Bytes, Error>> {
        let (&first, _) = state.come.first_key_value()?;
        if self.ordered && first != state.returned {
            return None;
        }
        let (_, output) = state.come.pop_first()?;
        state.returned += 1;
        self.changed.notify_all();
        Some(output)
    }

    fn step(&self, limit: Duration) -> Step {
        {
            let mut state = self.lock();
            if let Some(output) = self.pop(&mut state) {
                return Step::Output(output);
            }
            if state.returned == state.submitted {
                if state.ended {
                    return state.last_word.take().map_or(Step::End, |error| Step::Output(Err(error)));
                }
                if self.queue.outstanding() == 0 {
                    drop(self.wait(state, limit)); // for an item
                    return Step::Later;
                }
            }
        }
        match self.queue.take(MOST, Some(limit)) {
            Ok(results) => {
                let mut state = self.lock();
                for index in 0..results.len() {
                    let Some(tag) = results.tag(index) else { continue };
                    let output = match results.bytes(index) {
                        Some(Ok(bytes)) => Ok(bytes),
                        Some(Err(error)) => Err(error.clone()),
                        None => continue,
                    };
                    state.come.insert(tag, output);
                }
                match self.pop(&mut state) {
                    Some(output) => Step::Output(output),
                    None => Step::Later,
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::Timeout { .. }) => Step::Later,
            Err(error) => {
                // The pool has ended, and with it all that was not done.
                let mut state = self.lock();
                state.ended = true;
                state.submitted = state.returned;
                Step::Output(Err(error))
            }
        }
    }
}

impl Iteration for Fed {
    fn next(&self, py: Python<'_>, limit: Duration) -> PyResult<Step> {
        let began = std::time::Instant::now();
        Ok(py.detach(|| {
            loop {
                let left = limit.saturating_sub(began.elapsed());
                match self.step(left) {
                    Step::Later if began.elapsed() < limit => {}
                    step => return step,
                }
            }
        }))
    }

    fn end(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            self.lock().stopped = true;
            self.changed.notify_all();
        });
        Ok(())
    }

    fn take_all(&self, py: Python<'_>) -> PyResult<()> {
        if self.limited {
            return self.end(py);
        }
        self.lock().limit = u64::MAX;
        self.changed.notify_all();
        let ended = |limit| {
            let state = self.lock();
            state.ended || self.wait(state, limit).ended
        };
        wait::sliced(py, None, ended).map(drop)
    }

    fn has_ended(&self) -> bool {
        let state = self.lock();
        state.stopped || state.ended && state.returned == state.submitted
    }
}

/// What the thread runs.
#[pyclass(frozen, module = "ringpool._native")]
struct Feeder {
    fed: Arc<Fed>,
    items: Mutex<Option<Items>>,
    /// The pool takes work until it has ended.
    _hold: Hold,
}

#[pymethods]
impl Feeder {
    fn __call__(&self, py: Python<'_>) {
        let Some(mut items) = lock(&self.items).take() else { return };
        let fed = self.fed.feed(py, &mut items);
        items.end(py);
        let mut state = self.fed.lock();
        state.ended = true;
        state.last_word = fed.err();
        drop(state);
        self.fed.changed.notify_all();
    }
}
