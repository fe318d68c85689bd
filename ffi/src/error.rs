//! What failed last on this thread.

use crate::status::rp_status;
use engine::{Error, ErrorKind, Exit};
use std::cell::RefCell;
use std::ffi::{CString, c_char};

/// What is known about a failure. Later versions may append fields.
#[repr(C)]
pub struct rp_error {
    /// What kind it is.
    pub status: rp_status,
    /// What happened, with the values that matter, in UTF-8; never NULL.
    pub text: *const c_char,
    /// RP_TASK_FAILED: the code with which a task failed; 0 if it gave none.
    pub task_code: i32,
    /// RP_WORKER_DIED: the signal that killed the process, or 0.
    pub signal: i32,
    /// RP_WORKER_DIED: the exit code with which the process left, or -1.
    pub exit_code: i32,
    /// RP_WORKER_DIED: the process; else 0.
    pub pid: u32,
}

/// A failure on its way to whoever called.
pub(crate) enum Failed {
    Engine(Error),
    Ours(rp_status, String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Engine(error)
    }
}

impl Failed {
    /// An argument that makes no sense.
    #[cold]
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Failed::Ours(rp_status::RP_INVALID, text.into())
    }

    #[cold]
    pub(crate) fn null(what: &str) -> Self {
        Failed::Ours(rp_status::RP_NULL_POINTER, format!("{what} is NULL"))
    }
}

/// An [`rp_error`] and its text.
pub(crate) struct Kept {
    shown: rp_error,
    _text: CString,
}

impl Kept {
    #[cold]
    pub(crate) fn new(failed: &Failed) -> Self {
        match failed {
            Failed::Ours(status, text) => Self::with(*status, text.clone()),
            Failed::Engine(error) => Self::of(error),
        }
    }

    #[cold]
    pub(crate) fn of(error: &Error) -> Self {
        let mut kept = Self::with(rp_status::of(error), error.to_string());
        match error.kind() {
            ErrorKind::FailedWith { code, .. } => kept.shown.task_code = *code,
            ErrorKind::WorkerDied { end, pid, .. } => {
                kept.shown.pid = *pid;
                match *end {
                    Exit::Signal(signal) => kept.shown.signal = signal,
                    Exit::Code(code) => kept.shown.exit_code = code,
                    _ => {}
                }
            }
            _ => {}
        }
        kept
    }

    fn with(status: rp_status, text: String) -> Self {
        // Whatever a task said, C's strings end at the first zero.
        let text = CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default();
        let shown = rp_error { status, text: text.as_ptr(), task_code: 0, signal: 0, exit_code: -1, pid: 0 };
        Kept { shown, _text: text }
    }

    pub(crate) fn shown(&self) -> &rp_error {
        &self.shown
    }
}

thread_local! {
    // Boxed, so that it stays where it is.
    static LAST: RefCell<Option<Box<Kept>>> = const { RefCell::new(None) };
}

/// Keeps a failure for [`rp_last_error`]; its status.
#[cold]
pub(crate) fn keep(failed: &Failed) -> rp_status {
    remember(Kept::new(failed))
}

fn remember(kept: Kept) -> rp_status {
    let status = kept.shown.status;
    // In a thread that ends, there may be no place for it any more.
    let _ = LAST.try_with(|last| last.replace(Some(Box::new(kept))));
    status
}

/// The last failure of a function of this library on this thread; NULL if there was none.
///
/// What it points to is good until another function of this library fails on this thread. Functions that succeed leave
/// it alone.
#[unsafe(no_mangle)]
pub extern "C" fn rp_last_error() -> *const rp_error {
    let last =
        LAST.try_with(|last| last.borrow().as_ref().map_or(std::ptr::null(), |kept| &raw const kept.shown));
    last.unwrap_or(std::ptr::null())
}
