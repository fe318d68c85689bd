//! Starting worker processes: by fork from a template, by fork server, or by running the program anew.
//!
//! Workers are never forked from the pool's own process, which may have threads: a *template*, a process
//! with one thread that does nothing else, forks them. With [`Context::Fork`] the template is a fork of
//! the program as it was when the pool started, so replacements start from the same state as the first
//! workers; with [`Context::ForkServer`] it is a fresh run of the program's file.

mod enter;
mod exec;
mod messages;
mod template;

use crate::error::{Error, Exit, Result};
use crate::segment::Segment;
use crate::sys::{Channel, ProcessHandle};
pub(crate) use enter::run_worker;
pub use enter::{init, is_worker};
#[cfg(test)]
pub(crate) use messages::FromTemplate;
pub(crate) use messages::{FromWorker, MAX_TEXT, ToChild};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;
use template::Template;

/// What a template calls itself; the kernel keeps 15 bytes of it.
pub(crate) const TEMPLATE_NAME: &str = "ringpool-template";
/// How long a template may take to fork. One that is stopped, or starved, is asked again later.
pub(crate) const LAUNCH_LIMIT: Duration = Duration::from_secs(5);

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

/// Starts workers of one pool.
pub(crate) struct Launcher {
    context: Context,
    segment: Arc<Segment>,
    template: Option<Template>,
    /// The pool's name card, which every template must know: the nonce and the name.
    guarded: Option<(u64, String)>,
}

impl Launcher {
    /// Makes ready to launch. With [`Context::Fork`] the calling thread is forked here.
    pub(crate) fn new(context: Context, segment: Arc<Segment>) -> Result<Self> {
        if context != Context::Fork && !enter::initialized() {
            return Err(Error::start(format!(
                "{context:?} runs this program again, but ringpool::init() was not called; \
                 make it the first line of main()"
            )));
        }
        let template = match context {
            Context::Fork => Some(Template::fork(&segment)?),
            Context::Spawn | Context::ForkServer => None,
        };
        Ok(Launcher { context, segment, template, guarded: None })
    }

    /// Starts incarnation `incarnation` of place `index`. Call it always from the same thread: what it
    /// starts is killed by the kernel when that thread ends.
    pub(crate) fn launch(&mut self, index: u32, incarnation: u32) -> Result<Launched> {
        if self.context == Context::Spawn {
            return exec::worker(&self.segment, index, incarnation);
        }
        self.living_template()?.launch(index, incarnation)
    }

    /// The template; a new one if there is none, or a dead one.
    fn living_template(&mut self) -> Result<&mut Template> {
        if let Some(dead) = self.template.take_if(|template| template.is_dead()) {
            dead.shut_down(); // its workers are dead or dying; a new one takes over
        }
        match &mut self.template {
            Some(template) => Ok(template),
            none => {
                let template = match self.context {
                    Context::Fork => Template::fork(&self.segment)?,
                    _ => Template::exec(&self.segment)?,
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

    /// Whether the template is dead, so that launching again would be done by another.
    pub(crate) fn template_is_dead(&self) -> bool {
        self.template.as_ref().is_some_and(Template::is_dead)
    }

    /// Buries a dead template. Only a name must be guarded at once; launches wait until they are needed.
    pub(crate) fn bury_template(&mut self) {
        if let Some(dead) = self.template.take_if(|template| template.is_dead()) {
            dead.shut_down();
            if self.guarded.is_some() {
                let _ = self.living_template(); // the next launch tries again
            }
        }
    }

    /// Kills the template, and with it all that it has forked; the channel of the process that it may have
    /// forked for the launch which failed last.
    pub(crate) fn discard_template(&mut self) -> Option<Channel> {
        self.template.take().and_then(Template::kill)
    }

    /// How a dead process ended.
    pub(crate) fn exit_of(&mut self, handle: &ProcessHandle) -> Exit {
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

    /// Ends the template, if there is one.
    pub(crate) fn shut_down(&mut self) {
        if let Some(template) = self.template.take() {
            template.shut_down();
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.shut_down();
    }
}
