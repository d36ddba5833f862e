//! Listings of `ls`, `list` and `repo`: registries, repositories and artifacts.
//!
//! - `holding`: the tags that point to a digest
//! - `labels`: labels and `--label` conditions
//! - `tags`: the tags of a repository with facts from their manifests
//! - `tree`: the files of an artifact

pub mod holding;
pub mod labels;
pub mod tags;
pub mod tree;
