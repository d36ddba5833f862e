//! The boundary to the kernel: translates FUSE requests to [`crate::fs`] and replies.
//!
//! The only user of fuser. An operation is polled once on the thread that received it; if it does not complete,
//! it moves to the async runtime with its reply, so that no FUSE thread ever waits for the network. Nothing here
//! knows the meaning of a name or a byte.

mod adapter;
mod attributes;
mod caller;
mod errno;
mod passthrough;
mod session;
mod watchdog;

#[cfg(test)]
mod tests;

pub use errno::{errno, level};
pub use session::{Connection, Options, Session, raise_read_ahead};
