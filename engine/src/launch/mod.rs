//! Starting worker processes: by fork from a template, by fork server, or by running the program anew.
//!
//! The pool's own process may have threads: a *template*, a process with one thread that does nothing else,
//! forks workers. With [`Context::Fork`] the template is a fork of the program as it was when the pool started,
//! so replacements start from the same state as the first workers; with [`Context::ForkServer`] it is a fresh run
//! of the program's file. The very first worker may be the template's twin: a fork of the same thread at the
//! same time.

mod enter;
mod exec;
mod foreign;
mod messages;
mod serve;
mod template;

use crate::error::{Error, Exit, Result};
use crate::raw;
use crate::segment::Segment;
use crate::sys::{self, Channel, ProcessHandle};
pub(crate) use enter::{Manner, run_worker};
pub use enter::{init, is_worker};
use foreign::Foreign;
#[cfg(test)]
pub(crate) use messages::FromTemplate;
pub(crate) use messages::{FromWorker, MAX_TEXT, ToChild};
pub(crate) use serve::serve;
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;
pub(crate) use template::Asked;
use template::Template;

/// What a template calls itself; the kernel keeps 15 bytes of it.
pub(crate) const TEMPLATE_NAME: &str = "ringpool-template";
/// How long a template may take to fork. One that is stopped, or starved, is asked again later.
pub(crate) const LAUNCH_LIMIT: Duration = Duration::from_secs(5);

/// How long a fork waits for output to be written. A half-written line would otherwise be printed by every
/// worker, too.
pub(crate) const FLUSH_LIMIT: Duration = Duration::from_millis(100);

/// How worker processes come into being.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum Context {
    /// Workers are forks of this program as it is when the pool starts. They see its memory of that
    /// moment, need no [`init`], and start in well under a millisecond.
    ///
    /// The default. As always with fork, locks that *other* threads hold at that moment stay locked in the
    /// workers for ever: a program that starts its pool while other threads print or log should use
    /// [`ForkServer`](Self::ForkServer). Later replacements add no such risk, because they are forked from a
    /// single-threaded template that was made together with the first workers.
    #[default]
    Fork,
    /// Each worker is a new run of this program, which enters at [`init`]. Nothing is inherited.
    Spawn,
    /// One new run of this program, which enters at [`init`], forks all workers: as clean as
    /// [`Spawn`](Self::Spawn), as quick as [`Fork`](Self::Fork).
    ForkServer,
}

/// A process that was just started.
pub(crate) struct Launched {
    pub handle: ProcessHandle,
    /// For its messages; hangs up when it ends or runs another program.
    pub channel: Channel,
}

/// A launch that has been begun.
pub(crate) enum Begun {
    Launched(Launched),
    Asked(Asked),
}

/// A launch that failed, and who may be there all the same.
pub(crate) struct Failed {
    pub error: Error,
    pub stray: Option<Stray>,
}

/// A process that may have been started.
pub(crate) struct Stray {
    /// The number of the template that was asked.
    pub template: Option<u64>,
    /// Hangs up when it ends.
    pub channel: Channel,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed { error, stray: None }
    }
}

/// Starts workers of one pool.
pub(crate) struct Launcher {
    context: Context,
    /// What is run for a worker, or a template, that is a process of its own.
    command: Option<Vec<OsString>>,
    segment: Arc<Segment>,
    template: Option<Template>,
    /// Who starts the workers, if it is not this crate; then there is neither a template nor a name.
    foreign: Option<Foreign>,
    /// The pool's name card, which every template must know: the nonce and the name.
    guarded: Option<(u64, String)>,
}

impl Launcher {
    /// Makes ready to launch.
    pub(crate) fn new(
        context: Context,
        command: Option<Vec<OsString>>,
        segment: Arc<Segment>,
    ) -> Result<Self> {
        if context != Context::Fork && command.is_none() && !enter::initialized() {
            return Err(Error::start(format!(
                "{context:?} runs this program again, but ringpool::init() was not called; \
                 make it the first line of main()"
            )));
        }
        Ok(Launcher { context, command, segment, template: None, foreign: None, guarded: None })
    }

    /// The same for workers that somebody else starts.
    pub(crate) fn foreign(launcher: Box<dyn raw::Launcher>, segment: Arc<Segment>) -> Self {
        let foreign = Some(Foreign::new(launcher));
        Launcher {
            context: Context::default(),
            command: None,
            segment,
            template: None,
            foreign,
            guarded: None,
        }
    }

    /// Whether somebody else starts the workers, one at a time.
    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign.is_some()
    }

    /// Whether workers are runs of what the user named, which may be another program.
    pub(crate) fn runs_a_command(&self) -> bool {
        self.command.is_some()
    }

    /// Whether any thread may launch: not so if what it starts is killed by the kernel when it ends.
    pub(crate) fn is_anybodys(&self) -> bool {
        self.context == Context::Fork || self.is_foreign()
    }

    /// Whether [`fork_here`](Self::fork_here) is possible now: such workers die with the calling thread, so it
    /// has to be the one that lives as long as the process; and they inherit what is open, so there must
    /// not be a template yet, whose channel has to close when the pool lets go of it.
    pub(crate) fn may_fork_here(&self) -> bool {
        self.context == Context::Fork
            && !self.is_foreign()
            && self.template.is_none()
            && sys::is_first_thread()
    }

    /// Starts a worker as a fork of the calling thread, for whom output has been
    /// [flushed](sys::flush_output).
    pub(crate) fn fork_here(&self, index: u32, incarnation: u32) -> Result<Launched> {
        debug_assert!(self.may_fork_here());
        enter::fork_worker(&self.segment, index, incarnation)
    }

    /// Forks the template from the calling thread, for whom output has been [flushed](sys::flush_output), if
    /// workers come from it and there is none. In the child, `wards` closes what it must not keep open and
    /// gives the workers that were [forked here](Self::fork_here), which it ends when it leaves.
    pub(crate) fn fork_template(&mut self, wards: impl FnOnce() -> Vec<ProcessHandle>) -> Result<()> {
        if self.context == Context::Fork && !self.is_foreign() && self.template.is_none() {
            self.template = Some(Template::fork(&self.segment, wards)?);
        }
        Ok(())
    }

    /// Tells the template that there is now from those before and after it.
    pub(crate) fn template_number(&self) -> Option<u64> {
        self.template.as_ref().map(Template::number)
    }

    /// Begins to start incarnation `incarnation` of place `index`.
    pub(crate) fn begin(&mut self, index: u32, incarnation: u32) -> Result<Begun, Failed> {
        if let Some(foreign) = &mut self.foreign {
            return foreign.launch(&self.segment, index, incarnation).map(Begun::Launched);
        }
        Ok(self.begin_own(index, incarnation)?)
    }

    fn begin_own(&mut self, index: u32, incarnation: u32) -> Result<Begun> {
        if self.context == Context::Spawn {
            return exec::worker(self.command.as_deref(), &self.segment, index, incarnation)
                .map(Begun::Launched);
        }
        self.living_template()?.ask(index, incarnation).map(Begun::Asked)
    }

    /// What came of it. Launches are to be finished in the order in which they were begun.
    pub(crate) fn finish(&mut self, begun: Begun) -> Result<Launched, Failed> {
        let asked = match begun {
            Begun::Launched(launched) => return Ok(launched),
            Begun::Asked(asked) => asked,
        };
        let answer = match &mut self.template {
            Some(template) if template.number() == asked.number() => template.answer(&asked),
            _ => Err(template::gone()),
        };
        let number = asked.number();
        let channel = asked.into_channel();
        match answer {
            Ok(handle) => Ok(Launched { handle, channel }),
            Err(error) => Err(Failed { error, stray: Some(Stray { template: Some(number), channel }) }),
        }
    }

    /// The template; a new one if there is none, or a dead one.
    fn living_template(&mut self) -> Result<&mut Template> {
        drop(self.template.take_if(|template| template.is_dead())); // its workers are dead or dying
        match &mut self.template {
            Some(template) => Ok(template),
            none => {
                let template = match self.context {
                    Context::Fork => {
                        sys::flush_output(FLUSH_LIMIT);
                        Template::fork(&self.segment, Vec::new)?
                    }
                    _ => Template::exec(self.command.as_deref(), &self.segment)?,
                };
                let template = none.insert(template);
                if let Some((nonce, name)) = &self.guarded {
                    template.guard_name(*nonce, name)?;
                }
                Ok(template)
            }
        }
    }

    /// Readable once the template is dead.
    pub(crate) fn template_fd(&self) -> Option<BorrowedFd<'_>> {
        self.template.as_ref().map(Template::as_fd)
    }

    /// Whether the template that could not launch is dead: launching again would be done by another.
    pub(crate) fn would_ask_another(&self, failed: &Failed) -> bool {
        match (failed.stray.as_ref().map(|stray| stray.template), &self.template) {
            (Some(None), _) => false, // nobody's template
            (Some(Some(number)), Some(template)) => template.number() != number || template.is_dead(),
            (Some(_), None) => true,
            (None, template) => template.as_ref().is_some_and(Template::is_dead),
        }
    }

    /// Buries a dead template. Only a name must be guarded at once; launches wait until they are needed.
    pub(crate) fn bury_template(&mut self) {
        if self.template.take_if(|template| template.is_dead()).is_some() && self.guarded.is_some() {
            let _ = self.living_template(); // the next launch tries again
        }
    }

    /// Kills the template if it has this number, and with it all that it has forked.
    pub(crate) fn discard_template(&mut self, number: u64) {
        if let Some(template) = self.template.take_if(|template| template.number() == number) {
            template.kill();
        }
    }

    /// How the dead process ended that was in place `index`.
    pub(crate) fn exit_of(&mut self, index: u32, handle: &ProcessHandle) -> Exit {
        if let Some(foreign) = &mut self.foreign {
            return foreign.exit_of(index, handle.pid()); // its child, or somebody's: not ours to wait for
        }
        if let Some(exit) = handle.wait_status() {
            return exit;
        }
        self.template.as_mut().map_or(Exit::Unknown, |template| template.exit_of(handle.pid()))
    }

    /// Has a pool's name removed even if this process is killed.
    pub(crate) fn guard_name(&mut self, nonce: u64, name: &str) -> Result<()> {
        let known = self.template.is_some();
        self.guarded = Some((nonce, name.to_owned()));
        let template = self.living_template()?;
        if known { template.guard_name(nonce, name) } else { Ok(()) }
    }

    /// Ends the template, if there is one, and lets go of who starts the workers.
    pub(crate) fn shut_down(&mut self) {
        self.template = None;
        self.foreign = None;
    }
}
