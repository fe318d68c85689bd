//! Messages with descriptors between two processes, and the waiting for any of them.
//!
//! A channel is also how a process is seen to run another program: its descriptors close on `execve`,
//! so the other end hangs up while the process handle stays silent.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};

use crate::error::{Error, Result};
use crate::sys::fork_guard::{Held, Kept};
use crate::sys::process::ProcessHandle;

/// The most bytes in a message. Socket buffers are larger by default, so one message always fits.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;

/// The most descriptors in a message.
pub(crate) const MAX_FDS: usize = 4;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// What became of a message that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Sent {
    Yes,
    /// The peer does not take messages as fast as we send them.
    Full,
    PeerGone,
}

/// What was there to receive.
#[derive(Debug)]
#[must_use]
pub(crate) enum Received {
    /// So many bytes of the buffer, and these descriptors.
    Message(usize, Vec<OwnedFd>),
    Closed,
    /// Nothing yet.
    Nothing,
}

/// One end of a connection that carries whole messages.
#[derive(Debug)]
pub(crate) struct Channel(Held);

impl Channel {
    /// Two connected ends, neither of which survives `execve`.
    pub(crate) fn pair() -> Result<(Self, Self)> {
        let (a, b) = Self::sockets()?;
        Ok((Self::from_fd(a), Self::from_fd(b)))
    }

    /// The same, but forked children do not get them; only forks by the calling thread leave the second end open.
    pub(crate) fn kept_pair() -> Result<(Self, Self)> {
        let (a, b) = Kept::pair(Self::sockets)?;
        Ok((Self(Held::Kept(a)), Self(Held::Kept(b))))
    }

    /// What [`pair`](Self::pair) is made of.
    pub(crate) fn sockets() -> Result<(OwnedFd, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|errno| Error::io("cannot make a channel", errno))
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(Held::Shared(fd))
    }

    /// Closes it in programs that this process runs.
    pub(crate) fn close_on_exec(&self) -> Result<()> {
        rustix::io::fcntl_setfd(self, rustix::io::FdFlags::CLOEXEC)
            .map_err(|errno| Error::io("cannot use the channel", errno))
    }

    /// Sends a message. Waits while the peer's queue is full: for a peer that is stopped, without end.
    pub(crate) fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Sent> {
        self.send_with(bytes, fds, SendFlags::NOSIGNAL)
    }

    /// Sends a message unless the peer's queue is full.
    pub(crate) fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Sent> {
        self.send_with(bytes, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> Result<Sent> {
        // An empty message could not be told from the end of the connection.
        if bytes.is_empty() || bytes.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
            let (length, count) = (bytes.len(), fds.len());
            return Err(Error::invalid(format!(
                "a message cannot have {length} bytes and {count} descriptors"
            )));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(fits, "the space is for MAX_FDS");
        }
        loop {
            return match rustix::net::sendmsg(self, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(_) => Ok(Sent::Yes),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(Sent::Full),
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Ok(Sent::PeerGone),
                Err(errno) => Err(Error::io("cannot send a message", errno)),
            };
        }
    }

    /// Waits for a message; `None` when the peer closed its end and all its messages were received.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> Result<Option<(usize, Vec<OwnedFd>)>> {
        loop {
            match self.recv_with(buffer, RecvFlags::empty())? {
                Received::Message(length, fds) => return Ok(Some((length, fds))),
                Received::Closed => return Ok(None),
                // Somebody made the socket non-blocking, which all who share it see.
                Received::Nothing => drop(poll_one(self.as_fd(), None)?),
            }
        }
    }

    /// Waits for a message until `limit` is over.
    pub(crate) fn recv_timeout(&self, buffer: &mut [u8], limit: Duration) -> Result<Received> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            let received = self.try_recv(buffer)?;
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if !matches!(received, Received::Nothing) || left == Some(Duration::ZERO) {
                return Ok(received);
            }
            poll_one(self.as_fd(), left)?;
        }
    }

    /// Closes both directions: the peer is told at once, even if this process keeps its end for a while.
    pub(crate) fn hang_up(&self) {
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Both); // else it is closed already
    }

    /// Ends the peer if it [asked](Self::kill_on_hang_up) for that, now or later, and still hears what it says. Whether
    /// it is gone shows the hang-up.
    pub(crate) fn end_peer(&self) {
        let _ = rustix::net::shutdown(self, rustix::net::Shutdown::Write); // else nobody is there
    }

    /// Has the kernel kill this process as soon as nobody has the other end any more, or something is sent from there;
    /// `false` if it will not. Who has hung up already kills nobody.
    #[must_use]
    pub(crate) fn kill_on_hang_up(&self) -> bool {
        const F_SETSIG: libc::c_int = 10; // the same on all architectures; not in the `libc` crate
        let fd = self.as_fd().as_raw_fd();
        let set = |what: libc::c_int, value: libc::c_int| {
            // SAFETY: these commands take a number, and change nothing but the open socket, which is ours.
            unsafe { libc::fcntl(fd, what, value) }
        };
        let flags = set(libc::F_GETFL, 0);
        // SAFETY: always allowed.
        let me = unsafe { libc::getpid() };
        flags >= 0
            && set(libc::F_SETOWN, me) == 0
            && set(F_SETSIG, libc::SIGKILL) == 0
            && set(libc::F_SETFL, flags | libc::O_ASYNC) == 0
    }

    /// Whether nobody has the other end any more.
    pub(crate) fn has_hung_up(&self) -> bool {
        poll_one(self.as_fd(), Some(Duration::ZERO)).is_ok_and(|ready| ready.hangup)
    }

    /// Whether nobody has the other end any more, or will not before `limit` is over. What it said last is
    /// thrown away.
    pub(crate) fn hangs_up_within(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 64];
        loop {
            match self.recv_timeout(&mut buffer, deadline.saturating_duration_since(Instant::now())) {
                Ok(Received::Message(..)) => {}
                Ok(Received::Closed) => return true,
                Ok(Received::Nothing) | Err(_) => return false,
            }
        }
    }

    /// Takes a message if there is one.
    pub(crate) fn try_recv(&self, buffer: &mut [u8]) -> Result<Received> {
        self.recv_with(buffer, RecvFlags::DONTWAIT)
    }

    fn recv_with(&self, buffer: &mut [u8], flags: RecvFlags) -> Result<Received> {
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let iov = &mut [IoSliceMut::new(buffer)];
            let message = match rustix::net::recvmsg(self, iov, &mut control, flags) {
                Ok(message) => message,
                // The peer closed its end with messages of ours unread. The error is told once and
                // before the messages that it sent itself; those come next, or the end.
                Err(Errno::INTR | Errno::CONNRESET) => continue,
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(errno) => return Err(Error::io("cannot receive a message", errno)),
            };
            let mut fds = Vec::new();
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = part {
                    fds.extend(received);
                }
            }
            if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
                // Too large, or our table of descriptors is full. The ones that did come close here.
                return Err(Error::io("a message came incomplete", Errno::MSGSIZE));
            }
            if message.bytes == 0 {
                return Ok(Received::Closed);
            }
            return Ok(Received::Message(message.bytes, fds));
        }
    }

    /// The process at the other end: the one that connected, that listened, or that made the pair.
    /// `None` if it belongs to another user, to another pid namespace, or is gone.
    pub(crate) fn peer(&self) -> Result<Option<ProcessHandle>> {
        let peer = peer_credentials(self.as_fd())?;
        let Ok(pid) = u32::try_from(peer.pid) else { return Ok(None) };
        if pid == 0 || peer.uid != rustix::process::geteuid().as_raw() {
            return Ok(None);
        }
        match peer_pidfd(self.as_fd()) {
            Ok(Some(fd)) => return Ok(Some(ProcessHandle::from_fd(fd, pid))),
            // It has been collected already.
            Ok(None) => return Ok(None),
            Err(Errno::NOPROTOOPT) => {}
            Err(errno) => return Err(Error::io("cannot tell who the peer is", errno)),
        }
        // Before Linux 6.5. The id may have gone to another process since the connection was made; but
        // not before the peer died, and then its end is closed: the handle is right if that is open now.
        let Ok(handle) = ProcessHandle::open(pid) else { return Ok(None) };
        let open = !poll_one(self.as_fd(), Some(Duration::ZERO))?.hangup;
        Ok(open.then_some(handle))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Reads a socket option that rustix does not offer, or, for the credentials, not for every peer: its
/// process id cannot be 0, and a peer in a foreign pid namespace has that one.
fn socket_option<T: Copy>(socket: BorrowedFd<'_>, option: i32, mut value: T) -> Result<T, Errno> {
    let mut length = size_of::<T>() as libc::socklen_t;
    let place = (&raw mut value).cast();
    // SAFETY: the kernel writes at most `length` bytes to `value`. Both callers pass a type of plain
    // integers, for which whatever it writes is valid.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, place, &raw mut length) };
    if result == 0 {
        return Ok(value);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

fn peer_credentials(socket: BorrowedFd<'_>) -> Result<libc::ucred> {
    let nobody = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
    socket_option(socket, libc::SO_PEERCRED, nobody)
        .map_err(|errno| Error::io("cannot tell who the peer is", errno))
}

/// `Ok(None)` if the peer is gone.
fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    match socket_option(socket, libc::SO_PEERPIDFD, -1) {
        // SAFETY: the kernel made this descriptor for us; it is close-on-exec as every pidfd.
        Ok(fd @ 0..) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Ok(_) | Err(Errno::SRCH | Errno::INVAL | Errno::NODATA) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Waits for connections under a name that vanishes with it.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Listens on an abstract address. `AddrInUse` says that somebody else does.
    pub(crate) fn bind(name: &[u8]) -> Result<Self> {
        let socket = new_socket(SocketFlags::NONBLOCK)?;
        rustix::net::bind(&socket, &abstract_address(name)?)
            .map_err(|errno| Error::io("cannot bind the pool's address", errno))?;
        rustix::net::listen(&socket, BACKLOG)
            .map_err(|errno| Error::io("cannot listen on the pool's address", errno))?;
        Ok(Self(socket))
    }

    /// Takes the next connection, if there is one, of a process that may join: a living one of this
    /// user. Other connections are closed without an answer. After an error (the table of descriptors is
    /// full) the connection still waits, and the listener stays readable.
    pub(crate) fn accept(&self) -> Result<Option<(Channel, ProcessHandle)>> {
        loop {
            let channel = match rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC) {
                Ok(socket) => Channel::from_fd(socket),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(errno) => return Err(Error::io("cannot accept a connection", errno)),
            };
            // Not with `?`: one strange peer must not keep the others out.
            if let Ok(Some(process)) = channel.peer() {
                return Ok(Some((channel, process)));
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Connects to a listener of the same user. Waits while its queue is full, but not for it to appear:
/// without one, the error is `ConnectionRefused`. Anybody can take an abstract address first, so a
/// listener of another user is `PermissionDenied`.
pub(crate) fn connect(name: &[u8], limit: Duration) -> Result<Channel> {
    const WHAT: &str = "cannot connect to the pool's address";
    let address = abstract_address(name)?;
    let socket = new_socket(SocketFlags::empty())?;
    let deadline = Instant::now().checked_add(limit);
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        // Zero would mean without limit.
        let left = left.map(|left| left.max(Duration::from_millis(1)));
        let connected = sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, left)
            .and_then(|()| rustix::net::connect(&socket, &address));
        match connected {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(Error::io(WHAT, Errno::TIMEDOUT)),
            Err(errno) => return Err(Error::io(WHAT, errno)),
        }
    }
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, None)
        .map_err(|errno| Error::io(WHAT, errno))?;
    if peer_credentials(socket.as_fd())?.uid != rustix::process::geteuid().as_raw() {
        return Err(Error::io(WHAT, Errno::PERM));
    }
    Ok(Channel::from_fd(socket))
}

fn new_socket(flags: SocketFlags) -> Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::io("cannot make a socket", errno))
}

fn abstract_address(name: &[u8]) -> Result<SocketAddrUnix> {
    if name.is_empty() {
        // The kernel would invent one.
        return Err(Error::invalid("a pool's address cannot be empty"));
    }
    SocketAddrUnix::new_abstract_name(name)
        .map_err(|errno| Error::io("the pool's address is not possible", errno))
}

/// What a descriptor is ready for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Something can be read, if only the end.
    pub(crate) input: bool,
    /// The other side is closed, or the descriptor failed.
    pub(crate) hangup: bool,
}

impl Ready {
    pub(crate) fn any(self) -> bool {
        self.input || self.hangup
    }
}

/// What to wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait<'f> {
    fd: BorrowedFd<'f>,
    events: PollFlags,
}

impl<'f> Wait<'f> {
    /// Something to read, if only the end.
    pub(crate) fn input(fd: BorrowedFd<'f>) -> Self {
        Wait { fd, events: PollFlags::IN }
    }

    /// Only that the other side has closed.
    pub(crate) fn hangup(fd: BorrowedFd<'f>) -> Self {
        Wait { fd, events: PollFlags::empty() }
    }
}

/// Waits until one of the descriptors is ready or `limit` is over, and tells about each of them.
pub(crate) fn poll_for(fds: &[Wait<'_>], limit: Option<Duration>) -> Result<Vec<Ready>> {
    let mut entries: Vec<_> = fds.iter().map(|wait| PollFd::new(&wait.fd, wait.events)).collect();
    poll(&mut entries, limit)?;
    Ok(entries.iter().map(readiness).collect())
}

/// The same for a single descriptor, without an allocation.
pub(crate) fn poll_one(fd: BorrowedFd<'_>, limit: Option<Duration>) -> Result<Ready> {
    let mut entry = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut entry, limit)?;
    Ok(readiness(&entry[0]))
}

fn poll(entries: &mut [PollFd<'_>], limit: Option<Duration>) -> Result<()> {
    // A limit too far away to be written down is none.
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let mut left = limit.filter(|_| deadline.is_some());
    loop {
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(entries, timeout.as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => left = deadline.map(|at| at.saturating_duration_since(Instant::now())),
            Err(errno) => return Err(Error::io("cannot wait for descriptors", errno)),
        }
    }
}

fn readiness(entry: &PollFd<'_>) -> Ready {
    let events = entry.revents();
    Ready {
        input: events.contains(PollFlags::IN),
        hangup: events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL),
    }
}

/// A bell: rung by anyone who has the descriptor, readable until it is cleared.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> Result<Self> {
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Self)
            .map_err(|errno| Error::io("cannot make an eventfd", errno))
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Makes it readable. It cannot fail in a way that matters: a full counter is readable.
    pub(crate) fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        while rustix::io::write(&self.0, &one) == Err(Errno::INTR) {}
    }

    /// Silences it, and says whether it had been rung.
    pub(crate) fn clear(&self) -> bool {
        let mut count = [0; 8];
        loop {
            match rustix::io::read(&self.0, &mut count) {
                Err(Errno::INTR) => continue,
                result => return result.is_ok(),
            }
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A descriptor that becomes readable after some time.
#[derive(Debug)]
pub(crate) struct Timer(OwnedFd);

impl Timer {
    pub(crate) fn new() -> Result<Self> {
        rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )
        .map(Self)
        .map_err(|errno| Error::io("cannot make a timer", errno))
    }

    /// Not readable until `pause` has passed, then until it is set again or stopped. Wakes nobody now.
    pub(crate) fn set(&self, pause: Duration) {
        // Zero would stop it.
        let value = Timespec::try_from(pause.max(Duration::from_nanos(1)));
        if let Ok(it_value) = value {
            self.set_time(it_value);
        }
    }

    pub(crate) fn stop(&self) {
        self.set_time(Timespec { tv_sec: 0, tv_nsec: 0 });
    }

    fn set_time(&self, it_value: Timespec) {
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        // It fails for no valid time.
        let _ = rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once);
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use rustix::io::FdFlags;

    const SHORT: Duration = Duration::from_millis(20);

    fn io_kind(error: &Error) -> Option<std::io::ErrorKind> {
        match error.kind() {
            ErrorKind::Io { source, .. } => Some(source.kind()),
            _ => None,
        }
    }

    fn address(of: &str) -> Vec<u8> {
        format!("ringpool-test-{}-{of}", std::process::id()).into_bytes()
    }

    /// A descriptor that is closed here may be open for a moment in the child that another test forked.
    fn eventually(condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn messages_keep_their_borders_and_bring_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let bell = EventFd::new().unwrap();
        let fds = [bell.as_fd(); MAX_FDS];
        assert_eq!(a.send(b"one", &fds).unwrap(), Sent::Yes);
        let largest = vec![7; MAX_MESSAGE];
        assert_eq!(a.send(&largest, &[]).unwrap(), Sent::Yes);

        let mut buffer = vec![0; MAX_MESSAGE];
        let (length, fds) = b.recv(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..length], b"one");
        assert_eq!(fds.len(), MAX_FDS);
        for fd in fds {
            assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
            EventFd(fd).ring();
        }
        assert!(bell.clear() && !bell.clear());
        let (length, fds) = b.recv(&mut buffer).unwrap().unwrap();
        assert_eq!((length, fds.len()), (MAX_MESSAGE, 0));
        assert_eq!(buffer, largest);
    }

    #[test]
    fn a_hang_up_kills_who_asked_for_it() {
        let (ours, theirs) = Channel::pair().unwrap();
        let (told, tell) = (EventFd::new().unwrap(), 7);
        // SAFETY: the child takes no locks, and does not return.
        let child = match unsafe { crate::sys::fork() }.unwrap() {
            crate::sys::Fork::Child => {
                // Another test's fork may have the other end for a moment, or for long: whoever closes it last.
                drop(ours);
                let asked = theirs.kill_on_hang_up() && !theirs.has_hung_up();
                let sent = asked && matches!(theirs.try_send(b"to be read", &[]), Ok(Sent::Yes));
                told.ring();
                if sent {
                    loop {
                        std::thread::park();
                    }
                }
                // SAFETY: `_exit` may be called anywhere.
                unsafe { libc::_exit(tell) }
            }
            crate::sys::Fork::Parent(pid) => ProcessHandle::open(pid).unwrap(),
        };
        drop(theirs);
        eventually(|| told.clear());
        assert!(matches!(ours.recv(&mut [0; 16]).unwrap(), Some((10, _))));
        assert!(!child.wait_dead(Some(SHORT)), "its own message, and that it is read, does it no harm");
        ours.hang_up();
        drop(ours);
        assert!(child.wait_dead(None));
        assert_eq!(child.wait_status(), Some(crate::error::Exit::Signal(libc::SIGKILL)));
    }

    #[test]
    fn a_timer_goes_off_until_it_is_set_again_or_stopped() {
        let timer = Timer::new().unwrap();
        let gone_off = || poll_one(timer.as_fd(), Some(Duration::ZERO)).unwrap().input;
        assert!(!gone_off());
        timer.set(Duration::ZERO);
        eventually(gone_off);
        assert!(gone_off());
        timer.set(Duration::from_secs(1 << 20));
        assert!(!gone_off());
        timer.set(Duration::from_millis(1));
        assert!(poll_one(timer.as_fd(), None).unwrap().input);
        timer.stop();
        assert!(!gone_off());
    }

    #[test]
    fn impossible_messages_are_refused() {
        let (a, b) = Channel::pair().unwrap();
        let fds = [b.as_fd(); MAX_FDS + 1];
        assert!(a.send(b"", &[]).is_err());
        assert!(a.send(&vec![0; MAX_MESSAGE + 1], &[]).is_err());
        assert!(a.send(b"x", &fds).is_err());
        assert!(matches!(b.try_recv(&mut [0; 4]).unwrap(), Received::Nothing));
        assert_eq!(a.send(b"too long", &fds[..2]).unwrap(), Sent::Yes);
        assert!(b.recv(&mut [0; 4]).is_err());
        assert!(matches!(b.try_recv(&mut [0; 4]).unwrap(), Received::Nothing));
    }

    #[test]
    fn a_closed_end_is_told_from_silence() {
        let (a, b) = Channel::pair().unwrap();
        let mut buffer = [0; 8];
        let start = Instant::now();
        assert!(matches!(b.recv_timeout(&mut buffer, SHORT).unwrap(), Received::Nothing));
        assert!(start.elapsed() >= SHORT);
        assert_eq!(poll_one(b.as_fd(), Some(Duration::ZERO)).unwrap(), Ready::default());

        // What it sent before it closed still arrives, even when it left something unread.
        assert_eq!(b.send(b"unread", &[]).unwrap(), Sent::Yes);
        assert_eq!(a.send(b"last", &[]).unwrap(), Sent::Yes);
        drop(a);
        eventually(|| poll_one(b.as_fd(), None).unwrap().hangup);
        assert_eq!(poll_one(b.as_fd(), None).unwrap(), Ready { input: true, hangup: true });
        assert!(matches!(b.recv_timeout(&mut buffer, SHORT).unwrap(), Received::Message(4, _)));
        assert!(b.recv(&mut buffer).unwrap().is_none());
        assert!(matches!(b.try_recv(&mut buffer).unwrap(), Received::Closed));
        assert_eq!(b.send(b"x", &[]).unwrap(), Sent::PeerGone);
    }

    #[test]
    fn a_hang_up_is_awaited() {
        let (a, b) = Channel::pair().unwrap();
        assert_eq!(a.send(b"last", &[]).unwrap(), Sent::Yes);
        assert!(!b.hangs_up_within(SHORT));
        drop(a);
        assert!(b.hangs_up_within(Duration::from_secs(10)));
        assert!(b.hangs_up_within(Duration::ZERO), "it stays so");
    }

    #[test]
    fn a_full_queue_is_reported() {
        let (a, b) = Channel::pair().unwrap();
        let message = vec![1; 4096];
        let sent = (0..10_000).take_while(|_| a.try_send(&message, &[]).unwrap() == Sent::Yes).count();
        assert!((1..10_000).contains(&sent));
        assert_eq!(a.try_send(&message, &[]).unwrap(), Sent::Full);
        assert!(b.recv(&mut vec![0; 4096]).unwrap().is_some());
        assert_eq!(a.try_send(&message, &[]).unwrap(), Sent::Yes);
    }

    #[test]
    fn a_listener_knows_who_connects() {
        let name = address("accept");
        let refused = connect(&name, SHORT).unwrap_err();
        assert_eq!(io_kind(&refused), Some(std::io::ErrorKind::ConnectionRefused));
        let listener = Listener::bind(&name).unwrap();
        let taken = Listener::bind(&name).unwrap_err();
        assert_eq!(io_kind(&taken), Some(std::io::ErrorKind::AddrInUse));
        assert!(listener.accept().unwrap().is_none());

        let client = connect(&name, SHORT).unwrap();
        assert!(poll_for(&[Wait::input(listener.as_fd())], None).unwrap()[0].input);
        let (server, process) = listener.accept().unwrap().unwrap();
        assert_eq!(process.pid(), std::process::id());
        assert!(!process.is_dead());
        assert_eq!(client.peer().unwrap().unwrap().pid(), std::process::id());
        assert_eq!(client.send(b"hello", &[]).unwrap(), Sent::Yes);
        assert_eq!(server.recv(&mut [0; 8]).unwrap().unwrap().0, 5);
        assert!(listener.accept().unwrap().is_none());
        drop(listener);
        eventually(|| Listener::bind(&name).is_ok());
    }

    #[test]
    fn a_listener_that_does_not_accept_costs_only_the_limit() {
        let name = address("backlog");
        let _listener = Listener::bind(&name).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match connect(&name, SHORT) {
                Ok(channel) => waiting.push(channel),
                Err(error) => break error,
            }
            assert!(waiting.len() < 10_000);
        };
        assert_eq!(io_kind(&error), Some(std::io::ErrorKind::TimedOut));
        assert!(!waiting.is_empty());
    }

    #[test]
    fn polling_tells_which_one() {
        let (quiet, rung) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        rung.ring();
        rung.ring();
        let fds = [Wait::input(quiet.as_fd()), Wait::input(rung.as_fd())];
        let any =
            |limit| poll_for(&fds, Some(limit)).unwrap().iter().map(|ready| ready.any()).collect::<Vec<_>>();
        assert_eq!(any(Duration::MAX), [false, true]);
        assert!(rung.clear() && !rung.clear());
        let start = Instant::now();
        assert_eq!(any(SHORT), [false, false]);
        assert!(start.elapsed() >= SHORT);
    }

    #[test]
    fn a_message_can_wait_for_the_end() {
        let (here, there) = Channel::pair().unwrap();
        let hung_up = || poll_for(&[Wait::hangup(here.as_fd())], Some(Duration::ZERO)).unwrap()[0].any();
        assert_eq!(there.send(b"good news", &[]).unwrap(), Sent::Yes);
        assert!(!hung_up() && !here.has_hung_up());
        assert_eq!(there.send(b"bad news", &[]).unwrap(), Sent::Yes);
        there.hang_up();
        assert!(hung_up() && here.has_hung_up());
        let mut buffer = [0; 16];
        for message in [&b"good news"[..], b"bad news"] {
            let Received::Message(len, _) = here.try_recv(&mut buffer).unwrap() else { panic!("it is lost") };
            assert_eq!(&buffer[..len], message);
        }
        assert!(matches!(here.try_recv(&mut buffer).unwrap(), Received::Closed));
        assert_eq!(here.try_send(b"too late", &[]).unwrap(), Sent::PeerGone);
    }
}
