//! Standard output and standard error.

pub mod escape;
pub mod message;
pub mod output;
pub mod progress;
pub mod units;
