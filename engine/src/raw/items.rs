//! Blocks of items: what the chunks of a map are cut from.
//!
//! ```text
//! items, side by side or wherever the table says | table | padding | trailer
//! ```
//!
//! The trailer ends with what ends the archive of a `Vec`, so that items of one size are one to a function of
//! Rust. The archive of a `Vec` that a program in Rust has made has no such trailer; its items' size follows from its
//! length.

use crate::error::{Error, Result};
use crate::payload::view;
use rkyv::primitive::{ArchivedIsize, ArchivedUsize, FixedIsize, FixedUsize};

/// Items of one size, side by side.
#[derive(Clone, Copy, Debug)]
pub struct Array<'a> {
    /// The bytes of all of them.
    pub items: &'a [u8],
    /// The size of each; not 0.
    pub item_size: usize,
}

impl Array<'_> {
    /// How many items there are. An error if it is not a whole number.
    pub fn count(&self) -> Result<usize> {
        count_in(self.items.len(), self.item_size)
    }
}

/// How many items of this size are in so many bytes.
pub(super) fn count_in(bytes: usize, item_size: usize) -> Result<usize> {
    if item_size == 0 || !bytes.is_multiple_of(item_size) {
        return Err(Error::invalid(format!("{bytes} bytes are no items of {item_size} bytes")));
    }
    let count = bytes / item_size;
    if count > u32::MAX as usize {
        return Err(Error::invalid(format!("{count} items are more than a map can have: {}", u32::MAX)));
    }
    Ok(count)
}

const MAGIC: u64 = 0x9d2b_61f0_73c5_a84e;
/// In the place of an item's size: there is a table.
const TABLE: u64 = u64::MAX;
/// In the same place: only the function knows where an item is.
const WHOLE: u64 = u64::MAX - 1;
/// Of an entry of the table: where the item begins, and its length.
const ENTRY: usize = 16;
/// What the archive of a `Vec` ends with: the distance to its items, and how many they are.
const ROOT: usize = size_of::<ArchivedIsize>() + size_of::<ArchivedUsize>();

/// What follows the items of a block.
pub(crate) struct Trailer {
    pub item_size: u64,
    pub count: u64,
    pub table: u64,
}

impl Trailer {
    /// Bytes of a trailer.
    pub(crate) const LEN: usize = 32 + ROOT;

    /// That of items of one size.
    pub(crate) fn of_array(item_size: usize, count: usize) -> Self {
        Trailer { item_size: item_size as u64, count: count as u64, table: 0 }
    }

    /// That of bytes which only the function can tell items in.
    pub(crate) fn of_whole(bytes: usize, count: usize) -> Self {
        Trailer { item_size: WHOLE, count: count as u64, table: bytes as u64 }
    }

    /// Bytes of a block whose items, and table, take so many.
    pub(crate) fn block_len(bytes: usize) -> usize {
        bytes.next_multiple_of(8) + Self::LEN
    }

    /// Writes it to the end of a block.
    pub(crate) fn write(&self, block: &mut [u8]) {
        let at = block.len() - Self::LEN;
        let root_at = block.len() - ROOT;
        let words = [MAGIC, self.item_size, self.count, self.table];
        for (place, word) in block[at..root_at].as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_ne_bytes();
        }
        // Of what a `Vec` cannot be, one of nothing.
        let distance = FixedIsize::try_from(root_at).map(|distance| -distance);
        let (distance, count) = match (self.item_size, distance, FixedUsize::try_from(self.count)) {
            (TABLE | WHOLE, ..) | (_, Err(_), _) | (_, _, Err(_)) => (0, 0),
            (_, Ok(distance), Ok(count)) => (distance, count),
        };
        let root = [
            ArchivedIsize::from_native(distance).to_native_bytes(),
            ArchivedUsize::from_native(count).to_native_bytes(),
        ];
        block[root_at..].copy_from_slice(root.as_flattened());
    }
}

/// The bytes of an archived number.
trait NativeBytes<const N: usize> {
    fn to_native_bytes(self) -> [u8; N];
}

impl NativeBytes<{ size_of::<ArchivedIsize>() }> for ArchivedIsize {
    fn to_native_bytes(self) -> [u8; size_of::<ArchivedIsize>()] {
        // SAFETY: a number in a fixed byte order, without padding.
        unsafe { std::mem::transmute(self) }
    }
}

impl NativeBytes<{ size_of::<ArchivedUsize>() }> for ArchivedUsize {
    fn to_native_bytes(self) -> [u8; size_of::<ArchivedUsize>()] {
        // SAFETY: as above.
        unsafe { std::mem::transmute(self) }
    }
}

/// Writes items of any size to a block of [`table_len`] bytes.
pub(super) fn write_table(items: &[&[u8]], block: &mut [u8]) {
    let mut at = 0;
    let table = items.iter().map(|item| item.len().next_multiple_of(16)).sum::<usize>();
    for (index, item) in items.iter().enumerate() {
        block[at..at + item.len()].copy_from_slice(item);
        let entry = &mut block[table + index * ENTRY..][..ENTRY];
        entry[..8].copy_from_slice(&(at as u64).to_ne_bytes());
        entry[8..].copy_from_slice(&(item.len() as u64).to_ne_bytes());
        at += item.len().next_multiple_of(16);
    }
    Trailer { item_size: TABLE, count: items.len() as u64, table: table as u64 }.write(block);
}

/// Bytes of a block of these items; `None` if that is more than an address space.
pub(super) fn table_len(items: &[&[u8]]) -> Option<usize> {
    let bytes = items
        .iter()
        .try_fold(0_usize, |sum, item| sum.checked_add(item.len().checked_next_multiple_of(16)?))?;
    let bytes = bytes.checked_add(items.len().checked_mul(ENTRY)?)?;
    (bytes <= isize::MAX as usize - 1024).then(|| Trailer::block_len(bytes))
}

/// A block of items, as a worker sees it. It trusts nothing that it reads.
pub(super) struct Block<'a> {
    bytes: &'a [u8],
    count: usize,
    layout: Layout,
}

enum Layout {
    /// Where the first item begins, and the size of each.
    Array { start: usize, size: usize },
    /// Where the table begins.
    Table(usize),
    /// So many bytes.
    Whole(usize),
}

impl<'a> Block<'a> {
    /// `padding` is what is behind the items of an archived `Vec`.
    pub(super) fn read(bytes: &'a [u8], padding: usize) -> Result<Self> {
        match Self::of_trailer(bytes) {
            Some(block) => Ok(block),
            None => Self::of_archive(bytes, padding),
        }
    }

    /// `None` if there is no trailer that fits.
    fn of_trailer(bytes: &'a [u8]) -> Option<Self> {
        let end = bytes.len().checked_sub(Trailer::LEN)?;
        let words = bytes[end..].as_chunks::<8>().0;
        let [magic, size, count, table] = *words.first_chunk::<4>()?;
        let word = |bytes| usize::try_from(u64::from_ne_bytes(bytes)).ok();
        if u64::from_ne_bytes(magic) != MAGIC {
            return None;
        }
        let count = word(count)?;
        let layout = if u64::from_ne_bytes(size) == WHOLE {
            let len = word(table)?;
            (len <= end).then_some(Layout::Whole(len))?
        } else if u64::from_ne_bytes(size) == TABLE {
            let table = word(table)?;
            (table.checked_add(count.checked_mul(ENTRY)?)? <= end).then_some(Layout::Table(table))?
        } else {
            let size = word(size)?;
            (count.checked_mul(size)? <= end).then_some(Layout::Array { start: 0, size })?
        };
        Some(Block { bytes, count, layout })
    }

    /// The archive of a `Vec`.
    fn of_archive(bytes: &'a [u8], padding: usize) -> Result<Self> {
        let root = view::<(isize, usize)>(bytes)?;
        let (distance, count) = (root.0.to_native() as isize, root.1.to_native() as usize);
        let end = bytes.len() - size_of_val(root);
        let start = end.checked_add_signed(distance).filter(|&start| start <= end);
        let start = start.ok_or_else(|| Error::payload("the bytes are no block of items"))?;
        // Items that are not flat refer to what is before them, and end where the archive does.
        let size = (end - start).saturating_sub(padding).checked_div(count).unwrap_or(0);
        let layout = Layout::Array { start, size };
        Ok(Block { bytes, count, layout })
    }

    /// How many items there are from `first` to `end`, if there are so many.
    pub(super) fn range(&self, first: u32, end: u32) -> Result<u32> {
        if first > end || end as usize > self.count {
            let error = format!("there are no items {first} to {end} among {}", self.count);
            return Err(Error::payload(error));
        }
        Ok(end - first)
    }

    /// An item of the [range](Self::range).
    pub(super) fn item(&self, index: u32) -> Result<&'a [u8]> {
        let index = index as usize;
        let wrong = || Error::payload(format!("item {index} is not where the block says"));
        let (at, len) = match self.layout {
            Layout::Array { start, size } => (start + index * size, size),
            Layout::Table(table) => {
                let entry =
                    self.bytes.get(table + index * ENTRY..).and_then(|rest| rest.first_chunk::<ENTRY>());
                let (&[at, len], []) = entry.ok_or_else(wrong)?.as_chunks::<8>() else { return Err(wrong()) };
                let number = |bytes| usize::try_from(u64::from_ne_bytes(bytes)).map_err(|_| wrong());
                (number(at)?, number(len)?)
            }
            Layout::Whole(_) => return Err(wrong()),
        };
        let end = at.checked_add(len).ok_or_else(wrong)?;
        self.bytes.get(at..end).ok_or_else(wrong)
    }

    /// All bytes, if only the function can tell items in them.
    pub(super) fn whole(&self) -> Option<&'a [u8]> {
        match self.layout {
            Layout::Whole(len) => self.bytes.get(..len),
            _ => None,
        }
    }

    /// `count` items of this size from `first` on, which are of the [range](Self::range).
    pub(super) fn items(&self, first: u32, count: u32, size: usize) -> Result<&'a [u8]> {
        let start = match self.layout {
            Layout::Array { start, size: known } if known == size => start,
            Layout::Array { size: known, .. } => {
                return Err(Error::payload(format!(
                    "the items are of {known} bytes, the function's of {size}"
                )));
            }
            _ => {
                return Err(Error::payload(format!("the function takes items of {size} bytes side by side")));
            }
        };
        let from = start + first as usize * size;
        let bytes = self.bytes.get(from..from + count as usize * size);
        bytes.ok_or_else(|| Error::payload("the items are not all there"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::view_items;

    fn block(bytes: usize) -> rkyv::util::AlignedVec<16> {
        let mut block = rkyv::util::AlignedVec::new();
        block.resize(bytes, 0);
        block
    }

    #[test]
    fn an_array_is_the_archive_of_a_vector() {
        let values = [1.5_f64, -2.0, 1e300];
        let mut bytes = block(Trailer::block_len(24));
        for (place, value) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(values) {
            *place = value.to_ne_bytes();
        }
        Trailer::of_array(8, 3).write(&mut bytes);
        let seen: Vec<f64> = view_items::<f64>(&bytes, 0, 3).unwrap().iter().map(|v| v.to_native()).collect();
        assert_eq!(seen, values);
        let read = Block::read(&bytes, 0).unwrap();
        assert_eq!(read.range(1, 3).unwrap(), 2);
        assert!(read.range(1, 4).is_err());
        assert_eq!(read.item(2).unwrap(), 1e300_f64.to_ne_bytes());
        assert_eq!(read.items(1, 2, 8).unwrap().len(), 16);
        assert!(read.items(0, 1, 4).is_err());
    }

    #[test]
    fn items_of_any_size_come_back() {
        let long = [7; 100];
        let items: [&[u8]; 4] = [b"", b"one", &long, b"x"];
        let mut bytes = block(table_len(&items).unwrap());
        write_table(&items, &mut bytes);
        let read = Block::read(&bytes, 0).unwrap();
        for (index, item) in items.iter().enumerate() {
            let seen = read.item(index as u32).unwrap();
            assert_eq!(seen, *item);
            assert!(seen.as_ptr().addr().is_multiple_of(16));
        }
        assert!(read.items(0, 1, 8).is_err());
    }

    #[test]
    fn archives_of_vectors_are_read() {
        fn check<T: crate::Payload + bytemuck::Pod>(values: Vec<T>, archive: &[u8]) {
            let padding = size_of_val(&values[..]).next_multiple_of(4) - size_of_val(&values[..]);
            let read = Block::read(archive, padding).unwrap();
            for (index, value) in values.iter().enumerate() {
                assert_eq!(read.item(index as u32).unwrap(), bytemuck::bytes_of(value));
            }
            let all = read.items(0, values.len() as u32, size_of::<T>()).unwrap();
            assert_eq!(all, bytemuck::cast_slice::<T, u8>(&values));
        }
        macro_rules! check {
            ($values:expr) => {
                check($values, &rkyv::to_bytes::<rkyv::rancor::Error>(&$values).unwrap())
            };
        }
        for count in 1..10 {
            check!(vec![7_u8; count]);
            check!(vec![9_u16; count]);
            check!(vec![1.5_f64; count]);
            check!(vec![[1_u8, 2, 3, 4, 5]; count]);
        }
    }

    #[test]
    fn nothing_that_is_written_over_leads_out_of_the_block() {
        let items: [&[u8]; 3] = [b"some", b"more items", b"here"];
        let mut whole = block(table_len(&items).unwrap());
        write_table(&items, &mut whole);
        let mut array = block(Trailer::block_len(24));
        Trailer::of_array(8, 3).write(&mut array);
        for original in [whole, array] {
            for at in 0..original.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut bytes = original.clone();
                    bytes[at] = value;
                    let Ok(read) = Block::read(&bytes, 0) else { continue };
                    let within = bytes.as_ptr_range();
                    let inside = |seen: &[u8]| {
                        let seen = seen.as_ptr_range();
                        assert!(within.start <= seen.start && seen.end <= within.end);
                    };
                    for index in 0..3 {
                        if read.range(index, index + 1).is_ok() {
                            read.item(index).into_iter().for_each(inside);
                            read.items(index, 1, 8).into_iter().for_each(inside);
                        }
                    }
                }
            }
        }
        for len in 0..60 {
            let bytes = block(len);
            if let Ok(read) = Block::read(&bytes, 0) {
                assert!(read.range(0, 1).is_err() || read.item(0).is_err());
            }
        }
    }
}
