//! The result of one call.

use super::callbacks::Followers;
use super::inner::Inner;
use crate::client::{Books, Key, Outcome, ResultBytes, Sink, Ticket, Tiny, UnderBooks};
use crate::error::{Error, ErrorKind, Result};
use crate::payload::{self, Payload};
use crate::sync::private::{Private, PrivateU8};
use crate::task::Status;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
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
    /// One whose outcome is there.
    fn done(outcome: Result<ResultBytes>) -> Self {
        Single {
            state: PrivateU8::new(DONE),
            outcome: UnderBooks::new(Some(outcome)),
            followers: Followers::default(),
        }
    }

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

/// [`bytes_of`] an outcome that stays where it is.
#[inline]
pub(super) fn bytes_in(outcome: &Outcome) -> Result<&ResultBytes> {
    match outcome {
        Outcome::Answer { status, bytes } if *status == Status::Value as u32 => Ok(bytes),
        other => Err(other.error()),
    }
}

/// The bytes of a value, or the error that came instead of it.
#[inline]
pub(crate) fn bytes_of(outcome: Outcome) -> Result<ResultBytes> {
    match outcome {
        Outcome::Answer { status, bytes } if status == Status::Value as u32 => Ok(bytes),
        other => Err(other.error()),
    }
}

/// The result of [`Pool::apply_async`](crate::Pool::apply_async), now or later.
///
/// It can be asked any number of times. Dropping it forgets the result; the task is run all the same.
#[must_use = "a result that nobody looks at hides its error"]
pub struct AsyncResult<R> {
    inner: Arc<Inner>,
    ticket: Ticket,
    /// Where the outcome is: one of the two below. It changes at most once, under the lock of the books.
    place: PrivateU8,
    /// Set before `IN_SINGLE`, at the latest.
    single: OnceLock<Arc<Single>>,
    value: PhantomData<fn() -> R>,
}

/// In the place that belongs to the ticket: a value of a few bytes, for good; all else is to be taken from there.
const IN_DEPOSIT: u8 = 0;
/// It was taken, or will arrive there by itself.
const IN_SINGLE: u8 = 1;

impl<R> AsyncResult<R> {
    /// Where the outcome is.
    #[inline]
    fn place(&self) -> u8 {
        self.place.load(Private::Acquire) // pairs with the stores of `fetch` and `single`
    }

    /// The value, if it is one of a few bytes and there.
    #[inline]
    fn tiny(&self) -> Option<Tiny> {
        self.inner.client.deposit(self.ticket).tiny()
    }

    /// Where the outcome is or will be, if not there.
    #[inline]
    fn is_single(&self) -> Option<&Arc<Single>> {
        if self.place() == IN_SINGLE { self.single.get() } else { None }
    }

    /// Whether the outcome has been taken, or has arrived by itself.
    #[inline]
    fn is_settled(&self) -> bool {
        self.tiny().is_some() || self.is_single().is_some_and(|single| single.outcome().is_some())
    }

    /// Takes the outcome from the books, if it is there; whether it is settled now.
    #[inline]
    fn fetch(&self, books: &mut Books) -> bool {
        if self.place() == IN_DEPOSIT
            && let Some(outcome) = books.take_boxed(self.ticket)
        {
            let _ = self.single.set(Arc::new(Single::done(bytes_of(*outcome))));
            self.place.store(IN_SINGLE, Private::Release);
        }
        self.is_settled()
    }

    /// The outcome's place that can be shared: where it is, or will arrive.
    pub(crate) fn single(&self) -> &Arc<Single> {
        if let Some(single) = self.is_single() {
            return single;
        }
        let mut books = self.inner.client.books();
        if self.place() == IN_DEPOSIT {
            let single = Arc::new(Single::default());
            if books.redirect(self.ticket, single.clone()) {
                let _ = self.single.set(single);
                self.place.store(IN_SINGLE, Private::Release);
            } else {
                self.fetch(&mut books);
            }
        }
        drop(books);
        self.single.get_or_init(|| {
            Arc::new(match self.tiny() {
                Some(value) => Single::done(Ok(ResultBytes::Tiny(value))),
                None => Single::done(Err(Error::corrupted("a result is neither there nor on its way"))),
            })
        })
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// Whether the call succeeded, if its outcome has come.
    fn success(&self) -> Option<bool> {
        match self.is_single() {
            Some(single) => single.outcome().map(Result::is_ok),
            None => self.tiny().map(|_| true),
        }
    }
}

impl<R> Drop for AsyncResult<R> {
    #[inline]
    fn drop(&mut self) {
        // In a forked child the lock may be held by a thread that is not there.
        if !self.inner.client.deposit(self.ticket).give_back() && self.inner.check_process().is_ok() {
            self.inner.client.books().forget(self.ticket);
        }
    }
}

impl<R: Payload> AsyncResult<R> {
    #[inline]
    pub(crate) fn new(inner: Arc<Inner>, ticket: Ticket) -> Self {
        AsyncResult {
            inner,
            ticket,
            place: PrivateU8::new(IN_DEPOSIT),
            single: OnceLock::new(),
            value: PhantomData,
        }
    }

    /// Waits for the result and returns it, or the error that came instead.
    pub fn get(&self) -> Result<R> {
        self.get_within(None)
    }

    /// [`get`](Self::get), waiting no longer than `timeout`; then the error
    /// [is a time-out](Error::is_timeout), the task goes on, and you may ask again.
    pub fn get_timeout(&self, timeout: Duration) -> Result<R> {
        self.get_within(Some(timeout))
    }

    #[inline]
    fn get_within(&self, timeout: Option<Duration>) -> Result<R> {
        self.await_it(timeout)?;
        match self.tiny() {
            Some(value) => payload::take(value.as_slice()),
            None => payload::take(arrived(self.single())?.as_slice()),
        }
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
        self.await_it(None)?;
        let single = self.single().clone();
        let archived = std::ptr::from_ref(payload::view::<R>(arrived(&single)?.as_slice())?);
        Ok(View { _bytes: Viewed::Shared { _single: single }, archived })
    }

    /// Waits for the value, and says where its bytes are.
    pub(crate) fn settled(&self, timeout: Option<Duration>) -> Result<Settled> {
        self.await_it(timeout)?;
        if let Some(value) = self.tiny() {
            return Ok(Settled::Tiny(value));
        }
        let single = self.single();
        arrived(single)?;
        Ok(Settled::Single(single.clone()))
    }

    /// Waits for the outcome.
    #[inline]
    fn await_it(&self, timeout: Option<Duration>) -> Result<()> {
        self.inner.check_process()?; // a forked child does not have the memory where it is
        match self.wait(timeout) {
            true => Ok(()),
            false => Err(ErrorKind::Timeout { waited: timeout.unwrap_or_default() }.into()),
        }
    }

    /// Waits until there is a result, at most for `timeout`; `false` if it has passed.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        if self.is_settled() {
            return true;
        }
        if self.inner.check_process().is_err() {
            return false;
        }
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        // Mostly it has been taken together with others, and the slot is another task's: better not to look there.
        if self.fetch(&mut self.inner.client.books()) {
            return true;
        }
        let fetch = |books: &mut Books| self.fetch(books).then_some(());
        self.inner.client.wait_for(self.ticket, fetch, deadline).is_some()
    }

    /// Whether there is a result, good or bad.
    pub fn ready(&self) -> bool {
        if !self.is_settled() && self.inner.check_process().is_ok() {
            self.inner.client.collect_then(|books| self.fetch(books));
        }
        self.is_settled()
    }

    /// Whether the call succeeded; `None` while there is no result.
    pub fn successful(&self) -> Option<bool> {
        self.ready();
        self.success()
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
        self.then(|single| {
            if let Some(Ok(bytes)) = single.outcome()
                && let Ok(value) = payload::take(bytes.as_slice())
            {
                f(value);
            }
        })
    }

    /// Has `f` called with the error, if one comes instead of a value. See [`callback`](Self::callback).
    pub fn error_callback(self, f: impl FnOnce(Error) + Send + 'static) -> Self {
        self.then(|single| match single.outcome() {
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
    pub(crate) fn then(self, job: impl FnOnce(&Arc<Single>) + Send + 'static) -> Self {
        // A forked child has neither the pool's threads nor its memory.
        if self.inner.check_process().is_ok() {
            let single = self.single().clone();
            let job = Box::new(move || job(&single));
            let single = self.single();
            single.followers.add(&self.inner, || single.follow(), job);
        }
        self
    }
}

/// Where the bytes of a value are.
pub(crate) enum Settled {
    /// Here.
    Tiny(Tiny),
    /// It has arrived there.
    Single(Arc<Single>),
}

/// The bytes of a value that has arrived.
fn arrived(single: &Single) -> Result<&ResultBytes> {
    match single.outcome() {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(error)) => Err(error.clone()),
        None => Err(Error::corrupted("a wait ended without a result")),
    }
}

impl<R> std::fmt::Debug for AsyncResult<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.success() {
            None => "pending",
            Some(true) => "done",
            Some(false) => "failed",
        };
        f.debug_struct("AsyncResult").field("state", &state).finish_non_exhaustive()
    }
}

/// A result in shared memory: derefs to its archived form, and gives the memory back when dropped.
///
/// A forked child does not have the memory: looking through a view there is a fault.
pub struct View<R: Payload> {
    /// Keeps the bytes.
    _bytes: Viewed,
    archived: *const R::Archived,
}

/// What a view looks at, where it stays however the view is moved.
enum Viewed {
    /// Whoever has the result may look, too.
    Shared {
        _single: Arc<Single>,
    },
    Own {
        _outcome: Box<Outcome>,
    },
}

impl<R: Payload> View<R> {
    /// A view of an outcome that nobody else has.
    #[inline]
    pub(super) fn new(outcome: Box<Outcome>) -> Result<Self> {
        let archived = std::ptr::from_ref(payload::view::<R>(bytes_in(&outcome)?.as_slice())?);
        Ok(View { _bytes: Viewed::Own { _outcome: outcome }, archived })
    }
}

// SAFETY: a view is a shared reference to an archive that nobody writes, with what keeps it alive.
unsafe impl<R: Payload> Send for View<R> where R::Archived: Sync {}
// SAFETY: as above.
unsafe impl<R: Payload> Sync for View<R> where R::Archived: Sync {}

impl<R: Payload> Deref for View<R> {
    type Target = R::Archived;

    fn deref(&self) -> &R::Archived {
        // SAFETY: validated when the view was made; the bytes are held by `_bytes`, do not move with it, and never change.
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
