//! One look at a pool: what it found, and how much each finding proves.

use super::report::{Place, Violation};

/// When a finding is a violation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Proof {
    /// At once: no process ever writes this value into this one word.
    Word,
    /// If later looks find the very same: words were loaded one after the other and may not have been so
    /// at any one time.
    Lasting,
    /// The same, if also no process of the pool is stopped and the pool runs: it is a process's next step that
    /// makes it right.
    Stuck,
}

/// What one look found.
#[derive(Default, Debug)]
pub(super) struct Findings {
    /// Proven.
    pub certain: Vec<Violation>,
    /// To be seen again.
    pub doubtful: Vec<Violation>,
    /// To be seen again, and to be dropped if a process is stopped.
    pub stuck: Vec<Violation>,
}

/// So many findings of a kind are enough; memory full of noise would give millions.
const MOST: usize = 1000;

impl Findings {
    pub(super) fn add(&mut self, proof: Proof, invariant: u8, place: Place, text: impl FnOnce() -> String) {
        let list = match proof {
            Proof::Word => &mut self.certain,
            Proof::Lasting => &mut self.doubtful,
            Proof::Stuck => &mut self.stuck,
        };
        if list.len() < MOST {
            list.push(Violation { invariant, place, text: text() });
        }
    }

    /// Adds a finding unless `good`.
    pub(super) fn expect(
        &mut self,
        good: bool,
        proof: Proof,
        invariant: u8,
        place: Place,
        text: impl FnOnce() -> String,
    ) {
        if !good {
            self.add(proof, invariant, place, text);
        }
    }

    /// Keeps of the unproven what `later` found, too. The texts name all the words that they rest on, so
    /// the same text is the same finding.
    pub(super) fn confirm(&mut self, later: Findings) {
        for violation in later.certain {
            if !self.certain.contains(&violation) && self.certain.len() < MOST {
                self.certain.push(violation);
            }
        }
        self.doubtful.retain(|violation| later.doubtful.contains(violation));
        self.stuck.retain(|violation| later.stuck.contains(violation));
    }

    pub(super) fn is_proven(&self) -> bool {
        self.doubtful.is_empty() && self.stuck.is_empty()
    }
}
