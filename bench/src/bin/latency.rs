//! How long single calls take, and the slow ones among them: ringpool beside a pool of threads.
//!
//! Both are measured in turns, so that whatever else the machine does hits both alike.

use hdrhistogram::Histogram;
use ringpool::Pool;
use ringpool_bench::{ThreadPool, inc};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: latency [--rounds N] [--calls N] [--pause MICROSECONDS]";
/// Calls at the start of each turn that do not count.
const WARM_UP: u64 = 200;

struct Options {
    rounds: u64,
    /// In each turn.
    calls: u64,
    /// Between calls; zero keeps everybody awake.
    pause: Duration,
}

fn options() -> Option<Options> {
    let mut options = Options { rounds: 20, calls: 5000, pause: Duration::ZERO };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let number: u64 = arguments.next()?.parse().ok()?;
        match argument.as_str() {
            "--rounds" => options.rounds = number,
            "--calls" => options.calls = number,
            "--pause" => options.pause = Duration::from_micros(number),
            _ => return None,
        }
    }
    Some(options)
}

fn turn(options: &Options, histogram: &mut Histogram<u64>, call: impl Fn(u64) -> u64) {
    for i in 0..WARM_UP.min(options.calls) + options.calls {
        if !options.pause.is_zero() {
            std::thread::sleep(options.pause);
        }
        let start = Instant::now();
        let answer = call(i);
        let nanos = start.elapsed().as_nanos();
        assert_eq!(answer, i + 1);
        if i >= WARM_UP.min(options.calls) {
            histogram.saturating_record(nanos as u64);
        }
    }
}

fn main() -> ExitCode {
    ringpool::init();
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    println!("round trip of a u64, in microseconds; {} turns of {} calls", options.rounds, options.calls);
    println!("{:>10} {:>8} {:>9} {:>9} {:>9} {:>9}", "pool", "workers", "p50", "p99", "p99.9", "max");
    for workers in [1, 2, 8] {
        let processes = Pool::new(workers).expect("a pool starts");
        let threads = ThreadPool::new(workers, inc);
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds that make sense");
        let (mut ringpool, mut crossbeam) = (histogram(), histogram());
        for _ in 0..options.rounds {
            turn(&options, &mut ringpool, |i| processes.apply(inc, (i,)).expect("a result"));
            turn(&options, &mut crossbeam, |i| threads.apply(i));
        }
        for (name, times) in [("ringpool", ringpool), ("crossbeam", crossbeam)] {
            let micros = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
            println!(
                "{name:>10} {workers:>8} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
                micros(0.5),
                micros(0.99),
                micros(0.999),
                micros(1.0)
            );
        }
    }
    ExitCode::SUCCESS
}
