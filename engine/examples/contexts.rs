//! The three ways to start workers, and what workers know of the program in each.

use ringpool::{Context, Pool};
use std::sync::OnceLock;
use std::time::Instant;

static SETTING: OnceLock<u64> = OnceLock::new();

fn setting() -> Option<u64> {
    SETTING.get().copied()
}

fn set(value: u64) {
    SETTING.get_or_init(|| value);
}

fn main() -> ringpool::Result<()> {
    ringpool::init(); // with Spawn and ForkServer, workers enter here
    set(42);

    for context in [Context::Fork, Context::Spawn, Context::ForkServer] {
        let start = Instant::now();
        let pool = Pool::builder().processes(2).context(context).start()?;
        let seen = pool.apply(setting, ())?;
        println!("{context:?}: after {:?} a worker sees {seen:?}", start.elapsed());
        pool.close();
        pool.join()?;
    }

    // An initializer tells workers what they need to know, however they are started.
    let pool = Pool::builder().processes(2).context(Context::Spawn).initializer(set, (42,)).start()?;
    println!("Spawn with an initializer: a worker sees {:?}", pool.apply(setting, ())?);
    pool.close();
    pool.join()
}
