//! One enum for all that can happen.

use engine::{Error, ErrorKind};
use std::ffi::{CStr, c_char};

/// What became of a call. Numbers are never used for anything else; later versions may add some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
#[allow(dead_code)] // some come from elsewhere only
pub enum rp_status {
    /// It was done.
    RP_OK = 0,
    /// A pointer is NULL that must not be.
    RP_NULL_POINTER = 3001,
    /// An argument makes no sense: rp_last_error() says which, and what would.
    RP_INVALID = 3002,
    /// The task itself failed: see task_code.
    RP_TASK_FAILED = 3003,
    /// The task panicked, as tasks in Rust do. Its worker lives on.
    RP_TASK_PANICKED = 3004,
    /// The process that ran the task died: see signal and exit_code.
    RP_WORKER_DIED = 3005,
    /// It did not come in time. Nothing is cancelled: ask again.
    RP_TIMEOUT = 3006,
    /// The pool is closed and takes no new work.
    RP_CLOSED = 3007,
    /// The pool was terminated before the work was done.
    RP_TERMINATED = 3008,
    /// A pool is to be closed or terminated before it is joined.
    RP_STILL_RUNNING = 3009,
    /// The handle was made by another process, whose fork this is.
    RP_FORKED = 3010,
    /// The initializer failed, so the pool cannot work.
    RP_INITIALIZER_FAILED = 3011,
    /// Workers cannot be started.
    RP_START_FAILED = 3012,
    /// All task slots were taken for longer than the pool's patience.
    RP_FULL = 3013,
    /// There is not so much shared memory as an input or output needs.
    RP_NO_MEMORY = 3014,
    /// An input or output is not what the other side takes it for.
    RP_BAD_PAYLOAD = 3015,
    /// The worker knows no task of this name.
    RP_UNKNOWN_TASK = 3016,
    /// Words in shared memory hold values that nobody writes there.
    RP_CORRUPTED = 3017,
    /// A named pool cannot be joined.
    RP_ATTACH_REFUSED = 3018,
    /// The operating system refused something.
    RP_SYSTEM = 3019,
    /// The call was taken back before a worker had started it.
    RP_CANCELLED = 3020,
    /// There is no more: an iterator has ended, or no call of a queue is outstanding.
    RP_END = 3021,
    /// It is not known yet.
    RP_NOT_READY = 3022,
    /// The caller's memory does not hold the output.
    RP_TOO_SMALL = 3023,
    /// The function that gives an iterator its inputs failed.
    RP_INPUT_FAILED = 3024,
    /// A bug in the library. The process and the pool go on.
    RP_BUG = 3025,
}

use rp_status::*;

impl rp_status {
    /// Of all numbers that there are.
    const ALL: &[(rp_status, &CStr)] = &[
        (RP_OK, c"done"),
        (RP_NULL_POINTER, c"a pointer is NULL that must not be"),
        (RP_INVALID, c"an argument makes no sense"),
        (RP_TASK_FAILED, c"the task failed"),
        (RP_TASK_PANICKED, c"the task panicked"),
        (RP_WORKER_DIED, c"the worker died while it ran the task"),
        (RP_TIMEOUT, c"it did not come in time"),
        (RP_CLOSED, c"the pool is closed"),
        (RP_TERMINATED, c"the pool was terminated"),
        (RP_STILL_RUNNING, c"the pool is still running"),
        (RP_FORKED, c"the handle belongs to another process"),
        (RP_INITIALIZER_FAILED, c"the pool's initializer failed"),
        (RP_START_FAILED, c"workers cannot be started"),
        (RP_FULL, c"all task slots stayed taken"),
        (RP_NO_MEMORY, c"there is not so much shared memory"),
        (RP_BAD_PAYLOAD, c"an input or output is not what was expected"),
        (RP_UNKNOWN_TASK, c"the task is not known to the worker"),
        (RP_CORRUPTED, c"shared memory is corrupt"),
        (RP_ATTACH_REFUSED, c"the pool cannot be joined"),
        (RP_SYSTEM, c"the operating system refused something"),
        (RP_CANCELLED, c"the call was cancelled"),
        (RP_END, c"there is no more"),
        (RP_NOT_READY, c"it is not known yet"),
        (RP_TOO_SMALL, c"the memory does not hold the output"),
        (RP_INPUT_FAILED, c"the source of inputs failed"),
        (RP_BUG, c"a bug in the library"),
    ];

    /// That of an error of the engine.
    pub(crate) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Failed { .. } | ErrorKind::FailedWith { .. } => RP_TASK_FAILED,
            ErrorKind::Panicked { .. } => RP_TASK_PANICKED,
            ErrorKind::WorkerDied { .. } => RP_WORKER_DIED,
            ErrorKind::Timeout { .. } => RP_TIMEOUT,
            ErrorKind::Cancelled => RP_CANCELLED,
            ErrorKind::Closed => RP_CLOSED,
            ErrorKind::Terminated => RP_TERMINATED,
            ErrorKind::StillRunning => RP_STILL_RUNNING,
            ErrorKind::Forked { .. } => RP_FORKED,
            ErrorKind::Initializer { .. } => RP_INITIALIZER_FAILED,
            ErrorKind::Start { .. } => RP_START_FAILED,
            ErrorKind::Full { .. } => RP_FULL,
            ErrorKind::ArenaFull { .. } => RP_NO_MEMORY,
            ErrorKind::Payload { .. } => RP_BAD_PAYLOAD,
            ErrorKind::Function { .. } => RP_UNKNOWN_TASK,
            ErrorKind::Corrupted { .. } => RP_CORRUPTED,
            ErrorKind::Attach { .. } => RP_ATTACH_REFUSED,
            ErrorKind::Invalid { .. } => RP_INVALID,
            ErrorKind::Io { .. } => RP_SYSTEM,
            // Kinds that the engine may have one day.
            _ => RP_BUG,
        }
    }
}

/// A short text about a status; of a number that is none, that it is none. Never NULL, and never freed.
#[unsafe(no_mangle)]
pub extern "C" fn rp_status_string(status: i32) -> *const c_char {
    let known = rp_status::ALL.iter().find(|(known, _)| *known as i32 == status);
    known.map_or(c"no status of ringpool", |(_, text)| text).as_ptr()
}

/// The version of this interface that the library has: see RP_ABI_VERSION.
#[unsafe(no_mangle)]
pub extern "C" fn rp_abi_version() -> u32 {
    RP_ABI_VERSION
}

/// The version of this interface. It changes only when programs have to be compiled anew; then the library has another
/// soname, too.
pub const RP_ABI_VERSION: u32 = 1;
/// The version of the library, as in 0.1.0.
pub const RP_VERSION_MAJOR: u32 = 0;
/// See RP_VERSION_MAJOR.
pub const RP_VERSION_MINOR: u32 = 1;
/// See RP_VERSION_MAJOR.
pub const RP_VERSION_PATCH: u32 = 0;

const _: () = {
    // The macros must be constants for the header; here they are held against the package.
    const fn is(text: &str, number: u32) -> bool {
        let (bytes, mut value, mut at) = (text.as_bytes(), 0, 0);
        while at < bytes.len() {
            value = value * 10 + (bytes[at] - b'0') as u32;
            at += 1;
        }
        value == number
    }
    assert!(is(env!("CARGO_PKG_VERSION_MAJOR"), RP_VERSION_MAJOR));
    assert!(is(env!("CARGO_PKG_VERSION_MINOR"), RP_VERSION_MINOR));
    assert!(is(env!("CARGO_PKG_VERSION_PATCH"), RP_VERSION_PATCH));
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_status_has_a_number_and_a_text_of_its_own() {
        let numbers: HashSet<i32> = rp_status::ALL.iter().map(|&(status, _)| status as i32).collect();
        let texts: HashSet<&CStr> = rp_status::ALL.iter().map(|&(_, text)| text).collect();
        assert_eq!(numbers.len(), rp_status::ALL.len());
        assert_eq!(texts.len(), rp_status::ALL.len());
        // The enum's own source: none may be forgotten.
        let variants = include_str!("status.rs")
            .lines()
            .filter(|line| line.starts_with("    RP_") && line.contains(" = "));
        assert_eq!(variants.count(), rp_status::ALL.len());
    }
}
