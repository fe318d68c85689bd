//! Every method of a pool, under every way to start workers.

#[path = "methods/apply.rs"]
mod apply;
#[path = "methods/functions.rs"]
mod functions;
#[path = "methods/imap.rs"]
mod imap;
#[path = "methods/in_place.rs"]
mod in_place;
#[path = "methods/limits.rs"]
mod limits;
#[path = "methods/map.rs"]
mod map;
#[path = "methods/payloads.rs"]
mod payloads;
#[path = "methods/raw.rs"]
mod raw;
#[path = "methods/raw_chunks.rs"]
mod raw_chunks;
#[path = "methods/raw_memory.rs"]
mod raw_memory;
#[path = "methods/raw_submitting.rs"]
mod raw_submitting;
#[path = "methods/threads.rs"]
mod threads;

use ringpool::{Context, Pool};

/// A pool of two workers.
fn pool(context: Context) -> Pool {
    Pool::builder().processes(2).context(context).start().unwrap()
}

fn main() {
    // Before `init`, so that workers that are run anew know them.
    functions::register();
    raw::register();
    raw_memory::register();
    raw_submitting::register();
    raw_chunks::register();
    ringpool::init();
    let tests = [
        apply::tests(),
        map::tests(),
        imap::tests(),
        functions::tests(),
        payloads::tests(),
        in_place::tests(),
        limits::tests(),
        raw::tests(),
        raw_memory::tests(),
        raw_submitting::tests(),
        raw_chunks::tests(),
        threads::tests(),
    ];
    ringpool_tests::run(tests.into_iter().flatten().collect())
}
