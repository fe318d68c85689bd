//! Threads that wait for a slot, without a timer that would let them look again.

use crate::watched;
use crate::work::double;
use libtest_mimic::Trial;
use ringpool::{Pool, crash};
use ringpool_tests::signs::{Sign, wait_for_note};
use ringpool_tests::test;
use std::time::Duration;

pub fn tests() -> Vec<Trial> {
    vec![test("a_dropped_iteration_gives_its_slots_to_who_waits", dropped_iteration)]
}

fn wait(gate: String) {
    wait_for_note(&gate);
}

/// One slot is taken by a task that goes on, the other one by an item that nobody has begun.
fn dropped_iteration() {
    crash::set_timers(false);
    watched("a submission that waits for a slot", || {
        let gate = Sign::new();
        let pool = Pool::builder().processes(1).slots(2).start().expect("a pool");
        let long = pool.apply_async(wait, (gate.path(),)).expect("a slot");
        let mut items = pool.imap(double, 0.., 1).expect("a pool that runs");
        assert!(items.next_timeout(Duration::from_millis(20)).is_some_and(|result| result.is_err()));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.apply_async(double, (4,)).expect("a slot, in the end"));
            std::thread::sleep(Duration::from_millis(20)); // it sleeps
            drop(items);
            let result = waiting.join().expect("submitted");
            gate.open(); // only now
            long.get().expect("it was let go");
            assert_eq!(result.get().expect("a result"), 8);
        });
    });
    crash::set_timers(true);
}
