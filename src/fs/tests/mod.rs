//! The file system over a registry in memory: every rule of the namespace, with the requests that it costs.

mod access;
mod access_order;
mod holding;
mod meaning;
mod metadata;
mod model;
mod namespace;
mod promises;
mod reading;
mod status;
mod syncing;
mod tags;
pub(crate) mod test_mount;
mod unopened;
mod writing;
