//! What ringpool is measured with and against: the tasks, and small pools of other kinds.

use crossbeam_channel::{Receiver, Sender, unbounded};
use ringpool::ArchivedSharedSlice;
use ringpool::rkyv::vec::ArchivedVec;
use std::io::{PipeReader, PipeWriter, Read, Result, Write};
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;

/// The task that costs nothing, so that all time is the pool's.
pub fn inc(x: u64) -> u64 {
    x.wrapping_add(1)
}

/// The task that touches every byte it gets, and gives as many back.
pub fn xor(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 1).collect()
}

/// [`xor`] of an argument where it lies.
pub fn xor_view(bytes: &ArchivedVec<u8>) -> Vec<u8> {
    xor(bytes)
}

/// [`xor`] of an array that was made in shared memory.
pub fn xor_shared(bytes: &ArchivedSharedSlice<u8>) -> Vec<u8> {
    xor(bytes)
}

/// Threads that take calls of one function from a channel, and send results to another.
pub struct ThreadPool<A, R> {
    jobs: Option<Sender<A>>,
    results: Receiver<R>,
    threads: Vec<JoinHandle<()>>,
}

impl<A: Send + 'static, R: Send + 'static> ThreadPool<A, R> {
    /// So many threads for `f`.
    pub fn new(threads: usize, f: fn(A) -> R) -> Self {
        let (jobs, inbox) = unbounded::<A>();
        let (outbox, results) = unbounded();
        let threads = (0..threads)
            .map(|_| {
                let (inbox, outbox) = (inbox.clone(), outbox.clone());
                std::thread::spawn(move || {
                    for argument in inbox {
                        if outbox.send(f(argument)).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        ThreadPool { jobs: Some(jobs), results, threads }
    }

    /// Sends one call.
    pub fn submit(&self, argument: A) {
        self.jobs.as_ref().expect("open until dropped").send(argument).expect("threads live");
    }

    /// The next result, whichever it is.
    pub fn next_result(&self) -> R {
        self.results.recv().expect("threads live")
    }

    /// One call, waited for.
    pub fn apply(&self, argument: A) -> R {
        self.submit(argument);
        self.next_result()
    }
}

impl<A, R> Drop for ThreadPool<A, R> {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
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
    fn fork(serve: fn(PipeReader, PipeWriter) -> Result<()>) -> Result<Self> {
        let (requests, to) = std::io::pipe()?;
        let (from, answers) = std::io::pipe()?;
        for pipe in [to.as_raw_fd(), answers.as_raw_fd()] {
            // The most that everybody may have: fewer switches for large messages. A refusal does no harm.
            // SAFETY: a call on a descriptor that is ours and open.
            unsafe { libc::fcntl(pipe, libc::F_SETPIPE_SZ, 1 << 20) };
        }
        // SAFETY: the child only reads, writes and allocates, which the C library allows after a fork.
        match unsafe { libc::fork() } {
            -1 => Err(std::io::Error::last_os_error()),
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
    pub fn inc() -> Result<Self> {
        Self::fork(|mut requests, mut answers| {
            let mut word = [0; 8];
            loop {
                requests.read_exact(&mut word)?;
                answers.write_all(&inc(u64::from_ne_bytes(word)).to_ne_bytes())?;
            }
        })
    }

    /// A process for [`xor`]: the length and the bytes there, as many bytes back.
    pub fn xor() -> Result<Self> {
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
    pub fn call_inc(&mut self, x: u64) -> Result<u64> {
        let mut word = x.to_ne_bytes();
        self.to.write_all(&word)?;
        self.from.read_exact(&mut word)?;
        Ok(u64::from_ne_bytes(word))
    }

    /// One call of [`xor`]; the answer overwrites the question.
    pub fn call_xor(&mut self, bytes: &mut [u8]) -> Result<()> {
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
