//! Workers that are gone, or might as well be: noticed, reaped, replaced.

use super::{Resident, Supervisor};
use crate::client::Death;
use crate::error::{Error, Exit};
use crate::recovery;
use crate::slot::Owner;
use crate::sync::Ordering;
use crate::sys::{self, Channel};
use crate::wake::ParkState;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Workers that end early one after the other for so long cannot be started.
const EARLY_LIMIT: Duration = Duration::from_secs(1);

/// A worker that was forked, and whose template was killed before it could say so. It dies with the template;
/// when it has, its channel hangs up. Until then its place is not to be given away.
pub(super) struct Orphan {
    pub index: u32,
    pub incarnation: u32,
    pub channel: Option<Channel>,
}

impl Supervisor {
    /// Kills workers whose first thread, which serves, has ended in a task while others live on: the
    /// process counts as alive to the kernel, and its task would never end.
    pub(super) fn end_headless(&self) {
        for (index, resident) in self.residents.iter().enumerate() {
            let Some(resident) = resident else { continue };
            // A guest may serve by another thread. One that sleeps or searches is there.
            let busy = self.segment.park(index as u32).state() == ParkState::Run;
            if !resident.guest && busy && sys::first_thread_ended(resident.handle.pid()) {
                let _ = resident.handle.kill(Signal::KILL);
            }
        }
    }

    /// Kills the workers that the pool's process has forked itself, if the template is gone that would end them
    /// where the kernel does not. So all workers die with the template, whoever forked them.
    pub(super) fn end_orphaned_wards(&mut self) {
        if self.guardian.is_none() || self.launcher.template_number() == self.guardian {
            return;
        }
        self.guardian = None;
        for resident in self.residents.iter().flatten().filter(|resident| resident.ward) {
            let _ = resident.handle.kill(Signal::KILL);
        }
    }

    /// Looks at workers that hung up without dying: one that runs another program by now is killed,
    /// one that merely closed its descriptors is left alone.
    pub(super) fn check_deaf(&mut self) {
        let mut departed = Vec::new();
        for (index, resident) in self.residents.iter().enumerate() {
            let Some(resident) = resident else { continue };
            let deaf = resident.channel.is_none() && !resident.handle.is_dead();
            if !deaf || self.segment.is_mapped_by(resident.handle.pid()) != Some(false) {
                continue;
            }
            // It has unmapped our memory, so it can do nothing to it any more.
            if resident.guest {
                departed.push(index as u32);
            } else {
                let _ = resident.handle.kill(Signal::KILL);
            }
        }
        for index in departed {
            self.bury(index);
        }
    }

    /// Repairs what a dead worker left, and replaces it if it is still needed.
    pub(super) fn bury(&mut self, index: u32) {
        self.listen_to(index); // its last words
        let Some(resident) = self.residents[index as usize].take() else { return };
        let exit = self.repair(index, &resident);
        if resident.guest {
            if !self.vacated.contains(&index) {
                self.vacated.push(index);
            }
            self.give_back();
            return;
        }
        if self.broken {
            return;
        }
        if !resident.ready && !resident.leaving {
            if self.early_deaths == 0 {
                self.listen_to_all(); // what was said before does not count
                self.early_since = Instant::now();
            }
            self.early_deaths += 1;
            if self.early_deaths > 3 + self.target {
                self.listen_to_all(); // somebody may have been more fortunate meanwhile
            }
            if self.broken {
                return;
            }
            if self.early_deaths > 3 + self.target {
                if self.early_since.elapsed() < EARLY_LIMIT {
                    return; // perhaps somebody kills a lot just now: `fill_places` tries again, slowly
                }
                let message = format!(
                    "{} workers in a row ended before they were ready; the last {exit}",
                    self.early_deaths
                );
                self.break_pool(Error::start(message));
                return;
            }
        }
        if self.wants_workers()
            && let Err(error) = self.launch(index)
        {
            // Out of processes or memory: go on with fewer as long as there is one.
            if self.residents.iter().flatten().all(|r| r.guest) {
                self.break_pool(error);
            }
        }
    }

    fn listen_to_all(&mut self) {
        (0..self.residents.len() as u32).for_each(|index| self.listen_to(index));
    }

    /// Gives back the memory of guests that have left, once nobody here uses their results any more.
    pub(super) fn give_back(&mut self) {
        let (residents, client) = (&self.residents, &self.client);
        self.vacated.retain(|&index| {
            let unused = residents[index as usize].is_none() && client.holds_nothing_of(index);
            !(unused && self.segment.give_back(index))
        });
    }

    /// Records the death, and reaps.
    pub(super) fn repair(&mut self, index: u32, resident: &Resident) -> Exit {
        let exit =
            if resident.guest { Exit::Unknown } else { self.launcher.exit_of(index, &resident.handle) };
        self.reap(index, resident.incarnation, resident.handle.pid(), exit);
        self.control.lock().pids.retain(|&(place, _)| place != index);
        exit
    }

    pub(super) fn reap(&self, index: u32, incarnation: u32, pid: u32, exit: Exit) {
        self.client.record_death(Death {
            who: Owner::new(index, incarnation),
            pid,
            exit,
            current: self.segment.process(index).current.load(Ordering::Acquire),
        });
        #[cfg(feature = "crash")]
        recovery::rehearse(&self.segment, index, incarnation);
        recovery::reap(&self.segment, index, incarnation);
        self.segment.park(index).vacate();
        self.client.after_reap(index); // it takes all results that the dead has left
        if self.client.holds_nothing_of(index) {
            recovery::renew_region(&self.segment, index);
        }
    }

    /// Reaps the unknown process in a place, if there is one and it is gone; whether the place is empty now.
    pub(super) fn bury_orphan(&mut self, index: u32, limit: Duration) -> bool {
        let Some(at) = self.orphans.iter().position(|orphan| orphan.index == index) else { return true };
        if !self.orphans[at].channel.as_ref().is_none_or(|channel| channel.hangs_up_within(limit)) {
            return false;
        }
        let Orphan { incarnation, .. } = self.orphans.swap_remove(at);
        // It may have taken a task already.
        self.reap(index, incarnation, 0, Exit::Signal(Signal::KILL.as_raw()));
        true
    }
}
