//! From SOURCE or REF to the opened modules below the file system.

pub mod reference;
pub mod wiring;
