//! What ringpool is to reach, and whether it does.

use crate::contestants::{self, Kind};
use crate::record::{Case, Measured, Run};
use crate::tables;

/// One of the marks.
pub struct Bar {
    /// What is measured, and what the limit refers to.
    pub text: String,
    /// What came of it.
    pub measured: Measured,
    /// The most that it may be.
    pub limit: f64,
    /// How both are shown.
    pub unit: Unit,
}

/// What a figure is.
#[derive(Clone, Copy)]
pub enum Unit {
    /// So many times something else.
    Times,
    /// Nanoseconds.
    Time,
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::Times => format!("{value:.2} x"),
            Unit::Time => tables::time(value),
            Unit::Bytes => tables::bytes(value),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

/// Of two comparisons with rivals, the one to go by.
fn worse(one: Measured, other: Measured) -> Measured {
    match (one, other) {
        (Measured::As(one), Measured::As(other)) => Measured::As(one.max(other)),
        (Measured::Absent, other) => other,
        (one, Measured::Absent) => one,
        // A rival that was not fairly compared might be the best.
        _ => Measured::Apart,
    }
}

fn case(work: &str, workers: u64, size: u64) -> Case {
    Case { work: work.into(), workers, size }
}

/// All of them. Ratios are medians of those in each round.
pub fn all(run: &Run) -> Vec<Bar> {
    let mut bars = Vec::new();
    let times = |text: String, measured, limit| Bar { text, measured, limit, unit: Unit::Times };
    let versus = |work: &str, workers, size, field: &str, who: &str, base: &str| {
        let case = case(work, workers, size);
        run.ratio((&case, who, field), (&case, base, field))
    };
    let best = |work: &str, workers, size, field: &str, who: &str, kind: Kind| {
        let rivals = contestants::ALL.iter().filter(|c| c.kind == kind);
        let ratios = rivals.map(|rival| versus(work, workers, size, field, who, rival.name));
        ratios.reduce(worse).unwrap_or(Measured::Absent)
    };

    let ratio = versus("call", 1, 0, "p50_ns", "ringpool", "ring-spin");
    bars.push(times("call, 1 worker, p50: spin ring".into(), ratio, 1.5));
    let ratio = best("call", 1, 0, "p50_ns", "ringpool", Kind::Threads);
    bars.push(times("call, 1 worker, p50: best pool of threads".into(), ratio, 1.0));
    let ratio = versus("call", 2, 0, "p50_ns", "ringpool", "crossbeam");
    bars.push(times("call, 2 workers, p50: crossbeam".into(), ratio, 1.0));
    let ratio = versus("call", 2, 0, "p99_ns", "ringpool", "crossbeam");
    bars.push(times("call, 2 workers, p99: crossbeam".into(), ratio, 2.0));

    for (who, how) in [("ringpool", "apply_async"), ("ringpool-imap", "imap_unordered")] {
        let field = "per_task_ns";
        let text = |rest: &str| format!("pipelined by {how}, {rest}");
        let ratio = versus("pipelined", 1, 0, field, who, "ring-spin");
        bars.push(times(text("1 worker: spin ring"), ratio, 1.5));
        let ratio = versus("pipelined", 1, 0, field, who, "ring-alone");
        bars.push(times(text("1 worker: spin ring for one worker only"), ratio, f64::INFINITY));
        let ratio = versus("pipelined", 1, 0, field, who, "rayon");
        bars.push(times(text("1 worker: rayon"), ratio, 1.0));
        let (two, eight) = (case("pipelined", 2, 0), case("pipelined", 8, 0));
        let measured = run.median(&two, who, field).into();
        bars.push(Bar { text: text("2 workers, a task"), measured, limit: 100.0, unit: Unit::Time });
        let ratio = run.ratio((&eight, who, field), (&two, who, field));
        bars.push(times(text("8 workers: 2 workers"), ratio, 1.5));
    }

    for (work, what, limit) in [("map", "add one", 3.0), ("map-1us", "compute 1 µs", 1.05)] {
        for workers in [1, 2] {
            let ratio = versus(work, workers, 1_000_000, "p50_ns", "ringpool", "rayon");
            bars.push(times(format!("map of 1e6, {what}, {workers} w.: rayon"), ratio, limit));
            let ratio = versus(work, workers, 1_000_000, "p50_ns", "ring-spin", "rayon");
            let text = format!("map of 1e6, {what}, {workers} w.: the spin ring itself to rayon");
            bars.push(times(text, ratio, f64::INFINITY));
            let ratio = versus(work, workers, 1_000_000, "p50_ns", "ringpool", "ring-spin");
            bars.push(times(format!("map of 1e6, {what}, {workers} w.: spin ring"), ratio, f64::INFINITY));
        }
    }

    for size in [1 << 10, 64 << 10, 1 << 20, 16 << 20] {
        for (who, how) in [("ringpool", "Vec"), ("ringpool-shared", "shared")] {
            let text = |base: &str| format!("echo {} ({how}): {base}", tables::size(size));
            let ratio = versus("echo", 1, size, "p50_ns", who, "ring-spin");
            bars.push(times(text("spin ring"), ratio, 1.5));
            let ratio = best("echo", 1, size, "p50_ns", who, Kind::Processes);
            bars.push(times(text("best process peer"), ratio, 1.0));
        }
    }

    let (small, large) = (case("touch", 1, 1 << 20), case("touch", 1, 64 << 20));
    let who = "ringpool-shared";
    let ratio = run.ratio((&large, who, "p50_ns"), (&small, who, "p50_ns"));
    bars.push(times("shared argument, 64 MiB: 1 MiB".into(), ratio, 1.1));
    for who in ["ringpool", "ringpool-shared"] {
        for side in ["client", "workers"] {
            let field = format!("later_faults_{side}");
            let text = format!("64 MiB in a row ({who}), page faults after the first, {side}");
            let measured = run.median(&case("row", 2, 64 << 20), who, &field).into();
            bars.push(Bar { text, measured, limit: 0.0, unit: Unit::Count });
        }
    }

    for workers in [1, 2] {
        let parked = case("parked", workers, 0);
        // A worker rests on another CPU than its caller, so the machine's round trip is that between two.
        for (base, limit) in [("futex-pinned", 1.3), ("futex", f64::INFINITY)] {
            let under = case("parked", 1, 0);
            let ratio = run.ratio((&parked, "ringpool", "p50_ns"), (&under, base, "p50_ns"));
            bars.push(times(format!("first call after rest, {workers} w., p50: {base}"), ratio, limit));
        }
    }
    let ratio = versus("cold", 2, 0, "p50_ns", "ringpool", "fork");
    bars.push(times("cold first result, 2 workers: two forks and a question".into(), ratio, 1.3));

    for who in ["ringpool", "ringpool-imap"] {
        // With two workers on two CPUs the scheduler decides for each turn which of two speeds it has.
        for (workers, limit) in [(1, 1.15), (2, f64::INFINITY)] {
            let mut cases = run.cases("outstanding");
            cases.retain(|case| case.workers == workers);
            let text = format!("a task in streams of 1e3 to 1e7 ({who}, {workers} w.): most to least");
            bars.push(times(text, run.spread(&cases, who, "per_task_ns"), limit));
        }
    }
    let idle = case("idle", 2, 0);
    let measured = run.median(&idle, "ringpool", "added_bytes").into();
    let text = "idle, 2 workers: resident beyond bare processes".into();
    bars.push(Bar { text, measured, limit: 4.0 * 1024.0 * 1024.0, unit: Unit::Bytes });
    let measured = run.median(&idle, "ringpool", "cpu_ns").into();
    let text = "idle, 2 workers: CPU time in 3 s, from 10 ms on".into();
    bars.push(Bar { text, measured, limit: 0.0, unit: Unit::Time });
    bars
}

/// A table of those that were measured.
pub fn print(run: &Run) {
    let bars = all(run);
    let shown = bars.iter().filter(|bar| bar.measured != Measured::Absent);
    for (index, bar) in shown.enumerate() {
        if index == 0 {
            println!("\n{:<72} {:>10} {:>10}", "bars", "measured", "at most");
        }
        let limit = if bar.limit.is_finite() { bar.unit.show(bar.limit) } else { String::new() };
        let (measured, verdict) = match bar.measured {
            Measured::As(value) => {
                let verdict = if value <= bar.limit { "met" } else { "MISSED" };
                (bar.unit.show(value), if bar.limit.is_finite() { verdict } else { "" })
            }
            _ => ("apart".into(), "not comparable: the CPUs moved"),
        };
        println!("{:<72} {measured:>10} {limit:>10} {verdict}", bar.text);
    }
}
