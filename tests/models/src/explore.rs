//! The checker: goes through every state that a model can reach.
//!
//! Three things are checked.
//!
//! * **Safety**: a model calls [`Steps::fail`] when a step breaks a promise.
//! * **No deadlock**: every state but a goal has a step that is no fault.
//! * **The goal stays in reach** (*AG EF goal*): from every reachable state, however many faults led to
//!   it, some steps without further faults lead to a goal. This finds lost wake-ups and leaks, also
//!   where others go on running.
//!
//! [`explore`] keeps the states and checks all three. [`explore_compact`] keeps 16 bytes for each state
//! and checks the first two.

use crate::hash::fingerprint;
use crate::show::{changes, leaves};
use std::fmt::{self, Debug, Display};
use std::hash::Hash;

/// A system of processes whose steps are atomic.
pub trait Model {
    /// All that processes and memory hold. Equal states must be equal byte for byte: what a process has
    /// done with is reset, or the same situation is explored again and again.
    type State: Copy + Eq + Hash + Debug;

    /// Where it begins.
    fn initial(&self) -> Self::State;

    /// Adds every step that any process can make from `state`, faults among them.
    fn steps(&self, state: &Self::State, steps: &mut Steps<Self::State>);

    /// Whether everything that was to be done is done.
    fn is_goal(&self, state: &Self::State) -> bool;
}

/// One step of one process.
#[derive(Clone, Copy, Debug)]
struct Step<S> {
    actor: &'static str,
    label: &'static str,
    fault: bool,
    next: S,
}

/// Collects the steps from one state.
#[derive(Debug)]
pub struct Steps<S> {
    list: Vec<Step<S>>,
    broken: Option<String>,
}

impl<S> Steps<S> {
    fn new() -> Self {
        Steps { list: Vec::new(), broken: None }
    }

    /// A step of `actor`; `label` names it as the engine does.
    pub fn add(&mut self, actor: &'static str, label: &'static str, next: S) {
        self.list.push(Step { actor, label, fault: false, next });
    }

    /// Something that happens to `actor`, and that nobody may count on.
    pub fn fault(&mut self, actor: &'static str, label: &'static str, next: S) {
        self.list.push(Step { actor, label, fault: true, next });
    }

    /// The step that is being made breaks a promise.
    pub fn fail(&mut self, promise: impl Into<String>) {
        self.broken.get_or_insert(promise.into());
    }
}

/// What is wrong with a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// A step broke a promise.
    Safety,
    /// Nobody can make a step, and the goal is not reached.
    Deadlock,
    /// The goal cannot be reached any more.
    Unreachable,
    /// There are more states than allowed: nothing is proved.
    TooLarge,
}

/// A flaw and how to get there.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What kind of flaw.
    pub flaw: Flaw,
    /// What exactly.
    pub what: String,
    /// The steps from the beginning, one a line: who makes it, what it is, what it changes.
    pub trace: Vec<String>,
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}: {}", self.flaw, self.what)?;
        for (number, line) in self.trace.iter().enumerate() {
            writeln!(f, "{:4}  {line}", number + 1)?;
        }
        Ok(())
    }
}

/// How much was explored without finding a flaw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Explored {
    /// Different states.
    pub states: u64,
    /// Steps between them, faults included.
    pub edges: u64,
    /// Faults.
    pub faults: u64,
    /// States that are goals.
    pub goals: u64,
}

const NONE: u32 = u32::MAX;

/// The states found so far, from which each was found first, and an open hash table of their numbers.
struct Known<S> {
    states: Vec<S>,
    parents: Vec<u32>,
    table: Vec<u32>,
}

impl<S: Copy + Eq + Hash + Debug> Known<S> {
    fn new() -> Self {
        Known { states: Vec::new(), parents: Vec::new(), table: vec![NONE; 1 << 12] }
    }

    /// The number of `state`; a new one if it was found just now, from `parent`.
    fn number(&mut self, state: S, parent: u32) -> u32 {
        if self.states.len() * 3 > self.table.len() * 2 {
            self.grow();
        }
        let mask = self.table.len() - 1;
        let mut place = fingerprint(&state) as usize & mask;
        while self.table[place] != NONE {
            let number = self.table[place];
            if self.states[number as usize] == state {
                return number;
            }
            place = (place + 1) & mask;
        }
        let number = self.states.len() as u32;
        self.table[place] = number;
        self.states.push(state);
        self.parents.push(parent);
        number
    }

    fn grow(&mut self) {
        let size = self.table.len() * 2;
        self.table = Vec::new(); // before the new one: both need not exist at once
        self.table = vec![NONE; size];
        for (number, state) in self.states.iter().enumerate() {
            let mut place = fingerprint(state) as usize & (size - 1);
            while self.table[place] != NONE {
                place = (place + 1) & (size - 1);
            }
            self.table[place] = number as u32;
        }
    }

    /// The way to `last`.
    fn trace<M: Model<State = S>>(&self, model: &M, last: u32) -> Vec<String> {
        let mut way = vec![];
        let mut at = last;
        while at != NONE {
            way.push(fingerprint(&self.states[at as usize]));
            at = self.parents[at as usize];
        }
        trace(model, way)
    }
}

/// Makes the steps again that lead through states with these fingerprints, the last one first.
fn trace<M: Model>(model: &M, mut way: Vec<u64>) -> Vec<String> {
    way.pop();
    let mut state = model.initial();
    let mut shown = leaves(&state);
    let mut lines = vec![];
    let mut steps = Steps::new();
    while let Some(print) = way.pop() {
        steps.list.clear();
        model.steps(&state, &mut steps);
        let Some(step) = steps.list.iter().find(|step| fingerprint(&step.next) == print) else { break };
        state = step.next;
        let now = leaves(&state);
        lines.push(format!("{:<9} {:<34} {}", step.actor, step.label, changes(&shown, &now)));
        shown = now;
    }
    lines
}

const STUCK: &str = "nobody can make a step, and the goal is not reached";

/// Explores `model` and checks everything.
///
/// # Errors
///
/// The first flaw, with a shortest way to it; also if there are more than `limit` states.
pub fn explore<M: Model>(model: &M, limit: u32) -> Result<Explored, Violation> {
    let mut known = Known::new();
    let mut back: Vec<(u32, u32)> = Vec::new(); // (to, from) of steps that are no faults
    let mut found = Explored { states: 0, edges: 0, faults: 0, goals: 0 };
    known.number(model.initial(), NONE);
    let mut steps = Steps::new();
    let mut at = 0;
    while (at as usize) < known.states.len() {
        let state = known.states[at as usize];
        if known.states.len() > limit as usize {
            let what = format!("more than {limit} states, no flaw among them");
            return Err(Violation { flaw: Flaw::TooLarge, what, trace: vec![] });
        }
        steps.list.clear();
        model.steps(&state, &mut steps);
        if let Some(what) = steps.broken.take() {
            return Err(Violation { flaw: Flaw::Safety, what, trace: known.trace(model, at) });
        }
        if steps.list.iter().all(|step| step.fault) && !model.is_goal(&state) {
            let what = STUCK.to_owned();
            return Err(Violation { flaw: Flaw::Deadlock, what, trace: known.trace(model, at) });
        }
        for Step { fault, next, .. } in steps.list.drain(..) {
            let to = known.number(next, at);
            found.edges += 1;
            found.faults += u64::from(fault);
            if !fault {
                back.push((to, at));
            }
        }
        at += 1;
    }
    known.table = Vec::new();
    found.states = known.states.len() as u64;
    let goals: Vec<u32> =
        (0..known.states.len() as u32).filter(|&n| model.is_goal(&known.states[n as usize])).collect();
    found.goals = goals.len() as u64;
    match first_that_cannot_reach(known.states.len(), back, goals) {
        None => Ok(found),
        Some(lost) => Err(Violation {
            flaw: Flaw::Unreachable,
            what: "from here the goal cannot be reached any more".to_owned(),
            trace: known.trace(model, lost),
        }),
    }
}

/// Goes backwards from the goals; the first state that is not met.
fn first_that_cannot_reach(states: usize, back: Vec<(u32, u32)>, goals: Vec<u32>) -> Option<u32> {
    // Predecessors of state n: before[starts[n]..starts[n + 1]].
    let mut starts = vec![0u32; states + 1];
    for &(to, _) in &back {
        starts[to as usize + 1] += 1;
    }
    for n in 0..states {
        starts[n + 1] += starts[n];
    }
    let mut filled = starts.clone();
    let mut before = vec![0u32; back.len()];
    for (to, from) in back {
        before[filled[to as usize] as usize] = from;
        filled[to as usize] += 1;
    }
    let mut reaches = vec![false; states];
    let mut open = goals;
    for &goal in &open {
        reaches[goal as usize] = true;
    }
    while let Some(n) = open.pop() {
        for &from in &before[starts[n as usize] as usize..starts[n as usize + 1] as usize] {
            if !std::mem::replace(&mut reaches[from as usize], true) {
                open.push(from);
            }
        }
    }
    reaches.iter().position(|&reached| !reached).map(|n| n as u32)
}

/// Fingerprints of states, each with that of the state it came from.
struct Prints {
    table: Vec<(u64, u64)>,
    count: usize,
}

impl Prints {
    fn new() -> Self {
        Prints { table: vec![(0, 0); 1 << 16], count: 0 }
    }

    /// Whether `print` is new.
    fn add(&mut self, print: u64, parent: u64) -> bool {
        if self.count * 4 > self.table.len() * 3 {
            let old = std::mem::take(&mut self.table);
            self.table = vec![(0, 0); old.len() * 2];
            for entry in old.into_iter().filter(|&(print, _)| print != 0) {
                let place = self.place(entry.0);
                self.table[place] = entry;
            }
        }
        let place = self.place(print);
        if self.table[place].0 == print {
            return false;
        }
        self.table[place] = (print, parent);
        self.count += 1;
        true
    }

    /// Where `print` is, or should be.
    fn place(&self, print: u64) -> usize {
        let mask = self.table.len() - 1;
        let mut place = (print >> 20) as usize & mask;
        while self.table[place].0 != 0 && self.table[place].0 != print {
            place = (place + 1) & mask;
        }
        place
    }

    /// The way to `last`, by making the steps again whose fingerprints are on it.
    fn trace<M: Model>(&self, model: &M, last: &M::State) -> Vec<String> {
        let mut way = vec![];
        let mut print = fingerprint(last);
        while print != 0 {
            way.push(print);
            print = self.table[self.place(print)].1;
        }
        trace(model, way)
    }
}

/// Explores `model` for safety and deadlocks only, in little memory.
///
/// Two states with the same fingerprint of 64 bits are taken for one. With `n` states the probability
/// that any is left out is about `n^2 / 2^65`: less than one in ten thousand for 60 million.
///
/// # Errors
///
/// As [`explore`]; it never finds [`Flaw::Unreachable`].
pub fn explore_compact<M: Model>(model: &M, limit: u32) -> Result<Explored, Violation> {
    let mut seen = Prints::new();
    let mut found = Explored { states: 0, edges: 0, faults: 0, goals: 0 };
    let initial = model.initial();
    seen.add(fingerprint(&initial), 0);
    let mut layer = vec![initial];
    let mut steps = Steps::new();
    while !layer.is_empty() {
        let mut next_layer = Vec::new();
        for state in layer {
            if seen.count > limit as usize {
                let what = format!("more than {limit} states, no flaw among them");
                return Err(Violation { flaw: Flaw::TooLarge, what, trace: vec![] });
            }
            steps.list.clear();
            model.steps(&state, &mut steps);
            let goal = model.is_goal(&state);
            let flaw = match steps.broken.take() {
                Some(what) => Some((Flaw::Safety, what)),
                None if !goal && steps.list.iter().all(|step| step.fault) => {
                    Some((Flaw::Deadlock, STUCK.to_owned()))
                }
                None => None,
            };
            if let Some((flaw, what)) = flaw {
                return Err(Violation { flaw, what, trace: seen.trace(model, &state) });
            }
            found.goals += u64::from(goal);
            let print = fingerprint(&state);
            for step in steps.list.drain(..) {
                found.edges += 1;
                found.faults += u64::from(step.fault);
                if seen.add(fingerprint(&step.next), print) {
                    next_layer.push(step.next);
                }
            }
        }
        layer = next_layer;
    }
    found.states = seen.count as u64;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processes that take two locks, in the same order or not.
    struct Locks {
        crossed: bool,
        /// Process 0 can die with what it holds.
        deadly: bool,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
    struct State {
        holder: [u8; 2],
        done: [u8; 2],
        dead: bool,
    }

    impl Model for Locks {
        type State = State;

        fn initial(&self) -> State {
            State { holder: [9; 2], done: [0; 2], dead: false }
        }

        fn steps(&self, state: &State, steps: &mut Steps<State>) {
            for (p, name) in [(0, "first"), (1, "second")] {
                if p == 0 && state.dead || state.done[p] == 3 {
                    continue;
                }
                let mut next = *state;
                next.done[p] += 1;
                let lock = (state.done[p] as usize) ^ usize::from(self.crossed && p == 1);
                match state.done[p] {
                    2 => {
                        next.holder = state.holder.map(|h| if h == p as u8 { 9 } else { h });
                        steps.add(name, "unlock", next);
                    }
                    _ if state.holder[lock] == 9 => {
                        next.holder[lock] = p as u8;
                        steps.add(name, "lock", next);
                    }
                    _ => {}
                }
            }
            if self.deadly && !state.dead && state.done[0] < 3 {
                steps.fault("first", "dies", State { dead: true, ..*state });
            }
        }

        fn is_goal(&self, state: &State) -> bool {
            state.done[1] == 3 && (state.dead || state.done[0] == 3)
        }
    }

    #[test]
    fn locks_in_one_order_are_fine() {
        let model = Locks { crossed: false, deadly: false };
        let full = explore(&model, 1000).unwrap();
        assert_eq!(full, explore_compact(&model, 1000).unwrap());
        assert_eq!((full.faults, full.goals), (0, 1));
    }

    #[test]
    fn crossed_locks_are_found_with_a_shortest_trace() {
        let model = Locks { crossed: true, deadly: false };
        for found in [explore(&model, 1000), explore_compact(&model, 1000)] {
            let violation = found.unwrap_err();
            assert_eq!((violation.flaw, violation.trace.len()), (Flaw::Deadlock, 2), "{violation}");
            assert!(violation.to_string().contains("lock"));
        }
    }

    #[test]
    fn a_dead_owner_is_found() {
        let violation = explore(&Locks { crossed: false, deadly: true }, 1000).unwrap_err();
        assert_eq!(violation.flaw, Flaw::Deadlock, "{violation}");
    }

    #[test]
    fn too_many_states_are_an_error() {
        let model = Locks { crossed: false, deadly: false };
        for found in [explore(&model, 3), explore_compact(&model, 3)] {
            assert_eq!(found.unwrap_err().flaw, Flaw::TooLarge);
        }
    }

    /// Somebody who walks up and down for ever, and never arrives.
    struct Restless;

    impl Model for Restless {
        type State = u8;

        fn initial(&self) -> u8 {
            0
        }

        fn steps(&self, &state: &u8, steps: &mut Steps<u8>) {
            steps.add("walker", "turns", 1 - state);
        }

        fn is_goal(&self, &state: &u8) -> bool {
            state == 2
        }
    }

    #[test]
    fn a_goal_out_of_reach_is_found_though_nobody_is_stuck() {
        assert_eq!(explore(&Restless, 10).unwrap_err().flaw, Flaw::Unreachable);
        assert!(explore_compact(&Restless, 10).is_ok());
    }
}
