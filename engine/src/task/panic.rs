//! Catching a task's panic, with its place.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

/// What a panic said, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// The message of `panic!`, or what stands for it.
    pub message: String,
    /// `file:line:column`, or `unknown` if no hook saw the panic (see [`install_hook`]).
    pub place: String,
}

thread_local! {
    /// How many [`catch`]es this thread is inside of.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The last panic that the hook saw on this thread inside a [`catch`].
    static LAST: Cell<Option<Panic>> = const { Cell::new(None) };
}

const NO_TEXT: &str = "the panic carried a value that is no text";

/// Puts a panic hook before the present one: panics inside [`catch`] are recorded in silence, all
/// others go on to the hook that was there. The second call does nothing.
///
/// A hook that the program sets later replaces this one; then panics are still caught, but are printed
/// and have no place.
pub fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
                return previous(info);
            }
            let seen = Panic::seen(info);
            // A second panic while the first unwinds: the process aborts right after this, so nobody
            // will read the record.
            if seen.message.starts_with("panic in a ") {
                if let Some(first) = LAST.take() {
                    eprintln!("a task panicked at {}: {}", first.place, first.message);
                }
                previous(info);
            }
            let _ = LAST.try_with(|last| last.set(Some(seen)));
        }));
    });
}

/// Runs `f`; a panic in it becomes an `Err`.
///
/// A program compiled with `panic = "abort"` dies instead. The caller answers for what `f` leaves
/// behind half done.
#[inline]
pub fn catch<R>(f: impl FnOnce() -> R) -> Result<R, Panic> {
    DEPTH.set(DEPTH.get() + 1);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(Panic::caught)
}

impl Panic {
    fn seen(info: &PanicHookInfo<'_>) -> Self {
        Panic {
            message: info.payload_as_str().unwrap_or(NO_TEXT).to_string(),
            place: info.location().map_or_else(|| "unknown".to_string(), ToString::to_string),
        }
    }

    #[cold]
    #[inline(never)]
    fn caught(payload: Box<dyn Any + Send>) -> Self {
        let text = match payload.downcast_ref::<&str>() {
            Some(text) => text,
            None => payload.downcast_ref::<String>().map_or(NO_TEXT, String::as_str),
        };
        // The record is of another panic if this one was raised by `resume_unwind`, or if the task
        // caught one itself.
        let panic = match LAST.take() {
            Some(seen) if seen.message == text => seen,
            _ => Panic { message: text.to_string(), place: "unknown".to_string() },
        };
        // The payload may be any type, whose drop may panic in turn; one leaks rather than go on so.
        if let Err(next) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(next);
        }
        panic
    }
}
