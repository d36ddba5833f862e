//! The border to the kernel: translates FUSE requests to [`crate::fs`] and answers back.
//!
//! The only user of fuser. An operation is polled once on the thread that received it; what cannot be answered at
//! once moves to the async runtime with its reply, so that no FUSE thread ever waits for a network. Nothing here
//! knows what a name or a byte means.

mod adapter;
mod attributes;
mod caller;
mod errno;
mod session;
mod watchdog;

#[cfg(test)]
mod tests;

pub use errno::{errno, level};
pub use session::{Connection, Options, Session, raise_read_ahead};
