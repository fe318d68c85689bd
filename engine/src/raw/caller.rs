//! Calling functions by name, with bytes.

use super::buffer::Buffer;
use super::feed::MapFeed;
use super::iter::{Iter, Order, Source};
use super::map::{self, MapPending};
use super::queue::Queue;
use super::results::Bytes;
use super::{Array, Name};
use crate::client::{Args, Client, PATIENCE_MOST, RETRIES_MOST, Sink, Taken, Target, Terms, Ticket};
use crate::error::{Error, ErrorKind, Result};
use crate::pool::{AsyncResult, Inner, Settled, Single, bytes_of};
use crate::slot::{ArgWords, INLINE_ARGS};
use crate::worker::FuncWord;
use std::sync::Arc;
use std::time::Duration;

/// Input of one call.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// These bytes, copied.
    Bytes(&'a [u8]),
    /// The first bytes of a buffer, as they lie.
    Buffer(&'a Buffer, usize),
    /// Input that refers to buffers, by their [offsets](Buffer::offset) or in another way that its function knows.
    /// They stay where and as they are until the task is done, or will not be done.
    Keeping {
        /// The input itself.
        input: &'a Input<'a>,
        /// What it refers to.
        buffers: &'a [Arc<Buffer>],
    },
}

impl Input<'_> {
    /// As arguments of a task.
    pub(super) fn args(self, client: &Client, terms: &Terms) -> Result<Args> {
        match self {
            Input::Bytes(bytes) if bytes.len() <= client.arena.inline_most() => {
                Ok(Args::of_words(words(bytes), bytes.len()))
            }
            Input::Bytes(bytes) => client.with_memory_on(terms, || Args::of_bytes(&client.arena, bytes)),
            Input::Buffer(buffer, len) => buffer.args(client, len),
            Input::Keeping { input, buffers } => keeping(client, input.args(client, terms)?, buffers),
        }
    }
}

/// The arguments, which refer to these buffers.
pub(super) fn keeping(client: &Client, args: Args, buffers: &[Arc<Buffer>]) -> Result<Args> {
    let kept: Vec<_> = buffers.iter().map(|buffer| buffer.kept(client)).collect::<Result<_>>()?;
    Ok(args.keeping(kept.into_iter()))
}

impl<'a> From<&'a [u8]> for Input<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Input::Bytes(bytes)
    }
}

/// Calls functions over bytes: [`Pool::raw`](crate::Pool::raw). It keeps what the pool shares, not the pool.
#[derive(Clone)]
pub struct Caller {
    pub(super) inner: Arc<Inner>,
    pub(super) terms: Terms,
}

/// How other processes know a function by its name.
pub(super) fn func(name: Name) -> Result<FuncWord> {
    FuncWord::new(name.func())
}

/// Bytes that fit into a slot, as words.
#[inline]
pub(super) fn words(bytes: &[u8]) -> ArgWords {
    if let Ok(word) = <[u8; 8]>::try_from(bytes) {
        return [u64::from_ne_bytes(word), 0, 0, 0]; // the most common, without a call
    }
    let mut words = ArgWords::default();
    let place: &mut [u8; INLINE_ARGS] = bytemuck::cast_mut(&mut words);
    place[..bytes.len()].copy_from_slice(bytes);
    words
}

impl Caller {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        let terms = inner.client.terms;
        Caller { inner, terms }
    }

    /// The same for calls that are repeated so often, 14 times at most, if the worker that runs them dies: instead of
    /// as often as the pool's [`Builder::retries`](crate::Builder::retries) says. Of maps and iterations each item is.
    pub fn retries(&self, retries: u32) -> Caller {
        let terms = Terms { max_attempts: retries.min(RETRIES_MOST) + 1, ..self.terms };
        Caller { inner: self.inner.clone(), terms }
    }

    /// The same for calls that wait so long for a slot, or for memory, instead of the pool's
    /// [`Builder::patience`](crate::Builder::patience).
    ///
    /// Zero is not to wait at all: what cannot be submitted at once fails with [`ErrorKind::Full`] or
    /// [`ErrorKind::ArenaFull`], and nothing of it has been submitted. Of a map each chunk is submitted by itself,
    /// and one that fails does so at its place; [`feed`](Self::feed) is for who wants to try again.
    pub fn patience(&self, patience: Duration) -> Caller {
        let terms = Terms { patience: patience.min(PATIENCE_MOST), ..self.terms };
        Caller { inner: self.inner.clone(), terms }
    }

    #[inline]
    fn submit(&self, name: Name, input: Input<'_>, to: Target) -> Result<Ticket> {
        self.inner.check_running()?;
        let client = &self.inner.client;
        let func = func(name)?;
        if let Input::Bytes(bytes) = input
            && bytes.len() <= client.arena.inline_most()
        {
            return client.submit_short(&self.terms, func, name.text, &words(bytes), bytes.len(), to);
        }
        self.submit_long(func, name, input, to)
    }

    /// The same for inputs that are not in the slot alone.
    #[inline(never)]
    fn submit_long(&self, func: FuncWord, name: Name, input: Input<'_>, to: Target) -> Result<Ticket> {
        let client = &self.inner.client;
        let args = input.args(client, &self.terms)?;
        client.submit_call(&self.terms, func, name.text, args, to)
    }

    /// Calls the function and waits for its output.
    #[inline]
    pub fn apply<'a>(&self, name: Name, input: impl Into<Input<'a>>) -> Result<Bytes> {
        let ticket = self.submit(name, input.into(), Target::Caller)?;
        let taken = self.inner.client.wait_for_call(ticket);
        match taken {
            Some(Taken::Tiny(value)) => Ok(Bytes::tiny(value)),
            Some(Taken::Outcome(outcome)) => bytes_of(*outcome).map(Bytes::own),
            None => Err(Error::corrupted("a wait ended without a result")),
        }
    }

    /// Calls the function; the output can be fetched later.
    pub fn apply_async<'a>(&self, name: Name, input: impl Into<Input<'a>>) -> Result<Pending> {
        let ticket = self.submit(name, input.into(), Target::Caller)?;
        Ok(Pending { result: AsyncResult::new(self.inner.clone(), ticket) })
    }

    /// Calls the function for each of these inputs, `chunksize` of them travelling together; `None` makes four
    /// chunks for each worker.
    pub fn map(&self, name: Name, items: &[&[u8]], chunksize: Option<usize>) -> Result<MapPending> {
        map::items(self, name, items, chunksize)
    }

    /// The same for inputs of one size.
    pub fn map_array(&self, name: Name, items: Array<'_>, chunksize: Option<usize>) -> Result<MapPending> {
        map::array(self, name, items, chunksize)
    }

    /// The same for those that a buffer holds, without a copy.
    pub fn map_buffer(
        &self,
        name: Name,
        items: &Buffer,
        item_size: usize,
        chunksize: Option<usize>,
    ) -> Result<MapPending> {
        map::buffer(self, name, items, item_size, chunksize)
    }

    /// A map of so many items, which are given later.
    pub fn feed(&self, name: Name, items: usize) -> Result<MapFeed> {
        MapFeed::new(self, name, items)
    }

    /// Calls the function for inputs of one size and writes its outputs, each `value_size` bytes, side by side to
    /// `values`, as they come. The error is that of the first item that failed; then what `values` holds is not
    /// specified.
    pub fn map_into(
        &self,
        name: Name,
        items: Array<'_>,
        value_size: usize,
        values: &mut [u8],
        chunksize: Option<usize>,
    ) -> Result<()> {
        map::into(self, name, items, value_size, values, chunksize)
    }

    /// Calls the function for the inputs of a source, as the outputs are asked for.
    ///
    /// At most `buffersize` inputs, or one chunk if that is more, have been taken from the source and not yet been
    /// returned; `None` is four chunks for each worker, and at least sixteen.
    pub fn imap<S: Source>(
        &self,
        name: Name,
        source: S,
        chunksize: usize,
        order: Order,
        buffersize: Option<usize>,
    ) -> Result<Iter<S>> {
        Iter::start(self, name, source, chunksize, order, buffersize)
    }

    /// A way to submit and to take many calls at once.
    pub fn queue(&self) -> Result<Queue> {
        Queue::new(self)
    }

    /// How many tasks are on their way.
    pub fn in_flight(&self) -> usize {
        match self.inner.check_process() {
            Ok(()) => self.inner.client.in_flight(),
            Err(_) => 0,
        }
    }

    /// Refuses use by a forked child, which has no part in the pool.
    pub fn check_process(&self) -> Result<()> {
        self.inner.check_process()
    }

    /// Memory of this size to fill in place.
    pub fn buffer(&self, size: usize) -> Result<Buffer> {
        self.inner.check_process()?;
        Buffer::new(&self.inner.client, &self.terms, size)
    }
}

/// The output of [`Caller::apply_async`], now or later.
pub struct Pending {
    /// Its type says nothing: only its bytes are used.
    result: AsyncResult<()>,
}

impl Pending {
    /// Waits for the output, at most for `timeout`.
    pub fn get(&self, timeout: Option<Duration>) -> Result<Bytes> {
        match self.result.settled(timeout)? {
            Settled::Tiny(value) => Ok(Bytes::tiny(value)),
            Settled::Single(single) => Ok(Bytes::of_call(single)),
        }
    }

    /// Waits until there is an output or an error; `false` if `timeout` passed.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        self.result.wait(timeout)
    }

    /// Whether there is one.
    pub fn ready(&self) -> bool {
        self.result.ready()
    }

    /// Whether the call succeeded; `None` while there is no output.
    pub fn successful(&self) -> Option<bool> {
        self.result.successful()
    }

    /// Refuses use by a forked child, which has no part in the pool.
    pub fn check_process(&self) -> Result<()> {
        self.result.inner().check_process()
    }

    /// Takes the call back if no worker has started it: then its error is [`ErrorKind::Cancelled`]. Whether it was.
    pub fn cancel(&self) -> bool {
        let inner = self.result.inner();
        if inner.check_process().is_err() {
            return false;
        }
        let single = self.result.single();
        let sink: Arc<dyn Sink> = single.clone();
        inner.client.recall(&sink, &ErrorKind::Cancelled.into());
        let outcome = single.outcome();
        matches!(outcome, Some(Err(error)) if matches!(error.kind(), ErrorKind::Cancelled))
    }

    /// Has `f` called with the output or the error when it comes, on the pool's thread for callbacks, which runs
    /// one after the other.
    pub fn then(self, f: impl FnOnce(Result<Bytes>) + Send + 'static) -> Self {
        let job = |single: &Arc<Single>| match single.outcome() {
            Some(Ok(_)) => f(Ok(Bytes::of_call(single.clone()))),
            Some(Err(error)) => f(Err(error.clone())),
            None => {}
        };
        Pending { result: self.result.then(job) }
    }
}
