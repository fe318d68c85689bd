//! Private mappings that nobody uses at the moment.

use super::copy::Pages;
use super::pagemap;
use rustix::mm::Advice;
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most mappings that are kept for later, and most bytes of them: what they cost is page tables, a 512th of that.
const KEPT: usize = 32;
const KEPT_BYTES: usize = 4 << 30;

/// Mappings of one file that nobody uses at the moment, with none of their pages copied: to map the same part again
/// takes a page fault for each few pages that are looked at.
#[derive(Default)]
pub(crate) struct Unused {
    kept: Mutex<Kept>,
}

#[derive(Default)]
pub(super) struct Kept {
    /// Where in the file each begins; the one that was used last comes last.
    pub mappings: VecDeque<(u64, Pages)>,
    bytes: usize,
    /// Bytes of copies that have been dropped.
    copied: u64,
    /// Nothing is kept any more.
    closed: bool,
    /// Tells which pages of this process are copies; `None` if that cannot be told.
    pagemap: OnceCell<Option<File>>,
}

impl Unused {
    pub(super) fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes of mappings have been written to until they were not needed any more, in whole pages.
    pub(crate) fn copied(&self) -> u64 {
        self.lock().copied
    }

    /// A mapping that begins there in the file and is at least so long.
    pub(super) fn take(&self, offset: u64, len: usize) -> Option<Pages> {
        let mut kept = self.lock();
        let at = kept.mappings.iter().rposition(|&(start, pages)| start == offset && pages.len >= len)?;
        let (_, pages) = kept.mappings.remove(at)?;
        kept.bytes -= pages.len;
        drop(kept);
        if pages.advise(Advice::LinuxDoFork).is_err() {
            pages.unmap();
            return None;
        }
        Some(pages)
    }

    /// Keeps a mapping, or unmaps it.
    pub(super) fn put(&self, offset: u64, pages: Pages) {
        let mut kept = self.lock();
        let keep = !kept.closed && pages.len <= KEPT_BYTES && kept.drop_copies(pages);
        // A child has no use for it, and must not have to look after it.
        if !keep || pages.advise(Advice::LinuxDontFork).is_err() {
            drop(kept);
            return pages.unmap();
        }
        kept.mappings.push_back((offset, pages));
        kept.bytes += pages.len;
        while kept.mappings.len() > KEPT || kept.bytes > KEPT_BYTES {
            let Some((_, oldest)) = kept.mappings.pop_front() else { break };
            kept.bytes -= oldest.len;
            oldest.unmap();
        }
    }

    /// Unmaps all that is kept, and from now on whatever comes.
    pub(crate) fn close(&self) {
        let mut kept = self.lock();
        kept.closed = true;
        kept.bytes = 0;
        let mappings = std::mem::take(&mut kept.mappings);
        drop(kept);
        mappings.into_iter().for_each(|(_, pages)| pages.unmap());
    }
}

impl Kept {
    /// Makes all pages show the file again; `false` if it cannot be told which are to.
    fn drop_copies(&mut self, pages: Pages) -> bool {
        let pagemap = self.pagemap.get_or_init(|| File::open("/proc/self/pagemap").ok());
        let forget = |copies: Pages| {
            self.copied += copies.len as u64;
            copies.forget()
        };
        pagemap.as_ref().is_some_and(|pagemap| pagemap::each_copy(pagemap, pages, forget))
    }
}
