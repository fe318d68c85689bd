//! Being a worker.

use crate::arguments::text;
use crate::boundary::{boundary, quiet};
use crate::status::rp_status;
use std::ffi::c_char;

/// The first thing in main() of a program that is run as a worker, behind the registration of its tasks.
///
/// In a program that somebody started it does next to nothing. In one that a pool runs as a worker, or as what forks workers,
/// it serves the pool and never returns. Nothing before it may read standard input or start threads.
#[unsafe(no_mangle)]
pub extern "C" fn rp_worker_main_if_worker() {
    quiet((), engine::init);
}

/// Joins the pool of another program by its name, and works for it on this thread until it ends.
///
/// The program must have registered every task that the pool's program had registered when it started the pool; otherwise
/// the pool is not joined (RP_ATTACH_REFUSED). RP_OK if the pool was closed or terminated, if its process died, or if this
/// worker has done as many tasks as it may.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_worker_attach(name: *const c_char) -> rp_status {
    boundary(|| {
        // SAFETY: a string, as the header says.
        let name = unsafe { text(name, "name") }?;
        engine::attach(name)?.serve()?;
        Ok(())
    })
}

/// Whether this process works for a pool.
#[unsafe(no_mangle)]
pub extern "C" fn rp_is_worker() -> bool {
    quiet(false, engine::is_worker)
}
