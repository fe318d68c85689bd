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
use std::sync::{Mutex, PoisonError};

/// Gives the next input of an iterator: writes where it is to item, and returns 1; or returns 0 if there is no more. The
/// input is copied before the function is called again. Any other number ends the iterator with RP_INPUT_FAILED, after the
/// outputs of the inputs before it.
///
/// It is called from within rp_imap(), rp_imap_unordered() and rp_iter_next(), in the thread that called those.
pub type rp_next_fn = Option<unsafe extern "C-unwind" fn(userdata: *mut c_void, item: *mut rp_bytes) -> i32>;

/// Outputs that come one after the other. Threads that ask at the same time wait for each other.
pub struct rp_iter(Mutex<Iter<Inputs>>);

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
        let iter = caller.imap(name, Inputs { next, userdata }, chunksize.max(1), order)?;
        // SAFETY: the caller's place.
        unsafe { place.put(Box::into_raw(Box::new(rp_iter(Mutex::new(iter))))) };
        Ok(())
    })
}

/// Runs a task for each input that next gives, as the outputs are asked for; outputs come in the order of the inputs.
///
/// Lazy and bounded: at most four chunks for each worker, and at least sixteen, have been taken and not yet been returned.
/// chunksize inputs travel together; 0 is 1, which is right unless tasks are very short.
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
        let next = iter.0.lock().unwrap_or_else(PoisonError::into_inner).next(self::timeout(timeout));
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

/// An rp_next_fn whose userdata is an rp_items: rp_imap(pool, "task", rp_items_next, &items, 0, &iter).
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn rp_items_next(items: *mut c_void, item: *mut rp_bytes) -> i32 {
    quiet(0, || {
        // SAFETY: the userdata that the header asks for.
        let (Some(items), false) = (unsafe { items.cast::<rp_items>().as_mut() }, item.is_null()) else {
            return 0;
        };
        if items.next >= items.count || items.items.is_null() {
            return 0;
        }
        // SAFETY: there are so many items, as C says, and a place for one.
        unsafe { item.write(items.items.add(items.next).read()) };
        items.next += 1;
        1
    })
}
