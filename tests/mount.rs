//! End-to-end tests: the built binary, real registries, real artifacts, the kernel in between.

#[path = "mount/fixtures.rs"]
mod fixtures;
#[path = "mount/harness.rs"]
mod harness;
#[path = "mount/lifecycle.rs"]
mod lifecycle;
#[path = "mount/outages.rs"]
mod outages;
#[path = "mount/requests.rs"]
mod requests;
mod support;
