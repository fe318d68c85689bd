//! Results: one JSON object to a line, the first of which describes the machine.

use crate::machine;
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader, Error, Result};
use std::path::Path;

/// A line.
pub type Fields = Map<String, Value>;

/// What is compared: the same work for several contestants.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Case {
    /// Its name.
    pub work: String,
    /// How many.
    pub workers: u64,
    /// Bytes, items or tasks, as the work says; 0 if it has no size.
    pub size: u64,
}

/// A field of one turn.
pub struct Figure<'a> {
    /// In which round.
    pub round: u64,
    /// Where the CPUs were.
    pub regime: &'a str,
    /// Its value.
    pub value: f64,
}

impl Figure<'_> {
    fn stayed(&self) -> bool {
        self.regime != machine::MOVED
    }
}

/// What a run says of something.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Measured {
    /// This.
    As(f64),
    /// Nothing: of two figures that are to be compared, none were taken with the CPUs in the same place.
    Apart,
    /// Nothing: it was not measured.
    Absent,
}

impl From<Option<f64>> for Measured {
    fn from(value: Option<f64>) -> Self {
        value.map_or(Measured::Absent, Measured::As)
    }
}

/// A run.
#[derive(Default)]
pub struct Run {
    /// The first line.
    pub machine: Fields,
    /// All others, in order.
    pub lines: Vec<Fields>,
}

impl Run {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let mut run = Run::default();
        for (number, line) in BufReader::new(std::fs::File::open(path)?).lines().enumerate() {
            let fields = serde_json::from_str(&line?).map_err(Error::other)?;
            if number == 0 {
                run.machine = fields;
            } else {
                run.lines.push(fields);
            }
        }
        Ok(run)
    }

    /// All cases of a work, in the order of their sizes and workers.
    pub fn cases(&self, work: &str) -> Vec<Case> {
        let mut cases: Vec<Case> =
            self.lines.iter().filter(|line| text(line, "work") == work).map(case).collect();
        cases.sort_by_key(|case| (case.size, case.workers));
        cases.dedup();
        cases
    }

    /// Who has done a case, in the order of the first round.
    pub fn contestants<'a>(&'a self, case: &Case) -> Vec<&'a str> {
        let mut names = Vec::new();
        for line in self.of(case) {
            let name = text(line, "contestant");
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn of<'a>(&'a self, wanted: &Case) -> impl Iterator<Item = &'a Fields> {
        let wanted = wanted.clone();
        self.lines.iter().filter(move |line| case(line) == wanted)
    }

    /// A field, in each turn that has it.
    pub fn values(&self, case: &Case, contestant: &str, field: &str) -> Vec<Figure<'_>> {
        let lines = self.of(case).filter(|line| text(line, "contestant") == contestant);
        let figure = |line| {
            let value = Fields::get(line, field)?.as_f64()?;
            Some(Figure { round: number(line, "round"), regime: text(line, "regime"), value })
        };
        lines.filter_map(figure).collect()
    }

    /// Its median over the rounds.
    pub fn median(&self, case: &Case, contestant: &str, field: &str) -> Option<f64> {
        median(self.values(case, contestant, field).into_iter().map(|figure| figure.value).collect())
    }

    /// The median of the ratios of two fields within the same round.
    ///
    /// Where the CPUs are changes most figures by a factor, so only turns are compared for which they were
    /// in the same place all the time. If no round has two such turns, all that are alike are compared with
    /// each other.
    pub fn ratio(&self, over: (&Case, &str, &str), under: (&Case, &str, &str)) -> Measured {
        let under = self.values(under.0, under.1, under.2);
        let over = self.values(over.0, over.1, over.2);
        if over.is_empty() || under.is_empty() {
            return Measured::Absent;
        }
        let ratios = |fits: fn(&Figure, &Figure) -> bool| {
            let ratios = over.iter().filter(|above| above.stayed()).flat_map(|above| {
                let fitting =
                    under.iter().filter(move |below| above.regime == below.regime && fits(above, below));
                fitting.map(|below| above.value / below.value)
            });
            median(ratios.collect())
        };
        ratios(|above, below| above.round == below.round)
            .or_else(|| ratios(|_, _| true))
            .map_or(Measured::Apart, Measured::As)
    }

    /// How the largest median of a field in one of these cases compares to the smallest: of the turns with the CPUs
    /// where they were most often, if all cases have such.
    pub fn spread(&self, cases: &[Case], contestant: &str, field: &str) -> Measured {
        let figures: Vec<_> = cases.iter().map(|case| self.values(case, contestant, field)).collect();
        let all = || figures.iter().flatten();
        let alike = |regime: &str| all().filter(|figure| figure.regime == regime).count();
        if all().next().is_none() {
            return Measured::Absent;
        }
        let regimes = all().filter(|figure| figure.stayed()).map(|figure| figure.regime);
        let Some(regime) = regimes.max_by_key(|regime| alike(regime)) else { return Measured::Apart };
        let medians = figures.iter().map(|figures| {
            let alike = figures.iter().filter(|figure| figure.regime == regime);
            median(alike.map(|figure| figure.value).collect())
        });
        let Some(medians) = medians.collect::<Option<Vec<_>>>() else { return Measured::Apart };
        let most = medians.iter().copied().reduce(f64::max);
        let least = medians.iter().copied().reduce(f64::min);
        most.zip(least).map(|(most, least)| most / least).into()
    }

    /// The lines of turns that failed.
    pub fn failures(&self) -> impl Iterator<Item = &Fields> {
        self.lines.iter().filter(|line| line.contains_key("error"))
    }
}

/// The middle one; of an even number, the mean of the two.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// A field that is text; empty without it.
pub fn text<'a>(line: &'a Fields, field: &str) -> &'a str {
    line.get(field).and_then(Value::as_str).unwrap_or("")
}

fn number(line: &Fields, field: &str) -> u64 {
    line.get(field).and_then(Value::as_u64).unwrap_or(0)
}

fn case(line: &Fields) -> Case {
    Case { work: text(line, "work").to_owned(), workers: number(line, "workers"), size: number(line, "size") }
}
