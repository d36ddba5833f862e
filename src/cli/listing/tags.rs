//! The tags of a repository with facts from their manifests. Fetches no layer.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::labels::{self, LabelCondition};
use crate::artifact::Artifacts;
use crate::cli::exit::{Code, Failure};
use crate::cli::terminal::{escape, message, output, units};
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Repository, Tag};

/// Manifests fetched at once.
const AT_ONCE: usize = 8;
/// Annotation with an artifact's creation time.
const CREATED: &str = "org.opencontainers.image.created";
/// Annotation with the oci-sync version.
const VERSION: &str = "io.oci-sync.version";

/// One tag. Its keys are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The tag.
    pub tag: String,
    /// The digest it points to.
    pub digest: String,
    /// Media type of the manifest.
    pub media_type: String,
    /// Artifact type.
    pub artifact_type: Option<String>,
    /// The dialect.
    pub kind: &'static str,
    /// Whether reading it needs a key.
    pub encrypted: bool,
    /// Total size of the layers as stored, in bytes; for an index, of the platform that would be shown.
    pub size: u64,
    /// Creation time, as RFC 3339.
    pub created: Option<String>,
    /// Annotations set by users.
    pub labels: BTreeMap<String, String>,
    /// The same as `created`, in seconds since 1970.
    #[serde(skip)]
    pub seconds: Option<i64>,
    /// Version of oci-sync that wrote it.
    #[serde(skip)]
    pub version: Option<String>,
    /// Size of the first layer, in bytes.
    #[serde(skip)]
    pub first_layer: u64,
}

/// The readable rows and the unreadable tags.
#[derive(Debug, Default)]
pub struct Rows {
    /// Sorted by name.
    pub rows: Vec<Row>,
    failed: Vec<(String, Error)>,
}

impl Rows {
    /// Warns about the tags that could not be read. The others are shown anyway.
    ///
    /// # Errors
    /// The number of unreadable tags, with the exit code of the first.
    pub fn complain(self, repository: &str) -> Result<(), Failure> {
        for (tag, error) in &self.failed {
            message::warn(&format!("{repository}:{tag}: {}", error.message));
        }
        match self.failed.first() {
            None => Ok(()),
            Some((_, first)) => {
                let (failed, all) = (self.failed.len(), self.failed.len() + self.rows.len());
                Err(Failure::new(Code::from(first.kind), format!("{failed} of {all} tags of {repository} cannot be read")))
            }
        }
    }
}

/// The subject of a row: a tag, or another layout name with its digest.
pub type Name = (String, Option<Digest>);

/// The rows of these names whose labels match.
pub async fn rows(artifacts: &Artifacts, repository: &Repository, names: &[Name], wanted: &[LabelCondition]) -> Rows {
    let mut found = Rows::default();
    let reading = names.iter().map(|name| async move { (&name.0, row(artifacts, repository, name).await) });
    let mut reading = stream::iter(reading).buffered(AT_ONCE);
    while let Some((name, row)) = reading.next().await {
        match row {
            Ok(row) if wanted.iter().all(|wanted| wanted.holds(&row.labels)) => found.rows.push(row),
            Ok(_) => {}
            // Deleted since the list was made.
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => found.failed.push((name.clone(), error)),
        }
    }
    found
}

async fn row(artifacts: &Artifacts, repository: &Repository, (name, digest): &Name) -> Result<Row, Error> {
    let digest = match digest {
        Some(digest) => *digest,
        None => {
            let tag = Tag::parse(name).map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
            artifacts.tag(repository, &tag).await?
        }
    };
    let description = artifacts.describe(repository, &digest).await?;
    let seconds = artifacts.created(repository, &description).await?;
    let manifest = &description.manifest;
    Ok(Row {
        tag: name.clone(),
        digest: digest.to_string(),
        media_type: manifest.media_type.clone(),
        artifact_type: description.shown.artifact_type().map(str::to_owned),
        kind: description.dialect.name(),
        encrypted: description.is_encrypted(),
        size: description.size(),
        created: seconds.map(units::show_time),
        labels: labels::of(manifest),
        seconds,
        version: manifest.annotations().get(VERSION).cloned(),
        first_layer: manifest.image().and_then(|image| image.layers.first()).map_or(0, |layer| layer.size),
    })
}

/// The table of rows; with `long`, with full digests and media types.
pub fn table(rows: &[Row], long: bool) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let cells = rows.iter().map(|row| {
        let age = row.seconds.map(|seconds| units::show_duration(now.saturating_sub(seconds.max(0).unsigned_abs())));
        let digest = if long { row.digest.clone() } else { short(&row.digest) };
        let mut cells = vec![
            escape::terminal(&row.tag).into_owned(),
            digest,
            units::show_size(row.size),
            row.kind.to_owned(),
            age.unwrap_or_else(|| "-".to_owned()),
            yes_or_no(row.encrypted).to_owned(),
        ];
        cells.extend(long.then(|| escape::terminal(row.artifact_type.as_ref().unwrap_or(&row.media_type)).into_owned()));
        // The age column shows it.
        cells.push(shown(row.labels.iter().filter(|(key, _)| *key != CREATED)));
        cells
    });
    let mut header = vec!["tag", "digest", "size", "kind", "age", "encrypted"];
    header.extend(long.then_some("type"));
    header.push("labels");
    output::table(&header, cells.collect())
}

/// Labels as `key=value`, separated by commas, escaped.
pub fn shown<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let pairs: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    escape::terminal(&pairs.join(",")).into_owned()
}

/// A boolean for the text format.
pub fn yes_or_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// The start of a digest, long enough to tell artifacts apart.
fn short(digest: &str) -> String {
    digest.split(':').nth(1).unwrap_or(digest).chars().take(12).collect()
}
