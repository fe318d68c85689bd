//! Names of functions, looked up once.

use crate::error::Result;
use crate::task::{Func, registry};

/// The name of a function that workers know. Making one costs a look-up, using it nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    pub(super) hash: u64,
    pub(super) text: &'static str,
}

impl Name {
    /// A name of 1 to 63 bytes. It is kept for the life of the program.
    pub fn new(name: &str) -> Result<Self> {
        registry::check_name(name)?;
        Ok(Name { hash: registry::name_hash(name), text: registry::intern(name) })
    }

    /// How a worker finds the function.
    pub(crate) fn func(self) -> Func {
        Func::Name(self.hash)
    }

    /// The name.
    pub fn as_str(&self) -> &'static str {
        self.text
    }
}
