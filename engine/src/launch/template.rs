//! The process that forks workers, and the pool's end of it.

use super::enter::{self, Memory};
use super::messages::{FromTemplate, ToChild};
use super::{LAUNCH_LIMIT, Launched, exec};
use crate::error::{Error, Exit, Result};
use crate::name_card;
use crate::segment::Segment;
use crate::sync::private::{Private, PrivateU64};
use crate::sys::{self, Channel, Fork, ProcessHandle, Received, Sent, Wait};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How often a dead worker is looked at whose end somebody else is to see first.
const TRACED_TICK: Duration = Duration::from_millis(10);
const TRACED_LIMIT: Duration = Duration::from_secs(60);
/// A process that reports the end of a worker does so within microseconds of the kernel.
const REPORT_LIMIT: Duration = Duration::from_millis(500);

/// The pool's end of a template.
pub(super) struct Template {
    /// `None` once it is to leave.
    channel: Option<Channel>,
    handle: ProcessHandle,
    /// Tells it from those before it.
    number: u64,
    /// Workers that it has forked and whose ends nobody has asked for yet.
    children: HashSet<u32>,
    /// Ends that it has reported and nobody has asked for yet.
    ended: HashMap<u32, Exit>,
    /// It has not answered lately.
    mute: bool,
}

/// A worker that a template was asked to fork.
pub(crate) struct Asked {
    index: u32,
    incarnation: u32,
    /// The template.
    number: u64,
    /// The pool's end of the worker's channel.
    channel: Channel,
}

impl Asked {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The channel of a launch that is given up: a process may be at its other end. One that was forked just
    /// before its template was killed is killed by the kernel, too; the hang-up tells when it is gone.
    pub(crate) fn into_channel(self) -> Channel {
        self.channel
    }
}

impl Template {
    /// Forks the calling thread. Output has been [flushed](sys::flush_output).
    ///
    /// The child calls `wards`, which closes what it must not keep open, and gives it the workers that are not
    /// its own children: they are to end with it all the same.
    pub(super) fn fork(segment: &Segment, wards: impl FnOnce() -> Vec<ProcessHandle>) -> Result<Self> {
        let (ours, theirs) = Channel::pair()?;
        let parent = ProcessHandle::open(std::process::id())?;
        let still = name_card::hold_still();
        // SAFETY: the child runs `wards` and `serve` only, which neither return nor unwind into our frames, and
        // touch no lock that another thread of this process might hold, but the allocator's, which
        // libc makes usable in the child.
        match unsafe { sys::fork()? } {
            Fork::Child => {
                drop(still);
                drop(ours);
                let wards = wards();
                let Ok(memory) = Memory::of(segment) else { leave() };
                serve(theirs, memory, parent, wards)
            }
            Fork::Parent(pid) => {
                drop(still);
                // Our child, and nobody has waited for it: the number is its.
                match ProcessHandle::open(pid) {
                    Ok(handle) => Ok(Self::new(ours, handle)),
                    Err(error) => {
                        drop(ours); // it leaves
                        sys::wait_for_child(pid);
                        Err(error)
                    }
                }
            }
        }
    }

    /// Runs this program, or another, anew as a template.
    pub(super) fn exec(command: Option<&[OsString]>, segment: &Segment) -> Result<Self> {
        let Launched { handle, channel } = exec::instructed(command, &ToChild::BeTemplate, segment)?;
        Ok(Self::new(channel, handle))
    }

    fn new(channel: Channel, handle: ProcessHandle) -> Self {
        static NUMBER: PrivateU64 = PrivateU64::new(0);
        Template {
            channel: Some(channel),
            handle,
            number: NUMBER.fetch_add(1, Private::Relaxed),
            children: HashSet::new(),
            ended: HashMap::new(),
            mute: false,
        }
    }

    fn say(&self, message: &ToChild, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let Some(channel) = &self.channel else { return Err(gone()) };
        exec::say(channel, message, fds).inspect_err(|_| self.settle_death(channel))
    }

    /// Of a dying process the channel closes first. Whoever learns of it so wants to know whether to ask another.
    fn settle_death(&self, channel: &Channel) {
        if channel.has_hung_up() {
            self.handle.wait_dead(Some(REPORT_LIMIT));
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn guard_name(&self, nonce: u64, name: &str) -> Result<()> {
        self.say(&ToChild::GuardName { nonce, name: name.to_owned() }, &[])
    }

    pub(super) fn is_dead(&self) -> bool {
        self.handle.is_dead()
    }

    /// Readable once it is dead.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Asks for a worker, and does not wait: it forks them one after the other.
    pub(super) fn ask(&self, index: u32, incarnation: u32) -> Result<Asked> {
        let (channel, theirs) = Channel::pair()?;
        self.say(&ToChild::Worker { index, incarnation }, &[theirs.as_fd()])?;
        Ok(Asked { index, incarnation, number: self.number, channel })
    }

    /// What came of it. Workers are to be asked about in the order in which they were asked for.
    pub(super) fn answer(&mut self, asked: &Asked) -> Result<ProcessHandle> {
        let deadline = Instant::now() + LAUNCH_LIMIT;
        let asked = (asked.index, asked.incarnation);
        loop {
            match self.next_message(deadline)? {
                Some((FromTemplate::Forked { index, incarnation, pid }, mut fds)) => {
                    // The late answer to a launch that was given up: that worker finds its place gone.
                    if (index, incarnation) != asked {
                        continue;
                    }
                    self.children.insert(pid);
                    self.mute = false;
                    if fds.len() != 1 {
                        return Err(Error::start("the template's reply came without its descriptor"));
                    }
                    return Ok(ProcessHandle::from_fd(fds.remove(0), pid));
                }
                Some((FromTemplate::Failed { index, incarnation, errno }, _)) => {
                    if (index, incarnation) == asked {
                        return Err(Error::io("forking a worker", std::io::Error::from_raw_os_error(errno)));
                    }
                }
                Some((FromTemplate::Ended { pid, exit }, _)) => self.note_end(pid, exit),
                None => {
                    return Err(Error::start(format!("the template did not answer within {LAUNCH_LIMIT:?}")));
                }
            }
        }
    }

    fn note_end(&mut self, pid: u32, exit: Exit) {
        if self.children.contains(&pid) {
            self.ended.insert(pid, exit);
        }
    }

    /// The next message before `deadline`; an error if the template is gone.
    fn next_message(&self, deadline: Instant) -> Result<Option<(FromTemplate, Vec<OwnedFd>)>> {
        let mut buffer = [0; 64];
        let left = deadline.saturating_duration_since(Instant::now());
        let channel = self.channel.as_ref().ok_or_else(gone)?;
        match channel.recv_timeout(&mut buffer, left)? {
            Received::Message(len, fds) => match FromTemplate::from_bytes(&buffer[..len]) {
                Some(message) => Ok(Some((message, fds))),
                None => Err(Error::start("the template sent something unreadable")),
            },
            Received::Closed => {
                self.settle_death(channel);
                Err(gone())
            }
            Received::Nothing => Ok(None),
        }
    }

    /// How the worker with this process id ended.
    pub(super) fn exit_of(&mut self, pid: u32) -> Exit {
        if !self.children.contains(&pid) {
            return Exit::Unknown; // a dead template's: it took what it knew along
        }
        let exit = self.await_end(pid);
        self.children.remove(&pid);
        self.ended.remove(&pid);
        exit
    }

    fn await_end(&mut self, pid: u32) -> Exit {
        // One that is stopped is waited for once, not for every worker.
        let limit = if self.mute { Duration::ZERO } else { REPORT_LIMIT };
        let mut deadline = Instant::now() + limit;
        loop {
            if let Some(&exit) = self.ended.get(&pid) {
                return exit;
            }
            match self.next_message(deadline) {
                Ok(Some((message, _))) => {
                    if std::mem::take(&mut self.mute) {
                        deadline = Instant::now() + REPORT_LIMIT; // it speaks again
                    }
                    if let FromTemplate::Ended { pid, exit } = message {
                        self.note_end(pid, exit);
                    }
                }
                Ok(None) => {
                    self.mute = true;
                    return Exit::Unknown;
                }
                Err(_) => return Exit::Unknown,
            }
        }
    }

    /// Kills it, and with it all that it has forked.
    pub(super) fn kill(self) {
        let _ = self.handle.kill(rustix::process::Signal::KILL);
    }
}

/// Ends it: closing the channel is the sign; a deaf one is killed.
impl Drop for Template {
    fn drop(&mut self) {
        self.channel = None;
        if !self.handle.wait_dead(Some(Duration::from_millis(200))) {
            let _ = self.handle.kill(rustix::process::Signal::KILL);
            self.handle.wait_dead(None); // SIGKILL cannot be refused
        }
        self.handle.wait_status();
    }
}

pub(super) fn gone() -> Error {
    Error::start("the template process is gone")
}

/// The template's whole life: forks on request, reports ends, leaves when the pool's process does.
///
/// It is alone in its process, so its forks start from a state in which nothing is half done.
///
/// `wards` are workers that others have forked, and that are to end with it.
pub(super) fn serve(
    channel: Channel,
    memory: Memory,
    parent: ProcessHandle,
    mut wards: Vec<ProcessHandle>,
) -> ! {
    #[cfg(feature = "crash")]
    crate::sync::crash::arm(0, crate::sync::crash::Blow::Kill); // what was meant for its parent
    sys::set_name(super::TEMPLATE_NAME);
    sys::default_signals();
    sys::ignore_sigint();
    sys::ignore_ending_signals();
    let mut children: Vec<ProcessHandle> = Vec::new();
    // Dead ones that cannot be waited for yet: a debugger is to see their ends first.
    let mut traced: Vec<(ProcessHandle, Instant)> = Vec::new();
    let mut guarded: Option<(u64, String)> = None;
    loop {
        let mut fds = vec![Wait::input(channel.as_fd()), Wait::input(parent.as_fd())];
        fds.extend(children.iter().map(|child| Wait::input(child.as_fd())));
        let pause = (!traced.is_empty()).then_some(TRACED_TICK);
        let Ok(ready) = sys::poll_for(&fds, pause) else { leave() };
        if ready[1].any() {
            end_with_the_pool(&channel, guarded, &wards);
        }
        let dead: Vec<usize> = (0..children.len()).filter(|i| ready[i + 2].any()).collect();
        traced.extend(dead.iter().rev().map(|&i| (children.swap_remove(i), Instant::now())));
        for (child, since) in std::mem::take(&mut traced) {
            let exit = match child.wait_status() {
                Some(exit) => exit,
                None if since.elapsed() > TRACED_LIMIT => Exit::Unknown,
                None => {
                    traced.push((child, since));
                    continue;
                }
            };
            let report = FromTemplate::Ended { pid: child.pid(), exit }.to_bytes();
            match channel.send(&report, &[]) {
                Ok(Sent::Yes) => {}
                Ok(Sent::PeerGone) => end_with_the_pool(&channel, guarded, &wards),
                _ => leave(),
            }
        }
        if !ready[0].any() {
            continue;
        }
        let mut buffer = [0; 512];
        let (len, mut received) = match channel.recv(&mut buffer) {
            Ok(Some(message)) => message,
            // Of a dying process the descriptors are closed first.
            Ok(None) => end_with_the_pool(&channel, guarded, &wards),
            Err(_) => leave(),
        };
        let (index, incarnation) = match ToChild::from_bytes(&buffer[..len]) {
            Some(ToChild::Worker { index, incarnation }) => (index, incarnation),
            Some(ToChild::GuardName { nonce, name }) => {
                guarded = Some((nonce, name));
                continue;
            }
            _ => leave(),
        };
        if received.len() != 1 {
            leave();
        }
        let theirs = Channel::from_fd(received.remove(0));
        let me = std::process::id();
        // SAFETY: this process has one thread, and the child never returns here.
        let reply = match unsafe { sys::fork() } {
            Ok(Fork::Child) => {
                if !sys::set_parent_death_signal(me) {
                    leave();
                }
                drop(channel);
                children.clear();
                traced.clear();
                wards.clear();
                enter::forked_worker(memory, index, incarnation, theirs)
            }
            Ok(Fork::Parent(pid)) => match ProcessHandle::open(pid) {
                Ok(child) => {
                    let reply = FromTemplate::Forked { index, incarnation, pid }.to_bytes();
                    let sent = channel.send(&reply, &[child.as_fd()]);
                    children.push(child);
                    sent
                }
                Err(_) => leave(),
            },
            Err(error) => {
                let errno = match error.kind() {
                    crate::error::ErrorKind::Io { source, .. } => {
                        source.raw_os_error().unwrap_or(libc::EAGAIN)
                    }
                    _ => libc::EAGAIN,
                };
                channel.send(&FromTemplate::Failed { index, incarnation, errno }.to_bytes(), &[])
            }
        };
        match reply {
            Ok(Sent::Yes) => {}
            Ok(Sent::PeerGone) => end_with_the_pool(&channel, guarded, &wards),
            _ => leave(),
        }
    }
}

/// The pool's process has died, or is dying, or has shut this template down and removed the name itself.
///
/// Workers that it has forked die with this process.
pub(super) fn end_with_the_pool(
    channel: &Channel,
    mut guarded: Option<(u64, String)>,
    wards: &[ProcessHandle],
) -> ! {
    // The kernel does that if the pool's process dies, but not if it runs another program now.
    for ward in wards {
        let _ = ward.kill(rustix::process::Signal::KILL);
    }
    let mut buffer = [0; 512];
    while let Ok(Received::Message(len, _)) = channel.try_recv(&mut buffer) {
        if let Some(ToChild::GuardName { nonce, name }) = ToChild::from_bytes(&buffer[..len]) {
            guarded = Some((nonce, name));
        }
    }
    if let Some((nonce, name)) = guarded {
        name_card::remove_after(&name, nonce);
    }
    leave()
}

/// Ends the template at once: no destructor or exit handler of the program it was forked from runs. If the
/// pool lives, it makes a new one, which guards its name again.
pub(super) fn leave() -> ! {
    // SAFETY: `_exit` ends the process and touches none of its memory.
    unsafe { libc::_exit(0) }
}
