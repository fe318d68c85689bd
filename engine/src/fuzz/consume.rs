//! A client and its workers, one step after the other in one thread, while anything may be written over
//! between two steps: each task has one outcome, and in a hardened pool no value is wrong.

use super::{fuzz, nonsense};
use crate::chunk::ChunkReader;
use crate::client::{Args, Client, Death, Key, Outcome, Sink, Target, TaskSpec};
use crate::error::{Exit, Result};
use crate::payload::{Payload, take};
use crate::recovery;
use crate::segment::{Life, LifeState, Segment, Sizes};
use crate::slot::{Owner, Shape};
use crate::sync::Ordering;
use crate::task::{Status, Task};
use crate::worker::{FuncWord, Worker};
use fastrand::Rng;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SIZES: Sizes = Sizes { processes: 4, slots: 32, completions: 16, region: 8 << 20 };
const QUOTA: u64 = 6 << 20;

fn odd(x: u64) -> u64 {
    x.wrapping_mul(2) | 1
}

fn turn(a: u64, b: u64, c: u64) -> (u64, u64, u64) {
    (b, c, a)
}

/// Large, unless somebody wrote over the length.
fn repeat(len: u32, x: u64) -> Vec<u64> {
    vec![x; len.min(5000) as usize]
}

/// What is expected of a task, and what has come.
struct Expected {
    /// For each item, the check of its value.
    values: Vec<u64>,
    /// How to make the check of one from the bytes of a single call.
    check: fn(&[u8]) -> Result<u64>,
    outcomes: Vec<u32>,
}

/// One number for a value, so that all kinds can be compared.
fn sum<T: Payload + std::hash::Hash>(value: &T) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn check<T: Payload + std::hash::Hash>(bytes: &[u8]) -> Result<u64> {
    take::<T>(bytes).map(|value| sum(&value))
}

/// Where all outcomes arrive.
struct Book {
    hardened: bool,
    tasks: Mutex<HashMap<u64, Expected>>,
}

impl Book {
    fn item(&self, task: &mut Expected, item: usize, value: Option<u64>) {
        task.outcomes[item] += 1;
        if let (true, Some(value)) = (self.hardened, value) {
            assert_eq!(value, task.values[item], "a wrong value");
        }
    }
}

impl Sink for Book {
    fn deliver(&self, tag: u64, outcome: Outcome, _: &mut Key) {
        let mut tasks = self.tasks.lock().expect("no panic before");
        let task = tasks.get_mut(&tag).expect("a task that was submitted");
        match outcome {
            Outcome::Answer { status, bytes } => {
                let value = (status == Status::Value as u32).then(|| (task.check)(bytes.as_slice()));
                self.item(task, 0, value.and_then(Result::ok));
            }
            Outcome::Failed(_) => {
                assert_eq!(task.values.len(), 1, "a chunk fails item by item");
                self.item(task, 0, None);
            }
            Outcome::Range { first, end, .. } => (first..end).for_each(|i| self.item(task, i as usize, None)),
            Outcome::Items { first, done, bytes } => {
                let mut reader = ChunkReader::new(bytes.as_slice(), done);
                for i in first..first + done {
                    let value = reader.next::<u64>().and_then(Result::ok).and_then(Result::ok);
                    self.item(task, i as usize, value.map(|value| sum(&value)));
                }
            }
        }
    }
}

/// The pool in one process.
struct Pool {
    segment: Arc<Segment>,
    client: Client,
    book: Arc<Book>,
    sink: Arc<dyn Sink>,
    /// Next incarnation of each place.
    incarnations: [u32; SIZES.processes as usize],
    tags: u64,
}

impl Pool {
    fn new(hardened: bool) -> Self {
        let segment = Arc::new(Segment::create(SIZES).expect("memory"));
        let header = segment.header();
        header.payload_format.store(crate::payload::format_fingerprint(), Ordering::Relaxed);
        header.quota.store(QUOTA, Ordering::Relaxed);
        header.places.store(SIZES.processes.into(), Ordering::Relaxed);
        header.hardened.store(hardened.into(), Ordering::Relaxed);
        header.cpus.store(1, Ordering::Relaxed);
        segment.publish();
        let client = Client::new(segment.clone(), Duration::ZERO, 3, QUOTA);
        let book = Arc::new(Book { hardened, tasks: Mutex::default() });
        let sink = book.clone();
        Pool { segment, client, book, sink, incarnations: [0; 4], tags: 0 }
    }

    /// What the supervisor does to launch a worker, and the worker's view of the memory.
    fn launch(&mut self, index: u32) -> (Segment, u32) {
        let incarnation = self.incarnations[index as usize];
        self.incarnations[index as usize] += 1;
        self.client.admit(index, incarnation, false);
        let life = Life { state: LifeState::Joining, incarnation }.pack();
        self.segment.process(index).life.store(life, Ordering::Release);
        let [control, data] = self.segment.fds().map(|fd| fd.try_clone_to_owned().expect("a descriptor"));
        (Segment::attach(control, data, index).expect("the header is out of reach"), incarnation)
    }

    /// What the supervisor does after a death.
    fn bury(&self, index: u32, incarnation: u32) {
        let who = Owner::new(index, incarnation);
        let current = self.segment.process(index).current.load(Ordering::Acquire);
        self.client.record_death(Death { who, pid: 1, exit: Exit::Signal(9), current });
        recovery::reap(&self.segment, index, incarnation);
        self.segment.park(index).vacate();
        self.client.after_reap(index);
        if self.client.holds_nothing_of(index) {
            recovery::renew_region(&self.segment, index);
        }
    }

    fn submit<A, M, F>(&mut self, f: F, args: A, expected: u64) -> bool
    where
        A: Payload,
        F: Task<A, M>,
        F::Value: std::hash::Hash,
    {
        let Ok(args) = Args::archive(&self.client.arena, &args) else { return false };
        let shape = args.shape();
        self.place(f, args, shape, None, vec![expected], check::<F::Value>)
    }

    fn place<A, M, F: Task<A, M>>(
        &mut self,
        f: F,
        args: Args,
        shape: Shape,
        items: Option<(u32, u32)>,
        values: Vec<u64>,
        check: fn(&[u8]) -> Result<u64>,
    ) -> bool {
        self.tags += 1;
        let outcomes = vec![0; values.len()];
        self.book.tasks.lock().expect("no panic").insert(self.tags, Expected { values, check, outcomes });
        let func = FuncWord::new(f.func()).expect("code of this program");
        let spec = TaskSpec { func, name: f.name(), args, shape };
        let submitted = self.client.submit(spec, items, Target::Sink(self.sink.clone()), self.tags).is_ok();
        if !submitted {
            self.book.tasks.lock().expect("no panic").remove(&self.tags);
        }
        submitted
    }

    fn submit_some(&mut self, random: &mut Rng) -> bool {
        if !self.client.has_slot() {
            return true;
        }
        let x = random.u64(..);
        match random.u32(..5) {
            0 | 1 => self.submit(odd, (x,), sum(&odd(x))),
            2 => self.submit(turn, (x, 1, !x), sum(&turn(x, 1, !x))),
            3 => {
                let len = random.u32(..3000);
                self.submit(repeat, (len, x), sum(&repeat(len, x)))
            }
            _ => {
                let items: Vec<u64> = (0..random.u64(1..20)).map(|i| x ^ i).collect();
                let values = items.iter().map(|&i| sum(&odd(i))).collect();
                let Ok(args) = Args::archive_items(&self.client.arena, &items) else { return false };
                let range = (0, items.len() as u32);
                self.place::<(u64,), _, _>(odd, args, Shape::Items, Some(range), values, check::<u64>)
            }
        }
    }

    /// Writes over some word that workers can write.
    fn scribble(&self, random: &mut Rng) {
        let layout = &self.segment.layout;
        let slots = layout.slots..layout.slots + 32 * 128;
        let owner = random.usize(..4);
        let area = match random.u32(..12) {
            0..=5 => slots,
            6 => layout.processes..layout.processes + 4 * 512,
            7 => layout.client..layout.slots,
            8 => layout.completions..layout.completions + 4 * layout.completion_stride,
            9 => layout.classes..layout.classes + 4 * layout.class_stride,
            10 => layout.masks..layout.processes,
            _ => {
                let start = layout.words + owner * layout.word_stride + random.usize(..4) * 4096 * 8;
                start..start + 256
            }
        };
        let words = self.segment.control_words(area.start, area.len() / 8);
        let word = &words[random.usize(..words.len())];
        let now = word.load(Ordering::Relaxed);
        let value = match random.u32(..6) {
            0 => words[random.usize(..words.len())].load(Ordering::Relaxed),
            _ => nonsense(random, now),
        };
        word.store(value, Ordering::Relaxed);
    }
}

/// Writes over a result in a worker's own region.
fn scribble_region(segment: &Segment, random: &mut Rng) {
    let at = random.usize(..3) * (2 << 20) + random.usize(..8192) * 8;
    // SAFETY: inside the region; nobody has a reference to it: the pool is hardened, so results are copied.
    unsafe {
        let word = segment.region().ptr().byte_add(at).cast::<u64>();
        word.write_volatile(nonsense(random, word.read_volatile()));
    }
}

fn one_pool(random: &mut Rng, hardened: bool) -> u64 {
    let mut pool = Pool::new(hardened);
    let gone = || false;
    let intensity = random.u32(1..40);
    for _life in 0..3 {
        let launched = [1, 2].map(|index| (index, pool.launch(index)));
        if random.u32(..4) == 0 {
            pool.scribble(random);
        }
        let mut workers: Vec<Option<Worker<'_>>> = launched
            .iter()
            .map(|(_, (segment, incarnation))| Worker::new(segment, *incarnation, true, Some(&gone)).ok())
            .collect();
        for _ in 0..random.u32(20..120) {
            match random.u32(..10) {
                0..=2 => {
                    pool.submit_some(random);
                }
                3..=6 => {
                    if let Some(worker) = &mut workers[random.usize(..2)] {
                        worker.step();
                    }
                }
                7 => pool.client.collect(),
                8 => pool.client.look_behind(),
                _ => {
                    if hardened && random.bool() {
                        scribble_region(&launched[random.usize(..2)].1.0, random);
                    }
                }
            }
            if random.u32(..40) < intensity {
                pool.scribble(random);
            }
        }
        drop(workers);
        for (index, (_, incarnation)) in &launched {
            pool.bury(*index, *incarnation);
        }
    }
    // Nobody writes over anything any more: all tasks come to an end.
    for _ in 0..20 {
        if pool.client.in_flight() == 0 {
            break;
        }
        let launched = [1, 2].map(|index| (index, pool.launch(index)));
        for (_, (segment, incarnation)) in &launched {
            let mut worker = Worker::new(segment, *incarnation, true, Some(&gone)).expect("its place");
            for _ in 0..100 {
                worker.step();
            }
        }
        pool.client.collect();
        pool.client.look_behind();
        for (index, (_, incarnation)) in &launched {
            pool.bury(*index, *incarnation);
        }
    }
    assert_eq!(pool.client.in_flight(), 0, "a task hangs");
    let tasks = pool.book.tasks.lock().expect("no panic");
    for (tag, task) in &*tasks {
        assert!(task.outcomes.iter().all(|&times| times == 1), "task {tag}: outcomes {:?}", task.outcomes);
    }
    pool.client.arena.trim();
    assert_eq!(pool.client.arena.used(), 0, "arguments are left over");
    tasks.len() as u64
}

#[test]
fn anything_written_over_in_a_default_pool() {
    fuzz("words written over in a default pool", 150, |random: &mut Rng| one_pool(random, false));
}

#[test]
fn anything_written_over_in_a_hardened_pool() {
    fuzz("words written over in a hardened pool", 150, |random: &mut Rng| one_pool(random, true));
}
