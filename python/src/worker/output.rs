//! What came of a call, as bytes.

use crate::codec::{Encoder, FORWARD, RAISED, RawBuffer, Store};
use crate::memory::find_claimed;
use crate::pickle::Pickle;
use engine::raw::{Failure, Output};
use pyo3::prelude::*;
use std::sync::Arc;

/// Parts of a result that lie beside it are aligned to so many bytes.
pub(super) const ALIGN: usize = 64;

/// Large parts of a result, which are to lie behind it.
#[derive(Default)]
pub(super) struct Behind {
    pub parts: Vec<(RawBuffer, usize)>,
}

impl Store for Behind {
    fn put(&mut self, _: &Bound<'_, PyAny>, buffer: RawBuffer, out: &mut Vec<u8>) -> PyResult<()> {
        let len = buffer.bytes().len() as u64;
        self.parts.push((buffer, out.len()));
        out.extend_from_slice(&[0; 8]); // known at the end
        out.extend_from_slice(&len.to_ne_bytes());
        Ok(())
    }

    fn truncate(&mut self, count: usize) {
        self.parts.truncate(count);
    }

    fn count(&self) -> usize {
        self.parts.len()
    }
}

/// A result whose largest part was made in the worker's memory for results, if nobody else refers to that any more:
/// then this is it, and the rest is written around it.
pub(super) fn adopt(
    bytes: &mut [u8],
    behind: &mut Behind,
    output: &mut Output<'_, '_>,
) -> Option<Result<(), Failure>> {
    if behind.parts.len() != 1 {
        return None;
    }
    let (memory, within) = find_claimed(behind.parts[0].0.bytes())?;
    let (buffer, at) = behind.parts.pop()?;
    let len = buffer.bytes().len();
    drop(buffer);
    let mut memory = match Arc::try_unwrap(memory) {
        Ok(memory) => memory,
        // The program keeps it. It is as good as any other.
        Err(memory) => {
            let start = memory.as_ptr().as_ptr().wrapping_add(within);
            // SAFETY: inside of the memory, which is held; the program does nothing meanwhile.
            let part = unsafe { std::slice::from_raw_parts(start, len) };
            return Some(write_with(bytes, at, part, output));
        }
    };
    let head = (within + len).next_multiple_of(8);
    let room = memory.bytes_mut()?;
    if head + bytes.len() > room.len() {
        let part = room[within..within + len].to_vec();
        return Some(write_with(bytes, at, &part, output));
    }
    bytes[at..at + 8].copy_from_slice(&(within as u64).to_ne_bytes());
    room[head..head + bytes.len()].copy_from_slice(bytes);
    room[0] = FORWARD;
    room[1..9].copy_from_slice(&(head as u64).to_ne_bytes());
    Some(output.adopt(memory, head + bytes.len()))
}

/// A result with one part behind it.
pub(super) fn write_with(
    bytes: &mut [u8],
    at: usize,
    part: &[u8],
    output: &mut Output<'_, '_>,
) -> Result<(), Failure> {
    let start = bytes.len().next_multiple_of(ALIGN);
    bytes[at..at + 8].copy_from_slice(&(start as u64).to_ne_bytes());
    let room = output.reserve(start + part.len())?;
    room[..bytes.len()].copy_from_slice(bytes);
    room[start..].copy_from_slice(part);
    output.commit(start + part.len())
}

pub(super) fn write(
    bytes: &mut [u8],
    behind: &mut Behind,
    output: &mut Output<'_, '_>,
) -> Result<(), Failure> {
    if let Some(adopted) = adopt(bytes, behind, output) {
        return adopted;
    }
    let mut end = bytes.len();
    for (buffer, at) in &behind.parts {
        let start = end.next_multiple_of(ALIGN);
        bytes[*at..*at + 8].copy_from_slice(&(start as u64).to_ne_bytes());
        end = start + buffer.bytes().len();
    }
    let room = output.reserve(end)?;
    room[..bytes.len()].copy_from_slice(bytes);
    let mut end = bytes.len();
    for (buffer, _) in &behind.parts {
        let start = end.next_multiple_of(ALIGN);
        end = start + buffer.bytes().len();
        room[start..end].copy_from_slice(buffer.bytes());
    }
    output.commit(end)
}

/// Appends what came of a call.
#[inline]
pub(super) fn say(
    py: Python<'_>,
    pickle: &Pickle,
    result: PyResult<Bound<'_, PyAny>>,
    out: &mut Vec<u8>,
    behind: &mut Behind,
) -> PyResult<()> {
    let value = match result {
        Ok(value) => value,
        Err(error) => return raised(py, pickle, &error, out, behind),
    };
    let Err(error) = (Encoder { pickle, out, store: behind }).value(&value) else { return Ok(()) };
    out.clear();
    behind.truncate(0);
    let described = pickle.encoding_error(py, &error, &value)?;
    drop(value);
    raise(pickle, &described, out, behind)
}

pub(super) fn raise(
    pickle: &Pickle,
    described: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    behind: &mut Behind,
) -> PyResult<()> {
    out.push(RAISED);
    let mut encoder = Encoder { pickle, out, store: behind };
    match described.getattr("tb") {
        Ok(traceback) => encoder.value(&traceback)?,
        Err(_) => encoder.value(described.str()?.as_any())?, // an exception of the pool's own, without any
    }
    encoder.pickled(described)
}

/// Appends an exception.
#[cold]
pub(super) fn raised(
    py: Python<'_>,
    pickle: &Pickle,
    error: &PyErr,
    out: &mut Vec<u8>,
    behind: &mut Behind,
) -> PyResult<()> {
    let described = pickle.describe(py, error)?;
    let Err(why) = raise(pickle, &described, out, behind) else { return Ok(()) };
    out.clear();
    behind.truncate(0);
    let described = pickle.encoding_error(py, &why, error.value(py).as_any())?;
    raise(pickle, &described, out, behind)
}
