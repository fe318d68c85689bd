//! The C ABI of ringpool: see `include/ringpool.h`, which is made from this crate.
//!
//! Each file is one kind of object. All exported functions go through [`boundary`]: no panic leaves, and what failed is
//! kept for [`rp_last_error`](error::rp_last_error). Functions return a [`rp_status`](status::rp_status), write outputs
//! through their last parameters, and leave those alone if they fail.

// What C sees has the names that C sees.
#![allow(non_camel_case_types)]

// In the order of the header.
mod status;

mod error;

mod arguments;

mod boundary;

mod name;

mod task;

mod worker;

mod options;

mod pool;

mod call;

mod asynchronous;

mod result;

mod buffer;

mod map;

mod results;

mod iter;

mod queue;
