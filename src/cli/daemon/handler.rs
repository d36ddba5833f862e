//! Handles the requests of the control socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::artifact::Artifacts;
use crate::blocking::spawn_blocking;
use crate::cache::SpanCache;
use crate::cli::daemon::attached::Attached;
use crate::cli::daemon::info::MountInfo;
use crate::cli::staged::edits::Edits;
use crate::cli::staged::report;
use crate::control::{Difference, Handler, Status};
use crate::error::{Error, ErrorKind};
use crate::fs::{FileSystem, NAME_TTL, Selection, StagedTag};
use crate::fuse::Connection;
use crate::oci::{Repository, Source};
use crate::publish::{Listener, Options, Report};
use crate::seal::Passphrase;
use crate::sys::unmount::Force;

/// A running mount.
pub struct RequestHandler {
    /// Source, mount point and options.
    pub info: Arc<MountInfo>,
    /// The file system.
    pub file_system: Arc<FileSystem>,
    /// The cache.
    pub cache: SpanCache,
    /// The artifacts read through it.
    pub artifacts: Artifacts,
    /// The source of the mount.
    pub source: Source,
    /// Its entry in the mount table; `None` if the caller mounted it.
    pub attached: Option<Attached>,
    /// Whether staged edits are published when the mount is gone.
    pub push_at_end: AtomicBool,
    /// The connection to the kernel.
    pub connection: Connection,
    /// Ends the daemon.
    pub stop: Arc<Notify>,
}

#[async_trait]
impl Handler for RequestHandler {
    async fn status(&self) -> Result<Status, Error> {
        let (info, cache) = (Arc::clone(&self.info), self.cache.clone());
        let (connection, staged_tags) = (self.connection.clone(), Some(self.file_system.staged_count()));
        let status = move || Status { serving: connection.is_alive(), staged_tags, ..info.status(&cache) };
        spawn_blocking(status).await
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
        // Until then the kernel may answer from cached names.
        tokio::time::sleep(NAME_TTL).await;
        Ok(())
    }

    async fn let_go(&self) -> Result<(), Error> {
        let artifacts = self.artifacts.clone();
        let file_system = Arc::clone(&self.file_system);
        spawn_blocking(move || {
            file_system.let_go();
            artifacts.let_go();
        })
        .await
    }

    async fn unmount(&self, lazy: bool) -> Result<(), Error> {
        let Some(attached) = self.attached.clone() else {
            self.stop.notify_one();
            return Ok(());
        };
        let work = move || if lazy { attached.detach() } else { attached.unmount(Force::None) };
        match spawn_blocking(work).await? {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Err(Error::new(ErrorKind::Busy, "the mount is in use")),
            Err(error) => Err(Error::other(format!("cannot unmount: {error}"))),
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

    async fn publish_at_end(&self, push: bool) -> Result<(), Error> {
        self.push_at_end.store(push, Ordering::Relaxed);
        Ok(())
    }
}

impl RequestHandler {
    fn edits(&self) -> Edits {
        Edits { file_system: Arc::clone(&self.file_system), offline: self.info.offline }
    }
}

/// The repositories that a path below the mount may name: each of its prefixes, since only the registry knows where repositories end
/// and tags begin. Empty if the whole mount is one artifact or layout.
fn repositories_of(source: &Source, path: &str) -> Vec<Repository> {
    let Source::Registry { prefix, .. } = source else { return Vec::new() };
    let mut found = Vec::new();
    let mut name = prefix.as_ref().map(ToString::to_string).unwrap_or_default();
    found.extend(prefix.clone());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        // In a pasted reference, the repository comes before the colon or at sign.
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
    fn a_path_selects_every_repository_it_can_name() {
        let names = |source: &str, path: &str| -> Vec<String> {
            repositories_of(&Source::parse(source).unwrap(), path).iter().map(ToString::to_string).collect()
        };
        assert_eq!(names("reg.io/team", "app/web/v1"), ["team", "team/app", "team/app/web", "team/app/web/v1"]);
        assert_eq!(names("reg.io", "app:v1"), ["app"]);
        assert_eq!(names("reg.io", "app/.oci/tags"), ["app"]);
        assert_eq!(names("oci:/layout", "v1"), Vec::<String>::new());
    }
}
