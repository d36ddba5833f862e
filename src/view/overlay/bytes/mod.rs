//! The bytes of the files of an edited tag.
//!
//! - `table`: the open files; `file`: one of them
//! - `file_handle`: reads, writes and flushes through a handle
//! - `lower`: a file of a tree; `layered`: a staged file over it; `copy_up`: the step from one to the other
//! - `fill`: fills staged files in from below, in the background
//! - `content`: the source of the bytes of a published entry

pub(super) mod content;
pub(super) mod copy_up;
pub(super) mod file;
pub(super) mod file_handle;
pub(super) mod fill;
pub(super) mod layered;
pub(super) mod lower;
pub(super) mod table;
