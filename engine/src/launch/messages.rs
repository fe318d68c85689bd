//! What the pool's process, templates and workers say to each other over their channels.
//!
//! One message is one packet: a letter, then numbers in native order (both ends are one machine).

use crate::error::Exit;

/// To a template or a freshly run program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToChild {
    /// You are a template. With control and payload memory.
    BeTemplate,
    /// Remove this pool's name card if the pool's process dies.
    GuardName { nonce: u64, name: String },
    /// The pool has no place left for you.
    NoPlace,
    /// You are (or: fork) the worker of this place. With control and payload memory if it is for the
    /// process itself, with the worker's end of its channel if it is for a template.
    Worker { index: u32, incarnation: u32 },
}

/// From a template.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromTemplate {
    /// Forked; the process's pidfd comes along.
    Forked { index: u32, incarnation: u32, pid: u32 },
    /// Could not fork; the error number.
    Failed { index: u32, incarnation: u32, errno: i32 },
    /// A worker ended.
    Ended { pid: u32, exit: Exit },
}

/// From a worker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FromWorker {
    /// Attached and initialized.
    Ready,
    /// The initializer failed.
    InitializerFailed(String),
    /// It could not attach.
    Refused(String),
    /// It is leaving because it has done its share, or the pool has ended.
    Leaving,
}

/// Longest text in a message; longer ones are cut.
pub(crate) const MAX_TEXT: usize = 16 << 10;

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn packet(letter: u8, numbers: &[u32]) -> Vec<u8> {
    let mut bytes = vec![letter];
    bytes.extend(numbers.iter().flat_map(|n| n.to_ne_bytes()));
    bytes
}

impl ToChild {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self {
            ToChild::BeTemplate => packet(b'T', &[]),
            ToChild::NoPlace => packet(b'O', &[]),
            ToChild::GuardName { nonce, name } => {
                let mut bytes = packet(b'G', &[*nonce as u32, (*nonce >> 32) as u32]);
                bytes.extend(name.bytes());
                bytes
            }
            ToChild::Worker { index, incarnation } => packet(b'W', &[*index, *incarnation]),
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(match bytes.first()? {
            b'T' => ToChild::BeTemplate,
            b'O' => ToChild::NoPlace,
            b'G' => ToChild::GuardName {
                nonce: u64::from(number(bytes, 1)?) | u64::from(number(bytes, 5)?) << 32,
                name: String::from_utf8(bytes.get(9..)?.to_vec()).ok()?,
            },
            b'W' => ToChild::Worker { index: number(bytes, 1)?, incarnation: number(bytes, 5)? },
            _ => return None,
        })
    }
}

impl FromTemplate {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match *self {
            FromTemplate::Forked { index, incarnation, pid } => packet(b'F', &[index, incarnation, pid]),
            FromTemplate::Failed { index, incarnation, errno } => {
                packet(b'E', &[index, incarnation, errno as u32])
            }
            FromTemplate::Ended { pid, exit } => {
                let (kind, value) = match exit {
                    Exit::Code(code) => (0, code as u32),
                    Exit::Signal(signal) => (1, signal as u32),
                    Exit::Unknown => (2, 0),
                };
                packet(b'X', &[pid, kind, value])
            }
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(match bytes.first()? {
            b'F' => FromTemplate::Forked {
                index: number(bytes, 1)?,
                incarnation: number(bytes, 5)?,
                pid: number(bytes, 9)?,
            },
            b'E' => FromTemplate::Failed {
                index: number(bytes, 1)?,
                incarnation: number(bytes, 5)?,
                errno: number(bytes, 9)? as i32,
            },
            b'X' => {
                let value = number(bytes, 9)? as i32;
                let exit = match number(bytes, 5)? {
                    0 => Exit::Code(value),
                    1 => Exit::Signal(value),
                    _ => Exit::Unknown,
                };
                FromTemplate::Ended { pid: number(bytes, 1)?, exit }
            }
            _ => return None,
        })
    }
}

impl FromWorker {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let with_text = |letter: u8, text: &str| {
            let mut bytes = vec![letter];
            bytes.extend(text.bytes().take(MAX_TEXT));
            bytes
        };
        match self {
            FromWorker::Ready => packet(b'R', &[]),
            FromWorker::Leaving => packet(b'L', &[]),
            FromWorker::InitializerFailed(text) => with_text(b'I', text),
            FromWorker::Refused(text) => with_text(b'N', text),
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let text = || String::from_utf8_lossy(&bytes[1..]).into_owned();
        Some(match bytes.first()? {
            b'R' => FromWorker::Ready,
            b'L' => FromWorker::Leaving,
            b'I' => FromWorker::InitializerFailed(text()),
            b'N' => FromWorker::Refused(text()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let guard = ToChild::GuardName { nonce: 1 << 40 | 7, name: "x".into() };
        for message in
            [guard, ToChild::NoPlace, ToChild::BeTemplate, ToChild::Worker { index: 3, incarnation: 70_000 }]
        {
            assert_eq!(ToChild::from_bytes(&message.to_bytes()), Some(message));
        }
        for message in [
            FromTemplate::Forked { index: 3, incarnation: 9, pid: 12 },
            FromTemplate::Failed { index: 3, incarnation: 9, errno: 11 },
            FromTemplate::Ended { pid: 1, exit: Exit::Signal(9) },
            FromTemplate::Ended { pid: 1, exit: Exit::Code(-1) },
        ] {
            assert_eq!(FromTemplate::from_bytes(&message.to_bytes()), Some(message));
        }
        for message in [FromWorker::Ready, FromWorker::Leaving, FromWorker::Refused("why".into())] {
            assert_eq!(FromWorker::from_bytes(&message.to_bytes()), Some(message));
        }
        assert_eq!(FromWorker::from_bytes(b""), None);
        assert_eq!(ToChild::from_bytes(b"W123"), None);
    }
}
