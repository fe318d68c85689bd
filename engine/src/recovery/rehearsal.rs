//! Reaps that are cut off, delayed or run twice at once. For tests, under the feature `crash`.

use crate::segment::Segment;
use crate::sync::crash::{self, Rehearsal};
use crate::sys::{self, Fork};
use rustix::process::{Pid, WaitOptions, waitpid};

/// Does to the coming reap what a test has planned.
///
/// The helper is a child with a mapping of its own: nobody can tell it from another process of the pool
/// that reaps.
pub(crate) fn rehearse(segment: &Segment, index: u32, incarnation: u32) {
    let (armed, beside) = match crash::take_reap_plan() {
        None => return,
        Some(Rehearsal::InPlace(after, blow)) => return crash::arm(after, blow),
        Some(Rehearsal::First(after, blow)) => (Some((after, blow)), false),
        Some(Rehearsal::Beside) => (None, true),
    };
    // SAFETY: the child maps memory, reaps and leaves: it takes no lock but the allocator's, which libc
    // makes usable in the child.
    match unsafe { sys::fork() } {
        Ok(Fork::Child) => {
            let code = reap_as_helper(segment, index, incarnation, armed);
            // SAFETY: `_exit` may be called anywhere.
            unsafe { libc::_exit(code) }
        }
        Ok(Fork::Parent(pid)) => {
            let wait = if beside { None } else { Pid::from_raw(pid.cast_signed()) };
            let status = wait.and_then(|pid| waitpid(Some(pid), WaitOptions::UNTRACED).ok().flatten());
            let failed = status.and_then(|(_, status)| status.exit_status()).filter(|&code| code != 0);
            assert!(failed.is_none(), "the helper of a rehearsed reap could not begin: {failed:?}");
            let gone = status.is_some_and(|(_, status)| status.exited() || status.signaled());
            if !gone {
                crash::add_helper(pid);
            }
        }
        Err(error) => panic!("no helper for a rehearsed reap: {error}"),
    }
}

fn reap_as_helper(segment: &Segment, index: u32, incarnation: u32, armed: Option<(u64, crash::Blow)>) -> i32 {
    let [control, data] = segment.fds();
    let (Ok(control), Ok(data)) = (control.try_clone_to_owned(), data.try_clone_to_owned()) else { return 2 };
    let Ok(own) = Segment::attach(control, data, 0) else { return 3 };
    if let Some((after, blow)) = armed {
        crash::arm(after, blow);
    }
    super::reap(&own, index, incarnation);
    0
}
