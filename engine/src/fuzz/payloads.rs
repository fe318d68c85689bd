//! Any bytes as archives, by the ways on which results and arguments are read.

use super::{fuzz, mutate};
use crate::chunk::{ChunkReader, ChunkWriter};
use crate::error::Result;
use crate::payload::{
    Grow, Payload, Room, Span, flat_items_len, put, put_flat_items, put_items, take, view, view_items,
};
use crate::sync::{AtomicU32, Ordering};
use crate::task::Status;
use fastrand::Rng;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ptr::NonNull;

#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
enum Shape {
    Nothing,
    Circle { radius: f64, name: String },
    Points(Vec<(i32, i32)>),
    Nested(Box<[Option<String>]>),
}

/// Memory that moves when it grows.
#[derive(Default)]
struct Heap(Vec<u128>);

impl Heap {
    fn span(&mut self) -> Span {
        Span { ptr: NonNull::from(&mut self.0[..]).cast(), cap: self.0.len() * 16 }
    }

    fn bytes(&self, len: usize) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_ne_bytes()).take(len).collect()
    }
}

impl Grow for Heap {
    fn grow(&mut self, _: Span, _: usize, needed: usize) -> Result<Span> {
        self.0.resize(needed.div_ceil(16), 0);
        Ok(self.span())
    }
}

fn written(write: impl FnOnce(Span, &mut Heap) -> usize) -> Vec<u8> {
    let mut heap = Heap(vec![0; 8]);
    let first = heap.span();
    let len = write(first, &mut heap);
    heap.bytes(len)
}

fn archive<T: Payload>(value: &T) -> Vec<u8> {
    written(|first, heap| put(value, first, heap).expect("room").1)
}

fn aligned(bytes: &[u8]) -> AlignedVec<16> {
    let mut copy = AlignedVec::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    copy
}

/// A copy of exactly these bytes on the heap, so that a read behind them is noticed.
fn read_as<T: Payload>(bytes: &[u8]) -> u64 {
    let bytes = aligned(bytes);
    let taken = take::<T>(&bytes);
    assert_eq!(view::<T>(&bytes).is_ok(), taken.is_ok(), "what can be viewed can be taken");
    taken.is_ok().into()
}

fn attack<T: Payload>(random: &mut Rng, value: &T) -> u64 {
    let mut bytes = archive(value);
    assert_eq!(read_as::<T>(&bytes), 1, "it is right before");
    mutate(random, &mut bytes);
    // The same bytes as what they are not.
    read_as::<T>(&bytes)
        + read_as::<String>(&bytes)
        + read_as::<Vec<Vec<String>>>(&bytes)
        + read_as::<(u64, Option<Shape>)>(&bytes)
        + read_as::<char>(&bytes)
        + read_as::<bool>(&bytes)
}

fn text(random: &mut Rng) -> String {
    (0..random.usize(..30)).map(|_| random.alphanumeric()).collect()
}

fn texts(random: &mut Rng) -> Vec<String> {
    (0..random.usize(..8)).map(|_| text(random)).collect()
}

fn shape(random: &mut Rng) -> Shape {
    match random.u32(..4) {
        0 => Shape::Nothing,
        1 => Shape::Circle { radius: random.f64(), name: text(random) },
        2 => Shape::Points((0..random.usize(..6)).map(|_| (random.i32(..), random.i32(..))).collect()),
        _ => Shape::Nested(texts(random).into_iter().map(|t| random.bool().then_some(t)).collect()),
    }
}

#[test]
fn any_bytes_as_archives() {
    fuzz("any bytes as archives", 4000, |random: &mut Rng| match random.u32(..9) {
        0 => attack(random, &random.clone().u64(..)),
        1 => {
            let value = (7_u32, text(random));
            attack(random, &value)
        }
        2 => {
            let value: Vec<u64> = (0..random.u64(..50)).collect();
            attack(random, &value)
        }
        3 => {
            let value = texts(random);
            attack(random, &value)
        }
        4 => {
            let value: BTreeMap<u16, Vec<u8>> = (0..random.u16(..40)).map(|i| (i, vec![1; 3])).collect();
            attack(random, &value)
        }
        5 => {
            let value: HashMap<String, u32> = texts(random).into_iter().zip(0..).collect();
            attack(random, &value)
        }
        6 => {
            let value = vec![Some(shape(random)), None, Some(shape(random))];
            attack(random, &value)
        }
        7 => {
            let value = (true, 'x', [shape(random), shape(random)], Some(Box::new(text(random))));
            attack(random, &value)
        }
        _ => {
            let value: Result<Vec<char>, (bool, String)> =
                if random.bool() { Ok(text(random).chars().collect()) } else { Err((true, text(random))) };
            attack(random, &value)
        }
    });
}

/// What is written item by item is what is written as a whole.
fn in_one_go<T: Payload + Clone + PartialEq + std::fmt::Debug>(item: impl Fn(usize) -> T) {
    let lens = [0, 1, 2, 3, 5, 63, 64, 255, 511, 512, 513, 1024, 1025, 4095, 4096, 4097, 9000];
    for len in lens.into_iter().filter(|len| len * size_of::<T>() < 100_000) {
        let items: Vec<T> = (0..len).map(&item).collect();
        for most in [len, len + 1, len + 600] {
            let mut heap = Heap(vec![0; flat_items_len::<T>(most).div_ceil(16)]);
            let span = heap.span();
            let (count, end) = put_flat_items(&mut items.iter().cloned(), most, span).expect("room");
            assert_eq!(count, len);
            assert_eq!(take::<Vec<T>>(&aligned(&heap.bytes(end))).expect("an archive"), items);
        }
        // An iterator with more items keeps them.
        let mut longer = items.iter().cloned().chain([item(7)]);
        let mut heap = Heap(vec![0; flat_items_len::<T>(len).div_ceil(16)]);
        let (count, _) = put_flat_items(&mut longer, len, heap.span()).expect("room");
        assert_eq!((count, longer.next(), longer.next()), (len, Some(item(7)), None));
    }
}

#[test]
fn items_one_by_one() {
    in_one_go(|i| i as u8);
    in_one_go(|i| i as u64 * 31);
    in_one_go(|i| [i as i16, 7, -1]);
    in_one_go(|i| [i as u64; 600]); // more than the buffer
    in_one_go(|_| [0_u32; 0]);
}

#[test]
fn any_bytes_as_items() {
    fuzz("any bytes as items of a chunk's arguments", 4000, |random: &mut Rng| {
        let items: Vec<(u32, String)> = (0..random.u32(..10)).map(|i| (i, text(random))).collect();
        let mut bytes = written(|first, heap| put_items(&items, first, heap).expect("room").1);
        mutate(random, &mut bytes);
        let bytes = aligned(&bytes);
        let (first, end) = (random.u32(..12), random.u32(..12));
        let read = |items: Result<usize>| items.map_or(0, |_| 1);
        read(view_items::<(u32, String)>(&bytes, first, end).map(|items| {
            items.iter().map(|item| item.1.len()).sum() // a look at all of them
        })) + read(
            view_items::<Vec<Vec<u8>>>(&bytes, first, end)
                .map(|items| items.iter().flat_map(|i| i.iter()).count()),
        ) + read(view_items::<u8>(&bytes, first, u32::MAX).map(<[_]>::len))
    });
}

/// Reads all items that a chunk is said to have; each is a value or an error, and they are no more.
fn read_chunk<T: Payload>(bytes: &[u8], done: u32) -> u64 {
    let bytes = aligned(bytes);
    let mut reader = ChunkReader::new(&bytes, done);
    let mut read = 0;
    while let Some(item) = reader.next::<T>() {
        read += 1;
        if item.is_err() {
            break;
        }
    }
    assert!(read <= done);
    let mut reader = ChunkReader::new(&bytes, done);
    let mut values: Vec<T> = Vec::new();
    while reader.left() > 0 {
        match reader.read_flat_into(&mut values) {
            Ok(0) => match reader.next::<T>() {
                Some(Ok(_)) => {}
                _ => break,
            },
            Ok(_) => {}
            Err(_) => break,
        }
    }
    assert!(values.len() <= done as usize);
    read.into()
}

#[test]
fn any_bytes_as_results_of_chunks() {
    fuzz("any bytes as results of chunks", 4000, |random: &mut Rng| {
        let done = AtomicU32::new(0);
        let mut bytes = written(|first, heap| {
            let mut room = Room::new(first, heap);
            assert!(ChunkWriter::reserve::<u64>(&mut room, 3).is_ok());
            let mut writer = ChunkWriter::new(&mut room, &done);
            for i in 0..random.u64(..12) {
                match random.u32(..8) {
                    0 => writer.push_failure(Status::Panicked, b"place\0message"),
                    1 => writer.push(&text(random)),
                    2 => writer.push(&shape(random)),
                    // As many as there is room for, until one has no value.
                    3 => {
                        let (many, last) = ([i; 6], random.usize(..9));
                        let before = writer.items();
                        let ended = writer.push_values(&many, |index, &item| {
                            if (index - before) as usize == last { Err(()) } else { Ok(item) }
                        });
                        let added = (writer.items() - before) as usize;
                        assert!(added <= 6 && added <= last && ended.is_some() <= (added == last));
                    }
                    _ => writer.push(&i),
                }
            }
            writer.finish()
        });
        mutate(random, &mut bytes);
        let claimed = match random.u32(..3) {
            0 => random.u32(..20),
            _ => done.load(Ordering::Relaxed),
        };
        read_chunk::<u64>(&bytes, claimed)
            + read_chunk::<String>(&bytes, claimed)
            + read_chunk::<Shape>(&bytes, claimed)
            + read_chunk::<(char, bool)>(&bytes, claimed)
            + u64::from(read_chunk::<u8>(&bytes, claimed * 50) > 0)
    });
}

#[test]
fn a_long_run_of_values_is_read_as_far_as_it_counts() {
    let items: Vec<u64> = (0..5000).collect();
    for last in [0, 1, 4999, 5000] {
        let done = AtomicU32::new(0);
        let bytes = written(|first, heap| {
            let mut room = Room::new(first, heap);
            assert!(ChunkWriter::reserve::<u64>(&mut room, items.len()).is_ok());
            let mut writer = ChunkWriter::new(&mut room, &done);
            let ended =
                writer.push_values(&items, |index, &item| if index == last { Err(()) } else { Ok(item + 1) });
            assert_eq!(ended.is_some(), last < 5000);
            writer.finish()
        });
        assert_eq!(done.load(Ordering::Relaxed), last);
        if last > 0 {
            assert_eq!(bytes[2048..2056], 1u64.to_le_bytes(), "half a page behind the items");
        }
        for counted in [0, last / 2, last] {
            let mut reader = ChunkReader::new(&bytes, counted);
            let mut values: Vec<u64> = Vec::new();
            while reader.left() > 0 {
                assert_ne!(reader.read_flat_into(&mut values).expect("a run"), 0);
            }
            assert!(values.iter().copied().eq(1..=u64::from(counted)));
            let mut reader = ChunkReader::new(&bytes, counted);
            let first = reader.next::<u64>().map(|item| item.and_then(|value| value).expect("a value"));
            assert_eq!(first, (counted > 0).then_some(1));
        }
    }
}
