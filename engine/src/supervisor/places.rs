//! Places of the process table: given to workers that are launched, and to guests that knock.

use super::deaths::Orphan;
use super::{LAUNCH_TICK, NOTE_TICK, Resident, Supervisor};
use crate::error::Result;
use crate::launch::{Begun, Failed, Launched, Stray, ToChild};
use crate::segment::{Life, LifeState, Role};
use crate::sync::Ordering;
use crate::sys::{self, Sent};
use std::time::{Duration, Instant};

/// How long the kernel may take to end a worker whose template is dead.
pub(super) const ORPHAN_LIMIT: Duration = Duration::from_millis(500);
/// How many templates in a row may be killed while they launch one worker.
const TEMPLATE_TRIES: u32 = 8;
/// How many launches may be on their way at once: what a template's queue and the table of descriptors hold
/// in any case.
const LAUNCHES_AHEAD: usize = 16;

/// A worker that is on its way to its place.
pub(super) struct Coming {
    index: u32,
    incarnation: u32,
    begun: Result<Begun, Failed>,
}

impl Supervisor {
    /// Gives an empty place to a process that is about to be launched, or let in.
    pub(super) fn occupy(&mut self, index: u32, role: Role) -> u32 {
        let header = self.segment.header();
        header.places.fetch_max(u64::from(index) + 1, Ordering::AcqRel);
        let next = &mut self.incarnations[index as usize];
        let incarnation = *next;
        *next = next.wrapping_add(1);
        let guest = role == Role::Guest || self.launcher.runs_a_command();
        self.client.admit(index, incarnation, guest);
        let entry = self.segment.process(index);
        entry.role.store(role as u32, Ordering::Relaxed);
        entry.start_time.store(0, Ordering::Relaxed); // nobody has noted it
        entry.current.store(0, Ordering::Relaxed);
        entry.starved.store(0, Ordering::Relaxed);
        // By our own books nobody is there: a word that says otherwise is wrong.
        entry.life.store(Life { state: LifeState::Joining, incarnation }.pack(), Ordering::Release);
        incarnation
    }

    pub(super) fn settle(&mut self, index: u32, incarnation: u32, launched: Launched, guest: bool) {
        let Launched { handle, channel } = launched;
        self.segment.process(index).pid.store(handle.pid(), Ordering::Relaxed);
        self.control.lock().pids.push((index, handle.pid()));
        self.note_at.get_or_insert(Instant::now() + NOTE_TICK);
        self.residents[index as usize] = Some(Resident {
            incarnation,
            handle,
            channel: Some(channel),
            guest,
            ward: false,
            ready: false,
            leaving: false,
        });
    }

    /// Writes down for auditors when the processes were started that have come since the last time.
    pub(super) fn note_starts(&mut self) {
        self.note_at = None;
        for (index, resident) in self.residents.iter().enumerate() {
            let word = &self.segment.process(index as u32).start_time;
            if let Some(resident) = resident
                && word.load(Ordering::Relaxed) == 0
            {
                word.store(sys::start_time(resident.handle.pid()).unwrap_or(0), Ordering::Relaxed);
            }
        }
    }

    pub(super) fn launch(&mut self, index: u32) -> Result<()> {
        let coming = self.begin(index);
        self.receive(coming)
    }

    /// Launches the first worker as a fork of the calling thread, and then the template that forks the others:
    /// nothing is quicker.
    pub(super) fn fork_first(&mut self) -> Result<()> {
        if self.target > 0 {
            self.begun = 1;
            let incarnation = self.occupy(1, Role::Worker);
            let launched = self.launcher.fork_here(1, incarnation)?;
            self.settle(1, incarnation, launched, false);
        }
        let residents = &mut self.residents;
        self.launcher.fork_template(|| residents.drain(..).flatten().map(|r| r.handle).collect())?;
        if let Some(Some(first)) = self.residents.get_mut(1) {
            first.ward = true;
            self.guardian = self.launcher.template_number();
        }
        Ok(())
    }

    /// Whether workers that the pool began with are still to be launched.
    pub(super) fn is_starting(&self) -> bool {
        self.begun < self.target || !self.coming.is_empty()
    }

    /// Launches some of the first workers, each while the one before it starts.
    pub(super) fn launch_first(&mut self) -> Result<()> {
        // Somebody else's are started by the time they are begun; and behind one that cannot be there are no more.
        let ahead = if self.launcher.is_foreign() { 1 } else { LAUNCHES_AHEAD };
        while self.coming.len() < ahead && self.begun < self.target {
            self.begun += 1;
            let next = self.begin(self.begun);
            self.coming.push_back(next);
        }
        self.coming.pop_front().map_or(Ok(()), |next| self.receive(next))
    }

    /// Launches no more of the first workers, and waits for none that was begun.
    pub(super) fn give_up_first(&mut self) {
        self.begun = self.target;
        for Coming { index, incarnation, begun } in std::mem::take(&mut self.coming) {
            match begun {
                Ok(Begun::Launched(launched)) => self.settle(index, incarnation, launched, false),
                // One that is forked all the same dies with the template.
                Ok(Begun::Asked(asked)) => {
                    self.launcher.discard_template(asked.number());
                    let channel = Some(asked.into_channel());
                    self.orphans.push(Orphan { index, incarnation, channel });
                }
                Err(_) => {}
            }
        }
    }

    fn begin(&mut self, index: u32) -> Coming {
        let incarnation = self.occupy(index, Role::Worker);
        Coming { index, incarnation, begun: self.launcher.begin(index, incarnation) }
    }

    fn receive(&mut self, mut coming: Coming) -> Result<()> {
        let mut tries = 0;
        loop {
            let Coming { index, incarnation, begun } = coming;
            match begun.and_then(|begun| self.launcher.finish(begun)) {
                Ok(launched) => {
                    self.settle(index, incarnation, launched, false);
                    return Ok(());
                }
                Err(failed) => {
                    // A process that was started all the same finds the place given away, and ends.
                    let away = Life { state: LifeState::Free, incarnation: incarnation.wrapping_add(1) };
                    let entry = self.segment.process(index);
                    // That a template was killed while it was asked is no failure: ask the next one.
                    let again = if entry.change_life(incarnation, &[LifeState::Joining], away) {
                        self.client.after_reap(index);
                        self.launcher.would_ask_another(&failed)
                    } else {
                        // Somebody is there whom we do not know. It dies with the template, or with its channel.
                        let channel = failed.stray.map(|Stray { template, channel }| {
                            match template {
                                Some(number) => self.launcher.discard_template(number),
                                None => channel.end_peer(),
                            }
                            channel
                        });
                        self.orphans.push(Orphan { index, incarnation, channel });
                        self.bury_orphan(index, ORPHAN_LIMIT) && !self.launcher.is_foreign()
                    };
                    tries += 1;
                    if tries == TEMPLATE_TRIES || !again {
                        return Err(failed.error);
                    }
                }
            }
            coming = self.begin(index);
        }
    }

    /// Fills places that stayed empty because launching failed; not oftener than once a tick.
    pub(super) fn fill_places(&mut self) {
        if self.last_fill.elapsed() < LAUNCH_TICK {
            return;
        }
        self.last_fill = Instant::now();
        for index in 1..=self.target {
            let empty = self.residents[index as usize].is_none() && self.bury_orphan(index, Duration::ZERO);
            if empty && self.launch(index).is_err() {
                return; // the next tick tries again
            }
        }
    }

    /// Takes in guests that knock at the pool's socket.
    pub(super) fn welcome(&mut self) {
        while let Some((_, listener)) = &self.name {
            let (channel, handle) = match listener.accept() {
                Ok(Some(guest)) => guest,
                Ok(None) => return,
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(10)); // out of descriptors: it passes
                    return;
                }
            };
            let place = (self.target + 1..self.segment.processes())
                .find(|&index| self.residents[index as usize].is_none());
            let Some(index) = place else {
                let _ = channel.try_send(&ToChild::NoPlace.to_bytes(), &[]);
                continue;
            };
            let incarnation = self.occupy(index, Role::Guest);
            let message = ToChild::Worker { index, incarnation }.to_bytes();
            let told = matches!(channel.try_send(&message, &self.segment.fds()), Ok(Sent::Yes));
            self.settle(index, incarnation, Launched { handle, channel }, true);
            if !told && let Some(resident) = self.residents[index as usize].take() {
                self.repair(index, &resident); // it hung up before it had our memory
            }
        }
    }
}
