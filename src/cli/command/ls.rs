//! `ocifs ls`: lists repositories of a registry, tags of a repository, or files of an artifact.

use clap::Args;
use serde::Serialize;

use crate::artifact::{Artifact, Listing, ViewMode};
use crate::cli::exit::{Code, Failure};
use crate::cli::listing::labels::LabelCondition;
use crate::cli::listing::tags::{self, Name, Row, Rows};
use crate::cli::listing::tree::{self, Walk};
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::{ContentFlags, Format, Reaching, ReadPlatform, View};
use crate::cli::settings::invocation::Invocation;
use crate::cli::settings::passphrases;
use crate::cli::source::wiring::{self, Parts, Reading};
use crate::cli::source::{reference, root};
use crate::cli::terminal::{escape, output};
use crate::error::ErrorKind;
use crate::oci::{Repository, Source};
use crate::registry::Layout;
use crate::view::Entry;

/// List repositories of a registry, tags of a repository, or files of an artifact
#[derive(Args, Clone, Debug)]
pub struct Ls {
    /// registry, registry/prefix, registry/repository, oci:DIRECTORY, oci-archive:FILE, or an artifact like registry/repository:tag[/path]
    #[arg(value_name = "REG|REPO|REF")]
    place: String,

    /// Show mode, owner, size and time of files; full digests of tags
    #[arg(short, long)]
    long: bool,

    /// List directories of an artifact recursively
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Only tags with this label, KEY or KEY=VALUE; repeatable, all must match
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<LabelCondition>,

    /// The platform.
    #[command(flatten)]
    platform: ReadPlatform,

    /// How to show the artifact: merged as its kind implies, one directory per layer, or one file per blob [default: merged]
    #[arg(long, value_name = "VIEW", env = "OCIFS_VIEW", hide_env = true)]
    view: Option<View>,

    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// How the registry is reached.
    #[command(flatten)]
    reaching: Reaching,
}

/// The output for a registry, a prefix or a repository. Its keys are stable.
#[derive(Debug, Serialize)]
struct ListReport {
    reference: String,
    /// False if the registry does not list everything.
    complete: bool,
    /// Repository names, without the registry.
    repositories: Vec<String>,
    tags: Vec<Row>,
}

/// The output for an artifact. Its keys are stable.
#[derive(Debug, Serialize)]
struct Files {
    reference: String,
    digest: String,
    kind: &'static str,
    entries: Vec<Entry>,
}

impl Ls {
    /// Runs the command.
    ///
    /// # Errors
    /// Nothing has this name, or it cannot be read.
    pub fn run(mut self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let place = reference::place(&self.place, environment)?;
        self.reaching.storage = std::mem::take(&mut self.reaching.storage).for_command(environment)?;
        self.reaching.registry = invocation.registry(reference::registry(&place.source))?;
        let passphrases = passphrases::read_all(&invocation.origins(&self.reaching.keys))?;
        let content = ContentFlags { view: self.view, ..self.platform.content() };
        let by_digest = reference::digest(&place.source).is_some();
        let reading = Reading { by_digest, passphrases, ..Reading::of(&content) };
        until_interrupted(async {
            let parts = wiring::build(&place.source, reading, &self.reaching.registry, &self.reaching.storage, environment)?;
            let (source, path) = place.in_source(parts.pull.as_ref()).await;
            let shown = match &source {
                Source::Registry { .. } | Source::Layout { name: None, .. } => self.names(&source, &parts).await,
                Source::Artifact { .. } | Source::Layout { .. } => self.files(&source, &path, &parts).await,
            };
            parts.artifacts.flush().await;
            shown
        })
    }

    async fn names(&self, source: &Source, parts: &Parts) -> Result<(), Failure> {
        let repository = match source {
            Source::Registry { prefix, .. } => prefix.clone(),
            _ => Some(Layout::repository()?),
        };
        let (tags, below) = tokio::join!(tags_of(parts, repository.as_ref()), repositories_below(source, parts, repository.as_ref()));
        let (listed, below) = match (tags, below) {
            (Ok(tags), Ok(below)) => (tags, below),
            // Show the tags even if the repositories cannot be listed.
            (Ok(Some(tags)), Err(error)) => {
                tracing::info!("cannot list the repositories below {source}: {error}");
                (Some(tags), Listing { names: [].into(), complete: false })
            }
            (Err(error), _) | (Ok(None), Err(error)) => return Err(error),
        };
        let is_empty_registry = repository.is_none() && below.complete;
        if listed.is_none() && below.names.is_empty() && !is_empty_registry {
            return Err(nothing(source, parts, below.complete).await);
        }
        let mut found = Rows::default();
        if let (Some(tags), Some(repository)) = (&listed, &repository) {
            let odd = parts.artifacts.odd_names(repository).await?;
            let odd = odd.iter().map(|(name, manifest)| (name.clone(), Some(manifest.digest)));
            let names: Vec<Name> = tags.names.iter().map(|tag| (tag.clone(), None)).chain(odd).collect();
            found = tags::rows(&parts.artifacts, repository, &names, &self.labels).await;
        }
        let complete = below.complete && listed.is_none_or(|tags| tags.complete);
        let names = ListReport {
            reference: source.to_string(),
            complete,
            repositories: below.names.to_vec(),
            tags: std::mem::take(&mut found.rows),
        };
        output::show(self.format, &names, |names| self.text(source, names))?;
        found.complain(&source.to_string())
    }

    fn text(&self, source: &Source, names: &ListReport) -> String {
        let registry = reference::registry(source).map(|registry| format!("{registry}/")).unwrap_or_default();
        let repositories: Vec<String> = names.repositories.iter().map(|name| format!("{registry}{name}")).collect();
        let parts = [tags::table(&names.tags, self.long), repositories.join("\n")];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n\n")
    }

    async fn files(&self, source: &Source, path: &str, parts: &Parts) -> Result<(), Failure> {
        let (repository, version) = reference::named(source, parts.pull.as_ref()).await?;
        let digest = parts.artifacts.digest(&repository, &version).await?;
        let view: ViewMode = parts.artifacts.options().view;
        let artifact = parts.artifacts.artifact(&repository, &digest, view, false).await?;
        self.print(source, path, &artifact)
    }

    fn print(&self, source: &Source, path: &str, artifact: &Artifact) -> Result<(), Failure> {
        let defaults = root::defaults(std::time::Duration::ZERO);
        let failed = |failure: Failure| failure.context(escape::terminal(&source.to_string()));
        let walk = Walk::new(&artifact.tree, &defaults, path, self.recursive).map_err(failed)?;
        if self.format == Format::Text {
            return output::lines(walk.map(|entry| tree::line(&entry, self.long)));
        }
        let files = Files {
            reference: source.to_string(),
            digest: artifact.manifest.digest.to_string(),
            kind: artifact.dialect.name(),
            entries: walk.collect(),
        };
        output::data(self.format, &files)
    }
}

/// The tags of a repository; `None` if the repository does not exist.
async fn tags_of(parts: &Parts, repository: Option<&Repository>) -> Result<Option<Listing>, Failure> {
    let Some(repository) = repository else { return Ok(None) };
    match parts.artifacts.tags(repository).await {
        Ok(listing) => Ok(Some(listing)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The repositories below a registry or prefix, excluding the prefix itself.
async fn repositories_below(source: &Source, parts: &Parts, prefix: Option<&Repository>) -> Result<Listing, Failure> {
    if matches!(source, Source::Layout { .. }) {
        return Ok(Listing { names: [].into(), complete: true });
    }
    let listing = parts.artifacts.repositories().await?;
    Ok(Listing { names: listing.below(prefix).map(str::to_owned).collect(), complete: listing.complete })
}

async fn nothing(source: &Source, parts: &Parts, is_listed: bool) -> Failure {
    let why = match (source, is_listed) {
        (Source::Registry { prefix: None, registry }, _) => {
            let message = format!("{registry} does not list its repositories; name one, like {registry}/app");
            return Failure::other(message);
        }
        (_, true) => format!("{source} is neither a repository nor a prefix of one"),
        (_, false) => format!("no repository {source}, and the registry does not list repositories below it"),
    };
    reference::no_repository(source, parts.pull.as_ref(), Failure::new(Code::NotFound, why)).await
}
