//! The life of a pool: start, close, join, terminate, drop, and the processes it leaves or does not leave.

#[path = "lifecycle/forked.rs"]
mod forked;
#[path = "lifecycle/initializer.rs"]
mod initializer;
#[path = "lifecycle/settings.rs"]
mod settings;
#[path = "lifecycle/states.rs"]
mod states;
#[path = "lifecycle/workers.rs"]
mod workers;

use ringpool::{Context, Pool};

/// A pool of two workers.
fn pool(context: Context) -> Pool {
    Pool::builder().processes(2).context(context).start().unwrap()
}

/// Whether there is such a process, dead ones that nobody waited for not counted.
fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

fn main() {
    if std::env::var_os(settings::WITHOUT_INIT).is_some() {
        return settings::without_init();
    }
    ringpool::init();
    let tests = [states::tests(), settings::tests(), initializer::tests(), workers::tests(), forked::tests()];
    ringpool_tests::run(tests.into_iter().flatten().collect())
}
