//! Inputs are taken as outputs are asked for.

use crate::arguments::{place, reference, rp_bytes, timeout};
use crate::boundary::{boundary, free, quiet};
use crate::error::Failed;
use crate::name::name;
use crate::pool::{caller, rp_pool};
use crate::result::rp_result;
use crate::status::rp_status;
use engine::raw::{Iter, Order, Source};
use engine::{Error, ErrorKind};
use std::ffi::{c_char, c_void};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Gives the next input of an iterator: writes where it is to item, and returns 1; or returns 0 if there is no more. The
/// input is copied before the function is called again. Any other number ends the iterator with RP_INPUT_FAILED, after the
/// outputs of the inputs before it.
///
/// It is called from within rp_imap(), rp_imap_unordered() and rp_iter_next(), in the thread that called those. It must not
/// use or free the iterator, and C++ exceptions must not leave it: the program would abort.
pub type rp_next_fn = Option<unsafe extern "C-unwind" fn(userdata: *mut c_void, item: *mut rp_bytes) -> i32>;

/// Outputs that come one after the other. Threads that ask at the same time wait for each other.
pub struct rp_iter {
    turn: Mutex<Turn>,
    /// Somebody's turn has ended.
    ended: Condvar,
}

struct Turn {
    /// `None` while somebody asks for an output.
    iter: Option<Iter<Inputs>>,
    /// Who.
    thread: Option<ThreadId>,
}

/// The iterator, as long as it is this thread's turn; it is put back whatever happens.
struct Taken<'a> {
    of: &'a rp_iter,
    iter: Option<Iter<Inputs>>,
}

impl rp_iter {
    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for this thread's turn, at most until `deadline`.
    fn take(&self, deadline: Option<Instant>) -> Result<Taken<'_>, Failed> {
        let me = std::thread::current().id();
        let mut turn = self.lock();
        loop {
            if let Some(iter) = turn.iter.take() {
                turn.thread = Some(me);
                return Ok(Taken { of: self, iter: Some(iter) });
            }
            if turn.thread == Some(me) {
                return Err(Failed::invalid(
                    "the function that gives inputs asks its own iterator for an output",
                ));
            }
            turn = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.ended.wait(turn).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    let text = "another thread was asking for an output all the time";
                    return Err(Failed::Ours(rp_status::RP_TIMEOUT, text.to_owned()));
                }
                Some(left) => self.ended.wait_timeout(turn, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut turn = self.of.lock();
        turn.iter = self.iter.take();
        turn.thread = None;
        drop(turn);
        self.of.ended.notify_one();
    }
}

/// C's source of inputs.
struct Inputs {
    next: unsafe extern "C-unwind" fn(*mut c_void, *mut rp_bytes) -> i32,
    userdata: *mut c_void,
}

// SAFETY: C is told that whoever asks for outputs runs it, under a lock.
unsafe impl Send for Inputs {}

/// What an iterator says whose source failed; the number is put to it in `rp_iter_next`.
const FAILED: &str = "the function that gives inputs returned ";

impl Source for Inputs {
    fn next(&mut self) -> Option<engine::Result<&[u8]>> {
        let mut item = rp_bytes { data: std::ptr::null(), size: 0 };
        let invalid = |message: String| Some(Err(Error::from(ErrorKind::Invalid { message })));
        // SAFETY: C's function, with what it is to get.
        match unsafe { (self.next)(self.userdata, &mut item) } {
            0 => None,
            // SAFETY: C says that so many bytes are there.
            1 => match unsafe { crate::arguments::bytes(item.data, item.size, "an item") } {
                Ok(bytes) => Some(Ok(bytes)),
                Err(_) => {
                    invalid(format!("an item of {} bytes at {:?} makes no sense", item.size, item.data))
                }
            },
            code => invalid(format!("{FAILED}{code}")),
        }
    }
}

unsafe fn start(
    pool: *const rp_pool,
    task: *const c_char,
    next: rp_next_fn,
    userdata: *mut c_void,
    chunksize: usize,
    order: Order,
    iter: *mut *mut rp_iter,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle and a string, as the header says.
        let (caller, name) = unsafe { (caller(pool)?, name(task)?) };
        let next = next.ok_or_else(|| Failed::null("next"))?;
        let place = place(iter, "iter")?;
        let iter = caller.imap(name, Inputs { next, userdata }, chunksize.max(1), order, None)?;
        let turn = Mutex::new(Turn { iter: Some(iter), thread: None });
        let iter = rp_iter { turn, ended: Condvar::new() };
        // SAFETY: the caller's place.
        unsafe { place.put(Box::into_raw(Box::new(iter))) };
        Ok(())
    })
}

/// Runs a task for each input that next gives, as the outputs are asked for; outputs come in the order of the inputs.
///
/// Lazy and bounded: at most four chunks for each worker, and at least sixteen, have been taken and not yet been returned.
/// chunksize inputs travel together; 0 is 1, which is right unless tasks are very short. While other calls have all slots,
/// or all shared memory, and this iterator none, taking an input waits for them, here and in rp_iter_next(), whatever the
/// timeout there, at most for the pool's patience.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_imap(
    pool: *const rp_pool,
    task: *const c_char,
    next: rp_next_fn,
    userdata: *mut c_void,
    chunksize: usize,
    iter: *mut *mut rp_iter,
) -> rp_status {
    // SAFETY: as the header says.
    unsafe { start(pool, task, next, userdata, chunksize, Order::Items, iter) }
}

/// rp_imap() with outputs in the order in which they come.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_imap_unordered(
    pool: *const rp_pool,
    task: *const c_char,
    next: rp_next_fn,
    userdata: *mut c_void,
    chunksize: usize,
    iter: *mut *mut rp_iter,
) -> rp_status {
    // SAFETY: as the header says.
    unsafe { start(pool, task, next, userdata, chunksize, Order::Arrival, iter) }
}

/// Waits for the next output, for timeout seconds at most: its status, or RP_END. After RP_TIMEOUT ask again; after the
/// failure of an item the others follow.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_iter_next(
    iter: *mut rp_iter,
    timeout: f64,
    result: *mut *mut rp_result,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let iter = unsafe { reference(iter.cast_const(), "iter") }?;
        let place = place(result, "result")?;
        let limit = self::timeout(timeout);
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut taken = iter.take(deadline)?;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let next = taken.iter.as_mut().and_then(|iter| iter.next(left));
        drop(taken);
        match next {
            None => Err(Failed::Ours(rp_status::RP_END, "there are no more outputs".to_owned())),
            Some(Ok(bytes)) => {
                // SAFETY: the caller's place.
                unsafe { place.put(rp_result::give(bytes)) };
                Ok(())
            }
            Some(Err(error)) => Err(match error.kind() {
                ErrorKind::Invalid { message } if message.starts_with(FAILED) => {
                    Failed::Ours(rp_status::RP_INPUT_FAILED, message.clone())
                }
                _ => error.into(),
            }),
        }
    })
}

/// Ends an iterator, half-way or not, and makes the handle NULL. What no worker has started is taken back. NULL, and a handle
/// that is NULL, are ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_iter_free(iter: *mut *mut rp_iter) {
    // SAFETY: a handle, as the header says.
    unsafe { free(iter) }
}

/// Items in memory, for rp_items_next(): where they are, how many, and which is next. The items must stay where they are as
/// long as the iterator takes inputs.
#[repr(C)]
pub struct rp_items {
    /// The items.
    pub items: *const rp_bytes,
    /// How many there are.
    pub count: usize,
    /// The index of the next.
    pub next: usize,
}

/// An rp_next_fn whose userdata is an rp_items (a NULL in the place of items is RP_INPUT_FAILED): rp_imap(pool, "task", rp_items_next, &items, 0, &iter).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn rp_items_next(items: *mut c_void, item: *mut rp_bytes) -> i32 {
    quiet(-1, || {
        // SAFETY: the userdata that the header asks for.
        let (Some(items), false) = (unsafe { items.cast::<rp_items>().as_mut() }, item.is_null()) else {
            return -1;
        };
        if items.next >= items.count {
            return 0;
        }
        if items.items.is_null() {
            return -1;
        }
        // SAFETY: there are so many items, as C says, and a place for one.
        unsafe { item.write(items.items.add(items.next).read()) };
        items.next += 1;
        1
    })
}
