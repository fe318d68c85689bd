//! The result of one call.

use super::callbacks::Followers;
use super::inner::Inner;
use crate::client::{Books, Key, Outcome, ResultBytes, Sink, Ticket, Tiny, UnderBooks};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::{self, Payload};
use crate::sync::private::{Private, PrivateU8};
use crate::task::{Status, failure};
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the outcome of one call arrives.
#[derive(Default)]
pub(crate) struct Single {
    /// One of the three below. It changes once to `DONE`, and before that perhaps to `FOLLOWED`.
    state: PrivateU8,
    /// Written before `DONE`, never after.
    outcome: UnderBooks<Option<Result<ResultBytes>>>,
    followers: Followers,
}

const PENDING: u8 = 0;
/// Pending, and somebody is to be told.
const FOLLOWED: u8 = 1;
const DONE: u8 = 2;

impl Sink for Single {
    #[inline]
    fn deliver(&self, _tag: u64, outcome: Outcome, key: &mut Key) {
        self.settle(bytes_of(outcome), key);
    }

    #[inline]
    fn deliver_tiny(&self, _tag: u64, value: Tiny, key: &mut Key) {
        self.settle(Ok(ResultBytes::Tiny(value)), key);
    }
}

impl Single {
    #[inline]
    fn settle(&self, outcome: Result<ResultBytes>, key: &mut Key) {
        if self.outcome().is_some() {
            return;
        }
        // SAFETY: a call is submitted to one client, and nobody reads the outcome before the state says `DONE`.
        unsafe { *self.outcome.get(key) = Some(outcome) };
        // Release pairs with `outcome`, Acquire with `follow`.
        if self.state.swap(DONE, Private::AcqRel) == FOLLOWED {
            self.followers.release();
        }
    }

    #[inline]
    pub(crate) fn outcome(&self) -> Option<&Result<ResultBytes>> {
        if self.state.load(Private::Acquire) != DONE {
            return None;
        }
        // SAFETY: `DONE` comes after the one change.
        unsafe { self.outcome.get_settled() }.as_ref()
    }

    /// Has the followers told, unless it is done: then says so.
    fn follow(&self) -> bool {
        let followed = self.state.compare_exchange(PENDING, FOLLOWED, Private::AcqRel, Private::Acquire);
        followed.is_err_and(|state| state == DONE)
    }
}

/// The bytes of a value, or the error that came instead of it.
#[inline]
pub(crate) fn bytes_of(outcome: Outcome) -> Result<ResultBytes> {
    match outcome {
        Outcome::Answer { status, bytes } if status == Status::Value as u32 => Ok(bytes),
        Outcome::Answer { status, bytes } => Err(failure(status, bytes.as_slice())),
        Outcome::Failed(error) | Outcome::Range { error, .. } => Err(error),
        Outcome::Items { .. } => Err(Error::corrupted("a call was answered as a chunk")),
    }
}

/// The result of [`Pool::apply_async`](crate::Pool::apply_async), now or later.
///
/// It can be asked any number of times. Dropping it forgets the result; the task is run all the same.
#[must_use = "a result that nobody looks at hides its error"]
pub struct AsyncResult<R> {
    inner: Arc<Inner>,
    pub(crate) single: Arc<Single>,
    ticket: Ticket,
    value: PhantomData<fn() -> R>,
}

impl<R: Payload> AsyncResult<R> {
    pub(crate) fn new(inner: Arc<Inner>, single: Arc<Single>, ticket: Ticket) -> Self {
        AsyncResult { inner, single, ticket, value: PhantomData }
    }

    /// Waits for the result and returns it, or the error that came instead.
    pub fn get(&self) -> Result<R> {
        payload::take(self.bytes(None)?.as_slice())
    }

    /// [`get`](Self::get), waiting no longer than `timeout`; then the error
    /// [is a time-out](Error::is_timeout), the task goes on, and you may ask again.
    pub fn get_timeout(&self, timeout: Duration) -> Result<R> {
        payload::take(self.bytes(Some(timeout))?.as_slice())
    }

    /// Waits for the result and returns it as it lies in shared memory, without a copy.
    ///
    /// ```
    /// # ringpool::init();
    /// # let pool = ringpool::Pool::new(1)?;
    /// let result = pool.apply_async(|n: u32| vec![7u8; n as usize], (1 << 20,))?;
    /// let view = result.view()?;
    /// assert_eq!(view.len(), 1 << 20);
    /// assert_eq!(view[5], 7);
    /// # Ok::<(), ringpool::Error>(())
    /// ```
    pub fn view(&self) -> Result<View<R>> {
        let bytes = self.bytes(None)?;
        let archived = std::ptr::from_ref(payload::view::<R>(bytes.as_slice())?);
        Ok(View { _single: self.single.clone(), archived })
    }

    /// Its bytes, as they lie.
    pub(crate) fn bytes(&self, timeout: Option<Duration>) -> Result<&ResultBytes> {
        self.inner.check_process()?; // a forked child does not have the memory where they are
        if !self.wait(timeout) {
            return Err(ErrorKind::Timeout { waited: timeout.unwrap_or_default() }.into());
        }
        match self.single.outcome() {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => Err(error.clone()),
            None => Err(Error::corrupted("a wait ended without a result")),
        }
    }

    /// Waits until there is a result, at most for `timeout`; `false` if it has passed.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        if self.single.outcome().is_some() {
            return true;
        }
        if self.inner.check_process().is_err() {
            return false;
        }
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let ready = |_: &mut Books| self.single.outcome().is_some().then_some(());
        self.inner.client.wait_for(self.ticket, ready, deadline).is_some()
    }

    /// Whether there is a result, good or bad.
    pub fn ready(&self) -> bool {
        if self.single.outcome().is_none() && self.inner.check_process().is_ok() {
            self.inner.client.collect();
        }
        self.single.outcome().is_some()
    }

    /// Whether the call succeeded; `None` while there is no result.
    pub fn successful(&self) -> Option<bool> {
        self.ready();
        self.single.outcome().map(Result::is_ok)
    }

    /// Has `f` called with the value when it comes, if it comes.
    ///
    /// Callbacks of a pool run on one thread of their own, one after the other; one that panics is
    /// forgotten. [`Pool::join`](crate::Pool::join) waits for them.
    ///
    /// ```
    /// # ringpool::init();
    /// # let pool = ringpool::Pool::new(1)?;
    /// let (tell, told) = std::sync::mpsc::channel();
    /// pool.apply_async(|x: u64| x + 1, (1,))?
    ///     .callback(move |value| tell.send(value).unwrap())
    ///     .error_callback(|error| eprintln!("{error}"))
    ///     .wait(None);
    /// assert_eq!(told.recv().unwrap(), 2);
    /// # Ok::<(), ringpool::Error>(())
    /// ```
    pub fn callback(self, f: impl FnOnce(R) + Send + 'static) -> Self {
        let single = self.single.clone();
        self.then(move || {
            if let Some(Ok(bytes)) = single.outcome()
                && let Ok(value) = payload::take(bytes.as_slice())
            {
                f(value);
            }
        })
    }

    /// Has `f` called with the error, if one comes instead of a value. See [`callback`](Self::callback).
    pub fn error_callback(self, f: impl FnOnce(Error) + Send + 'static) -> Self {
        let single = self.single.clone();
        self.then(move || match single.outcome() {
            Some(Err(error)) => f(error.clone()),
            Some(Ok(bytes)) => {
                if let Err(error) = payload::take::<R>(bytes.as_slice()) {
                    f(error);
                }
            }
            None => {}
        })
    }

    /// Has `job` run when there is an outcome.
    pub(crate) fn then(self, job: impl FnOnce() + Send + 'static) -> Self {
        // A forked child has neither the pool's threads nor its memory.
        if self.inner.check_process().is_ok() {
            self.single.followers.add(&self.inner, || self.single.follow(), Box::new(job));
        }
        self
    }
}

impl<R> std::fmt::Debug for AsyncResult<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.single.outcome() {
            None => "pending",
            Some(Ok(_)) => "done",
            Some(Err(_)) => "failed",
        };
        f.debug_struct("AsyncResult").field("state", &state).finish_non_exhaustive()
    }
}

/// A result in shared memory: derefs to its archived form, and gives the memory back when dropped.
///
/// A forked child does not have the memory: looking through a view there is a fault.
pub struct View<R: Payload> {
    /// Keeps the bytes.
    _single: Arc<Single>,
    archived: *const R::Archived,
}

// SAFETY: a view is a shared reference to an archive that nobody writes, with what keeps it alive.
unsafe impl<R: Payload> Send for View<R> where R::Archived: Sync {}
// SAFETY: as above.
unsafe impl<R: Payload> Sync for View<R> where R::Archived: Sync {}

impl<R: Payload> Deref for View<R> {
    type Target = R::Archived;

    fn deref(&self) -> &R::Archived {
        // SAFETY: validated when the view was made; the bytes are held by `_single` and never change.
        unsafe { &*self.archived }
    }
}

impl<R: Payload> std::fmt::Debug for View<R>
where
    R::Archived: std::fmt::Debug,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}
