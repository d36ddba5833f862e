//! System calls behind small safe functions, one topic per file.
//!
//! Holds the crate's unsafe code and is the only user of `rustix` and `memmap2`. Independent of registries, artifacts and the command line;
//! prints nothing.
#![allow(unsafe_code)]

pub mod array;
pub mod attributes;
pub mod beneath;
pub mod daemon;
pub mod entry;
pub mod extent;
pub mod inherited;
pub mod instance;
pub mod lock;
pub mod mapped;
pub mod mount;
pub mod mountinfo;
pub mod process;
pub mod socket;
pub mod space;
pub mod syncfs;
pub mod terminal;
pub mod unmount;
