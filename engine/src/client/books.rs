//! A client's books: which task is in which slot, and what is known of the workers. Private to the process,
//! and under one lock.

use super::deposits::{Deposits, Ledger};
use super::quarantine::{Quarantined, Resident, Suspicion};
use super::result_bytes::Held;
use super::{Death, Kept, Outcome, Sink, Ticket, Tiny};
use crate::error::Error;
use crate::segment::LANES;
use crate::slot::{Shape, Word};
use crate::worker::FuncWord;
use std::cell::UnsafeCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How many deaths are remembered for results that are fetched late.
const DEATHS: usize = 1024;

/// Where the outcome of a task goes.
pub(crate) enum Target {
    /// To this.
    Sink(Arc<dyn Sink>),
    /// To the sink of an open stream: nothing is counted by atomics for each of its tasks.
    Stream(u32),
    /// It stays in the books until whoever has the ticket takes it: nothing is allocated or counted for it elsewhere.
    Caller,
}

/// The outcome of a call that its caller takes.
pub(crate) enum Taken {
    /// It returned this.
    Tiny(Tiny),
    Outcome(Box<Outcome>),
}

/// A sink that many tasks share.
pub(super) struct Stream {
    /// `None` once nobody listens.
    sink: Option<Arc<dyn Sink>>,
    /// Its tasks that are on their way.
    tasks: usize,
    /// More may come.
    open: bool,
}

/// A task that is on its way. Kept short, as all of it is written for every task.
pub(super) struct InFlight {
    pub to: Target,
    pub tag: u64,
    /// Number of its function: see [`Books::function`].
    pub function: u32,
    /// What tasks have whose arguments are not in the slot.
    pub kept: Option<Box<Kept>>,
}

/// What a chunk still has to do.
#[derive(Clone, Copy)]
pub(super) struct Chunk {
    /// How its items are to be read.
    pub shape: Shape,
    /// The first item, and the one behind the last.
    pub items: (u32, u32),
    /// How often each may be started.
    pub max_attempts: u32,
    /// Attempts that the first item has had.
    pub item_attempts: u32,
    /// Workers that died in this chunk without starting an item.
    pub idle_deaths: u32,
}

impl InFlight {
    pub(super) fn chunk(&self) -> Option<Chunk> {
        self.kept.as_ref().and_then(|kept| kept.chunk)
    }

    /// Hands an outcome to whoever waits for it.
    pub(super) fn deliver(&self, outcome: Outcome, books: &mut Books) {
        match &self.to {
            Target::Sink(sink) => sink.deliver(self.tag, outcome, &mut books.key),
            Target::Stream(number) => {
                let stream = &mut books.streams[*number as usize];
                if let Some(sink) = &stream.sink {
                    sink.deliver(self.tag, outcome, &mut books.key);
                }
                stream.let_go();
            }
            Target::Caller => {
                books.deposits.leave(self.tag as u32, Taken::Outcome(Box::new(outcome)), &mut books.key);
            }
        }
    }

    /// Tells whoever waits that all of the task, or of what is left of the chunk, has failed.
    pub(super) fn fail(&self, error: Error, books: &mut Books) {
        let outcome = match self.chunk() {
            Some(Chunk { items: (first, end), .. }) => Outcome::Range { first, end, error },
            None => Outcome::Failed(error),
        };
        self.deliver(outcome, books);
    }
}

impl Stream {
    /// Drops the sink once nobody listens and nothing will come.
    #[inline]
    fn let_go(&mut self) {
        if !self.open && self.tasks == 0 {
            self.sink = None;
        }
    }
}

/// Whoever has it holds the books. A client has one.
pub(crate) struct Key(());

#[derive(Default)]
pub(super) struct Entry {
    pub generation: u32,
    /// Threads that sleep on the slot's word; the slot is not used again before they are gone.
    pub waiters: u16,
    /// Some worker may still write here for a task that has failed.
    pub quarantined: bool,
    pub task: Option<InFlight>,
}

/// A function that tasks have called.
struct Function {
    word: FuncWord,
    /// For messages.
    name: &'static str,
}

/// All that a client knows of its tasks and workers.
pub(crate) struct Books {
    /// Of the slots that have been used.
    pub(super) entries: Vec<Entry>,
    /// Slots to use again, the warmest last.
    pub(super) free: Vec<u32>,
    /// Slots below this have been used.
    pub(super) fresh: u32,
    pub(super) in_flight: usize,
    pub(super) tail: [u64; LANES],
    pub(super) known_head: [u64; LANES],
    /// What has been read of each worker's completion ring, and what it has been told.
    pub(super) read: Vec<u32>,
    pub(super) told: Vec<u32>,
    /// The slot's word of a call that was taken not long ago.
    pub(super) last_done: Word,
    /// Threads that sleep on the client's sleep word.
    pub(super) sleepers: u32,
    /// What the sleep word held last, without its lowest bit.
    pub(super) sleep_epoch: u32,
    /// Something was submitted since memory was given back.
    pub(super) worked: bool,
    /// Set once the pool can do no more work.
    pub(super) failed: Option<Error>,
    /// Workers from another program, whose results are copied before they are believed.
    pub(super) guests: Vec<bool>,
    /// What is held of each worker's memory.
    pub(super) held: Vec<Held>,
    /// Who lives in which place.
    pub(super) residents: Vec<Option<Resident>>,
    pub(super) quarantine: Vec<Quarantined>,
    /// What speaks against the words of slots, by their number.
    pub(super) suspicions: HashMap<u32, Suspicion>,
    /// Of callers, by the number of their ticket.
    deposits: Ledger,
    pub(super) deaths: VecDeque<Death>,
    streams: Vec<Stream>,
    key: Key,
    functions: Vec<Function>,
    /// The one of the last task.
    last_function: u32,
}

impl Books {
    pub(super) fn new(processes: usize) -> Self {
        Books {
            entries: Vec::new(),
            free: Vec::new(),
            fresh: 0,
            in_flight: 0,
            tail: [0; LANES],
            known_head: [0; LANES],
            read: vec![0; processes],
            told: vec![0; processes],
            last_done: Word(0),
            sleepers: 0,
            sleep_epoch: 0,
            worked: false,
            failed: None,
            guests: vec![false; processes],
            held: std::iter::repeat_with(Held::default).take(processes).collect(),
            residents: vec![None; processes],
            quarantine: Vec::new(),
            suspicions: HashMap::new(),
            deposits: Ledger::default(),
            deaths: VecDeque::new(),
            streams: Vec::new(),
            key: Key(()),
            functions: Vec::new(),
            last_function: 0,
        }
    }

    /// The number by which tasks name their function. A program has few, and mostly calls the same again.
    #[inline]
    pub(super) fn number_of(&mut self, word: FuncWord, name: &'static str) -> u32 {
        match self.functions.get(self.last_function as usize) {
            Some(last) if last.word == word && last.name.as_ptr() == name.as_ptr() => self.last_function,
            _ => self.find_function(word, name),
        }
    }

    #[cold]
    fn find_function(&mut self, word: FuncWord, name: &'static str) -> u32 {
        let same = |known: &Function| known.word == word && known.name == name;
        let found = self.functions.iter().position(same).unwrap_or_else(|| {
            self.functions.push(Function { word, name });
            self.functions.len() - 1
        });
        self.last_function = found as u32;
        self.last_function
    }

    /// Word and name of a function that tasks name by number.
    pub(super) fn function(&self, number: u32) -> (FuncWord, &'static str) {
        let function = &self.functions[number as usize];
        (function.word, function.name)
    }

    /// A stream for `sink`.
    pub(super) fn open_stream(&mut self, sink: Arc<dyn Sink>) -> u32 {
        let stream = Stream { sink: Some(sink), tasks: 0, open: true };
        let unused = self.streams.iter().position(|stream| !stream.open && stream.tasks == 0);
        let number = unused.unwrap_or(self.streams.len());
        match self.streams.get_mut(number) {
            Some(old) => *old = stream,
            None => self.streams.push(stream),
        }
        number as u32
    }

    /// No more tasks will come; those on their way keep the sink.
    pub(super) fn close_stream(&mut self, number: u32) {
        let stream = &mut self.streams[number as usize];
        stream.open = false;
        stream.let_go();
    }

    /// Notes a task in its slot.
    ///
    /// Given in pieces, and each kind by itself, so that all goes from registers to where it belongs: a task that
    /// was put together on the stack would be loaded in wider pieces than it was stored in, and the processor
    /// waits for the stores then.
    #[inline(always)]
    pub(super) fn enter(
        &mut self,
        number: u32,
        to: Target,
        tag: u64,
        function: u32,
        kept: Option<Box<Kept>>,
    ) {
        let task = &mut self.entries[number as usize].task;
        match to {
            Target::Sink(sink) => *task = Some(InFlight { to: Target::Sink(sink), tag, function, kept }),
            Target::Stream(stream) => {
                self.streams[stream as usize].tasks += 1;
                *task = Some(InFlight { to: Target::Stream(stream), tag, function, kept });
            }
            Target::Caller => *task = Some(InFlight { to: Target::Caller, tag, function, kept }),
        }
        self.in_flight += 1;
        self.worked = true;
    }

    /// Takes a task whose arguments are in its slot out of the books and hands its value to whoever waits for it.
    /// Nothing of it is moved: all goes by registers.
    #[inline]
    pub(super) fn settle_tiny(&mut self, number: u32, value: Tiny) {
        let task = &mut self.entries[number as usize].task;
        match task {
            Some(InFlight { to: Target::Stream(stream), tag, .. }) => {
                let (stream, tag) = (&mut self.streams[*stream as usize], *tag);
                *task = None;
                stream.tasks -= 1;
                if let Some(sink) = &stream.sink {
                    sink.deliver_tiny(tag, value, &mut self.key);
                }
                stream.let_go();
            }
            Some(InFlight { to: Target::Caller, tag, .. }) => {
                let tag = *tag;
                *task = None;
                self.deposits.leave(tag as u32, Taken::Tiny(value), &mut self.key);
            }
            Some(InFlight { to: Target::Sink(sink), tag, .. }) => {
                sink.deliver_tiny(*tag, value, &mut self.key);
                *task = None;
            }
            None => return,
        }
        self.in_flight -= 1;
    }

    /// Takes a caller's task out of the books and leaves its outcome there; what it kept.
    #[inline]
    pub(super) fn settle_caller(&mut self, number: u32, outcome: Box<Outcome>) -> Option<Box<Kept>> {
        let task = &mut self.entries[number as usize].task;
        let InFlight { tag, kept, .. } = task.as_mut()?;
        let (tag, kept) = (*tag, kept.take());
        *task = None;
        self.in_flight -= 1;
        self.deposits.leave(tag as u32, Taken::Outcome(outcome), &mut self.key);
        kept
    }

    /// Takes a task out of the books whose caller has its outcome already, and no ticket any more; what it kept.
    #[inline]
    pub(super) fn settle_own(&mut self, number: u32) -> Option<Box<Kept>> {
        let task = &mut self.entries[number as usize].task;
        let Some(InFlight { to: Target::Caller, tag, kept, .. }) = task else { return None };
        let (tag, kept) = (*tag, kept.take());
        *task = None;
        self.deposits.close(tag as u32);
        self.in_flight -= 1;
        kept
    }

    /// Forgets the task in a slot. Its outcome is delivered before anything else is submitted.
    #[inline]
    pub(super) fn leave(&mut self, number: u32) -> Option<InFlight> {
        let task = self.entries[number as usize].task.take()?;
        self.in_flight -= 1;
        if let Target::Stream(stream) = task.to {
            self.streams[stream as usize].tasks -= 1;
        }
        Some(task)
    }

    /// Proof that the books are held.
    pub(crate) fn key(&mut self) -> &mut Key {
        &mut self.key
    }

    pub(super) fn remember(&mut self, death: Death) {
        if self.deaths.len() == DEATHS {
            self.deaths.pop_front();
        }
        self.deaths.push_back(death);
    }

    /// A number for the ticket of a caller.
    #[inline]
    pub(super) fn next_caller(&mut self) -> u64 {
        u64::from(self.deposits.open())
    }

    /// The deposits, by the number of a ticket's [caller](Ticket::caller).
    pub(super) fn deposits(&self) -> Arc<Deposits> {
        self.deposits.all()
    }

    /// The outcome for the caller with this ticket, once it is there. Taken once, the ticket is void.
    #[inline]
    pub(crate) fn take_outcome(&mut self, ticket: Ticket) -> Option<Taken> {
        self.deposits.take(ticket.caller, &mut self.key)
    }

    /// The same if it is no short value; whoever has the ticket still [gives back](super::Deposit::give_back) its place.
    pub(crate) fn take_boxed(&mut self, ticket: Ticket) -> Option<Box<Outcome>> {
        self.deposits.take_boxed(ticket.caller, &mut self.key)
    }

    /// Nobody will take the outcome for this ticket.
    pub(crate) fn forget(&mut self, ticket: Ticket) {
        self.deposits.forget(ticket.caller, &mut self.key);
    }

    /// Has the outcome for this ticket go to `sink` instead; `false` if it is there already.
    pub(crate) fn redirect(&mut self, ticket: Ticket, sink: Arc<dyn Sink>) -> bool {
        let entry = self.entries.get_mut(ticket.slot as usize);
        let task =
            entry.filter(|entry| entry.generation == ticket.generation).and_then(|entry| entry.task.as_mut());
        match task {
            Some(task) if matches!(task.to, Target::Caller) && task.tag == u64::from(ticket.caller) => {
                task.to = Target::Sink(sink);
                task.tag = 0;
                self.deposits.spend(ticket.caller);
                true
            }
            _ => false,
        }
    }
}

/// What a [`Sink`] keeps under the lock of its client's books, so that it needs none of its own.
#[derive(Default)]
pub(crate) struct UnderBooks<T>(UnsafeCell<T>);

// SAFETY: whoever gets at the value holds the key, of which its client has one.
unsafe impl<T: Send> Sync for UnderBooks<T> {}

impl<T> UnderBooks<T> {
    pub(crate) fn new(value: T) -> Self {
        UnderBooks(UnsafeCell::new(value))
    }

    /// The value.
    ///
    /// # Safety
    ///
    /// All calls are with the key of the same client, and nobody has a reference from another way.
    #[inline]
    pub(crate) unsafe fn get<'a>(&'a self, _key: &'a mut Key) -> &'a mut T {
        // SAFETY: the books are locked, and their key is borrowed for as long as the value is; by contract it is
        // the one of every other call.
        unsafe { &mut *self.0.get() }
    }

    /// The value without the books.
    ///
    /// # Safety
    ///
    /// Nobody changes it any more.
    #[inline]
    pub(crate) unsafe fn get_settled(&self) -> &T {
        // SAFETY: by contract.
        unsafe { &*self.0.get() }
    }
}
