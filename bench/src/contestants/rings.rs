//! The bounds: two rings in shared memory and forked workers, with nothing else.
//!
//! A ring is of cells of one cache line, each with a sequence word that says whose turn it is (Vyukov's
//! queue). Tasks go through one, results come back through the other, payloads lie beside them. Nobody
//! recovers anything, a worker that dies blocks the ring, and what a task is was agreed on before:
//! a pool that can do more cannot be faster.

use super::{Bytes, Job, Maps, Numbers, Started};
use crate::shm::{Child, Shared, futex_wait, futex_wake};
use crate::tasks::{compute, inc, look, xor_into};
use std::hint::spin_loop;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Cells in each ring: more than are ever on their way.
const CELLS: u64 = 1024;

#[repr(C, align(64))]
struct Cell {
    /// `position` when it is free for the writer of that position, one more when it is full.
    turn: AtomicU64,
    value: AtomicU64,
}

#[repr(C, align(128))]
struct Ring {
    /// The next position to be taken by those who share an end of the ring.
    next: AtomicU64,
    _apart: [u64; 15],
    cells: [Cell; CELLS as usize],
}

/// Where somebody sleeps.
#[repr(C, align(128))]
struct Bed {
    /// Changes with each wake-up.
    bell: AtomicU32,
    sleepers: AtomicU32,
}

#[repr(C)]
struct Memory {
    tasks: Ring,
    results: Ring,
    workers: Bed,
    client: Bed,
}

impl Ring {
    fn reset(&self) {
        for (cell, position) in self.cells.iter().zip(0..) {
            cell.turn.store(position, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst); // before the fork
    }

    fn cell(&self, position: u64) -> &Cell {
        &self.cells[(position % CELLS) as usize]
    }
}

impl Cell {
    fn is_full(&self, position: u64) -> bool {
        self.turn.load(Ordering::Acquire) == position + 1 // pairs with `put`
    }

    fn is_free(&self, position: u64) -> bool {
        self.turn.load(Ordering::Acquire) == position // pairs with `free`
    }

    fn put(&self, position: u64, value: u64) {
        self.value.store(value, Ordering::Relaxed);
        self.turn.store(position + 1, Ordering::Release); // pairs with `is_full`
    }

    fn free(&self, position: u64) {
        self.turn.store(position + CELLS, Ordering::Release); // pairs with `is_free`
    }
}

impl Bed {
    fn sleep_unless(&self, ready: impl Fn() -> bool) {
        let bell = self.bell.load(Ordering::Acquire);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        if !ready() {
            futex_wait(&self.bell, bell);
        }
        // Whoever rings takes a sleeper off the count. One who did not sleep after all stays on it, which
        // costs a needless call of the kernel later.
    }

    fn wake(&self) {
        fence(Ordering::SeqCst); // between what was published and the look at who sleeps
        let mut sleepers = self.sleepers.load(Ordering::Relaxed);
        while sleepers > 0 {
            match self.sleepers.compare_exchange_weak(
                sleepers,
                sleepers - 1,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.bell.fetch_add(1, Ordering::Release);
                    futex_wake(&self.bell);
                    return;
                }
                Err(now) => sleepers = now,
            }
        }
    }
}

/// What somebody does while there is nothing to do.
#[derive(Clone, Copy, PartialEq)]
enum Wait {
    /// Looks again at once. For as many processes as there are CPUs.
    Spin,
    /// Looks again, and lets others have the CPU now and then. For more.
    Yield,
    /// Sleeps at once.
    Park,
}

impl Wait {
    fn until(self, bed: &Bed, ready: impl Fn() -> bool) {
        match self {
            Wait::Spin => while !ready() {},
            Wait::Yield => {
                let mut looks = 0u32;
                while !ready() {
                    looks += 1;
                    if looks.is_multiple_of(64) {
                        std::thread::yield_now();
                    } else {
                        spin_loop();
                    }
                }
            }
            Wait::Park => {
                while !ready() {
                    bed.sleep_unless(&ready);
                }
            }
        }
    }
}

/// The only worker: no position is shared.
fn serve_alone(memory: &Memory, wait: Wait, task: impl Fn(u64) -> u64) {
    for position in 0.. {
        let from = memory.tasks.cell(position);
        wait.until(&memory.workers, || from.is_full(position));
        let value = task(from.value.load(Ordering::Relaxed));
        let to = memory.results.cell(position);
        // There is room: at most `CELLS` tasks are on their way, and results come in their order.
        to.put(position, value);
        from.free(position);
        if wait == Wait::Park {
            memory.client.wake();
        }
    }
}

/// One of several.
fn serve_together(memory: &Memory, wait: Wait, task: impl Fn(u64) -> u64) {
    let (tasks, results) = (&memory.tasks, &memory.results);
    loop {
        let (mut position, mut from);
        loop {
            position = tasks.next.load(Ordering::Relaxed);
            from = tasks.cell(position);
            if !from.is_full(position) {
                wait.until(&memory.workers, || {
                    let position = tasks.next.load(Ordering::Relaxed);
                    tasks.cell(position).is_full(position)
                });
            } else if tasks
                .next
                .compare_exchange_weak(position, position + 1, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                break;
            }
        }
        let argument = from.value.load(Ordering::Relaxed);
        from.free(position);
        let value = task(argument);
        let place = results.next.fetch_add(1, Ordering::Relaxed);
        let to = results.cell(place);
        // The client frees cells as it reads them; at most `CELLS` results are on their way.
        while !to.is_free(place) {
            spin_loop();
        }
        to.put(place, value);
        if wait == Wait::Park {
            memory.client.wake();
        }
    }
}

/// The client's side of both rings.
struct Rings {
    // First, so that the workers are gone before their memory.
    _workers: Vec<Child>,
    memory: Rc<Shared>,
    wait: Wait,
    submitted: u64,
    returned: u64,
}

impl Rings {
    fn start(workers: usize, wait: Wait, alone: bool, task: impl Fn(u64) -> u64) -> io::Result<Self> {
        let shared = Rc::new(Shared::new(size_of::<Memory>())?);
        // SAFETY: `Memory` is all atomics, and what all processes believe to be there.
        let memory: &Memory = unsafe { shared.at(0) };
        memory.tasks.reset();
        memory.results.reset();
        let many = wait == Wait::Spin && workers + 1 > crate::shm::cpus().len();
        let wait = if many { Wait::Yield } else { wait };
        let serve = || {
            if alone {
                serve_alone(memory, wait, &task);
            } else {
                serve_together(memory, wait, &task);
            }
        };
        let workers = (0..workers).map(|_| Child::fork(serve)).collect::<io::Result<_>>()?;
        Ok(Rings { _workers: workers, memory: shared, wait, submitted: 0, returned: 0 })
    }

    fn memory(&self) -> &Memory {
        // SAFETY: as in `start`.
        unsafe { self.memory.at(0) }
    }

    fn submit(&mut self, value: u64) {
        let position = self.submitted;
        let memory = self.memory();
        let cell = memory.tasks.cell(position);
        while !cell.is_free(position) {
            spin_loop();
        }
        cell.put(position, value);
        if self.wait == Wait::Park {
            memory.workers.wake();
        }
        self.submitted = position + 1;
    }

    fn next_result(&mut self) -> u64 {
        let position = self.returned;
        let memory = self.memory();
        let cell = memory.results.cell(position);
        self.wait.until(&memory.client, || cell.is_full(position));
        let value = cell.value.load(Ordering::Relaxed);
        cell.free(position);
        self.returned = position + 1;
        value
    }
}

/// Everybody looks for work without pause.
pub fn spin(workers: usize) -> Started<dyn Numbers> {
    Ok(Box::new(Rings::start(workers, Wait::Spin, false, inc)?))
}

/// [`spin`] that can have no second worker, so nobody need claim anything.
pub fn spin_alone(workers: usize) -> Started<dyn Numbers> {
    assert_eq!(workers, 1);
    Ok(Box::new(Rings::start(1, Wait::Spin, true, inc)?))
}

/// Everybody sleeps as soon as there is nothing to do.
pub fn park(workers: usize) -> Started<dyn Numbers> {
    Ok(Box::new(Rings::start(workers, Wait::Park, false, inc)?))
}

impl Numbers for Rings {
    fn call(&mut self, x: u64) -> u64 {
        self.submit(x);
        self.next_result()
    }

    fn stream(&mut self, tasks: u64, window: usize) -> u64 {
        let mut sum = 0u64;
        for i in 0..tasks {
            if i >= window as u64 {
                sum = sum.wrapping_add(self.next_result());
            }
            self.submit(i);
        }
        (0..tasks.min(window as u64)).fold(sum, |sum, _| sum.wrapping_add(self.next_result()))
    }
}

/// A buffer for the argument and one for the result, beside the rings.
struct Payloads {
    rings: Rings,
    buffers: Shared,
    /// Where the second buffer begins.
    second: usize,
    next: Vec<u8>,
}

fn bytes(workers: usize, data: &[u8], wait: Wait) -> Started<dyn Bytes> {
    let second = data.len().next_multiple_of(4096);
    let buffers = Shared::new(2 * second)?;
    let start = buffers.start() as usize;
    let rings = Rings::start(workers, wait, false, move |len| {
        // SAFETY: both buffers are as long, and the client touches neither before it has the result.
        let (from, to) = unsafe {
            let from = std::slice::from_raw_parts(start as *const u8, len as usize);
            (from, std::slice::from_raw_parts_mut((start + second) as *mut u8, len as usize))
        };
        xor_into(from, to);
        len
    })?;
    Ok(Box::new(Payloads { rings, buffers, second, next: Vec::new() }))
}

/// [`spin`] for bytes.
pub fn spin_bytes(workers: usize, data: &[u8]) -> Started<dyn Bytes> {
    bytes(workers, data, Wait::Spin)
}

/// [`park`] for bytes.
pub fn park_bytes(workers: usize, data: &[u8]) -> Started<dyn Bytes> {
    bytes(workers, data, Wait::Park)
}

impl Bytes for Payloads {
    fn load(&mut self, data: &[u8]) {
        self.next = data.to_vec();
    }

    fn echo(&mut self) -> u64 {
        let bytes = std::mem::take(&mut self.next);
        // SAFETY: the buffer has room for as many, and no task is on its way.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.buffers.start(), bytes.len()) };
        let len = self.rings.call(bytes.len() as u64) as usize;
        // SAFETY: the worker has written so many, and will not write before it gets another task.
        look(unsafe { std::slice::from_raw_parts(self.buffers.start().add(self.second), len) })
    }
}

/// Most items of a map.
const ITEMS: usize = 1_000_000;
/// Items that travel together: 256 KiB of them, or less if there would be fewer than four pieces for each worker.
const PIECE: usize = 32 * 1024;

/// Items in one buffer, results in another, beside the rings. A task is a piece: its job, beginning and length.
struct Pieces {
    rings: Rings,
    buffers: Shared,
    workers: usize,
}

/// [`spin`] for maps: what processes must do who share nothing but what they were given. An item is written
/// for the worker, read, its value written, and that copied out; nothing is counted, so that the loops are
/// as wide as the compiler makes them.
pub fn spin_maps(workers: usize) -> Started<dyn Maps> {
    let buffers = Shared::new(2 * size_of::<u64>() * ITEMS)?;
    let start = buffers.start() as usize;
    let rings = Rings::start(workers, Wait::Spin, false, move |task| {
        let (job, first, len) = unpack(task);
        // SAFETY: `pack` was given a piece of the buffers, which nobody else touches before its result comes.
        let (items, values) = unsafe {
            let items = (start as *const u64).add(first);
            let values = (start as *mut u64).add(ITEMS + first);
            (std::slice::from_raw_parts(items, len), std::slice::from_raw_parts_mut(values, len))
        };
        match job {
            Job::Trivial => values.iter_mut().zip(items).for_each(|(value, &item)| *value = inc(item)),
            Job::Compute => values.iter_mut().zip(items).for_each(|(value, &item)| *value = compute(item)),
        }
        task
    })?;
    Ok(Box::new(Pieces { rings, buffers, workers }))
}

fn pack(job: Job, first: usize, len: usize) -> u64 {
    (job as u64) << 63 | (first as u64) << 32 | len as u64
}

fn unpack(task: u64) -> (Job, usize, usize) {
    let job = if task >> 63 == Job::Trivial as u64 { Job::Trivial } else { Job::Compute };
    (job, (task >> 32 & 0x7fff_ffff) as usize, task as u32 as usize)
}

impl Maps for Pieces {
    fn map(&mut self, job: Job, items: &[u64]) -> Vec<u64> {
        assert!(items.len() <= ITEMS);
        let piece = items.len().div_ceil(4 * self.workers).clamp(1, PIECE);
        let base = self.buffers.start().cast::<u64>();
        let mut values: Vec<u64> = Vec::with_capacity(items.len());
        for (index, part) in items.chunks(piece).enumerate() {
            let first = index * piece;
            // SAFETY: within the first buffer, as `items` is; no task that names this piece is on its way.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), base.add(first), part.len()) };
            self.rings.submit(pack(job, first, part.len()));
        }
        for _ in items.chunks(piece) {
            let (_, first, len) = unpack(self.rings.next_result());
            // SAFETY: within the second buffer and the capacity, as the piece is one of those above; its worker is
            // done with it.
            unsafe {
                std::ptr::copy_nonoverlapping(base.add(ITEMS + first), values.as_mut_ptr().add(first), len);
            }
        }
        // SAFETY: the pieces, each of which has come once, are all of it.
        unsafe { values.set_len(items.len()) };
        values
    }
}
