#![doc = include_str!("README.md")]

mod blocks;
mod hints;
mod look;
mod processes;
mod report;
mod slots;
#[cfg(test)]
mod tests;

use crate::error::{Error, ErrorKind, Result};
use crate::name_card;
use crate::segment::{ControlMemory, MAX_FUNCTIONS, PoolState, Segment, View};
use crate::slot::Owner;
use crate::sys::{self, Mapping};
use look::{Findings, Proof};
pub use report::{Audit, BlockCounts, MemoryUse, Place, ProcessCounts, SlotCounts, Violation};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// Times between looks, as long as something is odd: what lasts through all of them is wrong. They end
/// early if it does not last, so a healthy pool is judged within milliseconds.
const PAUSES: [Duration; 7] = {
    let ms = Duration::from_millis;
    [ms(10), ms(20), ms(40), ms(80), ms(160), ms(320), ms(640)]
};
/// A pool that is just being made has no finished header for some microseconds.
const MAKING: Duration = Duration::from_millis(200);

/// Audits the pools of process `pid`: those that it made, or the one that it works for.
///
/// The process may be stopped. Looking into it needs the same rights as attaching a debugger to it.
///
/// ```
/// # ringpool::init();
/// use ringpool::{Pool, audit};
/// let pool = Pool::new(2)?;
/// assert_eq!(pool.apply(|x: u64| x + 1, (1,))?, 2);
/// for audit in audit::by_pid(std::process::id())? {
///     assert!(audit.is_clean(), "{audit}");
/// }
/// # Ok::<(), ringpool::Error>(())
/// ```
pub fn by_pid(pid: u32) -> Result<Vec<Audit>> {
    Ok(Foreign::all_of(pid)?.iter().map(Foreign::audit).collect())
}

/// Audits the pool that was started with this [name](crate::Builder::name).
///
/// ```
/// # ringpool::init();
/// use ringpool::{Pool, audit};
/// let name = format!("audited-{}", std::process::id());
/// let pool = Pool::builder().processes(1).name(&name).start()?;
/// let audit = audit::by_name(&name)?;
/// assert!(audit.is_clean(), "{audit}");
/// assert_eq!(audit.processes.used, 2); // the pool's process and one worker
/// # Ok::<(), ringpool::Error>(())
/// ```
pub fn by_name(name: &str) -> Result<Audit> {
    let card = name_card::look_up(name)?;
    let pool = Foreign::open(&sys::memfds_of(card.pid)?, card.nonce)?;
    pool.as_ref().map(Foreign::audit).ok_or_else(|| {
        let message = format!("its process {} has no such pool any more", card.pid);
        ErrorKind::Attach { name: name.to_owned(), message }.into()
    })
}

/// Audits a pool in the process that made it.
pub(crate) fn of_segment(segment: &Segment) -> Audit {
    let [control, data] = segment.fds();
    audit(segment, control, data, &PAUSES)
}

/// The memory of another process's pool, for looking only.
struct Foreign {
    memory: ControlMemory,
    control: OwnedFd,
    data: OwnedFd,
}

impl Foreign {
    fn audit(&self) -> Audit {
        audit(&self.memory, self.control.as_fd(), self.data.as_fd(), &PAUSES)
    }

    /// The pools of a process: those whose memory it has mapped, or if it has none mapped (a template), those
    /// that it has open. Pools that end meanwhile are left out.
    fn all_of(pid: u32) -> Result<Vec<Self>> {
        let files = sys::memfds_of(pid)?;
        let mut ids = Vec::new();
        for id in files.iter().filter_map(|(name, _)| crate::segment::control_id(name)) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let mapped = |id: &u64| sys::still_maps(pid, &crate::segment::control_name(*id)) == Some(true);
        if ids.iter().any(mapped) {
            ids.retain(mapped);
        }
        let pools: Vec<_> =
            ids.into_iter().filter_map(|id| Self::open(&files, id).transpose()).collect::<Result<_>>()?;
        if pools.is_empty() {
            return Err(Error::invalid(format!(
                "process {pid} has no pool; name a process that made one, or a worker"
            )));
        }
        Ok(pools)
    }

    /// One pool among the memfds of its process; `None` if it has been closed since they were listed.
    fn open(files: &[(String, PathBuf)], id: u64) -> Result<Option<Self>> {
        let open = |name: String| match files.iter().find(|(known, _)| *known == name) {
            Some((_, path)) => sys::open_sealed(path, &name),
            None => Ok(None),
        };
        let Some(control) = open(crate::segment::control_name(id))? else { return Ok(None) };
        let Some(data) = open(crate::segment::data_name(id))? else { return Ok(None) };
        Ok(Some(Foreign { memory: Self::map(control.as_fd())?, control, data }))
    }

    fn map(control: BorrowedFd<'_>) -> Result<ControlMemory> {
        let start = std::time::Instant::now();
        loop {
            match ControlMemory::open(control, Mapping::read_only) {
                Err(_) if start.elapsed() < MAKING => std::thread::sleep(Duration::from_millis(5)),
                other => return other,
            }
        }
    }
}

fn audit(
    memory: &ControlMemory,
    control: BorrowedFd<'_>,
    data: BorrowedFd<'_>,
    pauses: &[Duration],
) -> Audit {
    let (mut audit, mut findings) = look(memory, control, data);
    let mut stopped = audit.processes.stopped > 0;
    let mut looks = 1;
    for &pause in pauses {
        if findings.is_proven() {
            break;
        }
        std::thread::sleep(pause);
        let later;
        (audit, later) = look(memory, control, data);
        findings.confirm(later);
        stopped |= audit.processes.stopped > 0;
        looks += 1;
    }
    audit.looks = looks;
    audit.violations = findings.certain;
    audit.violations.append(&mut findings.doubtful);
    // Whose next step is missing may be stopped; and a pool that has ended takes no next step.
    if !stopped && audit.running {
        audit.violations.append(&mut findings.stuck);
    }
    audit
}

/// Looks at everything once.
fn look(memory: &ControlMemory, control: BorrowedFd<'_>, data: BorrowedFd<'_>) -> (Audit, Findings) {
    let view = View::new(memory, control);
    let header = view.header();
    let mut findings = Findings::default();
    let mut audit = Audit {
        pool_id: view.pool_id(),
        creator_pid: header.creator_pid as u32,
        creator_lives: false,
        running: is_running(&view),
        slots: SlotCounts::default(),
        blocks: BlockCounts::default(),
        processes: ProcessCounts::default(),
        memory: MemoryUse::default(),
        looks: 1,
        violations: Vec::new(),
    };
    check_header(&view, &mut findings);
    let peers = processes::check(&view, &mut findings, &mut audit.processes);
    audit.creator_lives = peers.creator_lives;
    let busy = slots::check(&view, &mut findings, &mut audit.slots);
    hints::check(&view, &mut findings, &busy, &peers);
    for owner in 0..view.places() {
        blocks::check(&view, &mut findings, &mut audit.blocks, owner, &busy);
    }
    audit.memory = memory_use(&view, data);
    let MemoryUse { committed, quota, .. } = audit.memory;
    findings.expect(committed <= quota, Proof::Lasting, 28, Place::Pool, || {
        format!("{committed} bytes of payload memory are committed; the quotas allow {quota}")
    });
    (audit, findings)
}

fn check_header(view: &View<'_>, findings: &mut Findings) {
    let header = view.header();
    let sizes = view.layout().sizes;
    let mut expect = |holds: bool, text: &dyn Fn() -> String| {
        findings.expect(holds, Proof::Word, 30, Place::Pool, text);
    };
    expect(header.state <= PoolState::Stopping as u32, &|| {
        format!("its state is {}; states are 0 to 2", header.state)
    });
    expect((1..=u64::from(sizes.processes)).contains(&header.places), &|| {
        format!("{} places have been used; it has 1 to {}", header.places, sizes.processes)
    });
    expect(header.functions <= MAX_FUNCTIONS as u64, &|| {
        format!("it has {} functions; a pool has up to {MAX_FUNCTIONS}", header.functions)
    });
    expect(header.quota <= sizes.region, &|| {
        format!("the quota is {}; a region has {} bytes", header.quota, sizes.region)
    });
    let end = header.init_offset.checked_add(header.init_len);
    expect(header.init_func == 0 || end.is_some_and(|end| end <= sizes.region), &|| {
        let (offset, len) = (header.init_offset, header.init_len);
        format!("the initializer's arguments are {len} bytes at {offset}; a region has {}", sizes.region)
    });
}

fn memory_use(view: &View<'_>, data: BorrowedFd<'_>) -> MemoryUse {
    let places = view.places();
    let blocks = rustix::fs::fstat(data).map_or(0, |stat| stat.st_blocks as u64);
    MemoryUse {
        extents: (0..places).map(|owner| view.extents(owner) as u64).sum(),
        committed: blocks.saturating_mul(512),
        quota: view.header().quota.saturating_mul(places.into()),
    }
}

/// Neither drained nor stopping.
fn is_running(view: &View<'_>) -> bool {
    view.header().state == PoolState::Running as u32
}

/// Whether an owner, who is named by the low bits of an incarnation, is this one.
fn same_incarnation(owner: Owner, life: crate::segment::Life) -> bool {
    owner.incarnation == life.incarnation & 0x3fff
}
