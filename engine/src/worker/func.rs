//! From the function word of a slot to code.

use crate::error::{Error, Result};
use crate::segment::{LANE_CODE, LANE_NAMED};
use crate::slot::Slot;
use crate::sync::Ordering;
use crate::sys::Program;
use crate::task::registry::Code;
use crate::task::{Entry, Func, registry};

/// Which function a task calls: `[1][hash of its name 63]` or `[0][check 31][offset in the program 32]`.
///
/// The check is a function of the offset: a word that somebody wrote over must not make a worker jump
/// into the middle of some code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FuncWord(pub u64);

const NAMED: u64 = 1 << 63;

/// The word for code at `offset`, below 2^32.
fn code_word(offset: u64) -> u64 {
    let check = offset.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    check << 32 | offset
}

impl FuncWord {
    /// How other processes will know `func`.
    #[inline]
    pub(crate) fn new(func: Func) -> Result<Self> {
        match func {
            Func::Name(hash) => Ok(FuncWord(hash | NAMED)),
            Func::Code(entry) => {
                let address = entry as usize;
                match Program::current().offset_of(address) {
                    Some(offset) if offset >> 32 == 0 => Ok(FuncWord(code_word(offset))),
                    _ => Err(Error::function(format!(
                        "the function at {address:#x} is in another shared library than ringpool, or beyond the \
                         first 4 GiB of the program; register it by name"
                    ))),
                }
            }
        }
    }

    pub(crate) fn is_named(self) -> bool {
        self.0 & NAMED != 0
    }

    /// Which ring and which requeue bits announce the slot.
    pub(crate) fn lane(self) -> usize {
        if self.is_named() { LANE_NAMED } else { LANE_CODE }
    }

    pub(crate) fn lane_of(slot: &Slot) -> usize {
        FuncWord(slot.func.load(Ordering::Relaxed)).lane()
    }
}

/// Finds code for function words, remembering the last.
pub(super) struct Functions {
    same_program: bool,
    last: Option<(u64, Code)>,
}

impl Functions {
    pub(super) fn new(same_program: bool) -> Self {
        Functions { same_program, last: None }
    }

    #[inline]
    pub(super) fn get(&mut self, word: u64) -> Result<Code> {
        match self.last {
            Some((known, code)) if known == word => Ok(code),
            _ => self.look_up(word),
        }
    }

    #[cold]
    fn look_up(&mut self, word: u64) -> Result<Code> {
        let code = if FuncWord(word).is_named() {
            registry::lookup(word & !NAMED).ok_or_else(|| {
                Error::function(format!("no function is registered here with name hash {word:#x}"))
            })?
        } else {
            let offset = word & 0xffff_ffff;
            let whole = self.same_program && word == code_word(offset);
            let address = if whole { Program::current().code_at(offset) } else { None };
            let address =
                address.ok_or_else(|| Error::function(format!("{word:#x} names no code of this program")))?;
            // SAFETY: the word was made by `FuncWord::new` from an `Entry` of the very same program file,
            // and the address is inside its executable code.
            Code::Typed(unsafe { std::mem::transmute::<usize, Entry>(address) })
        };
        self.last = Some((word, code));
        Ok(code)
    }
}
