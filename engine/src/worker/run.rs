//! Running a claimed task and publishing its result.

use super::output::{Small, TaskMemory};
use super::{Around, Claimed, Worker};
use crate::arena::Block;
use crate::payload::{Room, Span};
use crate::slot::{
    Answer, ArgsHandle, CHECKED_ARGS, Check, INLINE_ARGS, Meta, NEAR_RESULT, Place, Shape as SlotShape, Slot,
    TINY_RESULT,
};
use crate::sync::{Ordering, prefetch_payload};
use crate::task::registry::Code;
use crate::task::{Call, Return, Shape, Status, catch, panic_text, write_text};

/// Where the bytes of a finished result are.
enum Written {
    /// In the first bytes of all results.
    Short(usize),
    Block(Block, usize),
}

impl Worker<'_> {
    /// Runs the task, publishes what came of it (T3), and tells the client.
    pub(super) fn run(&mut self, task: Claimed) {
        let segment = self.segment;
        let slot = segment.slot(task.slot);
        let check = self.checked.map(|pool| Check::begin(pool, task.slot, task.run.generation()));
        let mut small = Small::new();
        let (status, written) = self.execute(slot, task.slot, check, &mut small);
        let (mut block, mut result) = (None, None);
        if let Written::Block(_, len) = written {
            self.moved += len;
        }
        match written {
            Written::Short(len) => {
                let bytes = &small;
                let place = if len <= TINY_RESULT { Place::Tiny } else { Place::Inline };
                match place {
                    Place::Tiny => slot.tiny.store(bytes.word(), Ordering::Relaxed),
                    _ => slot.inline.fill(bytes.bytes(len)),
                }
                let answer = Answer { status: status as u32, place, short_len: len }.pack();
                slot.answer.store(answer, Ordering::Relaxed);
                if let Some(check) = check {
                    slot.len.store(check.of_short(answer, bytes.bytes(len)), Ordering::Relaxed);
                }
            }
            Written::Block(held, len) => {
                let handle = held.handle.pack();
                // Of a chunk's block the second line tells already, in case this process dies.
                let near = len <= NEAR_RESULT && status != Status::Chunk && check.is_none();
                let (place, short_len) = if near { (Place::NearBlock, len) } else { (Place::Block, 0) };
                let answer = Answer { status: status as u32, place, short_len }.pack();
                slot.answer.store(answer, Ordering::Relaxed);
                if near {
                    slot.tiny.store(handle, Ordering::Relaxed);
                } else {
                    slot.handle.store(handle, Ordering::Relaxed);
                    slot.len.store(len as u64, Ordering::Relaxed);
                }
                if let Some(check) = check {
                    // SAFETY: the call wrote so many bytes of the block, which is ours until T3.
                    let bytes = unsafe { std::slice::from_raw_parts(held.ptr.as_ptr(), len) };
                    let digest = check.bytes(bytes).end();
                    slot.inline.fill(&digest.to_ne_bytes());
                    let done = if status == Status::Chunk { slot.done.load(Ordering::Relaxed) } else { 0 };
                    let whole = check.of_block(answer, handle, len as u64, digest, done);
                    slot.tiny.store(whole, Ordering::Relaxed);
                }
                block = Some(held.handle);
                result = Some((held.ptr, len));
            }
        }
        // T3 makes all of the above visible. It fails only if the word is corrupt: the client finds out by
        // itself and will not ask for the result, so the block is ours to give back (unless it has been
        // adopted all the same; then we do not hold it, and nothing happens).
        match slot.word().finish(task.run) {
            Some(done) => {
                self.woke = done.has_waiter();
                if self.woke {
                    slot.word().wake();
                }
            }
            None => {
                if let Some(block) = block {
                    self.region.free(segment, block);
                }
            }
        }
        segment.completions(self.index).push(task.slot);
        self.habit.note_result(result);
        self.untold = true; // until the next claim, which is a barrier, or until there is none
        self.trimmed = false;
        self.tasks = self.tasks.wrapping_add(1);
        // Release pairs with `Client::look_behind`: whoever sees this sees T3.
        segment.process(self.index).tasks.store(self.tasks, Ordering::Release);
        if let Some(left) = &mut self.tasks_left {
            *left -= 1;
        }
    }

    /// Calls the function on its arguments.
    #[inline]
    fn execute(
        &mut self,
        slot: &Slot,
        number: u32,
        check: Option<Check>,
        small: &mut Small,
    ) -> (Status, Written) {
        let segment = self.segment;
        let func = slot.func.load(Ordering::Relaxed);
        let meta_word = slot.meta.load(Ordering::Relaxed);
        let mut inline = Aligned([0; INLINE_ARGS]);
        slot.args.copy_to(&mut inline.0);
        let inline = &inline.0;
        if let Some(check) = check {
            // From here on only what has been checked is used: `func`, `meta_word` and `inline` are copies.
            let (args, sum) = inline.split_at(CHECKED_ARGS);
            if sum != check.of_task(func, meta_word, args).to_ne_bytes() {
                return self.fail(Status::Corrupted, b"the words of the task were written over", small);
            }
        }
        let Some(meta) = Meta::unpack(meta_word) else {
            return self.fail(Status::Corrupted, b"the task's meta word", small);
        };
        let (args, shape) = if meta.shape == SlotShape::Inline {
            self.habit.note_no_args();
            self.moved = 0;
            (&inline[..meta.inline_len], Shape::One)
        } else {
            let handle = ArgsHandle::from_bytes(inline);
            // SAFETY: the client does not touch the arguments of a task while its slot runs.
            let Some(args) = (unsafe { segment.payload(0, handle.offset, handle.len) }) else {
                let text =
                    format!("{} argument bytes at {} are outside the region", handle.len, handle.offset);
                return self.fail(Status::BadArgs, text.as_bytes(), small);
            };
            prefetch_payload(args.as_ptr(), args.len());
            self.habit.note_args(args);
            self.moved = args.len();
            let shape = match meta.shape {
                SlotShape::Items => Shape::Items { first: handle.first, end: handle.end },
                SlotShape::Tuples => Shape::Tuples { first: handle.first, end: handle.end },
                _ => Shape::One,
            };
            (args, shape)
        };
        let code = match self.functions.get(func) {
            Ok(code) => code,
            Err(error) => return self.fail(Status::UnknownFunction, error.to_string().as_bytes(), small),
        };

        let current = &segment.process(self.index).current;
        let announce = meta.is_chunk().then_some(slot);
        let mut memory = TaskMemory::new(segment, &self.region, self.patience, announce);
        // While it is set, a death is the fault of the item behind those that are done, or of so many if they
        // are run as one.
        let on_begin = |items: u32| {
            current.store(u64::from(number + 1) << 32 | u64::from(items), Ordering::Release);
        };
        let checked;
        let on_item: Option<&dyn Fn(u32)> = match check {
            Some(check) => {
                checked = move |index| slot.progress.store(check.of_progress(index), Ordering::Relaxed);
                Some(&checked)
            }
            None => None,
        };
        let mut call = Call {
            args,
            shape,
            padding: meta.inline_len,
            room: Room::new(small.span(), &mut memory),
            on_begin: &on_begin,
            on_item,
            done: &slot.done,
        };
        let Return { status, used } = match self.around {
            None => code.call(&mut call),
            Some(around) => call_within(around, code, &mut call),
        };
        let span = call.room.span;
        if meta.is_chunk() {
            current.store(0, Ordering::Relaxed);
        }
        let block = memory.block;
        self.settle(status, span, used, block)
    }

    /// Where the result is after the call; gives back a block that it does not need.
    #[inline]
    fn settle(&mut self, status: Status, span: Span, used: usize, block: Option<Block>) -> (Status, Written) {
        match block {
            Some(block) if span.ptr == block.ptr => (status, Written::Block(block, used)),
            Some(block) => {
                // A result that failed half-way left its block behind.
                self.region.free(self.segment, block.handle);
                (status, Written::Short(used))
            }
            None => (status, Written::Short(used)),
        }
    }

    /// A failure that this worker itself reports.
    #[cold]
    fn fail(&mut self, status: Status, text: &[u8], small: &mut Small) -> (Status, Written) {
        let mut memory = TaskMemory::new(self.segment, &self.region, self.patience, None);
        let mut room = Room::new(small.span(), &mut memory);
        let Return { used, .. } = Return::text(status, text, &mut room);
        let span = room.span;
        let block = memory.block;
        self.settle(status, span, used, block)
    }
}

/// Calls `code` from within `around`.
fn call_within(around: &Around<'_>, code: Code, call: &mut Call<'_>) -> Return {
    let mut returned = None;
    let ended = catch(|| {
        around(&mut || {
            if returned.is_none() {
                returned = Some(code.call(call));
            }
        });
    });
    // What has been written is the result, whatever happened then.
    returned.unwrap_or_else(|| match ended {
        Err(panic) => write_text(Status::Panicked, &panic_text(&panic), &mut call.room),
        Ok(()) => write_text(Status::Failed, b"its worker did not call the function", &mut call.room),
    })
}

#[repr(C, align(16))]
struct Aligned([u8; INLINE_ARGS]);
