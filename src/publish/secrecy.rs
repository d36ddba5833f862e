//! Guards against publishing encrypted content unencrypted.
//!
//! Decided by content: a file counts as secret if an encrypted artifact opened here contains its bytes, unless the repository already has them
//! unencrypted.

use super::ArtifactKind;
use super::flow::{Baseline, Publish};
use super::plan::survey::{Secret, Survey};
use crate::artifact::{Artifact, Artifacts, Secrets, ViewMode};
use crate::error::{Error, ErrorKind};
use crate::oci::Repository;
use crate::path::show;

/// Most files named in a refusal.
const NAMED: usize = 3;

/// The files that must not be published unencrypted in a repository.
pub(super) async fn secrets(artifacts: &Artifacts, repository: &Repository) -> Secrets {
    let mut repositories = artifacts.seen_repositories();
    if !repositories.contains(repository) {
        repositories.push(repository.clone());
    }
    artifacts.secrets(&repositories).await
}

/// Refuses to publish secret files unencrypted, except those that an unencrypted artifact of the repository contains.
///
/// # Errors
/// KeyMissing, naming the first files.
pub(super) async fn refuse(artifacts: &Artifacts, repository: &Repository, mut secret: Vec<&Secret>) -> Result<(), Error> {
    for manifest in artifacts.known_artifacts(repository).await {
        if secret.is_empty() {
            return Ok(());
        }
        match artifacts.artifact(repository, &manifest.digest, ViewMode::Merged, false).await {
            Ok(artifact) if !artifact.is_encrypted() => drop_known(&artifact, &mut secret),
            Ok(_) => {}
            Err(error) => tracing::debug!("ignoring files of {}: {error}", manifest.digest),
        }
    }
    let Some(first) = secret.first() else { return Ok(()) };
    let names: Vec<String> = secret.iter().take(NAMED).map(|secret| format!("`{}`", show(&secret.path))).collect();
    let more = secret.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Error::new(
        ErrorKind::KeyMissing,
        format!(
            "{}{more} would become public: {} is encrypted and holds the same content. Nothing was published and all edits are kept. \
             Choose: --as-kind oci-sync with a passphrase encrypts a new tag, --plaintext publishes it unencrypted",
            names.join(", "),
            first.holder
        ),
    ))
}

impl Publish<'_> {
    /// The files that must not be published unencrypted; empty if that was requested.
    pub(super) async fn secrets(&self) -> Secrets {
        match self.options.plaintext {
            true => Secrets::default(),
            false => secrets(&self.publisher.context.artifacts, &self.repository).await,
        }
    }

    /// Refuses to publish secret files unencrypted.
    ///
    /// # Errors
    /// Those of [`refuse`].
    pub(super) async fn keep_secret(&self, baseline: &Baseline, survey: &Survey) -> Result<(), Error> {
        if survey.secret.is_empty() || self.becomes_encrypted(baseline).await? {
            return Ok(());
        }
        let mut secret: Vec<&Secret> = survey.secret.iter().collect();
        if let Some(base) = baseline.base.as_ref().filter(|base| !base.is_encrypted()) {
            drop_known(base, &mut secret);
        }
        refuse(&self.publisher.context.artifacts, &self.repository, secret).await
    }

    async fn becomes_encrypted(&self, baseline: &Baseline) -> Result<bool, Error> {
        match &baseline.base {
            Some(base) => Ok(base.is_encrypted()),
            None if self.options.as_kind.unwrap_or(self.publisher.kind) == ArtifactKind::OciSync => {
                Ok(self.publisher.context.artifacts.seal_key(None, &[0; 32]).await?.is_some())
            }
            None => Ok(false),
        }
    }
}

/// Drops files whose content an unencrypted artifact contains.
fn drop_known(artifact: &Artifact, secret: &mut Vec<&Secret>) {
    let mut known = std::collections::HashSet::new();
    artifact.tree.walk(&mut |_, node| known.extend(artifact.tree.content(node).and_then(|content| content.sha256)));
    secret.retain(|secret| !known.contains(&secret.sha256));
}
