//! What is done about tasks whose words somebody has written over: they fail, and what a worker may
//! still be using of them is kept from use.
//!
//! A slot word that was overwritten no longer says who runs the task, so it can be anybody: every
//! worker that lives now may read its arguments and write its result area until it is dead and reaped.
//! Till then slot and arguments are in quarantine.

use super::{Args, Client, InFlight, Outcome, State};
use crate::error::Error;
use crate::slot::{Owner, Word};
use crate::sync::Ordering;

/// A process that lives in a place, as the supervisor tells us: the truth that words are held against.
#[derive(Clone, Copy)]
pub(super) struct Resident {
    incarnation: u32,
    /// The kernel has confirmed its death, and it is being reaped.
    dead: bool,
}

/// A slot that is not used, and arguments that are not freed, as long as one of `witnesses` lives.
pub(super) struct Quarantined {
    number: u32,
    _args: Args,
    witnesses: Vec<Owner>,
}

/// What the back-stop has seen of a `Run` word that may be nobody's.
#[derive(Clone, Copy)]
pub(super) struct Suspicion {
    word: Word,
    /// How many tasks its owner had done, just after the word was first seen.
    tasks: u64,
    contradictions: u32,
}

/// So many contradictions make a `Run` word a wrong one. One is proof; the second one is for park words and
/// counters that are wrong for a moment themselves.
const CONTRADICTIONS: u32 = 2;

impl State {
    /// Whether this process is dead for certain.
    pub(super) fn is_dead(&self, who: Owner) -> bool {
        match self.resident(who) {
            Some(resident) => resident.dead,
            None => self.deaths.iter().any(|death| death.who == who),
        }
    }

    /// The living (or not yet reaped) process that a slot word names, if it is one.
    fn resident(&self, who: Owner) -> Option<Resident> {
        let resident = self.residents.get(who.index as usize).copied().flatten()?;
        (Owner::new(who.index, resident.incarnation) == who).then_some(resident)
    }
}

impl Client {
    /// A process is about to live in place `index`. Before it can run.
    pub(crate) fn admit(&self, index: u32, incarnation: u32, guest: bool) {
        let mut state = self.lock();
        state.residents[index as usize] = Some(Resident { incarnation, dead: false });
        state.guests[index as usize] = guest;
    }

    /// The process in place `index` is dead: see [`record_death`](Self::record_death).
    pub(super) fn mark_dead(&self, state: &mut State, index: u32) {
        if let Some(resident) = &mut state.residents[index as usize] {
            resident.dead = true;
        }
        // The reap that follows goes by it, and somebody may have written over it.
        self.segment.client().slots_used.store(state.fresh, Ordering::Release);
    }

    /// Whether this process uses no memory of place `index`'s region.
    pub(crate) fn holds_nothing_of(&self, index: u32) -> bool {
        // Under the lock: results are taken under it, too.
        let _state = self.lock();
        self.holdings.are_none(index)
    }

    /// Nobody is in place `index` any more: all it had is reaped. Frees what was kept on its account.
    pub(super) fn dismiss(&self, state: &mut State, index: u32) {
        state.residents[index as usize] = None;
        for mut held in std::mem::take(&mut state.quarantine) {
            held.witnesses.retain(|witness| witness.index != index);
            if held.witnesses.is_empty() {
                self.release_quarantined(state, held);
            } else {
                state.quarantine.push(held);
            }
        }
    }

    fn release_quarantined(&self, state: &mut State, held: Quarantined) {
        let entry = &mut state.entries[held.number as usize];
        entry.quarantined = false;
        entry.generation = self.segment.slot(held.number).word().recycle(entry.generation);
        if entry.waiters == 0 {
            state.free.push(held.number);
        }
    }

    /// Fails the task of a slot whose words are wrong; always `true`, for it has an outcome.
    #[cold]
    pub(super) fn corrupted(&self, state: &mut State, number: u32, error: Error) -> bool {
        self.quarantine(state, number, error);
        let slots = self.segment.layout.sizes.slots;
        let kept = state.quarantine.len();
        if kept * 4 > slots as usize && state.failed.is_none() {
            let error = Error::corrupted(format!(
                "{kept} of {slots} task slots were written over, and their workers may still use them: the pool cannot go on"
            ));
            state.failed = Some(error.clone());
            for number in 0..state.fresh {
                self.quarantine(state, number, error.clone());
            }
            self.wake_sleepers(state);
            if let Some(alarm) = self.alarm.get() {
                alarm();
            }
        }
        true
    }

    fn quarantine(&self, state: &mut State, number: u32, error: Error) {
        let witnesses: Vec<Owner> = (0..)
            .zip(&state.residents)
            .filter_map(|(index, resident)| resident.map(|resident| Owner::new(index, resident.incarnation)))
            .collect();
        let entry = &mut state.entries[number as usize];
        let Some(task) = entry.task.take() else { return };
        entry.quarantined = true;
        // A worker that runs the task finds that it is not its own any more.
        let word = self.segment.slot(number).word();
        entry.generation = word.recycle(entry.generation);
        word.wake();
        state.in_flight -= 1;
        let held = Quarantined { number, _args: task.spec.args.clone(), witnesses };
        if held.witnesses.is_empty() {
            self.release_quarantined(state, held);
        } else {
            state.quarantine.push(held);
        }
        task.fail(error);
    }

    /// Has `alarm` called, once, when the pool cannot go on; it must not wait for anything.
    pub(crate) fn on_ruin(&self, alarm: impl Fn() + Send + Sync + 'static) {
        let _ = self.alarm.set(Box::new(alarm));
    }

    /// Why the client takes no more work, if it has ended.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.lock().failed.clone()
    }

    /// Whether a slot word that says `Run` contradicts what else is known, so that nobody will ever end
    /// the task.
    ///
    /// A worker that the supervisor has not let in, or whose reap is over, runs nothing: the former is said
    /// under the lock before it is launched, the latter after the reap has changed all its words, so no
    /// pool that keeps to the protocol shows such a word here.
    ///
    /// One that lives runs one task at a time, and between T2 and T3 it neither parks nor counts a task:
    ///
    /// ```text
    /// worker   T2(this slot) .. T3 .. tasks += 1 (Release) .. [next task] .. park = Parked (Release)
    /// client   word = Run (Acquire), tasks = n | later: tasks > n, or park = Parked (Acquire); word again
    /// ```
    ///
    /// The first load of the word sees T2, so the `n` after it is at least the count before T2, and a park
    /// word read after it is from after T2, too (`Search` precedes every T2 since the last `Parked`). So
    /// a larger count or `Parked` come from after T3, and then the last load of the word sees T3: if the
    /// word is still the same, it is not that worker who wrote it.
    pub(super) fn nobody_runs(&self, state: &mut State, number: u32, word: Word) -> bool {
        let owner = word.owner();
        let Some(resident) = state.resident(owner) else { return true };
        if resident.dead {
            return false; // the reap is about to change it
        }
        let word = word.without_waiter();
        let process = self.segment.process(owner.index);
        let tasks = process.tasks.load(Ordering::Acquire); // pairs with `Worker::run`
        let asleep = self.segment.park(owner.index).is_asleep(resident.incarnation);
        let again = self.segment.slot(number).word().load().without_waiter();
        let suspicion = &mut state.entries[number as usize].suspicion;
        let mut now = match *suspicion {
            Some(known) if known.word == word => known,
            _ => Suspicion { word, tasks, contradictions: 0 },
        };
        now.contradictions += u32::from(again == word && (asleep || tasks != now.tasks));
        *suspicion = Some(now);
        now.contradictions >= CONTRADICTIONS
    }
}

impl InFlight {
    /// Tells whoever waits that all of the task, or of what is left of the chunk, has failed.
    pub(super) fn fail(self, error: Error) {
        let outcome = match self.items {
            Some((first, end)) => Outcome::Range { first, end, error },
            None => Outcome::Failed(error),
        };
        self.sink.deliver(self.tag, outcome);
    }
}
