//! ocifs: any OCI registry as a directory.
//!
//! The modules form layers; a module imports only from lower layers (`tests/layering.rs` holds the table). A read passes through each once:
//! `fuse → fs → view → artifact → content → cache | registry, layer, seal`.
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod artifact;
pub mod blocking;
pub mod bounded;
pub mod cache;
pub mod cli;
pub mod content;
pub mod control;
pub mod durable;
pub mod error;
pub mod extract;
pub mod flight;
pub mod fs;
pub mod fuse;
pub mod layer;
pub mod oci;
pub mod path;
pub mod publish;
pub mod recipe;
pub mod registry;
pub mod seal;
pub mod serve;
pub mod staging;
pub mod sys;
pub mod transfer;
pub mod view;
