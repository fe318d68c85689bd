//! Pools: their life.

use crate::arguments::{place, reference, slice_mut};
use crate::boundary::{boundary, free, quiet};
use crate::error::Failed;
use crate::options::{builder, rp_options};
use crate::status::rp_status;
use engine::Pool;
use engine::raw::Caller;

/// A pool of worker processes. Any number of threads may use it at the same time.
pub struct rp_pool {
    pub(crate) pool: Pool,
    pub(crate) caller: Caller,
}

/// Starts a pool. Options may be NULL, for the defaults.
///
/// Tasks that forked workers are to know are registered before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_pool_new(options: *const rp_options, pool: *mut *mut rp_pool) -> rp_status {
    boundary(|| {
        let place = place(pool, "pool")?;
        // SAFETY: the options are as the header says.
        let started = unsafe { builder(options) }?.start()?;
        let pool = rp_pool { caller: started.raw(), pool: started };
        // SAFETY: the caller's place.
        unsafe { place.put(Box::into_raw(Box::new(pool))) };
        Ok(())
    })
}

/// Takes no more work. Workers leave when all that was submitted is done, and all iterators that were started have ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_pool_close(pool: *const rp_pool) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let pool = unsafe { reference(pool, "pool") }?;
        pool.caller.check_process()?;
        pool.pool.close();
        Ok(())
    })
}

/// Kills the workers. Work that is not done fails with RP_TERMINATED. When this returns, the workers are dead.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_pool_terminate(pool: *const rp_pool) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        let pool = unsafe { reference(pool, "pool") }?;
        pool.caller.check_process()?;
        pool.pool.terminate();
        Ok(())
    })
}

/// Waits until all workers are gone and all callbacks have run. Only after rp_pool_close() or rp_pool_terminate().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_pool_join(pool: *const rp_pool) -> rp_status {
    boundary(|| {
        // SAFETY: a handle, as the header says.
        unsafe { reference(pool, "pool") }?.pool.join()?;
        Ok(())
    })
}

/// Ends a pool and makes the handle NULL: terminates it, unless it was joined. Results, buffers and all other handles stay
/// good, and are freed by themselves. NULL, and a handle that is NULL, are ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_pool_free(pool: *mut *mut rp_pool) {
    // SAFETY: a handle, as the header says.
    unsafe { free(pool) }
}

/// How many workers the pool keeps; 0 if it is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_pool_processes(pool: *const rp_pool) -> usize {
    // SAFETY: a handle, as the header says.
    quiet(0, || unsafe { pool.as_ref() }.map_or(0, |pool| pool.pool.processes()))
}

/// The process ids of the workers that live now, guests included. Writes the first capacity of them to pids, and how many
/// there are to count.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_pool_worker_pids(
    pool: *const rp_pool,
    pids: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> rp_status {
    boundary(|| {
        // SAFETY: a handle and memory, as the header says.
        let (pool, pids) = unsafe { (reference(pool, "pool")?, slice_mut(pids, capacity, "pids")?) };
        let count = place(count, "count")?;
        pool.caller.check_process()?;
        let living = pool.pool.worker_pids();
        for (place, &pid) in pids.iter_mut().zip(&living) {
            *place = pid;
        }
        // SAFETY: the caller's place.
        unsafe { count.put(living.len()) };
        Ok(())
    })
}

/// The pool behind a handle.
///
/// # Safety
///
/// It is NULL or one.
#[inline]
pub(crate) unsafe fn caller<'a>(pool: *const rp_pool) -> Result<&'a Caller, Failed> {
    // SAFETY: the caller's promise.
    unsafe { reference(pool, "pool") }.map(|pool| &pool.caller)
}
