//! What a run has come to, for a terminal.

use crate::machine;
use crate::record::{Case, Measured, Run, text};
use crate::works::{self, Work};

/// A time, with three digits that count.
pub fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 999.5 => (ns, "ns"),
        ns if ns < 999_500.0 => (ns / 1e3, "µs"),
        ns if ns < 999_500_000.0 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    format!("{} {unit}", digits(value))
}

fn digits(value: f64) -> String {
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$}")
}

/// Memory.
pub fn bytes(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 1024.0 * 1024.0 => format!("{} KiB", digits(bytes / 1024.0)),
        bytes => format!("{} MiB", digits(bytes / 1024.0 / 1024.0)),
    }
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

/// What a case is called.
pub fn title(case: &Case) -> String {
    let size = if case.size > 0 { format!(" {}", size(case.size)) } else { String::new() };
    let s = if case.workers == 1 { "" } else { "s" };
    format!("{}{size}, {} worker{s}", case.work, case.workers)
}

/// How a field is shown.
fn show(field: &str, value: f64) -> String {
    match field {
        _ if field.ends_with("_ns") => time(value),
        "bytes_per_s" => format!("{} GB/s", digits(value / 1e9)),
        _ if field.ends_with("_bytes") => bytes(value),
        _ => format!("{value:.0}"),
    }
}

/// The fields that have columns, where there are any.
const COLUMNS: [&str; 12] = [
    "p50_ns",
    "p99_ns",
    "p999_ns",
    "per_task_ns",
    "stop_ns",
    "bytes_per_s",
    "added_bytes",
    "shared_bytes",
    "processes",
    "cpu_ns",
    "later_faults_client",
    "later_faults_workers",
];

/// All works, medians over the rounds; ratios are medians of the ratios in each round, "apart" if
/// the CPUs were never in the same place for both.
pub fn print(run: &Run) {
    print_probe(run);
    for work in works::ALL {
        for case in run.cases(work.name) {
            print_case(run, work, &case);
        }
    }
    for line in run.failures() {
        println!("failed: {}", serde_json::Value::Object(line.clone()));
    }
}

fn print_probe(run: &Run) {
    let labels = run.lines.iter().map(|line| text(line, "regime"));
    let count = |regime| labels.clone().filter(|label| *label == regime).count();
    let (near, far, moved) = (count("near"), count("far"), count(machine::MOVED));
    println!("\nthe two CPUs were near in {near} turns and far in {far}; in {moved} they moved");
    let probe = Case { work: "probe".into(), workers: 0, size: 0 };
    let Some(first) = run.lines.iter().find(|line| text(line, "work") == "probe") else { return };
    for field in first.keys() {
        let values = run.values(&probe, "machine", field);
        if !["round", "workers", "size"].contains(&field.as_str()) && !values.is_empty() {
            let values = values.iter().map(|figure| figure.value.to_string());
            println!("{field:>22}: {}", values.collect::<Vec<_>>().join("  "));
        }
    }
}

fn print_case(run: &Run, work: &Work, case: &Case) {
    println!("\n{}: {}", title(case), work.about);
    let rows = run.contestants(case);
    let columns: Vec<_> = COLUMNS
        .into_iter()
        .filter(|column| rows.iter().any(|row| run.median(case, row, column).is_some()))
        .collect();
    let based = rows.contains(&work.base) && rows.len() > 1;
    print!("{:>16}", "");
    for column in &columns {
        let name =
            column.trim_end_matches("_ns").trim_end_matches("_bytes").replace("later_faults", "faults");
        print!("{name:>14}");
        if *column == work.metric && based {
            print!("{:>15}", format!("/ {}", work.base));
        }
    }
    println!();
    for row in rows {
        print!("{row:>16}");
        for column in &columns {
            print!("{:>14}", run.median(case, row, column).map_or("–".into(), |value| show(column, value)));
            if *column == work.metric && based {
                let ratio = run.ratio((case, row, column), (case, work.base, column));
                let text = match ratio {
                    Measured::As(ratio) => format!("{ratio:.2}"),
                    Measured::Apart => "apart".into(),
                    Measured::Absent => "–".into(),
                };
                print!("{text:>15}");
            }
        }
        println!();
    }
}
