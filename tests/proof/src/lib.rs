//! How long a proof runs, and the one line that says what came of it.
//!
//! The same tests run short in every check and long by `cargo xtask prove`, which collects the lines.

/// How much of a proof is run; the environment variable `RINGPOOL_PROOF` says which.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Extent {
    /// Seconds: what every check runs.
    Short,
    /// A minute or so for each proof: `cargo xtask prove --quick`.
    Quick,
    /// All of it: `cargo xtask prove`.
    Full,
}

impl Extent {
    /// What this run of the program is to do.
    ///
    /// # Panics
    ///
    /// If `RINGPOOL_PROOF` is neither `short`, `quick` nor `full`.
    pub fn now() -> Self {
        match std::env::var("RINGPOOL_PROOF").as_deref() {
            Err(_) | Ok("" | "short") => Extent::Short,
            Ok("quick") => Extent::Quick,
            Ok("full") => Extent::Full,
            Ok(other) => panic!("RINGPOOL_PROOF is {other:?}; it must be short, quick or full"),
        }
    }

    /// The value for this extent.
    pub fn pick<T>(self, short: T, quick: T, full: T) -> T {
        match self {
            Extent::Short => short,
            Extent::Quick => quick,
            Extent::Full => full,
        }
    }
}

/// What came of a proof.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// What was done, in a few words.
    pub kind: String,
    /// Pools, schedules or inputs that were tried.
    pub runs: u64,
    /// Processes that were killed or stopped.
    pub kills: u64,
    /// Tasks whose outcome came, right or as the error that was to be expected.
    pub delivered: u64,
    /// Tasks whose outcome never came, came twice or was wrong.
    pub lost: u64,
    /// Slots, blocks, processes, descriptors and files that were left over.
    pub leaked: u64,
    /// Waits that did not end.
    pub hung: u64,
}

impl Proof {
    /// A proof of which nothing has been run yet.
    pub fn of(kind: impl Into<String>) -> Self {
        Proof { kind: kind.into(), ..Proof::default() }
    }

    /// Prints the line that `cargo xtask prove` collects, and fails if anything was lost, leaked or hung.
    ///
    /// # Panics
    ///
    /// See above.
    pub fn report(&self) {
        let Proof { kind, runs, kills, delivered, lost, leaked, hung } = self;
        println!("proof|{kind}|{runs}|{kills}|{delivered}|{lost}|{leaked}|{hung}");
        assert_eq!((*lost, *leaked, *hung), (0, 0, 0), "{kind}: (lost, leaked, hung)");
    }
}
