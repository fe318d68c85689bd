//! Workers that write where they should not: all over the memory that they can write, and where the
//! kernel does not let them.

#[path = "corruption/client.rs"]
mod client;
#[path = "corruption/hardened.rs"]
mod hardened;
#[path = "corruption/scribble.rs"]
mod scribble;
#[path = "corruption/under_fire.rs"]
mod under_fire;
#[path = "corruption/walls.rs"]
mod walls;

use ringpool_tests::{actor, procs};

fn main() {
    procs::no_core_files();
    ringpool::init();
    actor::play(&[("client", client::play)]);
    let mut tests = walls::tests();
    tests.extend(hardened::tests());
    tests.extend(under_fire::tests());
    ringpool_tests::run(tests)
}
