//! Everybody who is measured, behind the few operations that are measured.

pub mod crossbeam;
pub mod iceoryx2;
pub mod ipc_channel;
pub mod pipe;
pub mod procspawn;
pub mod program;
pub mod raw_sync;
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
#[derive(Clone, Copy, PartialEq, Eq)]
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

/// What the machine can do, measured as a contestant in the works where that says most.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Two processes that wake each other, wherever they are.
    Futex,
    /// Two processes that wake each other on different CPUs.
    PinnedFutex,
    /// Forks, and one question.
    Fork,
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
    /// More it cannot have.
    pub most_workers: usize,
    /// Whether everybody sleeps while there is nothing to do.
    pub parks: bool,
    /// Whether it is worth while to measure streams of millions.
    pub long_streams: bool,
    /// Nobody, but the machine itself.
    pub probe: Option<Probe>,
}

impl Contestant {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Contestant {
            name,
            kind,
            numbers: None,
            maps: None,
            bytes: None,
            most_workers: usize::MAX,
            parks: true,
            long_streams: false,
            probe: None,
        }
    }

    const fn numbers(mut self, start: Start<dyn Numbers>) -> Self {
        self.numbers = Some(start);
        self
    }

    const fn maps(mut self, start: Start<dyn Maps>) -> Self {
        self.maps = Some(start);
        self
    }

    const fn never_parks(mut self) -> Self {
        self.parks = false;
        self
    }

    const fn long_streams(mut self) -> Self {
        self.long_streams = true;
        self
    }

    const fn probe(mut self, probe: Probe) -> Self {
        self.probe = Some(probe);
        self
    }

    const fn most_workers(mut self, most: usize) -> Self {
        self.most_workers = most;
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
        .bytes(ringpool::vectors)
        .long_streams(),
    Contestant::new("ringpool-imap", Kind::Ringpool).numbers(ringpool::imap_unordered).long_streams(),
    Contestant::new("ringpool-shared", Kind::Ringpool).bytes(ringpool::slices),
    Contestant::new("procspawn", Kind::Processes).numbers(procspawn::numbers).bytes(procspawn::bytes),
    Contestant::new("ipc-channel", Kind::Processes).numbers(ipc_channel::numbers).bytes(ipc_channel::bytes),
    Contestant::new("ipc-shmem", Kind::Processes).bytes(ipc_channel::shared_memory),
    Contestant::new("iceoryx2-poll", Kind::Processes)
        .numbers(iceoryx2::poll)
        .bytes(iceoryx2::poll_bytes)
        .never_parks(),
    Contestant::new("iceoryx2-event", Kind::Processes).numbers(iceoryx2::event).bytes(iceoryx2::event_bytes),
    Contestant::new("rayon", Kind::Threads)
        .numbers(rayon::numbers)
        .maps(rayon::maps)
        .bytes(rayon::bytes)
        .long_streams(),
    Contestant::new("crossbeam", Kind::Threads)
        .numbers(crossbeam::numbers)
        .bytes(crossbeam::bytes)
        .long_streams(),
    Contestant::new("pipe", Kind::Bound).numbers(pipe::numbers).bytes(pipe::bytes),
    Contestant::new("raw-sync", Kind::Bound).numbers(raw_sync::numbers),
    Contestant::new("ring-park", Kind::Bound).numbers(rings::park).bytes(rings::park_bytes),
    Contestant::new("ring-spin", Kind::Bound)
        .numbers(rings::spin)
        .maps(rings::spin_maps)
        .bytes(rings::spin_bytes)
        .long_streams()
        .never_parks(),
    Contestant::new("ring-alone", Kind::Bound).numbers(rings::spin_alone).most_workers(1).never_parks(),
    Contestant::new("futex", Kind::Bound).probe(Probe::Futex),
    Contestant::new("futex-pinned", Kind::Bound).probe(Probe::PinnedFutex),
    Contestant::new("fork", Kind::Bound).probe(Probe::Fork),
];

/// Somebody, by name.
pub fn find(name: &str) -> Option<&'static Contestant> {
    ALL.iter().find(|contestant| contestant.name == name)
}
