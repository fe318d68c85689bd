//! What a task may return, and which of it counts as failure.

use std::error::Error;
use std::fmt;

use crate::payload::{Payload, Reply};

/// The error type for tasks that fail for many reasons: every [`std::error::Error`] becomes one by `?`.
///
/// Only its text travels, to be the message of [`ErrorKind::Failed`](crate::ErrorKind::Failed).
///
/// ```
/// use ringpool::TaskError;
///
/// fn parse(text: String) -> Result<u16, TaskError> {
///     let number: u16 = text.trim().parse()?;
///     if number == 0 {
///         return Err(TaskError::msg("zero is no port"));
///     }
///     Ok(number)
/// }
/// assert_eq!(parse("0".into()).unwrap_err().to_string(), "zero is no port");
/// ```
// It is neither an `Error` (so that it can be made from all of them) nor an archive (so that a result
// with it is never taken for a value).
pub struct TaskError(String);

impl TaskError {
    /// An error with this text.
    pub fn msg(message: impl fmt::Display) -> Self {
        TaskError(message.to_string())
    }
}

impl<E: Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        TaskError::msg(error)
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What a task returns. `Marker` is inferred and says which of these it is:
///
/// | the function returns | the caller gets | `Err` is |
/// | --- | --- | --- |
/// | `T`, a [`Payload`] | `T` | |
/// | [`ResultSlice<T>`](crate::ResultSlice), also inside of the following | `Vec<T>` | |
/// | `Result<T, TaskError>` | `T` | a task error |
/// | `Result<T, E>` where `E: std::error::Error` | `T` | a task error |
/// | `Result<T, Box<dyn Error>>`, also `+ Send + Sync` | `T` | a task error |
/// | `Result<T, E>` where `E` is a payload, such as `String` | `Result<T, E>` | a value like any other |
///
/// An error type that is a payload *and* an `Error` fits two rows, so the compiler asks for type
/// annotations. Say which is meant with [`fallible`](super::fallible) or [`plain`](super::plain), or
/// return `Result<T, TaskError>`. `fallible` also makes `Err(String)` a task error.
#[diagnostic::on_unimplemented(
    message = "a task cannot return `{Self}`",
    label = "its return value cannot be sent back",
    note = "return a payload (derive `rkyv::Archive`, `rkyv::Serialize`, `rkyv::Deserialize`) or a `Result` \
            of a payload with `TaskError`, an `std::error::Error` or a boxed one"
)]
pub trait Output<Marker> {
    /// What the caller gets.
    type Value: Payload;

    /// What is sent.
    type Reply: Reply<Value = Self::Value>;

    /// The value, or the text of the failure.
    fn into_outcome(returned: Self) -> Result<Self::Reply, String>
    where
        Self: Sized;

    /// The same where it lies.
    #[doc(hidden)]
    fn outcome(returned: &mut Self) -> Result<&mut Self::Reply, String>;
}

/// The whole return value is the result.
pub enum Plain {}
/// A `Result` with [`TaskError`].
pub enum Fallible {}
/// A `Result` with some [`std::error::Error`].
pub enum Typed {}
/// A `Result` with `Box<dyn Error>`.
pub enum Boxed {}
/// A `Result` with `Box<dyn Error + Send + Sync>`.
pub enum BoxedSync {}

#[diagnostic::do_not_recommend]
impl<T: Reply> Output<Plain> for T {
    type Value = T::Value;
    type Reply = T;

    #[inline]
    fn into_outcome(returned: Self) -> Result<T, String> {
        Ok(returned)
    }

    #[inline]
    fn outcome(returned: &mut Self) -> Result<&mut T, String> {
        Ok(returned)
    }
}

impl<T: Reply> Output<Fallible> for Result<T, TaskError> {
    type Value = T::Value;
    type Reply = T;

    #[inline]
    fn into_outcome(returned: Self) -> Result<T, String> {
        returned.map_err(|error| error.0)
    }

    #[inline]
    fn outcome(returned: &mut Self) -> Result<&mut T, String> {
        returned.as_mut().map_err(|error| std::mem::take(&mut error.0))
    }
}

impl<T: Reply, E: Error> Output<Typed> for Result<T, E> {
    type Value = T::Value;
    type Reply = T;

    #[inline]
    fn into_outcome(returned: Self) -> Result<T, String> {
        returned.map_err(|error| error.to_string())
    }

    #[inline]
    fn outcome(returned: &mut Self) -> Result<&mut T, String> {
        returned.as_mut().map_err(|error| error.to_string())
    }
}

impl<T: Reply> Output<Boxed> for Result<T, Box<dyn Error>> {
    type Value = T::Value;
    type Reply = T;

    #[inline]
    fn into_outcome(returned: Self) -> Result<T, String> {
        returned.map_err(|error| error.to_string())
    }

    #[inline]
    fn outcome(returned: &mut Self) -> Result<&mut T, String> {
        returned.as_mut().map_err(|error| error.to_string())
    }
}

impl<T: Reply> Output<BoxedSync> for Result<T, Box<dyn Error + Send + Sync>> {
    type Value = T::Value;
    type Reply = T;

    #[inline]
    fn into_outcome(returned: Self) -> Result<T, String> {
        returned.map_err(|error| error.to_string())
    }

    #[inline]
    fn outcome(returned: &mut Self) -> Result<&mut T, String> {
        returned.as_mut().map_err(|error| error.to_string())
    }
}

/// How [`entry`](super::entry) turns what a function returns into an outcome.
pub(crate) trait Convert<R> {
    type Reply: Reply;

    fn convert(returned: R) -> Result<Self::Reply, String>;

    /// The same where it lies: what has just been put together somewhere is not moved.
    fn look(returned: &mut R) -> Result<&mut Self::Reply, String>;
}

/// As [`Output`] with marker `O` says.
pub(crate) struct Auto<O>(O);

impl<R: Output<O>, O> Convert<R> for Auto<O> {
    type Reply = R::Reply;

    #[inline]
    fn convert(returned: R) -> Result<R::Reply, String> {
        R::into_outcome(returned)
    }

    #[inline]
    fn look(returned: &mut R) -> Result<&mut R::Reply, String> {
        R::outcome(returned)
    }
}

/// `Err` is a task error, whatever it is.
pub(crate) enum ErrFails {}

impl<T: Reply, E: fmt::Display> Convert<Result<T, E>> for ErrFails {
    type Reply = T;

    #[inline]
    fn convert(returned: Result<T, E>) -> Result<T, String> {
        returned.map_err(|error| error.to_string())
    }

    #[inline]
    fn look(returned: &mut Result<T, E>) -> Result<&mut T, String> {
        returned.as_mut().map_err(|error| error.to_string())
    }
}
