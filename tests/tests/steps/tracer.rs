//! Another process, one instruction at a time: `ptrace`, and only the few requests that a sweep needs.
//!
//! All calls for one tracee come from the thread that seized it: the kernel refuses others.

use std::mem::offset_of;
use std::ptr::{null_mut, with_exposed_provenance_mut};

/// The two bytes of the x86-64 instruction `syscall`.
const SYSCALL: i64 = 0x050f;
/// How many these are.
pub const SYSCALL_LENGTH: u64 = 2;

/// Where a step led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// One instruction further.
    Done,
    /// Nowhere: the process has ended.
    Ended,
}

/// A stopped thread of another process. It is let go when this is dropped, and killed if the tracer dies.
pub struct Tracee {
    pid: i32,
    /// Whether it is stopped by us, so that requests are answered.
    held: bool,
}

impl Tracee {
    /// Seizes a process (its first thread) and stops it, wherever it is.
    ///
    /// It is stopped by a signal that nobody heeds, not by `PTRACE_INTERRUPT`: only from the stop before a
    /// signal can [`kill`](Self::kill) replace the signal.
    pub fn seize(pid: u32) -> std::io::Result<Self> {
        let pid = i32::try_from(pid).expect("a process id");
        request(libc::PTRACE_SEIZE, pid, 0, libc::PTRACE_O_EXITKILL as usize)?;
        let mut tracee = Tracee { pid, held: false };
        // SAFETY: a signal that is ignored by default, to the thread that we trace.
        unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGWINCH) };
        loop {
            match tracee.wait() {
                Some(libc::SIGWINCH) => return Ok(tracee),
                Some(other) => {
                    request(libc::PTRACE_CONT, pid, 0, other as usize)?;
                    tracee.held = false;
                }
                None => return Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
            }
        }
    }

    /// Waits until it stops; the signal that it stopped for, or `None` if it has ended.
    fn wait(&mut self) -> Option<i32> {
        let mut status = 0;
        loop {
            // SAFETY: writes the status only. The process is our tracee, and nobody else waits for it.
            let waited = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
            if waited == self.pid {
                break;
            }
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::EINTR), "waiting for a tracee: {error}");
        }
        self.held = libc::WIFSTOPPED(status);
        self.held.then(|| libc::WSTOPSIG(status))
    }

    /// Executes one instruction; a system call counts as one, and blocks if it does.
    pub fn step(&mut self) -> Step {
        self.go(libc::PTRACE_SINGLESTEP)
    }

    /// Runs to the next watched address.
    pub fn run(&mut self) -> Step {
        self.go(libc::PTRACE_CONT)
    }

    fn go(&mut self, how: libc::c_uint) -> Step {
        let mut signal = 0;
        loop {
            if request(how, self.pid, 0, signal).is_err() {
                let _ = self.wait(); // killed by somebody else
                return Step::Ended;
            }
            match self.wait() {
                None => return Step::Ended,
                Some(libc::SIGTRAP) => return Step::Done,
                Some(other) => signal = other as usize, // its own business: passed on
            }
        }
    }

    /// Has [`run`](Self::run) stop before these addresses, by the processor's breakpoint registers; 0 for
    /// none.
    pub fn watch(&mut self, addresses: [u64; 2]) -> std::io::Result<()> {
        let registers = offset_of!(libc::user, u_debugreg);
        let set = |number: usize, value: u64| {
            request(libc::PTRACE_POKEUSER, self.pid, registers + 8 * number, value as usize)
        };
        set(7, 0)?;
        // Two bits of register 7 for each of the others switch it on; the rest says "when executed".
        let mut on = 0;
        for (number, &address) in addresses.iter().enumerate().filter(|&(_, &address)| address != 0) {
            set(number, address)?;
            on |= 1 << (2 * number);
        }
        set(7, on).map(drop)
    }

    /// The address of the next instruction.
    pub fn address(&self) -> u64 {
        let rip = offset_of!(libc::user, regs) + offset_of!(libc::user_regs_struct, rip);
        request(libc::PTRACE_PEEKUSER, self.pid, rip, 0).expect("a register of a stopped tracee") as u64
    }

    /// All registers.
    pub fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: a struct of integers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let address = (&raw mut registers).expose_provenance();
        request(libc::PTRACE_GETREGS, self.pid, 0, address).expect("the registers of a stopped tracee");
        registers
    }

    /// Whether the next instruction is system call `number`; its registers if so.
    pub fn enters(&self, number: i64) -> Option<libc::user_regs_struct> {
        let registers = self.registers();
        if registers.rax as i64 != number {
            return None; // without a look at the code: this is asked after every instruction
        }
        let code = request(libc::PTRACE_PEEKTEXT, self.pid, registers.rip as usize, 0).ok()?;
        (code & 0xffff == SYSCALL).then_some(registers)
    }

    /// SIGKILLs it here: not one instruction more is executed.
    ///
    /// It dies untraced, so that its parent hears of it at once, as of every other death: a tracer would
    /// have to collect it first.
    pub fn kill(mut self) {
        self.detach(libc::SIGKILL);
    }

    /// Lets it run on.
    pub fn release(mut self) {
        self.detach(0);
    }

    fn detach(&mut self, signal: i32) {
        if std::mem::take(&mut self.held) {
            // The kernel leaves breakpoints behind, and they kill whom nobody traces.
            let _ = self.watch([0, 0]);
            let _ = request(libc::PTRACE_DETACH, self.pid, 0, signal as usize); // fails if it is dead
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        self.detach(0);
    }
}

fn request(request: libc::c_uint, pid: i32, address: usize, data: usize) -> std::io::Result<i64> {
    // SAFETY: none of the requests made here writes our memory but GETREGS, whose data is the address of a
    // struct of the right size that lives across the call; none writes the tracee's.
    unsafe {
        *libc::__errno_location() = 0; // the answer of a PEEK may be -1
        let pointer = with_exposed_provenance_mut::<libc::c_void>;
        let answer = libc::ptrace(request, pid, pointer(address), pointer(data));
        match std::io::Error::last_os_error() {
            error if answer == -1 && error.raw_os_error() != Some(0) => Err(error),
            _ => Ok(answer),
        }
    }
}

/// Why this machine does not let us step other processes; `None` if it does.
pub fn refusal() -> Option<String> {
    // SAFETY: called before there are threads; the child does nothing but wait for its end, awake, because
    // a step from a sleep might not end.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            std::hint::spin_loop();
        }
    }
    let outcome = u32::try_from(child).map_err(|_| std::io::Error::last_os_error()).and_then(Tracee::seize);
    let refusal = match outcome {
        Ok(mut tracee) => (tracee.step() != Step::Done).then(|| "single steps do not work".to_owned()),
        Err(error) => Some(error.to_string()),
    };
    // SAFETY: our own child, which nobody has waited for.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, null_mut(), 0);
    }
    refusal
}
