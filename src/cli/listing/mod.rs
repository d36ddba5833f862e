//! Listings of `ls`, `list` and `repo`: what a registry, a repository and an artifact hold.
//!
//! - `holding`: the tags that hold a digest
//! - `labels`: which artifacts a `--label` means
//! - `tags`: the tags of a repository with what their manifests say
//! - `tree`: the files of an artifact

pub mod holding;
pub mod labels;
pub mod tags;
pub mod tree;
