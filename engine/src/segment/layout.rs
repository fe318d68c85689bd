//! Where everything lies in the control memory: computed once from a few sizes, checked at attach.

use crate::arena::{EXTENT, WORDS_PER_EXTENT};
use crate::error::{Error, Result};
use crate::ring::{CompletionControl, ReadyControl, Window};
use crate::slot::Slot;
use crate::sync::{AtomicU32, AtomicU64};
use crate::wake::Masks;
use std::cell::Cell;

/// Changes whenever a word moves or means something else.
pub(crate) const VERSION: u64 = 6;
/// The first eight bytes of every pool.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"ringpool");
/// Most processes that a pool can have, its client included: the owner field has ten bits.
pub(crate) const MAX_PROCESSES: u32 = 1024;
/// Most slots of a client: a hint has 22 bits for them.
pub(crate) const MAX_SLOTS: u32 = 1 << 22;
/// Tasks by code address, which only workers running this program can execute.
pub(crate) const LANE_CODE: usize = 0;
/// Tasks by registered name, for every worker.
pub(crate) const LANE_NAMED: usize = 1;
pub(crate) const LANES: usize = 2;
/// Most functions that a pool's registry table holds.
pub(crate) const MAX_FUNCTIONS: usize = 1024;

const PAGE: usize = 4096;
/// What one core's write takes from another: two cache lines, because they are fetched in pairs.
const LINE: usize = 128;

/// The sizes that a pool is made with; everything else follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sizes {
    /// Entries of the process table; the client is entry 0.
    pub processes: u32,
    /// Task slots, a power of two.
    pub slots: u32,
    /// Entries of each completion ring, a power of two.
    pub completions: u32,
    /// Bytes of address space for each process's payloads, a multiple of the extent size.
    pub region: u64,
}

impl Sizes {
    pub(crate) fn extents(&self) -> usize {
        (self.region / EXTENT as u64) as usize
    }

    /// Refuses sizes that no pool has, so that corrupt headers cannot make us map nonsense.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what: &str, value: u64, right: &str| {
            Err(Error::invalid(format!("{what} is {value}; it must be {right}")))
        };
        if !(2..=MAX_PROCESSES).contains(&self.processes) {
            return wrong("the number of processes", self.processes.into(), "2 to 1024, the client included");
        }
        if !self.slots.is_power_of_two() || !(2..=MAX_SLOTS).contains(&self.slots) {
            return wrong("the number of slots", self.slots.into(), "a power of two from 2 to 4194304");
        }
        if !self.completions.is_power_of_two() || self.completions > MAX_SLOTS {
            return wrong("the completion ring's size", self.completions.into(), "a power of two");
        }
        if self.region == 0 || !self.region.is_multiple_of(EXTENT as u64) || self.region > 1 << 40 {
            return wrong("the arena reserve", self.region, "a multiple of 2 MiB up to 1 TiB");
        }
        Ok(())
    }
}

/// Line 0 of a pool, written before any other process sees it; only `places` and `state` change later.
///
/// Like the function table behind it, it is the creator's own: all other processes map it read-only.
#[repr(C, align(128))]
pub(crate) struct Header {
    pub magic: AtomicU64,
    pub version: AtomicU64,
    /// Size and layout fingerprint of everything below, so that two builds cannot disagree.
    pub layout: AtomicU64,
    /// How payloads are archived.
    pub payload_format: AtomicU64,
    /// Tells pools apart.
    pub pool_id: AtomicU64,
    /// Which executable the creator runs.
    pub program: AtomicU64,
    pub processes: AtomicU64,
    pub slots: AtomicU64,
    pub completions: AtomicU64,
    pub region: AtomicU64,
    /// Bytes of its region that one process may use.
    pub quota: AtomicU64,
    pub creator_pid: AtomicU64,
    pub creator_start: AtomicU64,
    /// Tasks after which a worker is replaced; 0 for never.
    pub tasks_per_worker: AtomicU64,
    /// The initializer's function word; 0 for none.
    pub init_func: AtomicU64,
    pub init_offset: AtomicU64,
    pub init_len: AtomicU64,
    /// How many CPUs the pool's processes may use.
    pub cpus: AtomicU64,
    /// Milliseconds that a process waits for payload memory before it gives up.
    pub patience: AtomicU64,
    /// Places of the process table that have ever been used, the client's included.
    pub places: AtomicU64,
    /// Entries of the function table.
    pub functions: AtomicU64,
    /// 1 if what lies in slots carries checks: see [`Check`](crate::slot::Check).
    pub hardened: AtomicU64,
    _line: [u64; 10],
    /// See [`PoolState`](super::PoolState).
    pub state: AtomicU32,
    _state_line: [u32; 31],
}

/// A function that the creator registered by name.
#[repr(C)]
pub(crate) struct FunctionEntry {
    pub name: [AtomicU64; 8],
    pub name_len: AtomicU64,
    pub name_hash: AtomicU64,
    pub signature: AtomicU64,
    _unused: [u64; 5],
}

/// A place in the process table, four lines.
#[repr(C, align(128))]
pub(crate) struct ProcessEntry {
    /// See [`Life`](super::Life).
    pub life: AtomicU64,
    pub pid: AtomicU32,
    /// See [`Role`](super::Role).
    pub role: AtomicU32,
    /// For auditors; 0 until the supervisor has found the time to note it.
    pub start_time: AtomicU64,
    /// Extents of the region that have ever been used.
    pub extents: AtomicU32,
    /// 1 while the process sleeps until somebody gives back one of its blocks. On this line, which is seldom
    /// written, because it is read with each block that is given back.
    pub starved: AtomicU32,
    _life_line: [u64; 12],
    /// See [`Park`](crate::wake::Park).
    pub park: AtomicU32,
    /// A bit for each lane that the worker serves. On this line, because it is read with the park word.
    pub lanes: AtomicU32,
    _park_line: [u32; 30],
    pub window: Window,
    /// Which slot's chunk the worker is in the middle of: `[slot + 1 32][items run as one 32]`; 0 for none. Which item,
    /// the slot's `done` says.
    pub current: AtomicU64,
    /// Tasks done in this place since the pool began: a statistic, and a sign of life for the client's
    /// back-stop. Counted (Release) after T3.
    pub tasks: AtomicU64,
    _statistics_line: [u64; 14],
}

/// The words of a client, apart from its arrays.
#[repr(C, align(128))]
pub(crate) struct ClientControl {
    /// `[epoch 31][1 while a thread of the client sleeps until any task completes]`, a futex.
    pub sleep: AtomicU32,
    _sleep_line: [u32; 31],
    /// 1 if the client must look at all its slots.
    pub rescan: AtomicU32,
    _rescan_line: [u32; 31],
    pub requeue_any: [AtomicU32; LANES],
    /// Slots that have ever been used: nobody needs to look at the others.
    pub slots_used: AtomicU32,
    _requeue_line: [u32; 31 - LANES],
    pub ready: [ReadyControl; LANES],
}

const _: () = {
    assert!(size_of::<Header>() == 384);
    assert!(size_of::<ProcessEntry>() == 512);
    assert!(size_of::<FunctionEntry>() == 128);
    assert!(size_of::<ClientControl>() == 3 * 128 + LANES * 256);
    assert!(size_of::<Masks>() == 256);
};

/// Offsets of everything in the control memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub sizes: Sizes,
    pub functions: usize,
    pub masks: usize,
    pub processes: usize,
    pub client: usize,
    pub ready_cells: usize,
    pub requeue_bits: usize,
    pub slots: usize,
    pub completions: usize,
    pub completion_stride: usize,
    pub classes: usize,
    pub class_stride: usize,
    pub words: usize,
    pub word_stride: usize,
    /// Bytes of control memory, mostly never touched.
    pub control_len: usize,
    /// Bytes of payload memory, mostly never touched.
    pub data_len: u64,
}

impl Layout {
    /// The layout for `sizes`, which the caller has checked.
    pub(crate) fn new(sizes: Sizes) -> Self {
        let at = Cell::new(0usize);
        let take_aligned = |bytes: usize, align: usize| {
            let start = at.get().next_multiple_of(align);
            at.set(start + bytes);
            start
        };
        // Whole pages for what has other rights or is given back as such; all else lies close together, so that
        // a small pool touches few pages. What every pool uses comes first.
        let page = |bytes: usize| take_aligned(bytes, PAGE);
        let take = |bytes: usize| take_aligned(bytes, LINE);
        let processes = sizes.processes as usize;
        let slots = sizes.slots as usize;
        let completion_stride =
            (size_of::<CompletionControl>() + 4 * sizes.completions as usize).next_multiple_of(128);
        let class_stride = 4 * sizes.extents();
        let word_stride = 8 * WORDS_PER_EXTENT * sizes.extents();
        let _header = take(size_of::<Header>());
        Layout {
            sizes,
            functions: page(size_of::<FunctionEntry>() * MAX_FUNCTIONS),
            masks: page(size_of::<Masks>()),
            processes: take(size_of::<ProcessEntry>() * processes),
            client: take(size_of::<ClientControl>()),
            ready_cells: take(LANES * 4 * Self::ready_capacity(slots)),
            requeue_bits: take(LANES * 8 * Self::requeue_words(slots)),
            completions: take(completion_stride * processes),
            completion_stride,
            slots: take(size_of::<Slot>() * slots),
            classes: take(class_stride * processes),
            class_stride,
            words: page(word_stride * processes),
            word_stride,
            control_len: page(0),
            data_len: sizes.region * u64::from(sizes.processes),
        }
    }

    /// Twice the slots: the ring is full only if it holds stale hints.
    pub(crate) fn ready_capacity(slots: usize) -> usize {
        2 * slots
    }

    /// Bytes at the start that only the creator writes.
    pub(crate) fn creators_own(&self) -> usize {
        self.masks
    }

    pub(crate) fn requeue_words(slots: usize) -> usize {
        slots.div_ceil(64)
    }

    /// A number that differs if any offset or structure size does.
    pub(crate) fn fingerprint(&self) -> u64 {
        let numbers = [
            VERSION,
            size_of::<Header>() as u64,
            size_of::<ProcessEntry>() as u64,
            size_of::<ClientControl>() as u64,
            size_of::<ReadyControl>() as u64,
            size_of::<CompletionControl>() as u64,
            size_of::<Slot>() as u64,
            // Sizes as well as offsets, which are rounded.
            self.sizes.processes.into(),
            self.sizes.slots.into(),
            self.sizes.completions.into(),
            self.sizes.region,
            self.processes as u64,
            self.client as u64,
            self.slots as u64,
            self.completions as u64,
            self.classes as u64,
            self.words as u64,
            self.control_len as u64,
            self.data_len,
        ];
        numbers.iter().fold(0xcbf2_9ce4_8422_2325, |hash, number| {
            number.to_le_bytes().iter().fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_do_not_overlap_and_end_inside() {
        let sizes = Sizes { processes: 9, slots: 1024, completions: 256, region: 64 << 20 };
        sizes.check().expect("sensible sizes");
        let l = Layout::new(sizes);
        let starts = [l.functions, l.masks, l.processes, l.client, l.ready_cells, l.requeue_bits, l.slots];
        assert!(starts.windows(2).all(|w| w[0] < w[1]));
        assert!(l.requeue_bits + 2 * 8 * 16 <= l.completions);
        assert!(l.completions + 9 * l.completion_stride <= l.slots);
        assert!(l.slots + 1024 * 128 <= l.classes);
        assert!(l.classes + 9 * l.class_stride <= l.words);
        assert_eq!((l.creators_own() % PAGE, l.words % PAGE, l.word_stride % PAGE), (0, 0, 0));
        let all = starts.into_iter().chain([l.completions, l.completion_stride]);
        assert!(all.into_iter().all(|at| at % LINE == 0));
        assert!(l.words + 9 * l.word_stride <= l.control_len);
        assert_eq!(l.data_len, 9 * (64 << 20));
    }

    #[test]
    fn every_size_shows_in_the_fingerprint() {
        let sizes = Sizes { processes: 3, slots: 64, completions: 64, region: 4 << 20 };
        let fingerprint = |sizes| Layout::new(sizes).fingerprint();
        for other in [
            Sizes { processes: 4, ..sizes },
            Sizes { slots: 32, ..sizes },
            Sizes { completions: 4, ..sizes }, // the same offsets: a page holds either
            Sizes { region: 2 << 20, ..sizes },
        ] {
            assert_ne!(fingerprint(other), fingerprint(sizes), "{other:?}");
        }
    }

    #[test]
    fn absurd_sizes_are_refused() {
        let good = Sizes { processes: 3, slots: 64, completions: 64, region: 2 << 20 };
        for bad in [
            Sizes { processes: 1, ..good },
            Sizes { processes: 1025, ..good },
            Sizes { slots: 63, ..good },
            Sizes { slots: 0, ..good },
            Sizes { completions: 3, ..good },
            Sizes { region: 1, ..good },
            Sizes { region: 0, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
