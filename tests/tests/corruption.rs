//! Workers that write where they should not: all over the memory that they can write, and where the
//! kernel does not let them.
//!
//! Under AddressSanitizer (see `engine/src/fuzz`) its own signal handlers have to be off: workers are expected to
//! die by SIGSEGV here, and say so.

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
