//! The hostile worker: stores nonsense into shared memory, as wild pointers would, but more of it.

use std::time::{Duration, Instant};

/// Numbers that look random and are the same in every run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 16) % limit
    }
}

/// A shared mapping of a pool in this process.
#[derive(Clone, Copy)]
pub struct Mapping {
    pub start: usize,
    pub len: usize,
    pub writable: bool,
    /// Control memory, or payloads.
    pub control: bool,
}

/// All mappings of the pool that this worker serves.
pub fn mappings() -> Vec<Mapping> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("/proc");
    let parse = |line: &str| {
        let control = line.contains("/memfd:ringpool-control-");
        if !control && !line.contains("/memfd:ringpool-data-") {
            return None;
        }
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
        let writable = fields.next()?.starts_with("rw-s");
        Some(Mapping { start, len: end - start, writable, control })
    };
    maps.lines().filter_map(parse).collect()
}

const PAGE: usize = 4096;

impl Mapping {
    /// The pages that somebody has used; most of the memory never is.
    fn used_pages(&self) -> Vec<usize> {
        let mut resident = vec![0_u8; self.len / PAGE];
        // SAFETY: the kernel writes one byte for each page of the mapping.
        let code = unsafe { libc::mincore(self.start as *mut _, self.len, resident.as_mut_ptr()) };
        assert_eq!(code, 0, "mincore");
        let used = (0..).zip(resident).filter(|(_, resident)| resident & 1 == 1);
        used.map(|(page, _): (usize, u8)| self.start + page * PAGE).collect()
    }
}

/// What a hostile worker does.
#[derive(Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub millis: u64,
    /// Stores at once, and microseconds between two such bursts.
    pub burst: u64,
    pub pause: u64,
    /// Results in its own region, too, or only control memory.
    pub data: bool,
}

fn nonsense(random: &mut Random, now: u64, pages: &[usize]) -> u64 {
    match random.below(8) {
        0 => random.next(),
        1 | 2 => now ^ 1 << random.below(64),
        3 => [0, !0, 1 << 63, 1 << 31, 0xffff_ffff][random.below(5) as usize],
        4 => random.below(70),
        5 => now.wrapping_add(1),
        6 => now.wrapping_sub(1),
        // What is right elsewhere.
        _ => {
            let page = pages[random.below(pages.len() as u64) as usize];
            // SAFETY: a page of a mapping of ours.
            unsafe { ((page + random.below(512) as usize * 8) as *const u64).read_volatile() }
        }
    }
}

/// Carries the plan out; returns how many words it wrote over.
pub fn scribble(plan: Plan) -> u64 {
    let mut random = Random::new(plan.seed);
    let writable: Vec<Mapping> =
        mappings().into_iter().filter(|m| m.writable && (m.control || plan.data)).collect();
    assert!(!writable.is_empty(), "a worker has the pool mapped");
    let end = Instant::now() + Duration::from_millis(plan.millis);
    let mut written = 0;
    while Instant::now() < end {
        let pages: Vec<usize> = writable.iter().flat_map(Mapping::used_pages).collect();
        for _ in 0..16 {
            for _ in 0..plan.burst {
                let page = pages[random.below(pages.len() as u64) as usize];
                let mut at = page;
                // Words that are used are seldom zero.
                for _ in 0..6 {
                    at = page + random.below(512) as usize * 8;
                    // SAFETY: a page of a mapping of ours.
                    if unsafe { (at as *const u64).read_volatile() } != 0 {
                        break;
                    }
                }
                // SAFETY: none that anybody could want: a wild store into memory that we may write.
                unsafe {
                    let word = at as *mut u64;
                    let value = nonsense(&mut random, word.read_volatile(), &pages);
                    match random.below(3) {
                        0 => word.cast::<u32>().write_volatile(value as u32),
                        1 => word.cast::<u32>().add(1).write_volatile(value as u32),
                        _ => word.write_volatile(value),
                    }
                }
                written += 1;
            }
            if plan.pause > 0 {
                std::thread::sleep(Duration::from_micros(plan.pause));
            }
        }
    }
    written
}

/// The task.
pub fn hostile(seed: u64, millis: u64, burst: u64, pause: u64, data: bool) -> u64 {
    scribble(Plan { seed, millis, burst, pause, data })
}

/// The same on a thread of its own; the task ends at once, and the worker goes on with others.
pub fn hostile_thread(seed: u64, millis: u64, burst: u64, pause: u64, data: bool) -> u64 {
    std::thread::spawn(move || scribble(Plan { seed, millis, burst, pause, data }));
    0
}
