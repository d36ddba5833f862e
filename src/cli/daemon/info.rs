//! The status of a mount, as `ocifs status` and `.oci` show it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cache::SpanCache;
use crate::control::{CacheStatus, Status};
use crate::error::Error;
use crate::staging::Uppers;

/// The part of a mount's status that does not change.
#[derive(Clone)]
pub struct MountInfo {
    /// The source, as on the command line.
    pub source: String,
    /// The mount point.
    pub mount_point: PathBuf,
    /// Time of mounting, since the Unix epoch.
    pub since: Duration,
    /// `--offline`.
    pub offline: bool,
    /// Why `ls` does not list all repositories, if the registry has no catalog.
    pub unlisted: Option<String>,
    /// The staging area; `None` on a read-only mount.
    pub uppers: Option<Arc<Uppers>>,
    /// The state directory.
    pub state_directory: Option<PathBuf>,
    /// Longest time to publish after the mount is gone.
    pub exit_timeout: Duration,
    /// Log file.
    pub log: Option<PathBuf>,
    /// Cache directory.
    pub cache_directory: PathBuf,
}

impl MountInfo {
    /// Whether the mount is read-only.
    pub fn is_read_only(&self) -> bool {
        self.uppers.is_none()
    }

    /// The status, with cache figures if they can be read.
    pub fn status(&self, cache: &SpanCache) -> Status {
        let (staged, staging_size) = self.uppers.as_ref().map(|uppers| uppers.usage()).unwrap_or_default();
        Status {
            source: self.source.clone(),
            mount_point: self.mount_point.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: self.since.as_secs(),
            offline: self.offline,
            read_only: self.is_read_only(),
            unlisted: self.unlisted.clone(),
            state_directory: self.state_directory.clone(),
            staged,
            staged_tags: None,
            staging_size,
            serving: true,
            exit_timeout: self.exit_timeout.as_secs(),
            log: self.log.clone(),
            cache: cache_status(&self.cache_directory, cache).unwrap_or_default(),
        }
    }

    /// The content of `.oci/mount.json`.
    pub fn mount_json(&self) -> Vec<u8> {
        let value = serde_json::json!({
            "source": self.source,
            "mount_point": self.mount_point,
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "since": self.since.as_secs(),
            "offline": self.offline,
            "read_only": self.is_read_only(),
        });
        with_newline(&value)
    }

    /// The content of `.oci/status.json`.
    pub fn status_json(&self, cache: &SpanCache) -> Vec<u8> {
        serde_json::to_value(self.status(cache)).map(|value| with_newline(&value)).unwrap_or_default()
    }
}

fn with_newline(value: &serde_json::Value) -> Vec<u8> {
    let mut text = format!("{value:#}").into_bytes();
    text.push(b'\n');
    text
}

/// The usage of a cache.
///
/// # Errors
/// The cache cannot be read.
pub fn cache_status(directory: &Path, cache: &SpanCache) -> Result<CacheStatus, Error> {
    let usage = cache.usage()?;
    Ok(CacheStatus {
        directory: directory.to_owned(),
        data: usage.spans,
        indexes: usage.indexes,
        pinned: usage.pinned,
        streams: usage.streams,
        size: usage.size,
    })
}
