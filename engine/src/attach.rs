//! Joining another program's pool as a worker.

use crate::error::{Error, ErrorKind, Result};
use crate::launch::{Manner, ToChild, run_worker};
use crate::name_card;
use crate::segment::{FunctionEntry, Segment};
use crate::sync::Ordering;
use crate::sys::{self, Channel, ProcessHandle, Program, Received};
use crate::task::registry;
use crate::worker::Leave;
use std::sync::Arc;
use std::time::Duration;

/// How long a pool may take to answer the door.
const KNOCK_LIMIT: Duration = Duration::from_secs(5);

/// A seat in another program's pool, taken and not yet used: call [`serve`](Self::serve).
pub struct Attached {
    segment: Arc<Segment>,
    channel: Channel,
    creator: ProcessHandle,
    incarnation: u32,
    same_program: bool,
}

/// Why [`Attached::serve`] returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Served {
    /// The pool was closed or terminated.
    PoolEnded,
    /// This worker has done as many tasks as the pool lets one worker do.
    TaskLimit,
    /// The process that made the pool died.
    CreatorGone,
}

/// Joins the pool that another program started with [`name`](crate::Builder::name), as a worker.
///
/// Both programs must have been built with the same layout version and archive format, and this one
/// must have [registered](crate::register) every function that the pool's program has registered, with
/// the same types; otherwise the pool is not joined, and the error says why. A guest runs only functions
/// that are called by name.
///
/// ```no_run
/// fn shout(text: String) -> String { text.to_uppercase() }
///
/// fn main() -> ringpool::Result<()> {
///     ringpool::register("shout", shout)?;
///     ringpool::attach("my-pool")?.serve()?;
///     Ok(())
/// }
/// ```
pub fn attach(name: &str) -> Result<Attached> {
    let refuse = |message: String| -> Error { ErrorKind::Attach { name: name.to_owned(), message }.into() };
    let card = name_card::find(name)?;
    let creator = ProcessHandle::open(card.pid)?;
    // Between the look at the card and the open the number may have changed hands.
    if !card.is_alive() {
        return Err(refuse("its process is dead".to_owned()));
    }
    let channel = sys::connect(&card.socket(), KNOCK_LIMIT).map_err(|e| refuse(e.to_string()))?;
    let mut buffer = [0; 64];
    let (len, fds) = match channel.recv_timeout(&mut buffer, KNOCK_LIMIT)? {
        Received::Message(len, fds) => (len, fds),
        Received::Closed => return Err(refuse("it closed the connection".to_owned())),
        Received::Nothing => return Err(refuse(format!("it did not answer within {KNOCK_LIMIT:?}"))),
    };
    let (index, incarnation) = match ToChild::from_bytes(&buffer[..len]) {
        Some(ToChild::Worker { index, incarnation }) => (index, incarnation),
        Some(ToChild::NoPlace) => return Err(refuse("all its places for guests are taken".to_owned())),
        _ => return Err(refuse("it answered something unreadable".to_owned())),
    };
    let mut fds = fds.into_iter();
    let (Some(control), Some(data)) = (fds.next(), fds.next()) else {
        return Err(refuse("it did not pass its memory".to_owned()));
    };
    let segment = Segment::attach(control, data, index).map_err(|error| match error.kind() {
        ErrorKind::Attach { message, .. } => refuse(message.clone()),
        _ => error,
    })?;
    let same_program = segment.header().program.load(Ordering::Relaxed) == Program::current().fingerprint();
    compare_functions(&segment).map_err(refuse)?;
    Ok(Attached { segment: Arc::new(segment), channel, creator, incarnation, same_program })
}

/// Every function that the pool knows by name must be known here, with the same types.
pub(crate) fn compare_functions(segment: &Segment) -> Result<(), String> {
    let count = segment.header().functions.load(Ordering::Acquire) as usize;
    let table = segment.functions();
    if count > table.len() {
        return Err(format!("it claims to have {count} functions, which is more than a pool can have"));
    }
    let ours = registry::list();
    for entry in &table[..count] {
        let (name, hash, signature) = entry.read();
        let Some(known) = ours.iter().find(|f| f.name_hash == hash) else {
            return Err(format!("it calls {name:?}, which is not registered here"));
        };
        // Functions over bytes find out for themselves what they are given.
        let bytes = [known.signature_hash, signature].contains(&registry::BYTES_HASH);
        if known.signature_hash != signature && !bytes {
            return Err(format!("its {name:?} has other types than {} here", known.signature));
        }
    }
    Ok(())
}

impl FunctionEntry {
    pub(crate) fn write(&self, name: &str, hash: u64, signature: u64) {
        let mut bytes = [0; 64];
        let len = name.len().min(bytes.len());
        bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
        for (word, chunk) in self.name.iter().zip(bytes.chunks_exact(8)) {
            word.store(u64::from_ne_bytes(chunk.try_into().expect("eight bytes")), Ordering::Relaxed);
        }
        self.name_len.store(len as u64, Ordering::Relaxed);
        self.name_hash.store(hash, Ordering::Relaxed);
        self.signature.store(signature, Ordering::Relaxed);
    }

    fn read(&self) -> (String, u64, u64) {
        let bytes: Vec<u8> =
            self.name.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
        let len = (self.name_len.load(Ordering::Relaxed) as usize).min(bytes.len());
        let name = String::from_utf8_lossy(&bytes[..len]).into_owned();
        (name, self.name_hash.load(Ordering::Relaxed), self.signature.load(Ordering::Relaxed))
    }
}

impl Attached {
    /// Works for the pool on this thread until the pool ends or its process dies.
    ///
    /// If the pool's process dies during a task, the task is finished for nobody and this returns.
    pub fn serve(self) -> Result<Served> {
        let Attached { segment, channel, creator, incarnation, same_program } = self;
        let creator_gone = || creator.is_dead();
        let (reason, _) =
            run_worker(&segment, incarnation, same_program, &channel, Manner::Guest(&creator_gone));
        // In this order: the pool takes the hang-up for a sign that we cannot write its memory any more.
        drop(segment);
        drop(channel);
        Ok(match reason? {
            Leave::PoolEnded => Served::PoolEnded,
            Leave::Quota => Served::TaskLimit,
            Leave::CreatorGone => Served::CreatorGone,
        })
    }
}
