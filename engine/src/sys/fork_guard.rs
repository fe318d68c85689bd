//! Notices that this process is a forked child of the one that made a pool.
//!
//! Comparing process ids would cost a system call for each use of the pool. A counter that every
//! `fork` raises in the child costs one load. It does not see a raw `clone`; against
//! that, the pool's mappings are not inherited at all.

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::sync::private::{Private, PrivateU64};

static GENERATION: PrivateU64 = PrivateU64::new(0);

/// How many forks lie between this process and the one that called [`install`] first.
///
/// Relaxed is enough: the child starts with one thread, which is the one that counted.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Private::Relaxed)
}

/// Makes every later fork count. Calling it again changes nothing.
pub(crate) fn install() -> Result<()> {
    static INSTALLED: OnceLock<i32> = OnceLock::new();
    let errno = *INSTALLED.get_or_init(|| {
        // SAFETY: the handler is a plain function that may run in a forked child: it adds to an atomic.
        unsafe { libc::pthread_atfork(None, None, Some(count_fork)) }
    });
    if errno == 0 {
        return Ok(());
    }
    Err(Error::io("cannot register a fork handler", std::io::Error::from_raw_os_error(errno)))
}

extern "C" fn count_fork() {
    GENERATION.fetch_add(1, Private::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;
    use crate::sys::process::{Fork, ProcessHandle, fork};

    #[test]
    fn a_fork_counts_in_the_child_only() {
        install().unwrap();
        install().unwrap();
        let before = generation();
        // SAFETY: the child only loads an atomic and leaves.
        match unsafe { fork() }.unwrap() {
            Fork::Child => {
                let code = if generation() == before + 1 { 7 } else { 8 };
                // SAFETY: `_exit` may be called anywhere.
                unsafe { libc::_exit(code) }
            }
            Fork::Parent(pid) => {
                let child = ProcessHandle::open(pid).unwrap();
                assert!(child.wait_dead(None));
                assert_eq!(child.wait_status(), Some(Exit::Code(7)));
                assert_eq!(generation(), before);
            }
        }
    }
}
