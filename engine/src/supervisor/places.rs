//! Places of the process table: given to workers that are launched, and to guests that knock.

use super::deaths::Orphan;
use super::{LAUNCH_TICK, Resident, Supervisor};
use crate::error::Result;
use crate::launch::{Launched, ToChild};
use crate::segment::{Life, LifeState, Role};
use crate::sync::Ordering;
use crate::sys::{self, Sent};
use std::time::{Duration, Instant};

/// How long the kernel may take to end a worker whose template is dead.
pub(super) const ORPHAN_LIMIT: Duration = Duration::from_millis(500);
/// How many templates in a row may be killed while they launch one worker.
const TEMPLATE_TRIES: u32 = 8;

impl Supervisor {
    /// Gives an empty place to a process that is about to be launched, or let in.
    pub(super) fn occupy(&mut self, index: u32, role: Role) -> u32 {
        let header = self.segment.header();
        header.places.fetch_max(u64::from(index) + 1, Ordering::AcqRel);
        let next = &mut self.incarnations[index as usize];
        let incarnation = *next;
        *next = next.wrapping_add(1);
        self.client.admit(index, incarnation, role == Role::Guest);
        let entry = self.segment.process(index);
        entry.role.store(role as u32, Ordering::Relaxed);
        entry.current.store(0, Ordering::Relaxed);
        entry.starved.store(0, Ordering::Relaxed);
        // By our own books nobody is there: a word that says otherwise is wrong.
        entry.life.store(Life { state: LifeState::Joining, incarnation }.pack(), Ordering::Release);
        incarnation
    }

    pub(super) fn settle(&mut self, index: u32, incarnation: u32, launched: Launched, guest: bool) {
        let Launched { handle, channel } = launched;
        let entry = self.segment.process(index);
        entry.pid.store(handle.pid(), Ordering::Relaxed);
        entry.start_time.store(sys::start_time(handle.pid()).unwrap_or(0), Ordering::Relaxed);
        self.control.lock().pids.push((index, handle.pid()));
        self.residents[index as usize] = Some(Resident {
            incarnation,
            handle,
            channel: Some(channel),
            guest,
            ready: false,
            leaving: false,
        });
    }

    pub(super) fn launch(&mut self, index: u32) -> Result<()> {
        let mut tries = 0;
        loop {
            let incarnation = self.occupy(index, Role::Worker);
            match self.launcher.launch(index, incarnation) {
                Ok(launched) => {
                    self.settle(index, incarnation, launched, false);
                    return Ok(());
                }
                Err(error) => {
                    // A process that was started all the same finds the place given away, and ends.
                    let away = Life { state: LifeState::Free, incarnation: incarnation.wrapping_add(1) };
                    let entry = self.segment.process(index);
                    // That a template was killed while it was asked is no failure: ask the next one.
                    let again = if entry.change_life(incarnation, &[LifeState::Joining], away) {
                        self.client.after_reap(index);
                        self.launcher.template_is_dead()
                    } else {
                        // Somebody is there whom we do not know. It dies with the template.
                        let channel = self.launcher.discard_template();
                        self.orphans.push(Orphan { index, incarnation, channel });
                        self.bury_orphan(index, ORPHAN_LIMIT)
                    };
                    tries += 1;
                    if tries == TEMPLATE_TRIES || !again {
                        return Err(error);
                    }
                }
            }
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
