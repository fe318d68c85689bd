//! Forked processes behind pipes: what most process pools are inside, with nothing around it.

use super::{Bytes, Numbers, Started};
use crate::shm::Child;
use crate::tasks::{inc, look, xor};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;

/// Workers that all read numbers from one pipe and write to another.
struct Pipes {
    to: PipeWriter,
    from: PipeReader,
    _workers: Vec<Child>,
}

/// For streams and calls of numbers.
pub fn numbers(workers: usize) -> Started<dyn Numbers> {
    let (requests, to) = io::pipe()?;
    let (from, answers) = io::pipe()?;
    let serve = || -> io::Result<()> {
        let mut word = [0; 8];
        // Eight bytes are read and written at once or not at all, so workers do not mix them up.
        loop {
            (&requests).read_exact(&mut word)?;
            (&answers).write_all(&inc(u64::from_ne_bytes(word)).to_ne_bytes())?;
        }
    };
    let work = || drop(serve());
    let workers = (0..workers).map(|_| Child::fork(work)).collect::<io::Result<_>>()?;
    Ok(Box::new(Pipes { to, from, _workers: workers }))
}

impl Pipes {
    fn submit(&mut self, x: u64) {
        self.to.write_all(&x.to_ne_bytes()).expect("workers live");
    }

    fn next_result(&mut self) -> u64 {
        let mut word = [0; 8];
        self.from.read_exact(&mut word).expect("workers live");
        u64::from_ne_bytes(word)
    }
}

impl Numbers for Pipes {
    fn call(&mut self, x: u64) -> u64 {
        self.submit(x);
        self.next_result()
    }

    fn stream(&mut self, tasks: u64, window: usize) -> u64 {
        let mut sum = 0u64;
        for i in 0..tasks {
            if i >= window as u64 {
                sum = sum.wrapping_add(self.next_result());
            }
            self.submit(i);
        }
        (0..tasks.min(window as u64)).fold(sum, |sum, _| sum.wrapping_add(self.next_result()))
    }
}

/// One worker that is sent bytes.
struct Payloads {
    worker: PipeWorker,
    next: Vec<u8>,
}

/// For bytes; one worker.
pub fn bytes(_: usize, _: &[u8]) -> Started<dyn Bytes> {
    Ok(Box::new(Payloads { worker: PipeWorker::xor()?, next: Vec::new() }))
}

impl Bytes for Payloads {
    fn load(&mut self, data: &[u8]) {
        self.next = data.to_vec();
    }

    fn echo(&mut self) -> u64 {
        let mut bytes = std::mem::take(&mut self.next);
        self.worker.call_xor(&mut bytes).expect("an answer");
        look(&bytes)
    }
}

/// A forked process that is asked through one pipe and answers through another: what most process pools
/// are inside, with nothing around it.
pub struct PipeWorker {
    pid: libc::pid_t,
    to: PipeWriter,
    from: PipeReader,
}

impl PipeWorker {
    /// Forks a process that does nothing but `serve`.
    fn fork(serve: fn(PipeReader, PipeWriter) -> io::Result<()>) -> io::Result<Self> {
        let (requests, to) = io::pipe()?;
        let (from, answers) = io::pipe()?;
        for pipe in [to.as_raw_fd(), answers.as_raw_fd()] {
            // The most that everybody may have: fewer switches for large messages. A refusal does no harm.
            // SAFETY: a call on a descriptor that is ours and open.
            unsafe { libc::fcntl(pipe, libc::F_SETPIPE_SZ, 1 << 20) };
        }
        // SAFETY: the child only reads, writes and allocates, which the C library allows after a fork.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                drop((to, from)); // so that it ends when its parent does
                let good = serve(requests, answers).is_ok();
                // SAFETY: ends the child without running what its parent registered for its own end.
                unsafe { libc::_exit(i32::from(!good)) }
            }
            pid => Ok(PipeWorker { pid, to, from }),
        }
    }

    /// A process for [`inc`]: eight bytes there, eight bytes back.
    pub fn inc() -> io::Result<Self> {
        Self::fork(|mut requests, mut answers| {
            let mut word = [0; 8];
            loop {
                requests.read_exact(&mut word)?;
                answers.write_all(&inc(u64::from_ne_bytes(word)).to_ne_bytes())?;
            }
        })
    }

    /// A process for [`xor`]: the length and the bytes there, as many bytes back.
    pub fn xor() -> io::Result<Self> {
        Self::fork(|mut requests, mut answers| {
            let mut bytes = Vec::new();
            loop {
                let mut len = [0; 8];
                requests.read_exact(&mut len)?;
                bytes.resize(u64::from_ne_bytes(len) as usize, 0);
                requests.read_exact(&mut bytes)?;
                answers.write_all(&xor(&bytes))?;
            }
        })
    }

    /// One call of [`inc`].
    pub fn call_inc(&mut self, x: u64) -> io::Result<u64> {
        let mut word = x.to_ne_bytes();
        self.to.write_all(&word)?;
        self.from.read_exact(&mut word)?;
        Ok(u64::from_ne_bytes(word))
    }

    /// One call of [`xor`]; the answer overwrites the question.
    pub fn call_xor(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.to.write_all(&(bytes.len() as u64).to_ne_bytes())?;
        self.to.write_all(bytes)?;
        self.from.read_exact(bytes)
    }
}

impl Drop for PipeWorker {
    fn drop(&mut self) {
        // Others may have inherited the pipe, so its end may never be seen.
        // SAFETY: the child is ours and not yet waited for, so the number is its.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}
