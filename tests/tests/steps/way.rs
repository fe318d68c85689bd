//! The way of a process through its work, and how to get to a place on it without a stop at each
//! instruction before.

use crate::tracer::{SYSCALL_LENGTH, Step, Tracee};
use std::collections::HashMap;

/// Where a tracee is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// As far as it was to come.
    Place,
    /// At the end of its work.
    End,
}

/// A recorded way: forks of one process find the same code at the same addresses.
///
/// A stop costs some microseconds whatever it is for, and a sweep that steps to each of `n` places makes
/// `n * n / 2`. But most instructions are executed once or twice only: a breakpoint on the nearest of
/// these leaves few steps.
///
/// A repeated string instruction (`rep movsb`) counts once, not for each byte.
pub struct Way {
    /// Address of each instruction. The first is where the tracee was stopped.
    addresses: Vec<u64>,
    /// For each instruction: how to get there.
    starts: Vec<Start>,
    /// Where it ends; or where it began, in the same sleep, if it was not followed to its end.
    end: u64,
}

/// The instruction to break at, the visit to it that counts, and all stops on the way from the beginning.
#[derive(Clone, Copy)]
struct Start {
    number: u64,
    visit: u64,
    stops: u64,
}

impl Way {
    /// Follows a tracee to the end of its work, or `most` instructions far.
    pub fn record(tracee: &mut Tracee, most: u64, is_end: impl Fn(&Tracee) -> bool) -> Way {
        let mut addresses = vec![tracee.address()];
        let mut starts = vec![Start { number: 0, visit: 0, stops: 0 }];
        let mut visits = HashMap::new();
        let mut number = 0;
        while number < most && (number == 0 || !is_end(tracee)) {
            let (steps, address) = advance(tracee, addresses[addresses.len() - 1]);
            number += 1;
            let visit: &mut u64 = visits.entry(address).or_default();
            *visit += 1;
            // Either on from where the one before it is reached from, or by a breakpoint of its own.
            let before = starts[starts.len() - 1];
            let own = Start { number, visit: *visit, stops: *visit };
            let on = Start { stops: before.stops + steps, ..before };
            starts.push(if before.number > 0 && on.stops <= own.stops { on } else { own });
            addresses.push(address);
        }
        let end = if is_end(tracee) { tracee.address() } else { addresses[0] - SYSCALL_LENGTH };
        Way { addresses, starts, end }
    }

    /// How many instructions it has.
    pub fn len(&self) -> u64 {
        self.addresses.len() as u64 - 1
    }

    /// Has a tracee that is at the beginning execute `n` instructions, or fewer if its work ends before.
    pub fn follow(&self, tracee: &mut Tracee, n: u64, is_end: impl Fn(&Tracee) -> bool) -> Reached {
        let start = self.starts[n.min(self.len()) as usize];
        let mut done = 0;
        if start.number > 1 {
            // First out of the system call in which it was stopped: that is no instruction to break at.
            advance(tracee, self.addresses[0]);
            let place = self.addresses[start.number as usize];
            let mut visits = u64::from(tracee.address() == place);
            tracee.watch([place, self.end]).expect("breakpoints");
            while visits < start.visit {
                assert_eq!(tracee.run(), Step::Done, "it ended by itself");
                if is_end(tracee) {
                    return Reached::End;
                }
                visits += u64::from(tracee.address() == place);
            }
            tracee.watch([0, 0]).expect("no breakpoints");
            done = start.number;
        }
        let mut address = tracee.address();
        while done < n {
            if done > 0 && is_end(tracee) {
                return Reached::End;
            }
            address = advance(tracee, address).1;
            done += 1;
        }
        Reached::Place
    }
}

/// One instruction further than `from`, where the tracee is, with all its repetitions; how many steps that
/// took, and the next address.
fn advance(tracee: &mut Tracee, from: u64) -> (u64, u64) {
    let mut steps = 0;
    loop {
        assert_eq!(tracee.step(), Step::Done, "the process ended by itself at {from:#x}");
        steps += 1;
        let address = tracee.address();
        if address != from {
            return (steps, address);
        }
    }
}
