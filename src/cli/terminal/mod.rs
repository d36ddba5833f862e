//! Standard output and standard error.
//!
//! - `bar`: the progress bar of a command that transfers bytes
//! - `escape`: makes text from registries and file systems safe for terminals and logs
//! - `message`: messages and warnings on standard error
//! - `output`: results on standard output as tables, pairs or JSON
//! - `progress`: the progress bars of a sync
//! - `prompt`: questions
//! - `units`: sizes and durations

pub mod bar;
pub mod escape;
pub mod message;
pub mod output;
pub mod progress;
pub mod prompt;
pub mod units;
