//! End-to-end tests: the built binary, real registries, real artifacts, the kernel in between.

#[path = "mount/containers.rs"]
mod containers;
#[path = "mount/fixtures.rs"]
mod fixtures;
#[path = "mount/harness.rs"]
mod harness;
#[path = "mount/lifecycle.rs"]
mod lifecycle;
#[path = "mount/made_here.rs"]
mod made_here;
#[path = "mount/mount_helper.rs"]
mod mount_helper;
#[path = "mount/outages.rs"]
mod outages;
#[path = "mount/requests.rs"]
mod requests;
mod support;
#[path = "mount/unprivileged.rs"]
mod unprivileged;
