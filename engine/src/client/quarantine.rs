//! What is done about tasks whose words somebody has written over: they fail, and what a worker may
//! still be using of them is kept from use.
//!
//! A slot word that was overwritten no longer says who runs the task, so it can be anybody: every
//! worker that lives now may read its arguments and write its result area until it is dead and reaped.
//! Till then slot and arguments are in quarantine.

use super::{Books, Client, Kept};
use crate::error::Error;
use crate::slot::{Owner, Word};
use crate::sync::Ordering;
use crate::wake::Freed;

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
    /// Its arguments, which somebody may be reading.
    _kept: Option<Box<Kept>>,
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

impl Books {
    /// Whether this process is dead for certain.
    pub(super) fn is_dead(&self, who: Owner) -> bool {
        match self.resident(who) {
            Some(resident) => resident.dead,
            None => self.deaths.iter().any(|death| death.who == who),
        }
    }

    /// Who ended a call last, if it is alive and has no task now: nobody has. What is in quarantine is in flight no
    /// more, but may still be run.
    #[inline]
    pub(super) fn freed(&self) -> Option<Freed> {
        if self.in_flight > 0 || !self.quarantine.is_empty() {
            return None;
        }
        let who = self.last_done.owner();
        let resident = self.resident(who).filter(|resident| !resident.dead)?;
        Some(Freed { index: who.index, incarnation: resident.incarnation })
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
    pub(super) fn mark_dead(&self, state: &mut Books, index: u32) {
        if let Some(resident) = &mut state.residents[index as usize] {
            resident.dead = true;
        }
        // The reap that follows goes by it, and somebody may have written over it.
        self.segment.client().slots_used.store(state.fresh, Ordering::Release);
    }

    /// Whether this process uses no memory of place `index`'s region.
    pub(crate) fn holds_nothing_of(&self, index: u32) -> bool {
        // Under the lock: results are taken under it, too.
        self.lock().held[index as usize].is_none(&self.holdings, index)
    }

    /// Nobody is in place `index` any more: all it had is reaped. Frees what was kept on its account.
    pub(super) fn dismiss(&self, state: &mut Books, index: u32) {
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

    fn release_quarantined(&self, state: &mut Books, held: Quarantined) {
        let entry = &mut state.entries[held.number as usize];
        entry.quarantined = false;
        entry.generation = self.segment.slot(held.number).word().recycle(entry.generation);
        if entry.waiters == 0 {
            state.free.push(held.number);
        }
    }

    /// Fails the task of a slot whose words are wrong; always `true`, for it has an outcome.
    #[cold]
    pub(super) fn corrupted(&self, state: &mut Books, number: u32, error: Error) -> bool {
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

    fn quarantine(&self, state: &mut Books, number: u32, error: Error) {
        let witnesses: Vec<Owner> = (0..)
            .zip(&state.residents)
            .filter_map(|(index, resident)| resident.map(|resident| Owner::new(index, resident.incarnation)))
            .collect();
        let Some(task) = state.leave(number) else { return };
        let entry = &mut state.entries[number as usize];
        entry.quarantined = true;
        // A worker that runs the task finds that it is not its own any more.
        let word = self.segment.slot(number).word();
        entry.generation = word.recycle(entry.generation);
        word.wake();
        task.fail(error, state);
        let held = Quarantined { number, _kept: task.kept, witnesses };
        if held.witnesses.is_empty() {
            self.release_quarantined(state, held);
        } else {
            state.quarantine.push(held);
        }
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
    pub(super) fn nobody_runs(&self, state: &mut Books, number: u32, word: Word) -> bool {
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
        let mut now = match state.suspicions.get(&number) {
            Some(known) if known.word == word => *known,
            _ => Suspicion { word, tasks, contradictions: 0 },
        };
        now.contradictions += u32::from(again == word && (asleep || tasks != now.tasks));
        state.suspicions.insert(number, now); // of a word with a generation, so no later task inherits it
        now.contradictions >= CONTRADICTIONS
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Args, Key, Outcome, Sink, Target, TaskSpec};
    use super::*;
    use crate::error::Exit;
    use crate::segment::{Segment, Sizes};
    use crate::slot::{Check, Shape};
    use crate::sync::private::{Private, PrivateBool};
    use crate::wake::ParkState;
    use crate::worker::FuncWord;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[derive(Default)]
    struct Errors(Mutex<Vec<Option<Error>>>);

    impl Sink for Errors {
        fn deliver(&self, _tag: u64, outcome: Outcome, _: &mut Key) {
            let error = match outcome {
                Outcome::Failed(error) | Outcome::Range { error, .. } => Some(error),
                _ => None,
            };
            self.0.lock().expect("no panic").push(error);
        }
    }

    const WORKER: Owner = Owner { index: 1, incarnation: 5 };

    fn client() -> Client {
        client_of(false)
    }

    fn client_of(hardened: bool) -> Client {
        let sizes = Sizes { processes: 3, slots: 8, completions: 64, region: 4 << 20 };
        let segment = Arc::new(Segment::create(sizes).expect("memory"));
        segment.header().places.store(3, Ordering::Relaxed);
        segment.header().hardened.store(hardened.into(), Ordering::Relaxed);
        let client = Client::new(segment, Duration::ZERO, 1, 4 << 20);
        client.admit(WORKER.index, WORKER.incarnation, false);
        client
    }

    fn submit(client: &Client) -> (u32, Arc<Errors>) {
        let sink = Arc::new(Errors::default());
        let args = Args::archive_in_block(&client.arena, &vec![7_u8; 1000]).expect("room");
        let func = FuncWord(1 << 63);
        let spec = TaskSpec { func, name: "f", args, shape: Shape::Block };
        let ticket = client.submit(spec, None, Target::Sink(sink.clone()), 0).expect("a slot");
        (ticket.slot, sink)
    }

    fn claim(client: &Client, number: u32, who: Owner) {
        let word = client.segment.slot(number).word();
        word.claim(word.load(), who).expect("ready");
    }

    fn failed(errors: &Errors) -> usize {
        let errors = errors.0.lock().expect("no panic");
        let corrupted = |e: &Option<Error>| e.as_ref().is_some_and(|e| e.to_string().contains("corrupt"));
        assert!(errors.iter().all(corrupted), "{errors:?}");
        errors.len()
    }

    fn die(client: &Client) {
        client.record_death(super::super::Death { who: WORKER, pid: 1, exit: Exit::Unknown, current: 0 });
        crate::recovery::reap(&client.segment, WORKER.index, WORKER.incarnation);
        client.after_reap(WORKER.index);
    }

    #[test]
    fn a_run_of_nobody_is_noticed() {
        for who in [Owner::new(2, 0), Owner::new(1, 4), Owner::new(0, 0), Owner::new(900, 1)] {
            let client = client();
            let (number, sink) = submit(&client);
            claim(&client, number, who);
            client.look_behind();
            assert_eq!(failed(&sink), 1);
            assert_eq!(client.in_flight(), 0);
        }
    }

    #[test]
    fn a_run_of_a_sleeping_or_busy_worker_is_noticed() {
        let park = |client: &Client| client.segment.park(1).announce(WORKER.incarnation);
        let count = |client: &Client| client.segment.process(1).tasks.store(1, Ordering::Release);
        for sign in [0, 1] {
            let client = client();
            let (number, sink) = submit(&client);
            client.segment.park(1).run(WORKER.incarnation);
            claim(&client, number, WORKER);
            for _ in 0..5 {
                client.look_behind(); // it runs the task
            }
            assert_eq!(failed(&sink), 0);
            match sign {
                0 => park(&client),
                _ => count(&client),
            }
            client.look_behind();
            assert_eq!(failed(&sink), 0, "once may be a mistake");
            client.look_behind();
            assert_eq!(failed(&sink), 1);
        }
    }

    #[test]
    fn who_may_run_what_is_in_quarantine_is_not_free() {
        let client = client();
        let segment = &client.segment;
        (1..3).for_each(|place| segment.process(place).lanes.store(3, Ordering::Relaxed));
        client.admit(2, 9, false);
        let mut sleeping = segment.berth(2, 9);
        sleeping.search();
        sleeping.announce();
        // Worker 1 has ended a call, stays up, and runs another for long.
        let mut busy = segment.berth(WORKER.index, WORKER.incarnation);
        busy.search();
        busy.stay_up();
        let (number, sink) = submit(&client);
        claim(&client, number, WORKER);
        client.lock().last_done = segment.slot(number).word().load();
        busy.found();
        // Its slot's word is written over: the task fails, and its worker is at it all the same.
        segment.slot(number).word.store(!0, Ordering::Relaxed);
        client.collect();
        client.look_behind();
        assert_eq!((failed(&sink), client.in_flight()), (1, 0));
        let _ = submit(&client);
        assert_eq!(segment.park(2).state(), ParkState::Notified, "who else would run it");
    }

    #[test]
    fn what_may_be_in_use_is_kept_until_its_users_are_gone() {
        let client = client();
        let (number, sink) = submit(&client);
        claim(&client, number, WORKER);
        client.segment.slot(number).word.store(!0, Ordering::Relaxed);
        client.collect();
        client.look_behind();
        assert_eq!(failed(&sink), 1);
        client.arena.trim();
        assert!(client.arena.used() > 0, "the worker may be reading its arguments");
        let (next, _) = submit(&client);
        assert_ne!(next, number, "or writing its result");
        die(&client);
        assert!(client.lock().quarantine.is_empty());
        let (next, _) = submit(&client);
        assert_eq!(next, number);
    }

    #[test]
    fn a_pool_without_a_slot_to_trust_ends() {
        let client = client();
        let rung = Arc::new(PrivateBool::new(false));
        let bell = rung.clone();
        client.on_ruin(move || bell.store(true, Private::Relaxed));
        let tasks: Vec<_> = (0..8).map(|_| submit(&client)).collect();
        for (number, _) in &tasks[..3] {
            assert!(client.failure().is_none());
            client.segment.slot(*number).word.store(9, Ordering::Relaxed);
            client.look_behind();
        }
        assert!(tasks.iter().all(|(_, sink)| failed(sink) == 1), "every task has an outcome");
        assert!(rung.load(Private::Relaxed));
        assert!(client.failure().expect("ruined").to_string().contains("cannot go on"));
    }

    /// A dead worker is reaped whatever its life word says.
    #[test]
    fn a_corrupt_life_word_hides_no_death() {
        for life in [0, !0, 5 << 60, 77] {
            let client = client();
            let (number, sink) = submit(&client);
            claim(&client, number, WORKER);
            client.segment.process(1).life.store(life, Ordering::Relaxed);
            die(&client);
            assert_eq!(client.in_flight(), 0);
            let errors = sink.0.lock().expect("no panic");
            assert!(errors[0].as_ref().is_some_and(Error::is_worker_died), "{errors:?}");
        }
    }

    /// Words that only the client, or a reaper after a death, can write.
    #[test]
    fn ends_that_did_not_happen_are_not_believed() {
        for state in [0, 4, 5] {
            let client = client();
            let (number, sink) = submit(&client);
            claim(&client, number, WORKER);
            let word = &client.segment.slot(number).word;
            word.store(word.load(Ordering::Relaxed) & !0xf | state, Ordering::Relaxed);
            client.collect();
            client.look_behind();
            assert_eq!(failed(&sink), 1);
        }
    }

    /// Items that a dead worker is said to have finished count only with their check.
    #[test]
    fn progress_is_believed_with_its_check_only() {
        struct Ranges(Mutex<Vec<(u32, u32, bool)>>);
        impl Sink for Ranges {
            fn deliver(&self, _: u64, outcome: Outcome, _: &mut Key) {
                let Outcome::Range { first, end, error } = outcome else { panic!("no results were written") };
                self.0.lock().expect("no panic").push((first, end, error.is_worker_died()));
            }
        }
        for (done, checked, expected) in [
            (2, 2, vec![(0, 2, false)]), // finished, but where their results are nobody knows
            (3, 2, vec![(0, 2, false)]), // the third item had just been finished
            (4, 2, vec![(0, 9, false)]),
            (9, 2, vec![(0, 9, false)]),
            (0, 2, vec![(0, 9, false)]), // two were finished, and would run again
        ] {
            let client = client_of(true);
            let args = Args::archive_items(&client.arena, &[1_u64; 9]).expect("room");
            let func = FuncWord(1 << 63);
            let spec = TaskSpec { func, name: "f", args, shape: Shape::Items };
            let sink = Arc::new(Ranges(Mutex::default()));
            let ticket = client.submit(spec, Some((0, 9)), Target::Sink(sink.clone()), 0).expect("a slot");
            claim(&client, ticket.slot, WORKER);
            let slot = client.segment.slot(ticket.slot);
            let check = Check::begin(client.segment.pool_id(), ticket.slot, ticket.generation);
            slot.progress.store(check.of_progress(checked), Ordering::Relaxed);
            slot.done.store(done, Ordering::Relaxed);
            die(&client);
            assert_eq!(*sink.0.lock().expect("no panic"), expected, "{done} {checked}");
        }
    }

    /// Every item of a chunk whose word was written over has its outcome.
    #[test]
    fn a_corrupt_chunk_fails_item_by_item() {
        struct Range(Mutex<Option<(u32, u32)>>);
        impl Sink for Range {
            fn deliver(&self, _: u64, outcome: Outcome, _: &mut Key) {
                if let Outcome::Range { first, end, .. } = outcome {
                    *self.0.lock().expect("no panic") = Some((first, end));
                }
            }
        }
        let client = client();
        let args = Args::archive_items(&client.arena, &[1_u64; 9]).expect("room");
        let spec = TaskSpec { func: FuncWord(1 << 63), name: "f", args, shape: Shape::Items };
        let sink = Arc::new(Range(Mutex::default()));
        let ticket = client.submit(spec, Some((0, 9)), Target::Sink(sink.clone()), 0).expect("a slot");
        client.segment.slot(ticket.slot).word.store(0, Ordering::Relaxed);
        client.look_behind();
        assert_eq!(*sink.0.lock().expect("no panic"), Some((0, 9)));
    }
}
