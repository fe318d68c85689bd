//! A worker is killed after each instruction of its way through a task.

use crate::plan::{self, Plan};
use crate::tracer::Tracee;
use crate::way::{Reached, Way};
use crate::work::{self, HUNG, NUMBERS, OTHERS, Outcome, Work, outcome_of_tiny, tiny};
use libtest_mimic::Trial;
use ringpool::{Exit, Pool};
use ringpool_tests::proof::{Extent, Proof};
use ringpool_tests::{eventually, expect_repaired, procs};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// One kind of sweep.
#[derive(Clone, Copy)]
struct Sweep {
    kind: &'static str,
    work: Work,
    /// As long as these are left, no death is seen by the caller.
    retries: u32,
    /// The first of them is stepped. All others are held until it is dead, and take over, unless it is `Hammered`.
    workers: usize,
    /// What surrounds the stepped task.
    setting: Setting,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    /// The worker has done the same before, and nobody spins.
    Warm,
    /// It is the first task of a new worker.
    Cold,
    /// Worker and client wait awake for a while before they sleep.
    Spinning,
    /// Another thread submits one task after the other; the other workers are held only until it begins.
    Hammered,
}

use Setting::{Cold, Hammered, Spinning, Warm};

const fn sweep(kind: &'static str, work: Work, retries: u32, workers: usize, setting: Setting) -> Sweep {
    Sweep { kind, work, retries, workers, setting }
}

const SWEEPS: [Sweep; 9] = [
    sweep("tiny task", Work::Tiny, 0, 1, Warm),
    sweep("first task of a worker", Work::Tiny, 0, 1, Cold),
    sweep("three tasks, retried", Work::Batch, 14, 1, Warm),
    sweep("blocks, retried", Work::Blocks, 14, 1, Warm),
    sweep("chunk of a map", Work::Chunk, 0, 1, Warm),
    sweep("chunk of a map, retried", Work::Chunk, 14, 1, Warm),
    sweep("three tasks, another worker takes over", Work::Batch, 0, 2, Warm),
    sweep("tiny task, others submit", Work::Tiny, 0, 2, Hammered),
    sweep("tiny task, all spin", Work::Tiny, 14, 2, Spinning),
];

/// What short proofs leave out.
const MORE: [Sweep; 4] = [
    sweep("tiny task, retried", Work::Tiny, 14, 1, Warm),
    sweep("blocks", Work::Blocks, 0, 1, Warm),
    sweep("item of a stream", Work::Stream, 0, 1, Warm),
    sweep("item of a stream, retried", Work::Stream, 14, 1, Warm),
];

pub fn tests() -> Vec<Trial> {
    let test = |sweep: Sweep| {
        let name = format!("worker::{}", sweep.kind.replace(", ", "::").replace(' ', "_"));
        crate::stepping_test(name, move || sweep.run())
    };
    let more = Extent::now() != Extent::Short;
    SWEEPS.into_iter().chain(MORE.into_iter().filter(|_| more)).map(test).collect()
}

/// Of a worker that waits awake only so many instructions are taken: those of the task and of its first looks
/// for another. All others are the same loop again.
const MOST: u64 = if cfg!(debug_assertions) { 45_000 } else { 4_000 };

/// How far the worker is to come.
#[derive(Clone, Copy)]
enum Aim<'w> {
    /// To its next sleep; its way there is recorded.
    Record,
    /// So many instructions on this way.
    Kill(&'w Way, u64),
}

/// How a run ended for the stepped worker.
enum End {
    /// Killed, when its next instruction was at this address.
    Killed { pid: u32, address: u64 },
    /// Asleep again, or far enough; the way, if it was recorded.
    Parked(Option<Way>),
}

impl Sweep {
    fn run(self) {
        let mut state = State::new(self);
        let ways = (0..plan::recordings()).filter_map(|_| match state.once(Aim::Record) {
            End::Parked(way) => way,
            End::Killed { .. } => None,
        });
        // The longest has all of the others, and what hints that come twice add.
        let way = ways.max_by_key(Way::len).expect("a recorded way");
        let mut plan = Plan::new(self.kind, way.len() + 1, plan::limit());
        for n in plan.by_ref() {
            state.once(Aim::Kill(&way, n));
        }
        let (tried, all, deaths) = (plan.given(), way.len() + 1, state.deaths);
        println!("{}: {tried} of {all} instructions, {deaths} deaths seen", self.kind);
        expect_repaired(&state.pool);
        state.proof.report();
    }

    /// A machine with one CPU has nobody spin: then a task is a few thousand instructions.
    fn start_pool(&self) -> Pool {
        let builder = Pool::builder().processes(self.workers).retries(self.retries);
        let start = || builder.start().expect("a pool");
        if self.setting == Spinning { start() } else { crate::on_one_cpu(start) }
    }
}

/// A pool that lives through all runs of a sweep.
struct State {
    sweep: Sweep,
    pool: Pool,
    proof: Proof,
    runs: u64,
    /// Tasks that ended by the death of the stepped worker.
    deaths: u64,
}

impl State {
    fn new(sweep: Sweep) -> Self {
        work::reset_counts(); // the workers are to share them
        let proof = Proof::of(format!("single step: worker, {}", sweep.kind));
        State { sweep, pool: sweep.start_pool(), proof, runs: 0, deaths: 0 }
    }

    /// Has the work done once, and kills the worker on its way if it comes so far.
    fn once(&mut self, aim: Aim) -> End {
        let Sweep { work, setting, .. } = self.sweep;
        self.runs += 1;
        self.proof.runs += 1;
        if self.runs.is_multiple_of(64) {
            expect_repaired(&self.pool);
        }
        let first = self.runs * NUMBERS;
        self.await_workers();
        if setting != Cold {
            let outcomes = work.run(&self.pool, first, || {});
            assert!(outcomes.iter().all(|o| matches!(o, Outcome::Right)), "undisturbed: {outcomes:?}");
        }
        work::reset_counts();

        let pids = self.pool.worker_pids();
        let victim = pids[0];
        let (mut stepped, park) = hold_parked(victim);
        let mut held: Vec<Tracee> = pids[1..].iter().map(|&pid| hold_parked(pid).0).collect();
        let over = AtomicBool::new(false);
        let client = Client::default();
        let pool = &self.pool;
        let (end, outcomes, others) = std::thread::scope(|threads| {
            let outcomes = threads.spawn(|| client.run(work, pool, first));
            let others = (setting == Hammered).then(|| threads.spawn(|| hammer(pool, first + OTHERS, &over)));
            client.await_sleep(setting != Hammered);
            // All workers slept when that was submitted, so the stepped one is being woken: nobody else would have to
            // wake it again.
            if setting == Hammered {
                held.drain(..).for_each(Tracee::release);
            }
            let sleeps = |worker: &Tracee| sleeps_on(worker, park);
            let most = if setting == Spinning { MOST } else { u64::MAX };
            let end = match aim {
                Aim::Record => End::Parked(Some(Way::record(&mut stepped, most, sleeps))),
                Aim::Kill(way, n) => match way.follow(&mut stepped, n, sleeps) {
                    Reached::Place => End::Killed { pid: victim, address: stepped.address() },
                    Reached::End => End::Parked(None),
                },
            };
            match end {
                End::Killed { .. } => stepped.kill(),
                End::Parked(_) => stepped.release(),
            }
            held.into_iter().for_each(Tracee::release);
            over.store(true, Ordering::Relaxed);
            // While the death is being discovered and repaired.
            let others = match others {
                Some(others) => others.join().expect("no panic"),
                None if setting == Cold => Vec::new(),
                None => vec![submit_another(pool, first + OTHERS), submit_another(pool, first + OTHERS + 1)],
            };
            (end, outcomes.join().expect("no panic"), others)
        });
        self.judge(aim, &end, first, &outcomes, others);
        if setting == Cold && matches!(end, End::Parked(_)) {
            procs::kill(victim); // its next task would not be its first
            eventually("it is buried", HUNG, || !self.pool.worker_pids().contains(&victim));
        }
        end
    }

    /// As many workers as there should be, asleep or soon to be.
    fn await_workers(&mut self) {
        let started = Instant::now();
        while started.elapsed() < HUNG {
            let pids = self.pool.worker_pids();
            if pids.len() == self.sweep.workers && pids.iter().all(|&pid| sleeps_on_a_futex(pid)) {
                return;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        eprintln!("{}: the workers are not replaced: {:?}", self.sweep.kind, self.pool.worker_pids());
        self.proof.hung += 1;
        self.proof.report();
    }

    fn judge(&mut self, aim: Aim, end: &End, first: u64, outcomes: &[Outcome], others: Vec<(u64, Outcome)>) {
        let killed = match end {
            End::Killed { pid, .. } => Some(*pid),
            End::Parked(_) => None,
        };
        self.proof.kills += u64::from(killed.is_some());
        let mut deaths_left = u64::from(killed.is_some());
        let mut wrong = Vec::new();
        let own = (first..).zip(outcomes);
        if outcomes.len() as u64 != self.sweep.work.len() {
            wrong.push(format!("{} outcomes", outcomes.len()));
        }
        for (number, outcome) in own.chain(others.iter().map(|(number, outcome)| (*number, outcome))) {
            let runs = work::count(number);
            let once_more = u32::from(killed.is_some() && self.sweep.retries > 0);
            let good = match outcome {
                Outcome::Right => (1..=1 + once_more).contains(&runs),
                Outcome::Died { end: Exit::Signal(libc::SIGKILL), pid } => {
                    let expected =
                        self.sweep.retries == 0 && Some(*pid) == killed && deaths_left == 1 && runs <= 1;
                    deaths_left = 0;
                    self.deaths += 1;
                    expected
                }
                Outcome::Hung => {
                    self.proof.hung += 1;
                    false
                }
                _ => false,
            };
            if good {
                self.proof.delivered += 1;
            } else {
                wrong.push(format!("task {}, begun {runs} times: {outcome:?}", number - first));
            }
        }
        if !wrong.is_empty() {
            self.proof.lost += wrong.len() as u64;
            let place = match end {
                End::Killed { address, .. } => format!("killed at {}", crate::place(*address)),
                End::Parked(_) => "not killed".to_owned(),
            };
            let n = match aim {
                Aim::Record => "recording".to_owned(),
                Aim::Kill(_, n) => format!("n = {n}"),
            };
            eprintln!("{}: {n}, {place}: {wrong:#?}", self.sweep.kind);
        }
    }
}

fn submit_another(pool: &Pool, number: u64) -> (u64, Outcome) {
    match pool.apply_async(tiny, (number,)) {
        Ok(result) => (number, outcome_of_tiny(&result, number)),
        Err(error) => (number, Outcome::Wrong(error.to_string())),
    }
}

/// One task after the other until `over`, and two more.
fn hammer(pool: &Pool, first: u64, over: &AtomicBool) -> Vec<(u64, Outcome)> {
    let mut outcomes = Vec::new();
    let mut last = false;
    // A counter for each: there are not enough for more.
    while outcomes.len() < OTHERS as usize && !last {
        last = over.load(Ordering::Relaxed);
        outcomes.push(submit_another(pool, first + outcomes.len() as u64));
    }
    outcomes
}

/// Whether the worker is about to sleep on this word.
fn sleeps_on(worker: &Tracee, park: u64) -> bool {
    worker.enters(libc::SYS_futex).is_some_and(|registers| registers.rdi == park && waits(registers.rsi))
}

/// Whether a futex operation is a sleep.
fn waits(operation: u64) -> bool {
    matches!((operation & 0x7f) as i32, libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET)
}

/// Stops a worker in its sleep; also returns the address of the word that it sleeps on.
fn hold_parked(pid: u32) -> (Tracee, u64) {
    let started = Instant::now();
    loop {
        if sleeps_on_a_futex(pid) {
            let tracee = Tracee::seize(pid).expect("a worker that can be traced");
            let registers = tracee.registers();
            if registers.orig_rax as i64 == libc::SYS_futex && waits(registers.rsi) {
                return (tracee, registers.rdi);
            }
        }
        assert!(started.elapsed() < HUNG, "worker {pid} does not sleep");
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// By what the kernel says, without disturbing it. It may wake up at any time.
fn sleeps_on_a_futex(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(&libc::SYS_futex.to_string())
}

/// The thread that waits for the work.
#[derive(Default)]
struct Client {
    thread: AtomicU32,
    submitted: AtomicBool,
}

impl Client {
    fn run(&self, work: Work, pool: &Pool, first: u64) -> Vec<Outcome> {
        // SAFETY: returns a number.
        self.thread.store(unsafe { libc::gettid() } as u32, Ordering::Relaxed);
        work.run(pool, first, || self.submitted.store(true, Ordering::Release))
    }

    /// Waits until the work is submitted and, if that is wanted and comes about soon, its client asleep:
    /// then the worker owes it a wake-up.
    fn await_sleep(&self, asleep: bool) {
        eventually("work is submitted", HUNG, || self.submitted.load(Ordering::Acquire));
        let path = format!("/proc/self/task/{}/syscall", self.thread.load(Ordering::Relaxed));
        let futex = libc::SYS_futex.to_string();
        let started = Instant::now();
        while asleep && started.elapsed() < Duration::from_millis(20) {
            let call = std::fs::read_to_string(&path).unwrap_or_default();
            if call.split(' ').next() == Some(&futex) {
                return;
            }
            std::thread::yield_now();
        }
    }
}
