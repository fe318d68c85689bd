//! Any header at attach: refused, or a segment that is what it says.

use super::{fuzz, nonsense};
use crate::segment::{Header, LANES, Layout, Segment, Sizes};
use crate::sync::{AtomicU64, Ordering};
use crate::sys::create_memfd;
use fastrand::Rng;
use std::os::fd::OwnedFd;

const SIZES: Sizes = Sizes { processes: 3, slots: 64, completions: 64, region: 4 << 20 };

fn pool() -> Segment {
    let segment = Segment::create(SIZES).expect("memory");
    let format = crate::payload::format_fingerprint();
    segment.header().payload_format.store(format, Ordering::Relaxed);
    segment.publish();
    segment
}

fn descriptors(segment: &Segment) -> [OwnedFd; 2] {
    segment.fds().map(|fd| fd.try_clone_to_owned().expect("a descriptor"))
}

/// Everything that anybody asks of a segment.
fn use_all(segment: &Segment) {
    let (layout, right) = (segment.layout, Layout::new(SIZES));
    assert_eq!((layout.control_len, layout.data_len), (right.control_len, right.data_len));
    assert_eq!(layout.fingerprint(), segment.header().layout.load(Ordering::Relaxed));
    assert!(segment.places() <= segment.processes());
    let mut sum = segment.slots().len() + segment.functions().len();
    for process in 0..segment.processes() {
        sum += segment.classes(process).len() + segment.words(process).len();
        sum += segment.completions(process).tail() as usize;
        segment.process(process).life();
        segment.window(process).get(0).get();
    }
    for lane in 0..LANES {
        sum += segment.ready(lane).backlog() as usize;
        segment.requeue(lane).is_empty();
    }
    segment.bell().notify(0);
    let _ = (segment.state(), segment.pool_id(), segment.hardened(), std::hint::black_box(sum));
    let _ = crate::attach::compare_functions(segment);
}

#[test]
fn any_header_at_attach() {
    let pool = pool();
    let words = pool.control_words(0, size_of::<Header>() / 8);
    let right: Vec<u64> = words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
    let sizes: Vec<&AtomicU64> = {
        let header = pool.header();
        vec![&header.processes, &header.slots, &header.completions, &header.region]
    };
    fuzz("attach to a pool with any header", 3000, |random: &mut Rng| {
        for (word, right) in words.iter().zip(&right) {
            word.store(*right, Ordering::Relaxed);
        }
        for _ in 0..random.u32(1..4) {
            let word = match random.u32(..3) {
                0 => sizes[random.usize(..sizes.len())],
                1 => &words[random.usize(..21)],
                _ => &words[random.usize(..words.len())],
            };
            word.store(nonsense(random, word.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
        // Names and counts of functions as well, and sometimes a fingerprint that fits the wrong sizes.
        for word in pool.control_words(pool.layout.functions, 64) {
            if random.u32(..8) == 0 {
                word.store(random.u64(..), Ordering::Relaxed);
            }
        }
        let header = pool.header();
        let get = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let claimed = Sizes {
            processes: get(&header.processes) as u32,
            slots: get(&header.slots) as u32,
            completions: get(&header.completions) as u32,
            region: get(&header.region),
        };
        if claimed.check().is_ok() && random.bool() {
            header.layout.store(Layout::new(claimed).fingerprint(), Ordering::Relaxed);
        }
        let [control, data] = descriptors(&pool);
        match Segment::attach(control, data, random.u32(..5)) {
            Ok(segment) => use_all(&segment),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        1
    });
}

#[test]
fn files_of_any_size_at_attach() {
    let pool = pool();
    let head: Vec<u64> = pool
        .control_words(0, size_of::<Header>() / 8)
        .iter()
        .map(|word| word.load(Ordering::Relaxed))
        .collect();
    fuzz("attach to files of any size", 300, |random: &mut Rng| {
        let size = |right: u64, random: &mut Rng| match random.u32(..6) {
            0 => right,
            1 => 0,
            2 => random.u64(..10_000),
            3 => right - 4096,
            4 => right + 4096,
            _ => random.u64(..2 * right),
        };
        let control_len = size(pool.layout.control_len as u64, random);
        let control = create_memfd("ringpool-fuzz", control_len).expect("a file");
        let bytes: Vec<u8> = head.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let fits = (bytes.len() as u64).min(control_len) as usize;
        rustix::io::pwrite(&control, &bytes[..fits], 0).expect("room");
        let data_len = size(pool.layout.data_len, random);
        let data = create_memfd("ringpool-fuzz", data_len).expect("a file");
        let right = control_len == pool.layout.control_len as u64 && data_len == pool.layout.data_len;
        match Segment::attach(control, data, 1) {
            Ok(segment) => {
                assert!(right);
                use_all(&segment);
            }
            Err(error) => assert!(!right, "{error}"),
        }
        1
    });
}
