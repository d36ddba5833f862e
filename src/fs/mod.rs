//! The file system in plain values: names, attributes, handles and bytes, without any FUSE type.
//!
//! Owns the namespace above tags, the meaning of every name in it, open handles, and how long the kernel may
//! cache what it was told. Everything that may wait for a registry is async and completes immediately if the answer
//! is known locally. The guarantees to users are in `SEMANTICS.md` beside this file.
//!
//! # Files
//!
//! - `file_system`: the façade, in front of `namespace` (names), `staged_tags` (edited tags) and `open_files`
//! - Names: `operations` on inodes; `resolve` and `names` above tags; `listing`, `listed` and `directory` list; `location` and `window` are the
//!   directories above tags and `.oci`; `inode` numbers them
//! - Files: `files` and `handle` read and write, `unopened` reads without handles; `changes` and `refusals` edit inside tags; `access`, `caller`, `entry` and `xattr` are the details
//! - Tags: `tags` creates, renames and removes them; `tag_table` and `tag_state` know their state; `editing` begins and ends edits, `adoption`
//!   takes over those of an earlier mount
//! - Commands: `selection` of tags, `status`, `staged_tag`, `syncing`, `writing`
//! - `config`: settings and the interface to the kernel's caches

mod access;
mod adoption;
mod caller;
mod changes;
mod config;
mod directory;
mod editing;
mod entry;
mod file_system;
mod files;
mod handle;
mod inode;
mod listed;
mod listing;
mod location;
mod names;
mod namespace;
mod open_files;
mod operations;
mod ready_files;
mod refusals;
mod resolve;
mod selection;
mod staged_tag;
mod staged_tags;
mod status;
mod syncing;
mod tag_state;
mod tag_table;
mod tags;
mod unopened;
mod window;
mod writing;
mod xattr;

#[cfg(test)]
pub(crate) mod tests;

pub use access::{Asker, Credentials, Need};
pub use caller::Caller;
pub use changes::NewName;
pub use config::{Config, KernelCache, Made, Others, Root, Space, Writing};
pub use directory::DirectoryEntry;
pub use entry::{Entry, Lookup};
pub use file_system::FileSystem;
pub use handle::{OpenDirectory, OpenFile};
pub use inode::{Inode, ROOT};
pub use refusals::{ABSENT_TTL, FOREVER, NAME_LIMIT, NAME_TTL};
pub use selection::{Scope, Selection, tag_of};
pub use staged_tag::StagedTag;
pub use syncing::several_under_one_name;
pub use tag_table::TagName;
