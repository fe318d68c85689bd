//! Pictures of a run: SVG that is readable on light and on dark pages.

use crate::contestants::{self, Kind};
use crate::record::{Case, Run, text};
use crate::tables;
use std::fmt::Write;
use std::io::Result;
use std::path::{Path, PathBuf};

const WIDTH: f64 = 760.0;
/// Where the scale begins and ends; names stand before it, figures behind it.
const LEFT: f64 = 150.0;
const RIGHT: f64 = 600.0;
const ROW: f64 = 19.0;

const STYLE: &str = "
  .card { fill: #ffffff; stroke: #d0d7de }
  text { font: 12px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 16px; font-weight: 600 }
  .head { font-size: 13px; font-weight: 600 }
  .small, .tick { font-size: 11px; fill: #59636e }
  .end { text-anchor: end } .middle { text-anchor: middle }
  .grid { stroke: #d8dee4; stroke-width: 1 }
  .ringpool { fill: #0969da; stroke: #0969da } .processes { fill: #bc4c00; stroke: #bc4c00 }
  .threads { fill: #1a7f37; stroke: #1a7f37 } .bound { fill: #6e7781; stroke: #6e7781 }
  line.tail { stroke-width: 2; opacity: .55 }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #3d444d } text { fill: #f0f6fc } .small, .tick { fill: #9198a1 }
    .grid { stroke: #2a313c }
    .ringpool { fill: #4493f8; stroke: #4493f8 } .processes { fill: #f0883e; stroke: #f0883e }
    .threads { fill: #3fb950; stroke: #3fb950 } .bound { fill: #9198a1; stroke: #9198a1 }
  }
";

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Ringpool => "ringpool",
        Kind::Processes => "processes",
        Kind::Threads => "threads",
        Kind::Bound => "bound",
    }
}

struct Row<'a> {
    name: &'a str,
    kind: Kind,
    middle: f64,
    tail: Option<f64>,
}

fn rows<'a>(run: &'a Run, case: &Case, field: &str, tail: Option<&str>) -> Vec<Row<'a>> {
    let mut rows: Vec<_> = run
        .contestants(case)
        .into_iter()
        .filter_map(|name| {
            let kind = contestants::find(name)?.kind;
            let tail = tail.and_then(|tail| run.median(case, name, tail));
            Some(Row { name, kind, middle: run.median(case, name, field)?, tail })
        })
        .collect();
    rows.sort_by(|one, other| one.middle.total_cmp(&other.middle));
    rows
}

/// A dot for each contestant on a logarithmic scale; panels below each other, all on the same scale or
/// each on its own.
fn picture(
    run: &Run,
    title: &str,
    note: &str,
    panels: &[(Case, &str, Option<&str>)],
    one_scale: bool,
) -> Option<String> {
    let panels: Vec<_> = panels
        .iter()
        .map(|(case, field, tail)| (tables::title(case), rows(run, case, field, *tail)))
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    if panels.is_empty() {
        return None;
    }
    let limits = |rows: &mut dyn Iterator<Item = &Row>| {
        let (mut low, mut high) = (f64::INFINITY, 0f64);
        for row in rows {
            low = low.min(row.middle);
            high = high.max(row.tail.unwrap_or(row.middle)).max(row.middle);
        }
        (low.log10().floor(), high.log10().ceil())
    };
    let all = limits(&mut panels.iter().flat_map(|(_, rows)| rows));
    let mut body = String::new();
    let mut y = 78.0;
    for (head, rows) in &panels {
        let (low, high) = if one_scale { all } else { limits(&mut rows.iter()) };
        let x = |ns: f64| LEFT + (ns.log10() - low) / (high - low) * (RIGHT - LEFT);
        y += 26.0;
        let _ = writeln!(body, "<text class='head' x='24' y='{y:.0}'>{head}</text>");
        let bottom = y + 10.0 + rows.len() as f64 * ROW;
        for decade in low as i32..=high as i32 {
            let at = x(10f64.powi(decade));
            let top = y + 8.0;
            let label = tables::time(10f64.powi(decade)).replace(".00", "").replace(".0", "");
            let _ = writeln!(
                body,
                "<line class='grid' x1='{at:.1}' x2='{at:.1}' y1='{top:.1}' y2='{bottom:.1}'/>"
            );
            let under = bottom + 13.0;
            let _ = writeln!(body, "<text class='tick middle' x='{at:.1}' y='{under:.1}'>{label}</text>");
        }
        for row in rows {
            y += ROW;
            let (class, at, base) = (class(row.kind), x(row.middle), y + 4.0);
            let before = LEFT - 12.0;
            let _ = writeln!(body, "<text class='end' x='{before}' y='{base:.1}'>{}</text>", row.name);
            let mut label = tables::time(row.middle);
            if let Some(tail) = row.tail.filter(|tail| *tail > row.middle) {
                let _ = writeln!(
                    body,
                    "<line class='tail {class}' x1='{at:.1}' x2='{:.1}' y1='{y:.1}' y2='{y:.1}'/>",
                    x(tail)
                );
                label = format!("{label}, {}", tables::time(tail));
            }
            let _ = writeln!(body, "<circle class='{class}' cx='{at:.1}' cy='{y:.1}' r='4.5'/>");
            let behind = RIGHT + 14.0;
            let _ = writeln!(body, "<text class='small' x='{behind}' y='{base:.1}'>{label}</text>");
        }
        y = bottom + 20.0;
    }
    let machine = ["machine", "commit", "date"].map(|field| text(&run.machine, field));
    let cpus = run.machine.get("cpus").map(ToString::to_string).unwrap_or_default();
    let foot = y + 18.0;
    let height = y + 34.0;
    let mut legend = String::new();
    for (at, (kind, name)) in [
        (Kind::Ringpool, "ringpool"),
        (Kind::Processes, "processes"),
        (Kind::Threads, "threads"),
        (Kind::Bound, "bounds and plain means"),
    ]
    .into_iter()
    .enumerate()
    {
        let at = 30.0 + 110.0 * at as f64;
        let _ = writeln!(legend, "<circle class='{}' cx='{at}' cy='70' r='4.5'/>", class(kind));
        let _ = writeln!(legend, "<text class='small' x='{}' y='74'>{name}</text>", at + 9.0);
    }
    let [model, commit, date] = machine;
    Some(format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height:.0}' \
         viewBox='0 0 {WIDTH} {height:.0}' role='img' aria-label='{title}'>\n<style>{STYLE}</style>\n\
         <rect class='card' x='.5' y='.5' width='{:.0}' height='{:.0}' rx='8'/>\n\
         <text class='title' x='24' y='30'>{title}</text>\n<text class='small' x='24' y='49'>{note}</text>\n\
         {legend}{body}<text class='small' x='24' y='{foot:.0}'>{model}, {cpus} CPUs, {date}, {commit}</text>\n\
         </svg>\n",
        WIDTH - 1.0,
        height - 1.0
    ))
}

/// Draws pictures of what there is of a run, beside its file, and says where.
pub fn draw(run: &Run, file: &Path) -> Result<Vec<PathBuf>> {
    let case = |work: &str, workers, size| Case { work: work.into(), workers, size };
    let (p50, p99) = ("p50_ns", Some("p99_ns"));
    let call = |workers| (case("call", workers, 0), p50, p99);
    let calls =
        [call(1), call(2), call(8), (case("parked", 1, 0), p50, p99), (case("parked", 2, 0), p50, p99)];
    let note = "one u64 task and its result; dots: p50, lines: to p99; lower is better; logarithmic";
    let latency = picture(run, "Latency of a call", note, &calls, true);

    let stream = |workers| (case("pipelined", workers, 0), "per_task_ns", None);
    let map = |work, workers| (case(work, workers, 1_000_000), "per_task_ns", None);
    let streams = [stream(1), stream(2), stream(8), map("map", 1), map("map", 2)];
    let note =
        "time for a u64 task with 512 on their way, and for an item of a map; lower is better; logarithmic";
    let throughput = picture(run, "Time for a task among many", note, &streams, true);

    let echo = |size| (case("echo", 1, size), p50, p99);
    let echoes = [echo(1 << 10), echo(64 << 10), echo(1 << 20), echo(16 << 20)];
    let note =
        "bytes there, an XORed copy back and looked at; dots: p50, lines: to p99; each size has its scale";
    let payloads = picture(run, "Payloads", note, &echoes, false);

    let mut paths = Vec::new();
    for (name, svg) in [("latency", latency), ("throughput", throughput), ("payloads", payloads)] {
        let Some(svg) = svg else { continue };
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("run");
        let path = file.with_file_name(format!("{stem}-{name}.svg"));
        std::fs::write(&path, svg)?;
        paths.push(path);
    }
    Ok(paths)
}
