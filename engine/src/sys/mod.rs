//! What the engine asks of the operating system. Nothing in here knows the pool's protocol.

mod channel;
mod copy;
mod cpus;
pub(crate) mod fork_guard;
mod inspect;
mod memory;
mod pagemap;
mod process;
mod program;
mod unused;

pub(crate) use channel::{Channel, EventFd, Listener, Received, Sent, Timer, Wait, connect, poll_for};
pub(crate) use copy::{CopyOnWrite, Lent};
pub(crate) use cpus::{begin_elsewhere, usable_cpus, yield_cpu};
pub(crate) use inspect::{children, fate, memfds_of, name_of, open_sealed};
pub(crate) use memory::{Mapping, create_memfd, physical_memory};
pub(crate) use process::{
    Fork, Own, ProcessHandle, abandon_fork, clear_parent_death_signal, default_signals, first_thread_ended,
    flush_output, fork, heed_ending_signals, ignore_ending_signals, ignore_sigint, is_first_thread,
    is_nobody, is_somebody, kill_child, quick_exit, redirect_stdin_to_null, set_name,
    set_parent_death_signal, start_time, still_maps, still_runs, wait_for_child,
};
pub(crate) use program::{Program, current_exe_path};
pub(crate) use unused::Unused;
