//! The parts of the protocol by themselves, in one process: for benches, under the feature `parts`.
//!
//! What they cost here is what they cost while their lines stay in one core's cache: the instructions, locked ones
//! among them, without the transfers.

use crate::arena::Region;
use crate::error::Result;
use crate::ring::Hint;
use crate::segment::{LANE_CODE, Segment, Sizes};
use crate::slot::Owner;

const CLIENT: Owner = Owner::new(0, 0);
const WORKER: Owner = Owner::new(1, 0);
/// Bytes of payload memory.
const REGION: u64 = 256 << 20;

/// The memory of a pool without workers.
pub struct Parts {
    segment: Segment,
    region: Region,
    tail: u64,
    read: u32,
    generation: u32,
}

impl Parts {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let segment =
            Segment::create(Sizes { processes: 2, slots: 1024, completions: 1024, region: REGION })?;
        let region = Region::own(CLIENT, REGION);
        Ok(Parts { segment, region, tail: 0, read: 0, generation: 0 })
    }

    /// `count` hints, at most sixteen, into the ready ring, and from there into a window with one claim. Returns how
    /// many were claimed.
    pub fn hints(&mut self, count: u32) -> usize {
        let ring = self.segment.ready(LANE_CODE);
        for slot in 0..count {
            ring.write(self.tail, slot);
            self.tail += 1;
        }
        ring.publish(self.tail);
        ring.claim(|waiting| waiting, self.segment.window(WORKER.index), |slot| Hint::new(0, slot), |_| {})
    }

    /// A slot's word from free to free: submitted (T1), claimed (T2), finished (T3), recycled (T4). Returns whether all
    /// of them took place.
    pub fn slot(&mut self) -> bool {
        let word = self.segment.slot(0).word();
        word.submit(self.generation);
        let done = word.claim(word.load(), WORKER).and_then(|run| word.finish(run));
        self.generation = word.recycle(self.generation);
        done.is_some()
    }

    /// A completion announced and read. Returns the slot that it names.
    pub fn completion(&mut self) -> u32 {
        let ring = self.segment.completions(WORKER.index);
        ring.push(7);
        let slot = ring.get(self.read);
        self.read = ring.tail();
        ring.publish_head(self.read);
        slot
    }

    /// The look for a worker to wake, when none is asleep: a fence and two masks.
    pub fn notify(&self) {
        self.segment.bell().notify(LANE_CODE);
    }

    /// A block of so many bytes taken and given back, warm. Returns how many it has.
    pub fn block(&mut self, bytes: usize) -> Result<usize> {
        let block = self.region.allocate(&self.segment, bytes)?;
        self.region.free(&self.segment, block.handle);
        Ok(block.len)
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_does_its_work_again_and_again() {
        let mut parts = Parts::new().expect("memory");
        for _ in 0..3000 {
            assert_eq!(parts.hints(16), 16);
            assert!(parts.slot());
            assert_eq!(parts.completion(), 7);
            parts.notify();
        }
        for bytes in [100, 5000, 1 << 20, 16 << 20] {
            assert!(parts.block(bytes).expect("room") >= bytes);
        }
    }
}
