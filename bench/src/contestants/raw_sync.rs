//! What the primitives of the C library give: a `raw_sync` mutex around each of two rings in a
//! `shared_memory` segment, and an event for those who wait for it to have something.
//!
//! Both come without time limits, and nobody may be killed: the mutex of a dead owner stays locked, and a
//! killed waiter wedges the event. That is why this is a baseline and not a design.

use super::{Numbers, Started};
use crate::shm::Child;
use crate::tasks::inc;
use raw_sync::Timeout;
use raw_sync::events::{Event, EventImpl, EventInit, EventState};
use raw_sync::locks::{LockImpl, LockInit, Mutex};
use shared_memory::{Shmem, ShmemConf};
use std::error::Error;
use std::rc::Rc;

/// More than are ever on their way.
const PLACES: usize = 1024;

/// Guarded by the mutex.
#[repr(C)]
struct Places {
    taken: usize,
    given: usize,
    values: [u64; PLACES],
}

/// A queue that processes share.
struct Queue {
    lock: Box<dyn LockImpl>,
    filled: Box<dyn EventImpl>,
}

impl Queue {
    /// # Safety
    ///
    /// There is a page for the mutex and the event at `start`, then room for `Places`, all zeros and used by
    /// nobody else.
    unsafe fn new(start: *mut u8) -> Result<Self, Box<dyn Error>> {
        // SAFETY: promised by the caller. The mutex is 40 bytes long, and the event less than the rest.
        let ((lock, _), (filled, _)) = unsafe {
            let places = start.add(4096);
            (Mutex::new(start, places)?, Event::new(start.add(128), true)?)
        };
        Ok(Queue { lock, filled })
    }

    fn put(&self, value: u64) {
        let guard = self.lock.lock().expect("a lock that works");
        // SAFETY: what the mutex guards is a `Places`, and we hold it.
        let places = unsafe { &mut *guard.cast::<Places>() };
        places.values[places.given % PLACES] = value;
        places.given += 1;
        let first = places.given == places.taken + 1;
        drop(guard);
        if first {
            self.filled.set(EventState::Signaled).expect("an event that works");
        }
    }

    fn take(&self) -> u64 {
        loop {
            let guard = self.lock.lock().expect("a lock that works");
            // SAFETY: as in `put`.
            let places = unsafe { &mut *guard.cast::<Places>() };
            if places.taken < places.given {
                let value = places.values[places.taken % PLACES];
                places.taken += 1;
                let more = places.taken < places.given;
                drop(guard);
                if more {
                    // The event remembers one signal only, so whoever was woken wakes the next.
                    self.filled.set(EventState::Signaled).expect("an event that works");
                }
                return value;
            }
            drop(guard);
            self.filled.wait(Timeout::Infinite).expect("an event that works");
        }
    }
}

struct Pool {
    // First, so that the workers are gone before their memory.
    _workers: Vec<Child>,
    tasks: Rc<Queue>,
    results: Rc<Queue>,
    _segment: Shmem,
}

/// For streams and calls of numbers.
pub fn numbers(workers: usize) -> Started<dyn Numbers> {
    const EACH: usize = 4096 + size_of::<Places>().next_multiple_of(4096);
    let segment = ShmemConf::new().size(2 * EACH).create()?;
    // SAFETY: fresh memory, as long as both need.
    let (tasks, results) =
        unsafe { (Rc::new(Queue::new(segment.as_ptr())?), Rc::new(Queue::new(segment.as_ptr().add(EACH))?)) };
    let serve = || {
        loop {
            results.put(inc(tasks.take()));
        }
    };
    let workers = (0..workers).map(|_| Child::fork(serve)).collect::<std::io::Result<_>>()?;
    Ok(Box::new(Pool { _workers: workers, tasks, results, _segment: segment }))
}

impl Numbers for Pool {
    fn call(&mut self, x: u64) -> u64 {
        self.tasks.put(x);
        self.results.take()
    }

    fn stream(&mut self, tasks: u64, window: usize) -> u64 {
        let mut sum = 0u64;
        for i in 0..tasks {
            if i >= window as u64 {
                sum = sum.wrapping_add(self.results.take());
            }
            self.tasks.put(i);
        }
        (0..tasks.min(window as u64)).fold(sum, |sum, _| sum.wrapping_add(self.results.take()))
    }
}
