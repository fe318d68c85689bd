//! Settings of a pool.

use crate::arguments::{bytes, text};
use crate::error::Failed;
use crate::name::name;
use engine::{Builder, Context, Pool};
use std::ffi::{CStr, OsStr, OsString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Workers are forks of this process as it is when the pool starts. The default.
pub const RP_START_FORK: u32 = 0;
/// Each worker is a new run of a program, which enters at rp_worker_main_if_worker().
pub const RP_START_SPAWN: u32 = 1;
/// One new run of a program, which enters there, forks all workers.
pub const RP_START_FORKSERVER: u32 = 2;

/// Settings of a pool. All zeros but for the size, as rp_options_init() leaves it, are the defaults.
///
/// Later versions append fields; size says which of them the program knows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rp_options {
    /// sizeof(rp_options); rp_options_init() sets it.
    pub size: usize,
    /// How many workers, at most 1023; 0: one for each CPU that this process may use.
    pub processes: u32,
    /// RP_START_FORK, RP_START_SPAWN or RP_START_FORKSERVER.
    pub start_method: u32,
    /// With RP_START_SPAWN and RP_START_FORKSERVER: the program and its arguments, and a NULL behind them. NULL: the
    /// file of this program, without arguments; this program must have called rp_worker_main_if_worker() then.
    pub command: *const *const c_char,
    /// The name of a task that each worker runs before all others, replacements included; or NULL. If it fails,
    /// the pool ends, and all calls fail with RP_INITIALIZER_FAILED.
    pub initializer: *const c_char,
    /// The initializer's input, copied.
    pub initializer_input: *const c_void,
    /// The size of that.
    pub initializer_size: usize,
    /// After so many tasks (a chunk of a map is one) a worker leaves and a fresh one takes its place; 0: never.
    pub max_tasks_per_child: u64,
    /// How often a task is started again after its worker died under it: 0 to 14.
    pub retries: u32,
    /// How many tasks may be on their way at once, 2 to 4194304; 0: 1024. Who submits more waits.
    pub slots: u32,
    /// Seconds to wait for a slot or for shared memory while others have it all; 0: ten minutes.
    pub patience: f64,
    /// Most shared memory for the inputs, or outputs, of each process, in bytes; 0: half of the machine's memory.
    pub memory_quota: u64,
    /// Address space for that: the largest that the quota can be; 0: 16 GiB.
    pub memory_reserve: u64,
    /// By which workers of other programs join (rp_worker_attach()); or NULL.
    pub name: *const c_char,
    /// Not 0: launch no workers; only those that join by name work for this pool.
    pub guests_only: u32,
    /// Not 0: distrust what workers write. Everything in shared memory carries checks, and outputs are copied before
    /// they are looked at: a value that comes is right, whatever a wild pointer in a worker writes over.
    pub hardened: u32,
}

const NONE: rp_options = rp_options {
    size: 0,
    processes: 0,
    start_method: RP_START_FORK,
    command: std::ptr::null(),
    initializer: std::ptr::null(),
    initializer_input: std::ptr::null(),
    initializer_size: 0,
    max_tasks_per_child: 0,
    retries: 0,
    slots: 0,
    patience: 0.0,
    memory_quota: 0,
    memory_reserve: 0,
    name: std::ptr::null(),
    guests_only: 0,
    hardened: 0,
};

/// No program has been compiled with fewer fields.
const LEAST: usize = size_of::<rp_options>();

/// Makes all settings the defaults. The second argument is sizeof(rp_options): what the program was compiled with.
/// NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rp_options_init(options: *mut rp_options, size: usize) {
    if options.is_null() || size < size_of::<usize>() {
        return;
    }
    // SAFETY: the caller says that so many bytes are there.
    unsafe {
        options.cast::<u8>().write_bytes(0, size);
        options.cast::<usize>().write_unaligned(size);
    }
}

/// What the settings say, of whatever version they are.
///
/// # Safety
///
/// `options` is NULL or points to as many bytes as its first word says, as `rp_options_init` made them, and its pointers
/// are NULL or good.
pub(crate) unsafe fn builder(options: *const rp_options) -> Result<Builder, Failed> {
    let mut known = NONE;
    if !options.is_null() {
        // SAFETY: the caller's promise.
        let size = unsafe { options.cast::<usize>().read_unaligned() };
        if !(LEAST..=1 << 16).contains(&size) {
            return Err(Failed::invalid(format!(
                "the options say that they have {size} bytes: use rp_options_init(&options, sizeof(rp_options))"
            )));
        }
        // SAFETY: so many bytes are there; any bits are values of these types.
        unsafe { (&raw mut known).cast::<u8>().copy_from_nonoverlapping(options.cast(), LEAST) };
        // SAFETY: the caller's promise.
        let newer = unsafe { std::slice::from_raw_parts(options.cast::<u8>().add(LEAST), size - LEAST) };
        if newer.iter().any(|&byte| byte != 0) {
            return Err(Failed::invalid(
                "the options have settings that this version of the library does not know",
            ));
        }
    }
    // SAFETY: the caller's promise about the pointers.
    unsafe { known.builder() }
}

impl rp_options {
    unsafe fn builder(&self) -> Result<Builder, Failed> {
        let mut builder = Pool::builder().processes(self.processes as usize).retries(self.retries);
        builder = builder.context(match self.start_method {
            RP_START_FORK => Context::Fork,
            RP_START_SPAWN => Context::Spawn,
            RP_START_FORKSERVER => Context::ForkServer,
            other => return Err(Failed::invalid(format!("start_method is {other}; it must be 0 to 2"))),
        });
        if self.guests_only != 0 {
            builder = builder.guests_only();
        }
        if !self.command.is_null() {
            // SAFETY: as the caller promised.
            builder = builder.command(unsafe { command(self.command) });
        }
        if !self.initializer.is_null() {
            // SAFETY: as the caller promised.
            let (name, input) = unsafe {
                let input = bytes(self.initializer_input, self.initializer_size, "initializer_input")?;
                (name(self.initializer)?, input)
            };
            builder = builder.raw_initializer(name, input.to_vec());
        }
        if self.max_tasks_per_child != 0 {
            builder = builder.max_tasks_per_child(self.max_tasks_per_child);
        }
        if self.slots != 0 {
            builder = builder.slots(self.slots);
        }
        if self.patience != 0.0 {
            let patience = Duration::try_from_secs_f64(self.patience);
            let wrong = |_| Failed::invalid(format!("patience is {} seconds", self.patience));
            builder = builder.patience(patience.map_err(wrong)?);
        }
        if self.memory_reserve != 0 {
            builder = builder.arena_reserve(self.memory_reserve);
        }
        if self.memory_quota != 0 {
            builder = builder.arena_quota(self.memory_quota);
        }
        if !self.name.is_null() {
            // SAFETY: as the caller promised.
            builder = builder.name(unsafe { text(self.name, "name") }?);
        }
        Ok(builder.hardened(self.hardened != 0))
    }
}

/// The strings before the NULL.
unsafe fn command(mut at: *const *const c_char) -> Vec<OsString> {
    let mut command = Vec::new();
    loop {
        // SAFETY: the caller promised a NULL behind the strings, and that is where this ends.
        let argument = unsafe { *at };
        if argument.is_null() {
            return command;
        }
        // SAFETY: a string, as the caller promised.
        command.push(OsStr::from_bytes(unsafe { CStr::from_ptr(argument) }.to_bytes()).to_owned());
        // SAFETY: this was not the last.
        at = unsafe { at.add(1) };
    }
}
