//! The state that all operations of a client share.

use std::sync::atomic::AtomicBool;

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
    pub(super) exchange: Exchange,
    pub(super) shortcuts: Shortcuts,
    pub(super) sizes: UploadSizes,
    pub(super) idle_sessions: IdleSessions,
    /// The registry rejected chunks but took a large blob in one request.
    pub(super) chunkless: AtomicBool,
    pub(super) linked: Linked,
}

impl Http {
    /// A URL below the base. The parts are validated types, so nothing needs escaping.
    pub(super) fn url(&self, path: &str) -> Result<Url, Error> {
        self.base.join(path).map_err(|error| Error::new(ErrorKind::Invalid, format!("{path}: {error}")))
    }
}
