//! Park words, masks and the bell, as in the engine's `wake/`; used by the models of the core and of
//! wake-ups.

/// Most workers of a model.
pub const MOST_WORKERS: usize = 3;

/// As the engine's `ParkState`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ParkState {
    /// Busy.
    Run,
    /// Asleep, or about to be.
    Parked,
    /// Somebody is waking it.
    Notified,
    /// Awake and looking.
    Search,
}

/// A park word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Park {
    /// What the worker does.
    pub state: ParkState,
    /// Which life of its place wrote the word.
    pub incarnation: u8,
}

/// All park words, the two masks, and the kernel's list of sleepers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Seats {
    /// The truth.
    pub park: [Park; MOST_WORKERS],
    /// Hints: who may be asleep.
    pub idle: u8,
    /// Hints: who may be searching.
    pub searching: u8,
    /// Who is in `futex_wait` on its park word. Not memory: only the kernel and the sleeper know.
    pub asleep: u8,
}

/// The bit of a worker in a mask.
pub fn bit(worker: usize) -> u8 {
    1 << worker
}

impl Seats {
    /// Nobody has searched or slept yet.
    pub fn new() -> Self {
        let park = [Park { state: ParkState::Run, incarnation: 0 }; MOST_WORKERS];
        Seats { park, idle: 0, searching: 0, asleep: 0 }
    }

    /// A store by the worker itself: `search`, `run`, `announce`.
    pub fn set(&mut self, worker: usize, state: ParkState, incarnation: u8) {
        self.park[worker] = Park { state, incarnation };
    }

    /// `Park::notify`.
    pub fn notify(&mut self, worker: usize) -> bool {
        let parked = self.park[worker].state == ParkState::Parked;
        if parked {
            self.park[worker].state = ParkState::Notified;
        }
        parked
    }

    /// `Park::wake`: whether somebody was woken.
    pub fn wake(&mut self, worker: usize) -> bool {
        let slept = self.asleep & bit(worker) != 0;
        self.asleep &= !bit(worker);
        slept
    }

    /// `Park::sleep`: the kernel compares the word with `Parked` of this incarnation; whether it sleeps.
    pub fn sleep(&mut self, worker: usize, incarnation: u8) -> bool {
        let parked = self.park[worker] == Park { state: ParkState::Parked, incarnation };
        if parked {
            self.asleep |= bit(worker);
        }
        parked
    }

    /// `Park::take_from_dead`; without the `tagged` check it hits whoever has the place now.
    pub fn take_from_dead(&mut self, worker: usize, incarnation: u8, tagged: bool) {
        if !tagged || self.park[worker].incarnation == incarnation {
            self.park[worker].state = ParkState::Run;
        }
    }

    fn state_of_lowest(&self, workers: u8) -> ParkState {
        self.park[workers.trailing_zeros() as usize].state
    }
}

impl Default for Seats {
    fn default() -> Self {
        Self::new()
    }
}

/// What of the bell a mutant leaves out.
#[derive(Clone, Copy, Default, Debug)]
pub struct BellFaults {
    /// The searching bit alone suppresses a wake-up.
    pub mask_is_truth: bool,
    /// `notify` looks at searchers and ends there.
    pub never_looks_at_idle: bool,
    /// `notify` gives up after one worker that it could not wake.
    pub one_try: bool,
}

/// Where a process is in `Bell::notify` or `notify_force`. `left` are workers still to be looked at,
/// lowest first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Notify {
    /// `notify`, after the fence: loads the searching mask.
    Searching,
    /// Loads the park words of its members.
    SearchPark {
        /// See above.
        left: u8,
    },
    /// Nobody searches: loads the idle mask.
    Idle,
    /// `wake_one`: is anybody on the way?
    NotifiedPark {
        /// See above.
        left: u8,
    },
    /// `wake_one` loads the idle mask once more; `notify_force` begins here.
    Candidates {
        /// `notify_force` does not believe the words.
        force: bool,
    },
    /// `Park::notify` of a candidate.
    Mark {
        /// See above.
        left: u8,
        /// See above.
        force: bool,
    },
    /// `Park::wake` of a candidate.
    Wake {
        /// See above.
        left: u8,
        /// See above.
        force: bool,
    },
}

impl Notify {
    /// `Bell::notify`.
    pub const START: Notify = Notify::Searching;
    /// `Bell::notify_force`.
    pub const FORCE: Notify = Notify::Candidates { force: true };

    /// What the next step is called.
    pub fn label(self) -> &'static str {
        match self {
            Notify::Searching => "notify: load searching mask",
            Notify::SearchPark { .. } => "notify: park word Search?",
            Notify::Idle => "notify: load idle mask",
            Notify::NotifiedPark { .. } => "wake_one: park word Notified?",
            Notify::Candidates { force: false } => "wake_one: load idle mask",
            Notify::Candidates { force: true } => "notify_force: load idle mask",
            Notify::Mark { .. } => "Park::notify",
            Notify::Wake { .. } => "Park::wake",
        }
    }

    /// Makes one step; `None` when the call returns. `serving` are the workers that could do the work.
    pub fn step(self, seats: &mut Seats, serving: u8, faults: BellFaults) -> Option<Notify> {
        let next = |left: u8| left & (left - 1);
        match self {
            Notify::Searching => match seats.searching & serving {
                0 => Some(Notify::Idle),
                _ if faults.mask_is_truth => None,
                left => Some(Notify::SearchPark { left }),
            },
            Notify::SearchPark { left } if seats.state_of_lowest(left) == ParkState::Search => None,
            Notify::SearchPark { left } if next(left) == 0 => Some(Notify::Idle),
            Notify::SearchPark { left } => Some(Notify::SearchPark { left: next(left) }),
            Notify::Idle if faults.never_looks_at_idle => None,
            Notify::Idle => match seats.idle & serving {
                0 => None,
                left => Some(Notify::NotifiedPark { left }),
            },
            Notify::NotifiedPark { left } if seats.state_of_lowest(left) == ParkState::Notified => None,
            Notify::NotifiedPark { left } if next(left) == 0 => Some(Notify::Candidates { force: false }),
            Notify::NotifiedPark { left } => Some(Notify::NotifiedPark { left: next(left) }),
            Notify::Candidates { force } => match seats.idle & serving {
                0 => None,
                left => Some(Notify::Mark { left, force }),
            },
            Notify::Mark { left, force } => {
                let marked = seats.notify(left.trailing_zeros() as usize);
                if marked || force {
                    return Some(Notify::Wake { left, force });
                }
                Self::next_candidate(next(left), force, faults)
            }
            Notify::Wake { left, force } => {
                if seats.wake(left.trailing_zeros() as usize) {
                    return None;
                }
                Self::next_candidate(next(left), force, faults)
            }
        }
    }

    fn next_candidate(left: u8, force: bool, faults: BellFaults) -> Option<Notify> {
        (left != 0 && !faults.one_try).then_some(Notify::Mark { left, force })
    }
}
