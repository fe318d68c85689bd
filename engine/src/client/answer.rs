//! What a slot's answer says, and where the bytes of the result are.

use super::result_bytes::{ResultBlock, Short, Tiny};
use super::{Books, Client, Outcome, ResultBytes};
use crate::arena::{Adoption, BlockHandle, Class, EXTENT, WORDS_PER_EXTENT};
use crate::error::{Error, Result};
use crate::recovery::{CLIENT, block_word, named_block};
use crate::slot::{Answer, Check, Place, Slot, Word};
use crate::sync::Ordering;
use crate::task::Status;

/// Results larger than this are looked at closely before they are copied.
const LARGE: u64 = 1 << 20;

impl Client {
    /// The outcome of a `Done` slot. Adopts its block before the slot is recycled.
    pub(super) fn answer(
        &self,
        state: &mut Books,
        slot: &Slot,
        number: u32,
        word: Word,
        guest: bool,
    ) -> Result<Outcome> {
        let raw = slot.answer.load(Ordering::Relaxed);
        let Some(answer) = Answer::unpack(raw) else {
            return Err(Error::corrupted(format!("slot {number} has the answer word {raw:#x}")));
        };
        let check = self.checked.map(|pool| Check::begin(pool, number, word.generation()));
        let bytes = match answer.place {
            Place::Tiny => ResultBytes::Tiny(Tiny {
                word: slot.tiny.load(Ordering::Relaxed),
                len: answer.short_len as u8,
            }),
            Place::Inline => {
                ResultBytes::Short { bytes: Short(slot.inline.copy()), len: answer.short_len as u8 }
            }
            Place::Block | Place::NearBlock => {
                let len = match answer.place {
                    Place::NearBlock => answer.short_len as u64,
                    _ => slot.len.load(Ordering::Relaxed),
                };
                self.block(state, slot, word, Some(len), guest, check.map(|check| (check, raw)))?
            }
        };
        if let (Some(check), ResultBytes::Tiny(_) | ResultBytes::Short { .. }) = (check, &bytes)
            && slot.len.load(Ordering::Relaxed) != check.of_short(raw, bytes.as_slice())
        {
            return Err(Error::corrupted(format!("the result in slot {number} was written over")));
        }
        Ok(Outcome::Answer { status: answer.status, bytes })
    }

    /// The block that a terminal slot names, adopted (T11); all of it, or its first `len` bytes.
    ///
    /// With a check, and the answer word that it covers, nothing is done about a block whose description
    /// does not pass, and only bytes are given out that pass.
    pub(super) fn block(
        &self,
        state: &mut Books,
        slot: &Slot,
        word: Word,
        len: Option<u64>,
        guest: bool,
        check: Option<(Check, u32)>,
    ) -> Result<ResultBytes> {
        let mut digest = None;
        if let (Some((check, answer)), Some(len)) = (check, len) {
            let [stored, ..] = *slot.inline.copy().as_chunks::<8>().0 else { return Err(wrong("digest")) };
            let stored = u64::from_ne_bytes(stored);
            let handle = slot.handle.load(Ordering::Relaxed);
            let is_chunk = Answer::unpack(answer).is_some_and(|a| a.status == Status::Chunk as u32);
            let done = if is_chunk { slot.done.load(Ordering::Relaxed) } else { 0 };
            if slot.tiny.load(Ordering::Relaxed) != check.of_block(answer, handle, len, stored, done) {
                return Err(wrong("description was written over"));
            }
            digest = Some((check, stored));
        }
        let found = self.adopt(slot, word, len)?;
        let (held, keep) = self.hold(state, &found);
        if !guest && self.checked.is_none() && keep {
            let (start, len) = self.lying(&found)?;
            return Ok(ResultBytes::Block { held, start, len });
        }
        // A length that somebody made up must not fill our memory with a copy of nothing. And of a
        // large block that is asked for as a whole, the end may never have been used.
        let (owner, offset) = (found.handle.owner, found.offset);
        let mut copied = found.len;
        if copied > LARGE {
            copied = self.segment.written(owner, offset, copied);
            if len.is_some_and(|asked| asked > copied) {
                return Err(wrong("block was never written"));
            }
        }
        let copy = self.segment.copy_payload(owner, offset, copied);
        let copy = copy.ok_or_else(|| wrong("block ends outside its region"))?;
        drop(held);
        if digest.is_some_and(|(check, stored)| check.bytes(&copy).end() != stored) {
            return Err(wrong("bytes were written over"));
        }
        Ok(ResultBytes::Copied(copy))
    }

    /// The value in a block of this process's program, as an outcome: put together where it stays.
    #[inline]
    pub(super) fn near(&self, state: &mut Books, found: Found) -> Result<Box<Outcome>> {
        let (held, keep) = self.hold(state, &found);
        if !keep {
            let copy = self.segment.copy_payload(found.handle.owner, found.offset, found.len);
            let bytes = ResultBytes::Copied(copy.ok_or_else(|| wrong("block ends outside its region"))?);
            return Ok(Box::new(Outcome::Answer { status: Status::Value as u32, bytes }));
        }
        let (start, len) = self.lying(&found)?;
        let bytes = ResultBytes::Block { held, start, len };
        Ok(Box::new(Outcome::Answer { status: Status::Value as u32, bytes }))
    }

    /// Notes an adopted block; whether it may be kept.
    #[inline]
    fn hold(&self, state: &mut Books, found: &Found) -> (ResultBlock, bool) {
        let keep = state.held[found.handle.owner as usize].take(&self.holdings, found.handle, found.extents);
        (ResultBlock::new(self.holdings.clone(), found.handle), keep)
    }

    /// Where the bytes are that were found, and how many.
    #[inline]
    fn lying(&self, found: &Found) -> Result<(*const u8, usize)> {
        // SAFETY: we hold the block from here on; what holds it is kept as long as the bytes are used.
        let bytes = unsafe { self.segment.payload(found.handle.owner, found.offset, found.len) };
        let bytes = bytes.ok_or_else(|| wrong("block ends outside its region"))?;
        Ok((bytes.as_ptr(), bytes.len()))
    }

    /// Adopts the block that a terminal slot names (T11): all of it, or its first `len` bytes.
    #[inline(always)]
    pub(super) fn adopt(&self, slot: &Slot, word: Word, len: Option<u64>) -> Result<Found> {
        let handle = named_block(slot, word).ok_or_else(|| wrong("block is not named"))?;
        if handle.owner != word.owner().index {
            return Err(wrong("block is in the region of a process that did not run the task"));
        }
        let block = block_word(&self.segment, handle).ok_or_else(|| wrong("block number is out of range"))?;
        block.prefetch();
        let extent = handle.block as usize / WORDS_PER_EXTENT;
        let within = handle.block as usize % WORDS_PER_EXTENT;
        let class = self.segment.classes(handle.owner)[extent].load(Ordering::Acquire);
        let class = Class::unpack(class).ok_or_else(|| wrong("block has no class"))?;
        if within >= class.blocks() {
            return Err(wrong("block is not one of its extent"));
        }
        let capacity = class.block_bytes() as u64;
        let len = len.unwrap_or(capacity);
        if len > capacity {
            return Err(wrong("length exceeds its block"));
        }
        let offset = (extent * EXTENT + within * class.block_bytes()) as u64;
        self.segment.prefetch_payload(handle.owner, offset, len); // while the block's word is on its way
        if block.adopt(word.owner(), CLIENT, handle.generation) == Adoption::Refused {
            return Err(wrong("block is not held by its worker"));
        }
        let extents = if let Class::Run(extents) = class { extents } else { 1 };
        Ok(Found { handle, offset, len, extents })
    }
}

/// A block that the client has adopted, and how many bytes at its beginning are the result.
pub(super) struct Found {
    handle: BlockHandle,
    offset: u64,
    len: u64,
    /// That the block takes up.
    extents: usize,
}

#[cold]
fn wrong(what: &str) -> Error {
    Error::corrupted(format!("the result's {what}"))
}
