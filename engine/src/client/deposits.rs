//! Where the outcomes of calls lie until whoever has their tickets takes them.

use super::books::{Key, Taken, UnderBooks};
use super::{Outcome, Tiny};
use crate::sync::private::{Private, PrivateU32, PrivateU64};
use std::sync::{Arc, OnceLock};

/// The place for the outcome of one call.
///
/// | from | to | who |
/// | --- | --- | --- |
/// | `FREE` | `AWAITED` | who submits the call, with the books |
/// | `AWAITED` | `TINY` and more, `OUTCOME` | who takes the result out of its slot, with the books |
/// | `AWAITED` | `FORGOTTEN` | who has the ticket and wants nothing any more, with the books |
/// | `FORGOTTEN` | `FREE` | who takes the result out of its slot, with the books |
/// | `OUTCOME`, `AWAITED` | `SPENT` | who has the ticket: has taken it, or will get it elsewhere; with the books |
/// | `TINY` and more, `OUTCOME` | `FREE` | who has the ticket, with the books |
/// | `TINY` and more, `SPENT` | `FREE` | who has the ticket, with nothing: it looks no more |
///
/// So a short value is read, and its place given back, without the books.
#[derive(Default)]
pub(crate) struct Deposit {
    state: PrivateU32,
    /// The bytes of a short value. Written before `TINY`, never while somebody has the ticket after it.
    word: PrivateU64,
    /// All else.
    outcome: UnderBooks<Option<Box<Outcome>>>,
}

const FREE: u32 = 0;
const AWAITED: u32 = 1;
const FORGOTTEN: u32 = 2;
const OUTCOME: u32 = 3;
const SPENT: u32 = 4;
/// And more: a value of so many bytes.
const TINY: u32 = 5;

impl Deposit {
    /// The value, if it is a short one and there.
    #[inline]
    pub(crate) fn tiny(&self) -> Option<Tiny> {
        let state = self.state.load(Private::Acquire); // pairs with `leave`
        let len = state.checked_sub(TINY)?;
        Some(Tiny { word: self.word.load(Private::Relaxed), len: len as u8 })
    }

    /// Who has the ticket looks no more; `false` if that takes the books.
    #[inline]
    pub(crate) fn give_back(&self) -> bool {
        let over = self.state.load(Private::Relaxed) >= SPENT;
        if over {
            self.state.store(FREE, Private::Release); // pairs with `Deposits::next`
        }
        over
    }
}

/// Deposits of the first part; each has twice as many as the one before.
const FIRST: usize = 64;
/// Parts behind the first.
const PARTS: usize = 25;

/// All deposits of a client, by number.
pub(crate) struct Deposits {
    /// All that is ever used where calls are made one after the other.
    first: [Deposit; FIRST],
    parts: [OnceLock<Box<[Deposit]>>; PARTS],
}

impl Default for Deposits {
    fn default() -> Self {
        Deposits { first: std::array::from_fn(|_| Deposit::default()), parts: Default::default() }
    }
}

impl Deposits {
    /// The one with this number, which has been handed out.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &Deposit {
        match self.first.get(number as usize) {
            Some(deposit) => deposit,
            None => self.further(number as usize),
        }
    }

    fn further(&self, number: usize) -> &Deposit {
        let position = number + FIRST;
        let part = (position / FIRST).ilog2() as usize;
        let within = position - (FIRST << part);
        &self.parts[part - 1].get().expect("a number that was handed out")[within]
    }
}

/// What the books know of them.
#[derive(Default)]
pub(super) struct Ledger {
    all: Arc<Deposits>,
    /// How many there are.
    made: usize,
    /// The one to be looked at next.
    next: usize,
    /// How many were free among those that have been looked at in this round.
    found: usize,
}

impl Ledger {
    /// The deposits, which need no books for what is [short](Deposit::tiny).
    pub(super) fn all(&self) -> Arc<Deposits> {
        self.all.clone()
    }

    /// The number of a place for an outcome that will come.
    ///
    /// Whoever gives one back does not say so: they are gone through in turn, and more are made if fewer than half
    /// were free the last time. So two are looked at for one that is found.
    #[inline]
    pub(super) fn open(&mut self) -> u32 {
        loop {
            if self.next == self.made {
                self.begin_round();
            }
            let number = self.next as u32;
            self.next += 1;
            let deposit = self.all.get(number);
            // Acquire pairs with `give_back`: nobody reads the word any more.
            if deposit.state.load(Private::Acquire) == FREE {
                self.found += 1;
                deposit.state.store(AWAITED, Private::Relaxed);
                return number;
            }
        }
    }

    #[cold]
    fn begin_round(&mut self) {
        if self.made == 0 {
            self.made = FIRST;
        } else if 2 * self.found >= self.made {
            self.next = 0;
        } else {
            let more = self.made + FIRST;
            let part = (self.made / FIRST + 1).ilog2() as usize;
            let parts = &self.all.parts;
            let made = || (0..more).map(|_| Deposit::default()).collect();
            parts.get(part - 1).expect("fewer than four thousand million deposits").get_or_init(made);
            self.made += more;
        }
        self.found = 0;
    }

    /// Leaves an outcome for whoever has the ticket.
    #[inline]
    pub(super) fn leave(&self, number: u32, taken: Taken, key: &mut Key) {
        let deposit = self.all.get(number);
        let state = match (deposit.state.load(Private::Relaxed), taken) {
            (AWAITED, Taken::Tiny(Tiny { word, len })) => {
                deposit.word.store(word, Private::Relaxed);
                TINY + u32::from(len)
            }
            (AWAITED, Taken::Outcome(outcome)) => {
                // SAFETY: the key is that of the client whose deposits these are.
                unsafe { *deposit.outcome.get(key) = Some(outcome) };
                OUTCOME
            }
            (FORGOTTEN, _) => FREE,
            (other, _) => other,
        };
        deposit.state.store(state, Private::Release); // pairs with `tiny`
    }

    /// The outcome, once it is there, for who does not look again: the place is free then.
    #[inline]
    pub(super) fn take(&mut self, number: u32, key: &mut Key) -> Option<Taken> {
        let taken = match self.all.get(number).tiny() {
            Some(value) => Taken::Tiny(value),
            None => Taken::Outcome(self.take_boxed(number, key)?),
        };
        self.close(number);
        Some(taken)
    }

    /// Nobody has the ticket any more, and nothing will come. The place that was handed out last is handed out next.
    #[inline]
    pub(super) fn close(&mut self, number: u32) {
        self.all.get(number).state.store(FREE, Private::Relaxed);
        if number as usize + 1 == self.next && self.found > 0 {
            self.next -= 1;
            self.found -= 1;
        }
    }

    /// An outcome that is no short value, once it is there. The place stays that of who has the ticket.
    pub(super) fn take_boxed(&self, number: u32, key: &mut Key) -> Option<Box<Outcome>> {
        let deposit = self.all.get(number);
        if deposit.state.load(Private::Relaxed) != OUTCOME {
            return None;
        }
        deposit.state.store(SPENT, Private::Relaxed);
        // SAFETY: as in `leave`.
        unsafe { deposit.outcome.get(key) }.take()
    }

    /// Nothing will come: it goes elsewhere.
    pub(super) fn spend(&self, number: u32) {
        self.all.get(number).state.store(SPENT, Private::Relaxed);
    }

    /// Nobody has the ticket any more.
    pub(super) fn forget(&self, number: u32, key: &mut Key) {
        let deposit = self.all.get(number);
        let state = match deposit.state.load(Private::Relaxed) {
            AWAITED => FORGOTTEN,
            _ => FREE,
        };
        // SAFETY: as in `leave`.
        drop(unsafe { deposit.outcome.get(key) }.take());
        deposit.state.store(state, Private::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Books;
    use super::*;
    use crate::error::ErrorKind;

    fn short(word: u64) -> Taken {
        Taken::Tiny(Tiny { word, len: 8 })
    }

    fn failed() -> Taken {
        Taken::Outcome(Box::new(Outcome::Failed(ErrorKind::Closed.into())))
    }

    #[test]
    fn a_short_value_needs_no_books_and_its_place_is_used_again() {
        let (mut books, mut ledger) = (Books::new(1), Ledger::default());
        let all = ledger.all();
        for word in 0..10_000 {
            let number = ledger.open();
            assert!(all.get(number).tiny().is_none());
            assert!(!all.get(number).give_back(), "nothing has come");
            ledger.leave(number, short(word), books.key());
            assert_eq!(all.get(number).tiny().map(|value| (value.word, value.len)), Some((word, 8)));
            assert!(all.get(number).give_back());
        }
        assert_eq!(ledger.made, FIRST);
    }

    #[test]
    fn what_is_taken_with_the_books_is_free_at_once() {
        let (mut books, mut ledger) = (Books::new(1), Ledger::default());
        for word in 0..1000 {
            let number = ledger.open();
            assert_eq!(number, 0);
            let outcome = if word % 2 == 0 { short(word) } else { failed() };
            ledger.leave(number, outcome, books.key());
            assert!(ledger.take(number, books.key()).is_some());
        }
    }

    #[test]
    fn a_long_outcome_leaves_its_place_to_the_ticket() {
        let (mut books, mut ledger) = (Books::new(1), Ledger::default());
        let number = ledger.open();
        assert!(ledger.take_boxed(number, books.key()).is_none());
        ledger.leave(number, failed(), books.key());
        assert!(ledger.all.get(number).tiny().is_none());
        assert!(!ledger.all.get(number).give_back(), "it has not been taken");
        assert!(ledger.take_boxed(number, books.key()).is_some());
        assert!(ledger.take_boxed(number, books.key()).is_none());
        assert_ne!(ledger.open(), number);
        assert!(ledger.all.get(number).give_back());
    }

    #[test]
    fn what_nobody_wants_is_dropped_when_it_comes_or_before() {
        let (mut books, mut ledger) = (Books::new(1), Ledger::default());
        for outcome in [short as fn(u64) -> Taken, |_| failed()] {
            let early = ledger.open();
            ledger.forget(early, books.key());
            ledger.leave(early, outcome(1), books.key());
            let late = ledger.open();
            ledger.leave(late, outcome(2), books.key());
            ledger.forget(late, books.key());
            for number in [early, late] {
                let deposit = ledger.all.get(number);
                assert_eq!(deposit.state.load(Private::Relaxed), FREE);
                // SAFETY: no other key is about.
                assert!(unsafe { deposit.outcome.get(books.key()) }.is_none());
            }
        }
    }

    #[test]
    fn held_places_are_nobody_elses() {
        let mut ledger = Ledger::default();
        let held: Vec<u32> = (0..5000).map(|_| ledger.open()).collect();
        let mut sorted = held.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), held.len());
        assert!(ledger.made < 4 * held.len(), "{} for {}", ledger.made, held.len());
        for number in held {
            ledger.spend(number);
            assert!(ledger.all.get(number).give_back());
        }
        let made = ledger.made;
        for _ in 0..5000 {
            let number = ledger.open();
            ledger.spend(number);
            assert!(ledger.all.get(number).give_back());
        }
        assert_eq!(ledger.made, made);
    }

    #[test]
    fn places_given_back_by_other_threads_come_with_nothing_in_them() {
        let (mut books, mut ledger) = (Books::new(1), Ledger::default());
        std::thread::scope(|scope| {
            let mut threads: Vec<_> = (0..2)
                .map(|_| {
                    let (tell, told) = std::sync::mpsc::channel::<(u32, u64)>();
                    let all = ledger.all();
                    scope.spawn(move || {
                        for (number, word) in told {
                            assert_eq!(all.get(number).tiny().map(|value| value.word), Some(word));
                            assert!(all.get(number).give_back());
                        }
                    });
                    tell
                })
                .collect();
            for word in 0..20_000 {
                let number = ledger.open();
                ledger.leave(number, short(word), books.key());
                threads[word as usize % 2].send((number, word)).expect("a thread");
            }
            threads.clear();
        });
    }
}
