//! What an audit says: counts, and what is wrong.

use std::fmt;

/// What was found in a pool's memory.
///
/// `Display` writes a summary of a few lines and then each violation on a line of its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Audit {
    /// Tells pools apart; part of the names of its memory in `/proc/<pid>/fd`.
    pub pool_id: u64,
    /// The process that made the pool.
    pub creator_pid: u32,
    /// Whether that process lives.
    pub creator_lives: bool,
    /// Whether the pool takes work: neither closed and drained, nor terminated.
    pub running: bool,
    /// The task slots, by state.
    pub slots: SlotCounts,
    /// The blocks of payload memory, by holder.
    pub blocks: BlockCounts,
    /// The places of the process table, by life.
    pub processes: ProcessCounts,
    /// Payload memory.
    pub memory: MemoryUse,
    /// How often the memory was looked at, until what was odd had gone or had to be believed.
    pub looks: u32,
    /// What is wrong; nothing in a healthy pool.
    pub violations: Vec<Violation>,
}

/// Task slots by state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SlotCounts {
    /// All slots of the pool.
    pub total: u32,
    /// Not in use.
    pub free: u32,
    /// With a task that waits for a worker.
    pub ready: u32,
    /// With a task that a worker runs.
    pub running: u32,
    /// With a result that the client has not taken.
    pub done: u32,
    /// With a task whose worker died, not yet noticed by the client.
    pub lost: u32,
    /// With a task that was taken back, not yet recycled.
    pub cancelled: u32,
    /// With a word that means nothing.
    pub corrupt: u32,
}

/// Blocks of payload memory that are held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct BlockCounts {
    /// Blocks of the client's own region: arguments, shared slices, what the initializer reads.
    pub arguments: u32,
    /// Blocks of workers' regions that the client holds: results not yet dropped.
    pub results: u32,
    /// Blocks that workers hold: results in the making, or not yet taken.
    pub workers: u32,
}

/// Places of the process table, the client's included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ProcessCounts {
    /// Places that have ever been used.
    pub used: u32,
    /// Nobody there.
    pub free: u32,
    /// Being launched.
    pub joining: u32,
    /// There, and at work or waiting for it.
    pub live: u32,
    /// About to exit.
    pub leaving: u32,
    /// Dead, and being cleared away.
    pub dead: u32,
    /// With a word that means nothing.
    pub corrupt: u32,
    /// Processes of the pool that are stopped by a signal, its creator included.
    pub stopped: u32,
}

/// Payload memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct MemoryUse {
    /// Extents of 2 MiB that have ever been used, in all regions.
    pub extents: u64,
    /// Bytes that the kernel has committed.
    pub committed: u64,
    /// Bytes that all processes together may use.
    pub quota: u64,
}

impl Audit {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Whether no task is on its way and no result waits to be taken.
    pub fn is_quiescent(&self) -> bool {
        self.slots.free == self.slots.total
    }
}

/// Where something is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Place {
    /// The pool as a whole, or its header.
    Pool,
    /// The words of the client.
    Client,
    /// A task slot.
    Slot(u32),
    /// A block: the process whose region it is in, and its number there.
    Block(u32, u32),
    /// An extent of 2 MiB: the process whose region it is in, and its number there.
    Extent(u32, u32),
    /// A place of the process table.
    Process(u32),
    /// The ready ring or the requeue bits of a lane: 0 for tasks by address, 1 for tasks by name.
    Lane(u32),
    /// The completion ring of a worker.
    Completions(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Place::Pool => f.write_str("pool"),
            Place::Client => f.write_str("client"),
            Place::Slot(number) => write!(f, "slot {number}"),
            Place::Block(owner, block) => write!(f, "block {owner}.{block}"),
            Place::Extent(owner, extent) => write!(f, "extent {owner}.{extent}"),
            Place::Process(index) => write!(f, "process {index}"),
            Place::Lane(lane) => write!(f, "lane {lane}"),
            Place::Completions(worker) => write!(f, "completions of process {worker}"),
        }
    }
}

/// A rule that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Violation {
    /// The number of the rule; the [module's page](crate::audit) has the list.
    pub invariant: u8,
    /// Where it does not hold.
    pub place: Place,
    /// The value found, and what would be right.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invariant {}: {}: {}", self.invariant, self.place, self.text)
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Audit { slots, blocks, processes, memory, .. } = self;
        let state = if self.running { "running" } else { "ending" };
        let lives = if self.creator_lives { "lives" } else { "is dead" };
        writeln!(f, "pool {:x}, {state}; process {} made it and {lives}", self.pool_id, self.creator_pid)?;
        write!(f, "  slots: {} of {} free", slots.free, slots.total)?;
        let states = [
            (slots.ready, "ready"),
            (slots.running, "running"),
            (slots.done, "done"),
            (slots.lost, "lost"),
            (slots.cancelled, "cancelled"),
            (slots.corrupt, "corrupt"),
        ];
        list(f, &states)?;
        write!(f, "  processes: {} places used", processes.used)?;
        let lives = [
            (processes.live, "live"),
            (processes.joining, "joining"),
            (processes.leaving, "leaving"),
            (processes.dead, "dead"),
            (processes.free, "free"),
            (processes.corrupt, "corrupt"),
            (processes.stopped, "stopped"),
        ];
        list(f, &lives)?;
        let BlockCounts { arguments, results, workers } = blocks;
        writeln!(f, "  blocks held: {arguments} arguments, {results} results, {workers} by workers")?;
        let mib = |bytes: u64| bytes >> 20;
        writeln!(
            f,
            "  payload memory: {} MiB committed of {} MiB, {} extents used",
            mib(memory.committed),
            mib(memory.quota),
            memory.extents
        )?;
        match self.violations.len() {
            0 => f.write_str("  no violation"),
            count => write!(f, "  violations: {count}"),
        }?;
        self.violations.iter().try_for_each(|violation| write!(f, "\n{violation}"))
    }
}

/// Counts that are not zero, to the end of the line.
fn list(f: &mut fmt::Formatter<'_>, counts: &[(u32, &str)]) -> fmt::Result {
    for (count, what) in counts.iter().filter(|(count, _)| *count > 0) {
        write!(f, ", {count} {what}")?;
    }
    writeln!(f)
}
