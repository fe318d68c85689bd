//! Many calls in, many outputs out.

use super::Name;
use super::caller::{Caller, Input, func, words};
use super::results::Results;
use super::stream::StreamSink;
use crate::client::{Call, Target, TaskSpec, Terms};
use crate::error::{ErrorKind, Result};
use crate::pool::Inner;
use crate::sync::private::{Private, PrivateUsize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Calls that are submitted by many, and whose outputs are taken by many, in the order in which they come.
///
/// Any number of threads may submit and take. What is dropped before all has been taken is forgotten; calls that
/// no worker has started are taken back then.
pub struct Queue {
    inner: Arc<Inner>,
    terms: Terms,
    sink: Arc<StreamSink>,
    stream: u32,
    /// Calls that are submitted, or about to be, and whose outputs have not been taken.
    outstanding: PrivateUsize,
}

impl Queue {
    pub(super) fn new(caller: &Caller) -> Result<Self> {
        let inner = &caller.inner;
        inner.check_running()?;
        let sink = Arc::new(StreamSink::default());
        let stream = inner.client.open_stream(sink.clone());
        Ok(Queue {
            inner: inner.clone(),
            terms: caller.terms,
            sink,
            stream,
            outstanding: PrivateUsize::new(0),
        })
    }

    /// Submits a call for each of these inputs, in their order; each with its tag. Waits while all slots are taken,
    /// as [`Pool::apply_async`](crate::Pool::apply_async) does. Returns how many were submitted, and why not all.
    pub fn submit<'a>(
        &self,
        name: Name,
        inputs: impl IntoIterator<Item = (u64, Input<'a>)>,
    ) -> (usize, Result<()>) {
        let mut submitted = 0;
        let mut ready = VecDeque::new();
        let result = self.submit_all(name, inputs, &mut ready, &mut submitted);
        (submitted, result)
    }

    fn submit_all<'a>(
        &self,
        name: Name,
        inputs: impl IntoIterator<Item = (u64, Input<'a>)>,
        ready: &mut VecDeque<Call>,
        submitted: &mut usize,
    ) -> Result<()> {
        /// So many are made ready before they are submitted: workers begin with the first meanwhile.
        const BATCH: usize = 64;
        self.inner.check_running()?;
        let client = &self.inner.client;
        let mut inputs = inputs.into_iter();
        loop {
            for (tag, input) in inputs.by_ref().take(BATCH) {
                if let Input::Bytes(bytes) = input
                    && bytes.len() <= client.arena.inline_most()
                {
                    ready.push_back(Call::short(tag, words(bytes), bytes.len()));
                    continue;
                }
                match input.args(client, &self.terms) {
                    Ok(args) => ready.push_back(Call::new(tag, args)),
                    Err(error) => {
                        self.flush(name, ready, submitted)?;
                        return Err(error);
                    }
                }
            }
            if ready.is_empty() {
                return Ok(());
            }
            self.flush(name, ready, submitted)?;
        }
    }

    /// Submits all that is ready.
    fn flush(&self, name: Name, ready: &mut VecDeque<Call>, submitted: &mut usize) -> Result<()> {
        let (client, func) = (&self.inner.client, func(name)?);
        while !ready.is_empty() {
            let before = ready.len();
            // Counted first, so that who takes them never finds more than there are.
            self.outstanding.fetch_add(before, Private::AcqRel);
            let mut result =
                client.submit_calls(self.terms.max_attempts, func, name.text, self.stream, ready);
            if result.is_ok()
                && ready.len() == before
                && let Some(call) = ready.pop_front()
            {
                // Waits for a slot.
                let tag = call.tag;
                let args = call.into_args();
                let shape = args.shape();
                let spec = TaskSpec { func, name: name.text, args, shape };
                let to = Target::Stream(self.stream);
                result = client.submit_on(&self.terms, spec, None, to, tag).map(drop);
            }
            let gone = before - ready.len();
            let placed = if result.is_ok() { gone } else { 0 };
            *submitted += placed;
            self.outstanding.fetch_sub(before - placed, Private::AcqRel);
            result?;
        }
        Ok(())
    }

    /// How many calls have been submitted whose outputs have not been taken.
    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Private::Acquire)
    }

    /// Takes what has come, up to `most`; waits until there is something, at most for `timeout`. Nothing at all if
    /// no call is outstanding.
    pub fn take(&self, most: usize, timeout: Option<Duration>) -> Result<Results> {
        self.inner.check_process()?;
        let client = &self.inner.client;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let most = most.max(1);
        loop {
            let mut come = VecDeque::new();
            client.collect_then(|books| come = self.sink.take_some(most, books.key()));
            if !come.is_empty() {
                self.outstanding.fetch_sub(come.len(), Private::AcqRel);
                let mut results = Results::default();
                come.into_iter().for_each(|(tag, part)| results.push_tagged(tag, part));
                return Ok(results);
            }
            if self.outstanding() == 0 {
                return Ok(Results::default());
            }
            if !client.wait_any(&|| !self.sink.is_empty() || self.outstanding() == 0, deadline) {
                return Err(ErrorKind::Timeout { waited: timeout.unwrap_or_default() }.into());
            }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if self.inner.check_process().is_ok() {
            self.inner.client.close_stream(self.stream);
        }
    }
}
