//! Pools whose workers somebody else starts: a launcher that forks, and one that runs a program.

#[path = "launcher/hired.rs"]
mod hired;
#[path = "launcher/lives.rs"]
mod lives;
#[path = "launcher/parents.rs"]
mod parents;
#[path = "launcher/trouble.rs"]
mod trouble;

use hired::{Hired, Plan, WAYS, Way};
use libtest_mimic::Trial;
use ringpool::raw::{self, Function};
use ringpool::{Builder, Pool};
use ringpool_tests::{actor, procs, test};
use std::time::Duration;

/// For conditions that come true within milliseconds, on a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(10);

fn builder(processes: usize, hired: &Hired) -> Builder {
    Pool::builder().processes(processes).launcher(hired.clone())
}

fn pool(processes: usize, hired: &Hired) -> Pool {
    builder(processes, hired).start().expect("a pool")
}

/// One test for each way to start processes.
fn in_ways(name: &str, body: impl Fn(Way) + Clone + Send + 'static) -> Vec<Trial> {
    let tests = WAYS.into_iter().map(|way| {
        let body = body.clone();
        test(format!("{name}::{way:?}"), move || body(way))
    });
    tests.collect()
}

fn double(x: u64) -> u64 {
    2 * x
}

fn main() {
    procs::no_core_files();
    let upper = Function::new(|input, output| output.write(&input.to_ascii_uppercase()));
    raw::register("upper", upper).expect("a free name");
    let plans: [&[&Plan]; 3] = [&lives::PLANS, &parents::PLANS, &trouble::PLANS];
    hired::enter(&plans.concat());
    actor::play(&[("holder", parents::holder)]);
    let mut tests = lives::tests();
    tests.extend(trouble::tests());
    tests.extend(parents::tests());
    ringpool_tests::run(tests)
}
