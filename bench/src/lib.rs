//! What ringpool costs, beside other ways to do the same: the contestants, the works that they do, and how
//! results are kept and shown.

pub mod bars;
pub mod contestants;
pub mod machine;
pub mod plots;
pub mod processes;
pub mod record;
pub mod runner;
pub mod shm;
pub mod tables;
pub mod tasks;
pub mod works;
