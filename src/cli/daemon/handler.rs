//! What a daemon answers to commands, and what its mount shows about itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::cache::SpanCache;
use crate::cli::daemon::attached::Attached;
use crate::cli::staged::edits::Edits;
use crate::cli::staged::report;
use crate::control::{CacheStatus, Difference, Error, Handler, Status};
use crate::error::ErrorKind;
use crate::fs::{FileSystem, Selection, StagedTag};
use crate::fuse::Connection;
use crate::oci::{Repository, Source};
use crate::publish::{Listener, Options, Report};
use crate::seal::Passphrase;
use crate::staging::Uppers;
use crate::sys::unmount::Force;

/// What does not change while a mount lives.
#[derive(Clone)]
pub struct Facts {
    /// SOURCE.
    pub source: String,
    /// DIR.
    pub mount_point: PathBuf,
    /// Since 1970.
    pub since: Duration,
    /// `--offline`.
    pub offline: bool,
    /// Where edits are staged; `None` where nothing can be written.
    pub uppers: Option<Arc<Uppers>>,
    /// The state directory.
    pub state_directory: Option<PathBuf>,
    /// How long is published after the mount is gone.
    pub exit_timeout: Duration,
    /// Log file.
    pub log: Option<PathBuf>,
    /// Cache directory.
    pub cache_directory: PathBuf,
}

impl Facts {
    /// Whether nothing can be written.
    pub fn is_read_only(&self) -> bool {
        self.uppers.is_none()
    }

    /// Status with the figures of the cache; without them where the cache cannot be asked.
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
            state_directory: self.state_directory.clone(),
            staged,
            staging_size,
            serving: true,
            exit_timeout: self.exit_timeout.as_secs(),
            log: self.log.clone(),
            cache: cache_status(&self.cache_directory, cache).unwrap_or_default(),
        }
    }

    /// What never changes, as `.oci/mount.json` shows it.
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

    /// The moment's figures, as `.oci/status.json` shows them.
    pub fn status_json(&self, cache: &SpanCache) -> Vec<u8> {
        serde_json::to_value(self.status(cache)).map(|value| with_newline(&value)).unwrap_or_default()
    }
}

fn with_newline(value: &serde_json::Value) -> Vec<u8> {
    let mut text = format!("{value:#}").into_bytes();
    text.push(b'\n');
    text
}

/// Figures of a cache.
///
/// # Errors
/// The cache cannot be read.
pub fn cache_status(directory: &Path, cache: &SpanCache) -> Result<CacheStatus, crate::cache::Error> {
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

/// Answers the control socket.
pub struct Answers {
    /// What does not change.
    pub facts: Arc<Facts>,
    /// The file system.
    pub file_system: Arc<FileSystem>,
    /// The cache.
    pub cache: SpanCache,
    /// What is mounted.
    pub source: Source,
    /// Where; `None` if somebody else mounted.
    pub attached: Option<Attached>,
    /// What is staged is published when the mount is gone.
    pub push_at_end: AtomicBool,
    /// Whether the kernel still uses the mount.
    pub connection: Connection,
    /// Ends the daemon.
    pub stop: Arc<Notify>,
}

#[async_trait]
impl Handler for Answers {
    async fn status(&self) -> Result<Status, Error> {
        let (facts, cache) = (Arc::clone(&self.facts), self.cache.clone());
        let connection = self.connection.clone();
        let status = move || Status { serving: connection.is_alive(), ..facts.status(&cache) };
        tokio::task::spawn_blocking(status).await.map_err(|error| Error::new(ErrorKind::Other, error.to_string()))
    }

    async fn refresh(&self, path: Option<&str>) -> Result<(), Error> {
        match path {
            None => self.file_system.refresh(None),
            Some(path) => match repositories_of(&self.source, path).as_slice() {
                [] => self.file_system.refresh(None),
                found => found.iter().for_each(|repository| self.file_system.refresh(Some(repository))),
            },
        }
        tracing::info!(path, "refreshed");
        Ok(())
    }

    async fn unmount(&self, lazy: bool) -> Result<(), Error> {
        let Some(attached) = self.attached.clone() else {
            self.stop.notify_one();
            return Ok(());
        };
        let work = move || if lazy { attached.detach() } else { attached.unmount(Force::None) };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ResourceBusy => Err(Error::new(ErrorKind::Busy, "the mount is in use")),
            Ok(Err(error)) => Err(Error::new(ErrorKind::Other, format!("cannot unmount: {error}"))),
            Err(error) => Err(Error::new(ErrorKind::Other, error.to_string())),
        }
    }

    async fn staged(&self, selection: &Selection) -> Result<Vec<StagedTag>, Error> {
        self.edits().staged(selection).await
    }

    async fn sync(
        &self,
        selection: &Selection,
        options: &Options,
        passphrases: Vec<Passphrase>,
        listener: &Listener,
    ) -> Result<Vec<Report>, Error> {
        let _lent = self.file_system.lend(passphrases);
        let reports = self.edits().sync(selection, options, listener).await?;
        reports.iter().for_each(report::log);
        Ok(reports)
    }

    async fn differences(&self, selection: &Selection) -> Result<Vec<Difference>, Error> {
        self.edits().differences(selection).await
    }

    async fn discard(&self, selection: &Selection) -> Result<Vec<String>, Error> {
        self.edits().discard(selection).await
    }

    async fn new_tag(&self, reference: &str) -> Result<String, Error> {
        self.edits().new_tag(reference).await
    }

    async fn farewell(&self, push: bool) -> Result<(), Error> {
        self.push_at_end.store(push, Ordering::Relaxed);
        Ok(())
    }
}

impl Answers {
    fn edits(&self) -> Edits {
        Edits { file_system: Arc::clone(&self.file_system), offline: self.facts.offline }
    }
}

/// The repositories that a path below the mount can mean: each of its beginnings, since only the registry knows
/// where repositories end and tags begin. Nothing where the whole mount is one artifact or layout.
fn repositories_of(source: &Source, path: &str) -> Vec<Repository> {
    let Source::Registry { prefix, .. } = source else { return Vec::new() };
    let mut found = Vec::new();
    let mut name = prefix.as_ref().map(ToString::to_string).unwrap_or_default();
    found.extend(prefix.clone());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        // A pasted reference names the repository in front of its colon or at sign.
        let part = part.split([':', '@']).next().unwrap_or_default();
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(part);
        match Repository::parse(&name) {
            Ok(repository) => found.push(repository),
            Err(_) => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_every_repository_that_it_may_name() {
        let names = |source: &str, path: &str| -> Vec<String> {
            repositories_of(&Source::parse(source).unwrap(), path).iter().map(ToString::to_string).collect()
        };
        assert_eq!(names("reg.io/team", "app/web/v1"), ["team", "team/app", "team/app/web", "team/app/web/v1"]);
        assert_eq!(names("reg.io", "app:v1"), ["app"]);
        assert_eq!(names("reg.io", "app/.oci/tags"), ["app"]);
        assert_eq!(names("oci:/layout", "v1"), Vec::<String>::new());
    }
}
