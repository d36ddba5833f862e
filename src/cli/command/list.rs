//! `ocifs list`: lists oci-sync artifacts with oci-sync's columns and keys.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use crate::cli::exit::Failure;
use crate::cli::listing::labels::LabelCondition;
use crate::cli::listing::tags::{self, Name, Row};
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::{ContentFlags, Format, RegistryFlags, Storage};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::reference;
use crate::cli::source::wiring::{self, Parts, Reading};
use crate::cli::terminal::{escape, output, units};
use crate::oci::{Repository, Source};
use crate::registry::Layout;

/// Characters of a digest shown in the table.
const DIGEST: usize = 32;

/// List oci-sync artifacts of a repository or of a whole registry, as `oci-sync list` does
#[derive(Args, Clone, Debug)]
pub struct List {
    /// registry, registry/repository, oci:DIRECTORY or oci-archive:FILE
    #[arg(value_name = "REG|REPO", required_unless_present = "remote", conflicts_with = "remote")]
    place: Option<String>,

    /// Same as PLACE, in oci-sync's spelling
    #[arg(short, long, value_name = "REG|REPO")]
    remote: Option<String>,

    /// Only artifacts with this label, KEY or KEY=VALUE; repeatable, all must match
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<LabelCondition>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    format: Format,

    /// The cache.
    #[command(flatten)]
    storage: Storage,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

/// One artifact. The keys are oci-sync's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    full_name: String,
    repo: String,
    tag: String,
    digest: String,
    encrypted: bool,
    version: String,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

impl List {
    /// Runs the command.
    ///
    /// # Errors
    /// The tags cannot be listed, or some artifacts cannot be read; the others are shown.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let source = reference::parse(self.place.as_ref().or(self.remote.as_ref()).map_or("", String::as_str), environment)?;
        let storage = self.storage.clone().for_command(environment)?;
        let registry = invocation.registry(reference::registry(&source))?;
        let content = ContentFlags::default();
        let reading = Reading::of(&content);
        until_interrupted(async {
            let parts = wiring::build(&source, reading, &registry, &storage, environment)?;
            let repositories = repositories(&source, &parts).await?;
            let (mut found, mut outcome) = (Vec::new(), Ok(()));
            for repository in repositories {
                // One failing repository must not hide the others.
                let added = self.add(&source, &parts, &repository, &mut found).await;
                outcome = outcome.and(added);
            }
            parts.artifacts.flush().await;
            output::show(self.format, found.as_slice(), text)?;
            outcome
        })
    }

    async fn add(&self, source: &Source, parts: &Parts, repository: &Repository, found: &mut Vec<Artifact>) -> Result<(), Failure> {
        let listed = match parts.artifacts.tags(repository).await {
            Ok(listed) => listed,
            Err(error) => return Err(reference::no_repository(source, parts.pull.as_ref(), error.into()).await),
        };
        let names: Vec<Name> = listed.names.iter().map(|tag| (tag.clone(), None)).collect();
        let mut rows = tags::rows(&parts.artifacts, repository, &names, &self.labels).await;
        let place = match source {
            Source::Layout { place, .. } => place.to_string(),
            Source::Registry { registry, .. } | Source::Artifact { registry, .. } => format!("{registry}/{repository}"),
        };
        found.extend(std::mem::take(&mut rows.rows).into_iter().filter_map(|row| artifact(&place, repository, row)));
        rows.complain(&place)
    }
}

/// The repositories to list.
async fn repositories(source: &Source, parts: &Parts) -> Result<Vec<Repository>, Failure> {
    match source {
        Source::Layout { name: None, .. } => Ok(vec![Layout::repository()?]),
        Source::Registry { prefix: Some(repository), .. } => Ok(vec![repository.clone()]),
        Source::Registry { prefix: None, registry } => {
            let listed = parts.artifacts.repositories().await?;
            if !listed.complete && listed.names.is_empty() {
                return Err(Failure::other(format!("{registry} does not list its repositories; name one, like {registry}/app")));
            }
            Ok(listed.names.iter().filter_map(|name| Repository::parse(name).ok()).collect())
        }
        Source::Artifact { .. } | Source::Layout { .. } => {
            Err(Failure::usage(format!("{source} is a single artifact; name a repository, or run `ocifs inspect {source}`")))
        }
    }
}

fn artifact(place: &str, repository: &Repository, row: Row) -> Option<Artifact> {
    Some(Artifact {
        full_name: format!("{place}:{}", row.tag),
        repo: repository.to_string(),
        version: row.version?,
        tag: row.tag,
        digest: row.digest,
        encrypted: row.encrypted,
        size: row.first_layer,
        labels: row.labels,
    })
}

fn text(found: &[Artifact]) -> String {
    let rows = found.iter().map(|artifact| {
        vec![
            artifact.repo.clone(),
            artifact.tag.clone(),
            tags::yes_or_no(artifact.encrypted).to_owned(),
            escape::terminal(&artifact.version).into_owned(),
            units::show_size(artifact.size),
            format!("{}...", artifact.digest.get(..DIGEST).unwrap_or(&artifact.digest)),
            tags::shown(&artifact.labels),
        ]
    });
    let table = match found.is_empty() {
        true => String::new(),
        false => output::table(&["repo", "tag", "encrypted", "version", "size", "digest", "labels"], rows.collect()) + "\n\n",
    };
    format!("{table}Total: {} artifact(s)", found.len())
}
