//! Functions as tasks: no macro, no registration.
//!
//! A function item or a closure that captures nothing has no bytes, only a type. So the code that calls
//! it with an archive of its arguments ([`Entry`]) is a plain function whose address can be sent to a
//! process that runs the same program. Programs that differ find functions by [name](register).

mod arity;
mod entry;
mod output;
mod panic;
pub(crate) mod registry;

use std::any::type_name;

pub use self::arity::{Arguments, Invoke};
pub use self::entry::{Call, Entry, Return, Shape, Status};
pub(crate) use self::entry::{describe, failure, failure_text, panic_text, write_text};
pub(crate) use self::output::{Auto, Convert, ErrFails};
pub use self::output::{Output, Plain, TaskError};
pub use self::panic::{Panic, catch, install_hook};
pub use self::registry::{Named, named, register};
use crate::payload::{Payload, Reply};

/// A function that a pool can run with the arguments `Args`.
///
/// Implemented for functions and non-capturing closures of up to eight parameters. For each argument of
/// type `A` the function takes either an `A`, or a view `&rkyv::Archived<A>` that points into shared
/// memory and costs no copy; the compiler cannot tell `A` from the view, so write `9_u64` for a number
/// that is viewed. Up to four parameters may mix both kinds, more must be all of one. What a task may
/// return is said at [`Output`]. `Marker` is always inferred.
///
/// ```no_run
/// use ringpool::rkyv::string::ArchivedString;
///
/// fn head(text: &ArchivedString, length: u32) -> String {
///     text.chars().take(length as usize).collect()
/// }
/// # fn main() -> ringpool::Result<()> {
/// # let pool = ringpool::Pool::new(1)?;
/// let text: String = pool.apply(head, ("some long text".to_string(), 4))?;
/// let next: u64 = pool.apply(|x: u64| x + 1, (5,))?;
/// # Ok(()) }
/// ```
///
/// A task is code alone. What it needs to know are its arguments:
///
/// ```compile_fail
/// # let pool = ringpool::Pool::new(1).unwrap();
/// let step = 2;
/// pool.apply(move |x: u64| x + step, (5,)); // captures `step`
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no task for the arguments `{Args}`",
    label = "cannot be called with these arguments",
    note = "a task is a function or a closure that captures nothing; for each argument of type `A` it takes \
            an `A`, or a view `&rkyv::Archived<A>` of it",
    note = "closures need the types of their parameters written out; arguments are a tuple: `(value,)`"
)]
pub trait Task<Args, Marker>: Copy + Send + Sync + 'static {
    /// What the caller gets.
    type Value: Payload;

    /// How a worker finds the function.
    fn func(&self) -> Func;

    /// What to call it in messages.
    fn name(&self) -> &'static str;

    /// Writes the archive of `args` to `out`, which is zero, if that is a copy and fits: how long it is.
    #[doc(hidden)]
    fn copy_args(args: &Args, out: &mut [u8; 32]) -> Option<usize>;
}

/// How a worker finds a function.
#[derive(Clone, Copy, Debug)]
pub enum Func {
    /// By the address of its entry, in a process that runs the same program.
    Code(Entry),
    /// By the hash of the name under which the worker's program [registered](register) it.
    Name(u64),
}

/// Equal addresses are the same code. The same function may have two addresses, though, if the compiler
/// made its code twice.
impl PartialEq for Func {
    fn eq(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Func::Code(a), Func::Code(b)) => std::ptr::fn_addr_eq(a, b),
            (Func::Name(a), Func::Name(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Func {}

impl<F, Args, V, O> Task<Args, (V, O)> for F
where
    Args: Arguments,
    F: Invoke<Args, V>,
    F::Return: Output<O>,
    V: 'static,
    O: 'static,
{
    type Value = <F::Return as Output<O>>::Value;

    fn func(&self) -> Func {
        Func::Code(entry::code::<F, Args, V, Auto<O>>(self))
    }

    fn name(&self) -> &'static str {
        type_name::<F>()
    }

    #[inline]
    fn copy_args(args: &Args, out: &mut [u8; 32]) -> Option<usize> {
        args.copy_to(out)
    }
}

/// Makes every `Err` that `f` returns a task error, by its `Display` text.
///
/// Only needed for error types that are payloads, such as `String`: without this they come back as part
/// of the value.
///
/// ```no_run
/// use ringpool::fallible;
///
/// fn check(x: i32) -> Result<i32, String> {
///     if x < 0 { Err(format!("{x} is negative")) } else { Ok(x) }
/// }
/// # fn main() -> ringpool::Result<()> {
/// # let pool = ringpool::Pool::new(1)?;
/// let inside: Result<i32, String> = pool.apply(check, (1,))?;
/// let flat: i32 = pool.apply(fallible(check), (1,))?;
/// # Ok(()) }
/// ```
pub fn fallible<F>(f: F) -> FallibleTask<F> {
    FallibleTask(f)
}

/// Sends back whatever `f` returns as a value, a `Result` too. See [`Output`] for when that is needed.
pub fn plain<F>(f: F) -> PlainTask<F> {
    PlainTask(f)
}

/// See [`fallible`].
#[derive(Clone, Copy, Debug)]
pub struct FallibleTask<F>(F);

/// See [`plain`].
#[derive(Clone, Copy, Debug)]
pub struct PlainTask<F>(F);

/// Marks the tasks of [`fallible`] and [`plain`].
pub struct Wrapped<V>(V);

impl<F, Args, V, T, E> Task<Args, Wrapped<V>> for FallibleTask<F>
where
    Args: Arguments,
    F: Invoke<Args, V, Return = Result<T, E>>,
    T: Reply,
    E: std::fmt::Display,
    V: 'static,
{
    type Value = T::Value;

    fn func(&self) -> Func {
        Func::Code(entry::code::<F, Args, V, ErrFails>(&self.0))
    }

    fn name(&self) -> &'static str {
        type_name::<F>()
    }

    #[inline]
    fn copy_args(args: &Args, out: &mut [u8; 32]) -> Option<usize> {
        args.copy_to(out)
    }
}

impl<F, Args, V> Task<Args, Wrapped<V>> for PlainTask<F>
where
    Args: Arguments,
    F: Invoke<Args, V>,
    F::Return: Reply,
    V: 'static,
{
    type Value = <F::Return as Reply>::Value;

    fn func(&self) -> Func {
        Func::Code(entry::code::<F, Args, V, Auto<Plain>>(&self.0))
    }

    fn name(&self) -> &'static str {
        type_name::<F>()
    }

    #[inline]
    fn copy_args(args: &Args, out: &mut [u8; 32]) -> Option<usize> {
        args.copy_to(out)
    }
}
