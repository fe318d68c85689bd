//! Functions of up to eight parameters, each owned or viewed.

use rkyv::Archive;
use rkyv::tuple::{
    ArchivedTuple1, ArchivedTuple2, ArchivedTuple3, ArchivedTuple4, ArchivedTuple5, ArchivedTuple6,
    ArchivedTuple7, ArchivedTuple8,
};

use crate::error::Result;
use crate::payload::{Payload, flat_bytes, take_archived};
use std::mem::offset_of;

/// The arguments of a call: a tuple of up to eight payloads.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no tuple of arguments",
    note = "arguments are a tuple of up to eight payloads; a single one is `(value,)`"
)]
pub trait Arguments: Payload {
    /// What `map` iterates over: the argument itself if there is only one, else the tuple.
    type Item: Payload;

    /// Writes the archive to `out`, which is zero, if it is a copy of the arguments and fits: how long it is.
    #[doc(hidden)]
    fn copy_to(&self, out: &mut [u8; 32]) -> Option<usize>;
}

/// A function that can be called with the archive of `Args`. `Views` is inferred and says for each
/// parameter whether it is [`Owned`] or a [`View`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called with the arguments `{Args}`",
    label = "not a function of these arguments",
    note = "for each argument of type `A` the function takes an `A`, or a view `&rkyv::Archived<A>` of it; \
            closures need the types of their parameters written out",
    note = "with more than four parameters, either all are owned or all are views"
)]
pub trait Invoke<Args: Arguments, Views>: Copy + Send + Sync + 'static {
    /// What the function returns.
    type Return;

    /// Calls it. Owned parameters are copied out of the archive, views point into it.
    fn invoke(&self, args: &Args::Archived) -> Result<Self::Return>;

    /// Calls it for one item of a `map`.
    fn invoke_item(&self, item: &<Args::Item as Archive>::Archived) -> Result<Self::Return>;
}

/// The function takes an argument of type `A` as `A`.
pub enum Owned {}
/// The function takes an argument of type `A` as `&A::Archived`, which points into shared memory.
pub enum View {}

impl Arguments for () {
    type Item = ();

    #[inline]
    fn copy_to(&self, _: &mut [u8; 32]) -> Option<usize> {
        Some(0)
    }
}

impl<F, R> Invoke<(), ()> for F
where
    F: Fn() -> R + Copy + Send + Sync + 'static,
{
    type Return = R;

    #[inline]
    fn invoke(&self, (): &()) -> Result<R> {
        Ok(self())
    }

    #[inline]
    fn invoke_item(&self, (): &()) -> Result<R> {
        Ok(self())
    }
}

impl<A: Payload> Arguments for (A,) {
    type Item = A;

    #[inline]
    fn copy_to(&self, out: &mut [u8; 32]) -> Option<usize> {
        copy_field(&self.0, offset_of!(ArchivedTuple1<A::Archived>, 0), out)?;
        Some(size_of::<ArchivedTuple1<A::Archived>>())
    }
}

/// Copies one argument to its place in the archive.
#[inline]
fn copy_field<A: Payload>(argument: &A, at: usize, out: &mut [u8; 32]) -> Option<()> {
    let bytes = flat_bytes(argument)?;
    out.get_mut(at..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(())
}

impl<F, R, A: Payload> Invoke<(A,), (Owned,)> for F
where
    F: Fn(A) -> R + Copy + Send + Sync + 'static,
{
    type Return = R;

    #[inline]
    fn invoke(&self, ArchivedTuple1(a): &ArchivedTuple1<A::Archived>) -> Result<R> {
        Ok(self(take_archived(a)?))
    }

    #[inline]
    fn invoke_item(&self, a: &A::Archived) -> Result<R> {
        Ok(self(take_archived(a)?))
    }
}

impl<F, R, A: Payload> Invoke<(A,), (View,)> for F
where
    F: for<'a> Fn(&'a A::Archived) -> R + Copy + Send + Sync + 'static,
{
    type Return = R;

    #[inline]
    fn invoke(&self, ArchivedTuple1(a): &ArchivedTuple1<A::Archived>) -> Result<R> {
        Ok(self(a))
    }

    #[inline]
    fn invoke_item(&self, a: &A::Archived) -> Result<R> {
        Ok(self(a))
    }
}

macro_rules! parameter {
    (Owned $A:ident) => { $A };
    (View $A:ident) => { &'a $A::Archived };
}

macro_rules! argument {
    (Owned $a:ident) => {
        take_archived($a)?
    };
    (View $a:ident) => {
        $a
    };
}

macro_rules! invoke {
    ($Archived:ident $(($mode:ident $A:ident $a:ident))*) => {
        impl<F, R, $($A: Payload),*> Invoke<($($A,)*), ($($mode,)*)> for F
        where
            F: for<'a> Fn($(parameter!($mode $A)),*) -> R + Copy + Send + Sync + 'static,
        {
            type Return = R;

            #[inline]
            fn invoke(&self, $Archived($($a),*): &$Archived<$($A::Archived),*>) -> Result<R> {
                Ok(self($(argument!($mode $a)),*))
            }

            #[inline]
            fn invoke_item(&self, args: &$Archived<$($A::Archived),*>) -> Result<R> {
                Invoke::<($($A,)*), ($($mode,)*)>::invoke(self, args)
            }
        }
    };
}

/// Every way to choose owned or view for each parameter.
macro_rules! mixed {
    ($Archived:ident [$($chosen:tt)*]) => {
        invoke! { $Archived $($chosen)* }
    };
    ($Archived:ident [$($chosen:tt)*] ($A:ident $a:ident) $($rest:tt)*) => {
        mixed! { $Archived [$($chosen)* (Owned $A $a)] $($rest)* }
        mixed! { $Archived [$($chosen)* (View $A $a)] $($rest)* }
    };
}

macro_rules! uniform {
    ($Archived:ident $(($A:ident $a:ident))*) => {
        invoke! { $Archived $((Owned $A $a))* }
        invoke! { $Archived $((View $A $a))* }
    };
}

macro_rules! arguments {
    ($(($A:ident $at:tt))*) => {
        impl<$($A: Payload),*> Arguments for ($($A,)*) {
            type Item = Self;

            #[inline]
            fn copy_to(&self, out: &mut [u8; 32]) -> Option<usize> {
                let len = size_of::<<Self as Archive>::Archived>();
                if len > out.len() {
                    return None;
                }
                $(copy_field(&self.$at, offset_of!(<Self as Archive>::Archived, $at), out)?;)*
                Some(len)
            }
        }
    };
}

arguments! { (A 0) (B 1) }
arguments! { (A 0) (B 1) (C 2) }
arguments! { (A 0) (B 1) (C 2) (D 3) }
arguments! { (A 0) (B 1) (C 2) (D 3) (E 4) }
arguments! { (A 0) (B 1) (C 2) (D 3) (E 4) (G 5) }
arguments! { (A 0) (B 1) (C 2) (D 3) (E 4) (G 5) (H 6) }
arguments! { (A 0) (B 1) (C 2) (D 3) (E 4) (G 5) (H 6) (I 7) }

mixed! { ArchivedTuple2 [] (A a) (B b) }
mixed! { ArchivedTuple3 [] (A a) (B b) (C c) }
mixed! { ArchivedTuple4 [] (A a) (B b) (C c) (D d) }
uniform! { ArchivedTuple5 (A a) (B b) (C c) (D d) (E e) }
uniform! { ArchivedTuple6 (A a) (B b) (C c) (D d) (E e) (G g) }
uniform! { ArchivedTuple7 (A a) (B b) (C c) (D d) (E e) (G g) (H h) }
uniform! { ArchivedTuple8 (A a) (B b) (C c) (D d) (E e) (G g) (H h) (I i) }
