//! What is measured. Each work runs in a process of its own for one contestant, and gives one line.

pub mod big;
pub mod call;
pub mod cold;
pub mod echo;
pub mod idle;
pub mod map;
pub mod outstanding;
pub mod parked;
pub mod pipelined;

use crate::contestants::{Contestant, Numbers};
use crate::record::Fields;
use hdrhistogram::Histogram;
use serde_json::json;
use std::error::Error;
use std::time::{Duration, Instant};

/// How much is done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scale {
    /// Everything once or twice, to see that it works.
    Smoke,
    /// Some minutes.
    Quick,
    /// What records are made of.
    Full,
}

impl Scale {
    /// One of three.
    pub fn pick<T>(self, smoke: T, quick: T, full: T) -> T {
        match self {
            Scale::Smoke => smoke,
            Scale::Quick => quick,
            Scale::Full => full,
        }
    }

    /// For the command line.
    pub fn name(self) -> &'static str {
        self.pick("smoke", "quick", "full")
    }

    /// Back from it.
    pub fn parse(name: &str) -> Option<Self> {
        [Scale::Smoke, Scale::Quick, Scale::Full].into_iter().find(|scale| scale.name() == name)
    }
}

/// One of the variants of a work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// How many.
    pub workers: usize,
    /// Bytes, items or tasks, as the work says; 0 if it has no size.
    pub size: usize,
}

/// A turn's line, or why there is none.
pub type Outcome = Result<Fields, Box<dyn Error>>;

/// Something to be measured.
pub struct Work {
    /// In tables, and on the command line.
    pub name: &'static str,
    /// What one of its figures is.
    pub about: &'static str,
    /// The field that counts most.
    pub metric: &'static str,
    /// Who others are compared with in tables.
    pub base: &'static str,
    /// Its variants. Those that a contestant cannot do are not among them.
    pub cases: fn(&Contestant, Scale) -> Vec<Case>,
    /// Does one.
    pub run: fn(&Contestant, Case, Scale) -> Outcome,
}

/// All of them, in the order in which they run.
pub const ALL: &[Work] = &[
    call::WORK,
    pipelined::WORK,
    map::TRIVIAL,
    map::COMPUTE,
    echo::WORK,
    big::TOUCH,
    big::ROW,
    parked::WORK,
    cold::WORK,
    outstanding::WORK,
    idle::WORK,
];

/// One of them, by name.
pub fn find(name: &str) -> Option<&'static Work> {
    ALL.iter().find(|work| work.name == name)
}

fn cases(workers: &[usize], sizes: &[usize]) -> Vec<Case> {
    sizes.iter().flat_map(|&size| workers.iter().map(move |&workers| Case { workers, size })).collect()
}

/// Starts a contestant for numbers and makes it warm: in the first milliseconds after a fork a worker and
/// its caller share a CPU.
fn warm(contestant: &Contestant, workers: usize, scale: Scale) -> Result<Box<dyn Numbers>, Box<dyn Error>> {
    let mut pool = (contestant.numbers.ok_or("it does not do this")?)(workers)?;
    let (calls, time) = scale.pick((20, 0), (2000, 50), (4000, 100));
    let start = Instant::now();
    let mut done = 0;
    while done < calls || start.elapsed() < Duration::from_millis(time) {
        if pool.call(done) != done + 1 {
            return Err("a wrong result".into());
        }
        done += 1;
    }
    Ok(pool)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("bounds that make sense")
}

/// The quantiles that are kept.
fn quantiles(times: &Histogram<u64>) -> Fields {
    let mut fields = Fields::new();
    for (name, quantile) in [("p50_ns", 0.5), ("p99_ns", 0.99), ("p999_ns", 0.999), ("max_ns", 1.0)] {
        fields.insert(name.into(), json!(times.value_at_quantile(quantile)));
    }
    fields.insert("calls".into(), json!(times.len()));
    fields
}
