//! The state that all operations of a client share.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use reqwest::Url;

use super::config::UploadSizes;
use super::exchange::Exchange;
use super::learned::{IdleSessions, Linked, Shortcuts};
use crate::error::{Error, ErrorKind};
use crate::oci::Registry;
use crate::registry::Trust;

/// State shared by all operations.
pub(super) struct Http {
    pub(super) registry: Registry,
    pub(super) origin: String,
    pub(super) trust: Trust,
    pub(super) base: Url,
    /// Whether paths begin with `v2/`, as the specification demands.
    pub(super) is_versioned: bool,
    pub(super) exchange: Exchange,
    pub(super) shortcuts: Shortcuts,
    pub(super) sizes: UploadSizes,
    pub(super) idle_sessions: IdleSessions,
    /// The registry rejected chunks but took a large blob in one request.
    pub(super) chunkless: AtomicBool,
    /// Long transfers so far.
    pub(super) long_transfers: AtomicUsize,
    /// The last request for a range after the start of a blob was answered with all of it.
    pub(super) rangeless: AtomicBool,
    pub(super) linked: Linked,
}

impl Http {
    /// The URL of a path that begins with `v2/`. The parts are validated types, so nothing needs escaping.
    pub(super) fn url(&self, path: &str) -> Result<Url, Error> {
        let path = if self.is_versioned { path } else { path.strip_prefix("v2/").unwrap_or(path) };
        self.base.join(path).map_err(|error| Error::new(ErrorKind::Invalid, format!("{path}: {error}")))
    }
}
