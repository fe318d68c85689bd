//! Everybody who is measured, behind the few operations that are measured.

pub mod crossbeam;
pub mod pipe;
pub mod rayon;
pub mod ringpool;
pub mod rings;

/// A pool that has started, or why it has not.
pub type Started<T> = Result<Box<T>, Box<dyn std::error::Error>>;

/// Starts somebody with so many workers.
pub type Start<T> = fn(usize) -> Started<T>;

/// The same for bytes; those that will be sent are shown.
pub type StartBytes = fn(usize, &[u8]) -> Started<dyn Bytes>;

/// Tasks from a number to a number: [`inc`](crate::tasks::inc). Dropping it stops the pool.
pub trait Numbers {
    /// One task, waited for.
    fn call(&mut self, x: u64) -> u64;

    /// Tasks for all numbers below `tasks`, with up to `window` of them on their way; the sum of the results.
    fn stream(&mut self, tasks: u64, window: usize) -> u64;
}

/// What a map does to each item.
#[derive(Clone, Copy)]
pub enum Job {
    /// [`inc`](crate::tasks::inc).
    Trivial,
    /// [`compute`](crate::tasks::compute).
    Compute,
}

/// Maps from a slice to a `Vec`.
pub trait Maps {
    /// One map, waited for.
    fn map(&mut self, job: Job, items: &[u64]) -> Vec<u64>;
}

/// Bytes there, as many bytes back: [`xor`](crate::tasks::xor).
pub trait Bytes {
    /// Makes the argument of the next call ready. Not timed.
    fn load(&mut self, data: &[u8]);

    /// One call with that argument; what is [seen](crate::tasks::look) in its result. Includes letting go of both.
    fn echo(&mut self) -> u64;
}

/// What somebody is, for tables and plots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The pool that this is about.
    Ringpool,
    /// A product that works with processes.
    Processes,
    /// A product that works with threads of one process.
    Threads,
    /// Not a product: what can be reached at best, or with the plainest means.
    Bound,
}

/// Who can do what.
pub struct Contestant {
    /// In tables, and on the command line.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Starts it for numbers.
    pub numbers: Option<Start<dyn Numbers>>,
    /// Starts it for maps.
    pub maps: Option<Start<dyn Maps>>,
    /// Starts it for bytes.
    pub bytes: Option<StartBytes>,
}

impl Contestant {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Contestant { name, kind, numbers: None, maps: None, bytes: None }
    }

    const fn numbers(mut self, start: Start<dyn Numbers>) -> Self {
        self.numbers = Some(start);
        self
    }

    const fn maps(mut self, start: Start<dyn Maps>) -> Self {
        self.maps = Some(start);
        self
    }

    const fn bytes(mut self, start: StartBytes) -> Self {
        self.bytes = Some(start);
        self
    }
}

/// Everybody.
pub const ALL: &[Contestant] = &[
    Contestant::new("ringpool", Kind::Ringpool)
        .numbers(ringpool::apply_async)
        .maps(ringpool::map)
        .bytes(ringpool::vectors),
    Contestant::new("ringpool-imap", Kind::Ringpool).numbers(ringpool::imap_unordered),
    Contestant::new("ringpool-shared", Kind::Ringpool).bytes(ringpool::slices),
    Contestant::new("rayon", Kind::Threads).numbers(rayon::numbers).maps(rayon::maps).bytes(rayon::bytes),
    Contestant::new("crossbeam", Kind::Threads).numbers(crossbeam::numbers).bytes(crossbeam::bytes),
    Contestant::new("pipe", Kind::Bound).numbers(pipe::numbers).bytes(pipe::bytes),
    Contestant::new("ring-spin", Kind::Bound).numbers(rings::spin).bytes(rings::spin_bytes),
    Contestant::new("ring-park", Kind::Bound).numbers(rings::park).bytes(rings::park_bytes),
];

/// Somebody, by name.
pub fn find(name: &str) -> Option<&'static Contestant> {
    ALL.iter().find(|contestant| contestant.name == name)
}
