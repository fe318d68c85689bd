//! What a worker process does: find a task, claim it, run it, publish the result, again.

mod doze;
mod find;
mod func;
mod habit;
mod home;
mod output;
mod run;

use crate::arena::Region;
use crate::error::{Error, Result};
use crate::segment::{LANE_CODE, LANE_NAMED, Life, LifeState, PoolState, Segment};
use crate::slot::{Owner, Word};
use crate::sync::Ordering;
use crate::task::Status;
use crate::wake::{Berth, Lull};
pub(crate) use func::FuncWord;
use habit::Habit;
pub(crate) use home::{Home, Returned, here};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

/// Has to call what it is given.
pub(crate) type Around<'a> = dyn Fn(&mut dyn FnMut()) + 'a;

/// A task that this worker owns.
#[derive(Clone, Copy)]
pub(crate) struct Claimed {
    slot: u32,
    run: Word,
}

/// Why a worker stopped serving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leave {
    /// The pool is closed and nothing is left to do, or it is being stopped.
    PoolEnded,
    /// It has done as many tasks as it may.
    Quota,
    /// The pool's creator is gone.
    CreatorGone,
}

/// A worker attached to a pool.
pub(crate) struct Worker<'s> {
    segment: &'s Segment,
    index: u32,
    incarnation: u32,
    me: Owner,
    berth: Berth<'s>,
    region: Rc<Home>,
    patience: Duration,
    /// The pool's id, if what lies in slots carries checks.
    checked: Option<u64>,
    /// Which lanes it serves: guests only the named one.
    lanes: RangeInclusive<usize>,
    functions: func::Functions,
    /// Hints of the own window that are not tried yet: `[next, claimed)`.
    next: usize,
    claimed: usize,
    /// The last range was all that there was.
    caught_up: bool,
    /// Before the next range is looked for, if so.
    lull: Lull,
    /// How often a range was taken.
    rounds: u32,
    /// Where the last claim of requeued slots ended.
    cursor: u32,
    /// Rounds of the search loop before it parks; 0 on a machine without a CPU to spare.
    spin: u32,
    /// Bytes of the last task's arguments and result that moved through shared memory.
    moved: usize,
    /// The client slept until the last task was done.
    woke: bool,
    /// It is worth waiting awake for such a client: the last sleep was short.
    patient: bool,
    /// It was asleep, and somebody has woken it.
    roused: bool,
    /// What had been taken from the rings when it began to search the last time, if it shares CPUs.
    pace: Option<doze::Pace>,
    /// Who was looking for work the last time that this worker left some.
    cover: Option<u32>,
    /// A task is done, and nobody has looked whether the client sleeps.
    untold: bool,
    /// Nothing has run since memory was given back.
    trimmed: bool,
    habit: Habit,
    tasks: u64,
    tasks_left: Option<u64>,
    /// Called around each task.
    around: Option<&'s Around<'s>>,
    /// Tells whether the pool's process is gone, if nobody ends this worker then.
    creator_gone: Option<&'s dyn Fn() -> bool>,
}

/// A search round is some 20 nanoseconds; this many are about 50 microseconds.
const SPIN_ROUNDS: u32 = if cfg!(feature = "crash") { 2 } else { 2500 };

impl<'s> Worker<'s> {
    /// Becomes incarnation `incarnation` of place `index`. `creator_gone` is asked now and then while
    /// it is idle.
    pub(crate) fn new(
        segment: &'s Segment,
        incarnation: u32,
        same_program: bool,
        creator_gone: Option<&'s dyn Fn() -> bool>,
    ) -> Result<Self> {
        let header = segment.header();
        let index = segment.index;
        // The first act: a place that was given to somebody else meanwhile is not touched.
        let live = Life { state: LifeState::Live, incarnation };
        if !segment.process(index).change_life(incarnation, &[LifeState::Joining], live) {
            return Err(Error::start(format!("place {index} is not incarnation {incarnation}'s any more")));
        }
        let me = Owner::new(index, incarnation);
        let region = Home::new(Region::open(segment, me, header.quota.load(Ordering::Relaxed)));
        let quota = header.tasks_per_worker.load(Ordering::Relaxed);
        let worker = Worker {
            segment,
            index,
            incarnation,
            me,
            berth: segment.berth(index, incarnation),
            region,
            patience: Duration::from_millis(header.patience.load(Ordering::Relaxed)),
            checked: segment.hardened().then(|| segment.pool_id()),
            lanes: if same_program { LANE_CODE..=LANE_NAMED } else { LANE_NAMED..=LANE_NAMED },
            functions: func::Functions::new(same_program),
            next: 0,
            claimed: 0,
            caught_up: false,
            lull: Lull::default(),
            rounds: 0,
            cursor: 0,
            spin: if header.cpus.load(Ordering::Relaxed) > 1 { SPIN_ROUNDS } else { 0 },
            moved: 0,
            woke: false,
            patient: true,
            roused: false,
            pace: None,
            cover: None,
            untold: false,
            trimmed: true,
            habit: Habit::default(),
            tasks: segment.process(index).tasks.load(Ordering::Relaxed),
            tasks_left: (quota != 0).then_some(quota),
            around: None,
            creator_gone,
        };
        worker.tell_lanes();
        for i in 0..crate::ring::BATCH {
            segment.window(index).set(i, crate::ring::Hint::NONE);
        }
        Ok(worker)
    }

    /// The kernel ends this process when the pool's is gone: nobody has to look.
    pub(crate) fn ends_with_creator(&mut self) {
        self.creator_gone = None;
    }

    /// Has every task called by `around`, which is to call what it is given.
    pub(crate) fn call_by(&mut self, around: &'s Around<'s>) {
        self.around = Some(around);
    }

    /// Runs the pool's initializer, if it has one; the error is its text.
    pub(crate) fn initialize(&mut self) -> Result<(), String> {
        let header = self.segment.header();
        let func = header.init_func.load(Ordering::Relaxed);
        if func == 0 {
            return Ok(());
        }
        let offset = header.init_offset.load(Ordering::Relaxed);
        let len = header.init_len.load(Ordering::Relaxed);
        // SAFETY: the creator wrote the arguments before it launched anybody and never frees them.
        let Some(args) = (unsafe { self.segment.payload(0, offset, len) }) else {
            return Err(format!("its arguments ({len} bytes at {offset}) lie outside the creator's region"));
        };
        let code = self.functions.get(func).map_err(|error| error.to_string())?;
        let mut output = output::Scratch::default();
        let (status, text) = output.call(code, args);
        if status == Status::Value {
            return Ok(());
        }
        Err(crate::task::failure_text(text))
    }

    /// Takes part until there is a reason to leave.
    pub(crate) fn serve(&mut self) -> Leave {
        let entry = self.segment.process(self.index);
        let _here = self.region.enter(self.segment);
        let reason = loop {
            match self.find() {
                Ok(task) => {
                    self.run(task);
                    if self.tasks_left.is_some_and(|left| left == 0) {
                        break Leave::Quota;
                    }
                }
                Err(reason) => break reason,
            }
        };
        self.tell_client();
        let leaving = Life { state: LifeState::Leaving, incarnation: self.incarnation };
        entry.change_life(self.incarnation, &[LifeState::Live], leaving);
        self.berth.leave();
        self.pass_on();
        reason
    }

    /// Wakes the client if it sleeps and does not know of what is done.
    fn tell_client(&mut self) {
        if std::mem::take(&mut self.untold) {
            self.segment.sleep().wake_sleepers();
        }
    }

    /// Says which lanes this worker serves.
    fn tell_lanes(&self) {
        let lanes = self.lanes.clone().fold(0, |mask, lane| mask | 1 << lane);
        self.segment.process(self.index).lanes.store(lanes, Ordering::Relaxed);
    }

    /// Wakes somebody for the work that is left, who can do it.
    fn pass_on(&self) {
        self.segment.bell().pass_on(self.index, self.lanes.clone(), |&lane| self.backlog_in(lane));
    }

    /// Whether work is left that somebody else could do meanwhile.
    fn backlog(&self) -> bool {
        self.next < self.claimed || self.lanes.clone().any(|lane| self.announced(lane))
    }

    /// The same for one lane. The own window counts for both: its hints may be of either.
    fn backlog_in(&self, lane: usize) -> bool {
        self.next < self.claimed || self.announced(lane)
    }

    fn announced(&self, lane: usize) -> bool {
        self.segment.ready(lane).backlog() > 0 || !self.segment.requeue(lane).is_empty()
    }

    fn stopping(&self) -> bool {
        self.segment.state() == PoolState::Stopping
    }
}
