//! Mirrors that containerd and podman are configured with: `hosts.toml` directories and `registries.conf`.
//!
//! A mirror is never trusted: its content is verified by digest ([`Trust::Digest`](super::Trust)), it gets only its own credentials and
//! certificates, and writes never use it. Mirrors are asked in file order, then the registry itself; a failing mirror is skipped.

mod candidate;
mod client;
mod files;
mod health;
mod hosts_toml;
mod mirrored;
mod probe;
mod registries_conf;
mod rules;
mod table;
mod transfer;

pub use self::client::Reaching;
pub use self::files::MirrorFiles;
pub use self::mirrored::Mirrored;
pub use self::probe::{Probed, probe};
pub use self::rules::{Root, Rules};
