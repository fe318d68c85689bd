//! Which pages of a private mapping are copies: <https://docs.kernel.org/admin-guide/mm/pagemap.html>.

use super::copy::Pages;
use super::memory::page_size;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// Hands on the pages of a mapping that are not the file's any more, some at a time. `pagemap` is this process's. Ends
/// early, with `false`, if that cannot be told, or `found` says so.
pub(super) fn each_copy(pagemap: &File, pages: Pages, mut found: impl FnMut(Pages) -> bool) -> bool {
    match scan(pagemap, pages, &mut found) {
        Scanned::All => true,
        Scanned::Refused => false,
        Scanned::Unknown => read(pagemap, pages, &mut found),
    }
}

enum Scanned {
    All,
    /// `found` has refused to go on.
    Refused,
    /// The kernel does not know how, or has not come to the end.
    Unknown,
}

/// `struct pm_scan_arg` of the kernel.
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// `PAGEMAP_SCAN`, `_IOWR('f', 16, struct pm_scan_arg)`.
const SCAN: libc::Ioctl = 0xc060_6610_u32 as libc::Ioctl;
const IS_FILE: u64 = 1 << 2;
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;

/// In one go, as kernels from Linux 6.7 on can.
fn scan(pagemap: &File, pages: Pages, found: &mut impl FnMut(Pages) -> bool) -> Scanned {
    let mut regions = [Region::default(); 128];
    let first = pages.start.addr().get() as u64;
    let mut arg = ScanArg {
        size: size_of::<ScanArg>() as u64,
        start: first,
        end: first + pages.len as u64,
        vec: regions.as_mut_ptr().expose_provenance() as u64,
        vec_len: regions.len() as u64,
        category_inverted: IS_FILE,
        category_mask: IS_FILE,
        category_anyof_mask: IS_PRESENT | IS_SWAPPED,
        return_mask: IS_PRESENT | IS_SWAPPED,
        ..ScanArg::default()
    };
    while arg.start < arg.end {
        // SAFETY: the structure that the call takes, with room for so many regions.
        let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), SCAN, &raw mut arg) };
        let Some(filled) = usize::try_from(count).ok().and_then(|count| regions.get(..count)) else {
            return Scanned::Unknown;
        };
        for region in filled {
            let inside = first <= region.start && region.start < region.end && region.end <= arg.end;
            if !inside {
                return Scanned::Unknown;
            }
            // SAFETY: inside of the mapping.
            let start = unsafe { pages.start.byte_add((region.start - first) as usize) };
            if !found(Pages { start, len: (region.end - region.start) as usize }) {
                return Scanned::Refused;
            }
        }
        if arg.walk_end <= arg.start {
            return Scanned::Unknown;
        }
        arg.start = arg.walk_end;
    }
    Scanned::All
}

/// Entry by entry.
fn read(pagemap: &File, pages: Pages, found: &mut impl FnMut(Pages) -> bool) -> bool {
    const THERE: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const OF_FILE: u64 = 1 << 61;
    let mut entries = [[0_u8; 8]; 1024];
    let first = pages.start.addr().get() / page_size();
    let count = pages.len / page_size();
    for at in (0..count).step_by(entries.len()) {
        let most = entries.len().min(count - at);
        let entries = &mut entries[..most];
        if pagemap.read_exact_at(entries.as_flattened_mut(), ((first + at) * 8) as u64).is_err() {
            return false;
        }
        let is_copy = |entry: &[u8; 8]| {
            let entry = u64::from_ne_bytes(*entry);
            entry & (THERE | SWAPPED) != 0 && entry & OF_FILE == 0
        };
        let mut page = at;
        for run in entries.chunk_by(|a, b| is_copy(a) == is_copy(b)) {
            // SAFETY: inside of the mapping.
            let start = unsafe { pages.start.byte_add(page * page_size()) };
            if is_copy(&run[0]) && !found(Pages { start, len: run.len() * page_size() }) {
                return false;
            }
            page += run.len();
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::create_memfd;
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    use std::os::fd::AsFd;
    use std::ptr::NonNull;

    #[test]
    fn copies_are_found_either_way() {
        let (page, count) = (page_size(), 3000);
        let fd = create_memfd("ringpool-pagemap", (page * count) as u64).unwrap();
        // SAFETY: a new mapping, where the kernel finds room.
        let mapped = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            mmap(std::ptr::null_mut(), page * count, access, MapFlags::PRIVATE, fd.as_fd(), 0).unwrap()
        };
        let start = NonNull::new(mapped.cast::<u8>()).unwrap();
        let written =
            |index: usize| index.is_multiple_of(7) || (1000..1500).contains(&index) || index == count - 1;
        for index in 0..count {
            // SAFETY: inside of the mapping; half of the others are looked at.
            unsafe {
                let at = start.as_ptr().add(index * page);
                if written(index) {
                    at.write(1);
                } else if index % 2 == 0 {
                    assert_eq!(at.read_volatile(), 0);
                }
            }
        }
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let pages = Pages { start, len: page * count };
        let mut seen = vec![false; count];
        let mut see = |copy: Pages| {
            let first = (copy.start.addr().get() - start.addr().get()) / page;
            seen[first..first + copy.len / page].iter_mut().for_each(|seen| *seen = !*seen);
            true
        };
        let expected: Vec<bool> = (0..count).map(written).collect();
        assert!(read(&pagemap, pages, &mut see));
        assert!(each_copy(&pagemap, pages, &mut see));
        assert_eq!(seen, vec![false; count], "both found the same");
        assert!(each_copy(&pagemap, pages, |copy| {
            let first = (copy.start.addr().get() - start.addr().get()) / page;
            seen[first..first + copy.len / page].fill(true);
            true
        }));
        assert_eq!(seen, expected);
        assert!(!each_copy(&pagemap, pages, |_| false));
        // SAFETY: mapped above.
        unsafe { munmap(start.as_ptr().cast(), page * count).unwrap() };
    }
}
