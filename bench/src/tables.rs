//! What a run has come to, for a terminal.

use crate::record::{Case, Run};
use crate::works::{self, Work};

/// Who others are compared with in tables.
const BASE: &str = "ring-spin";

/// A time, with three digits that count.
pub fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 999.5 => (ns, "ns"),
        ns if ns < 999_500.0 => (ns / 1e3, "µs"),
        ns if ns < 999_500_000.0 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {unit}")
}

/// A number of bytes or of items.
pub fn size(size: u64) -> String {
    match size {
        size if size >= 1 << 20 && size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 && size.is_multiple_of(1 << 10) => format!("{} KiB", size >> 10),
        size if size >= 1000 && size.is_multiple_of(1000) => format!("1e{}", size.ilog10()),
        size => size.to_string(),
    }
}

/// All works, medians over the rounds; ratios to the bound are medians of the ratios in each round.
pub fn print(run: &Run) {
    for work in works::ALL {
        for case in run.cases(work.name) {
            print_case(run, work, &case);
        }
    }
    for line in run.failures() {
        println!("failed: {}", serde_json::Value::Object(line.clone()));
    }
}

fn print_case(run: &Run, work: &Work, case: &Case) {
    print!("\n{}: {}", work.name, work.about);
    if case.size > 0 {
        print!(", {}", size(case.size));
    }
    println!(", {} worker{}", case.workers, if case.workers == 1 { "" } else { "s" });
    let rows = run.contestants(case);
    let columns = ["p50_ns", "p99_ns", "p999_ns", "per_task_ns"];
    let columns: Vec<_> = columns
        .into_iter()
        .filter(|column| rows.iter().any(|row| run.median(case, row, column).is_some()))
        .collect();
    print!("{:>18}", "");
    columns.iter().for_each(|column| print!("{:>12}", column.trim_end_matches("_ns")));
    println!("{:>12}", format!("/ {BASE}"));
    for row in rows {
        print!("{row:>18}");
        for column in &columns {
            print!("{:>12}", run.median(case, row, column).map_or("–".into(), time));
        }
        let ratio = run.ratio((case, row, work.metric), (case, BASE, work.metric));
        println!("{:>12}", ratio.map_or("–".into(), |ratio| format!("{ratio:.2}")));
    }
}
