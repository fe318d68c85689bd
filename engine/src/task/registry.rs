//! Functions by name, for programs that are not the same file.

use std::any::{TypeId, type_name};
use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError, RwLock};

use super::{Arguments, Call, Entry, Func, Return, Task};
use crate::error::{Error, Result};
use crate::payload::Payload;
use crate::raw::Function;

/// The longest name, in bytes.
pub const NAME_MAX: usize = 63;

struct Registered {
    name: String,
    identity: Identity,
    code: Code,
    signature: String,
}

/// Which function it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// The type of a function of Rust; addresses of code are neither unique nor the only ones.
    Type(TypeId),
    /// What the [registrant](Function::identity) says; `None` is like no other.
    Said(Option<[usize; 4]>),
}

/// A function that a worker can call.
#[derive(Clone, Copy)]
pub enum Code {
    /// One that knows the types of its arguments.
    Typed(Entry),
    /// One over [bytes](crate::raw).
    Raw(&'static Function),
}

impl Code {
    /// Calls it. It never unwinds.
    #[inline]
    pub(crate) fn call(self, call: &mut Call<'_>) -> Return {
        match self {
            Code::Typed(entry) => entry(call),
            Code::Raw(function) => function.call(call),
        }
    }
}

/// The signature of functions over bytes, which goes with all others.
const BYTES: &str = "bytes";
/// [`name_hash`] of the signature of functions over bytes.
pub const BYTES_HASH: u64 = name_hash(BYTES);

/// By the hash of the name.
static TABLE: RwLock<BTreeMap<u64, Registered>> = RwLock::new(BTreeMap::new());

/// One registered function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredView {
    /// Its name.
    pub name: String,
    /// [`name_hash`] of the name.
    pub name_hash: u64,
    /// [`name_hash`] of the signature.
    pub signature_hash: u64,
    /// The types of its arguments and its value, as in `fn(u64, alloc::string::String) -> f64`.
    pub signature: String,
}

/// FNV-1a, 64 bits of which the highest is cleared: the same in every program and for all time. The
/// spare bit tells names from addresses where a function is one word.
pub const fn name_hash(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash & (u64::MAX >> 1)
}

/// The signature of a function with these arguments and this value.
///
/// Made of the compiler's names for types: good to tell mistakes, but another version of the compiler
/// may write them otherwise.
pub fn signature_of<Args: Payload, V: Payload>() -> String {
    format!("fn{} -> {}", type_name::<Args>(), type_name::<V>())
}

/// Makes `f` known in this process as `name`, for other programs that use the same pool.
///
/// Registering the same function again changes nothing; another function under the same name is an
/// error, and so is a name that is empty or longer than 63 bytes.
pub fn register<Args, M, F>(name: &str, f: F) -> Result<()>
where
    Args: Payload,
    F: Task<Args, M>,
{
    check_name(name)?;
    let Func::Code(entry) = f.func() else {
        return Err(Error::invalid(format!("{name:?} would only be another name for {:?}", f.name())));
    };
    let (identity, signature) = (Identity::Type(TypeId::of::<F>()), signature_of::<Args, F::Value>());
    enter(name, identity, signature, || Code::Typed(entry))
}

/// [`register`] of a function over bytes.
pub(crate) fn register_raw(name: &str, function: Function) -> Result<()> {
    check_name(name)?;
    let identity = Identity::Said(function.said_identity());
    // For the life of the program, as all code that is known by a name.
    enter(name, identity, BYTES.to_owned(), || Code::Raw(Box::leak(Box::new(function))))
}

/// Whether a name can be one.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Error::invalid(format!(
            "a function's name has 1 to {NAME_MAX} bytes, and {name:?} has {}",
            name.len()
        )));
    }
    Ok(())
}

fn enter(name: &str, identity: Identity, signature: String, code: impl FnOnce() -> Code) -> Result<()> {
    let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
    match table.entry(name_hash(name)) {
        Place::Vacant(place) => {
            place.insert(Registered { name: name.to_string(), identity, code: code(), signature });
            Ok(())
        }
        Place::Occupied(place) => {
            let old = place.get();
            let other = old.identity != identity || identity == Identity::Said(None);
            if old.name != name {
                Err(Error::invalid(format!("{name:?} and {:?} have the same hash: rename one", old.name)))
            } else if other || old.signature != signature {
                Err(Error::invalid(format!(
                    "{name:?} is already the name of another function, {}",
                    old.signature
                )))
            } else {
                Ok(())
            }
        }
    }
}

/// The function whose name has this hash.
pub fn lookup(hash: u64) -> Option<Code> {
    TABLE.read().unwrap_or_else(PoisonError::into_inner).get(&hash).map(|registered| registered.code)
}

/// All registered functions, in the order of their hashes.
pub fn list() -> Vec<RegisteredView> {
    let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
    let view = |(&name_hash, registered): (&u64, &Registered)| RegisteredView {
        name: registered.name.clone(),
        name_hash,
        signature_hash: self::name_hash(&registered.signature),
        signature: registered.signature.clone(),
    };
    table.iter().map(view).collect()
}

/// Marks tasks that are known by name only.
pub enum ByName {}

/// A function that another program registered under a name; see [`named`].
pub struct Named<Args, V> {
    hash: u64,
    name: &'static str,
    types: PhantomData<fn(Args) -> V>,
}

/// The task that the workers' program [registered](register) as `name`.
///
/// The caller says which arguments it takes and what it gives. Nothing checks that here; a worker that
/// gets bytes of other types refuses them, or, if they happen to be valid, misunderstands them.
///
/// ```no_run
/// # fn main() -> ringpool::Result<()> {
/// # let pool = ringpool::Pool::new(1)?;
/// let resize = ringpool::named::<(Vec<u8>, u32), Vec<u8>>("resize");
/// let small = pool.apply(resize, (vec![1, 2, 3], 2))?;
/// # Ok(()) }
/// ```
pub fn named<Args, V>(name: &str) -> Named<Args, V> {
    Named { hash: name_hash(name), name: intern(name), types: PhantomData }
}

/// One copy of each name for the life of the program, so that tasks stay plain values.
pub(crate) fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let known: &'static str = Box::leak(name.into());
    names.insert(known);
    known
}

impl<Args, V> Named<Args, V> {
    /// The name.
    pub fn as_str(&self) -> &'static str {
        self.name
    }
}

impl<Args, V> Clone for Named<Args, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Args, V> Copy for Named<Args, V> {}

impl<Args, V> fmt::Debug for Named<Args, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Named").field(&self.as_str()).finish()
    }
}

impl<Args: Arguments, V: Payload> Task<Args, ByName> for Named<Args, V> {
    type Value = V;

    fn func(&self) -> Func {
        Func::Name(self.hash)
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn copy_args(args: &Args, out: &mut [u8; 32]) -> Option<usize> {
        args.copy_to(out)
    }
}
