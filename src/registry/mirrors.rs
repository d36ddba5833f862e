//! Mirrors that containerd and podman are configured with: `hosts.toml` directories and `registries.conf`.
//!
//! A mirror is trusted for nothing: its content is proved by digests ([`Trust::Digest`](super::Trust)), it gets no credential or certificate
//! but its own, and writes never ask it. The order is that of the file, then the registry itself; a mirror that fails is passed over.

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
