//! `ocifs warm`: fetches artifacts, or parts of them, into the cache.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use clap::{ArgAction, Args};
use serde::Serialize;

use crate::artifact::{Artifact, Parts};
use crate::cli::exit::{Code, Failure};
use crate::cli::runtime::resumable;
use crate::cli::settings::flags::{Output, Reaching, ReadPlatform};
use crate::cli::settings::invocation::Invocation;
use crate::cli::settings::passphrases;
use crate::cli::source::resolved::Resolved;
use crate::cli::source::wiring::{self, Reading};
use crate::cli::source::{mounted, reference};
use crate::cli::terminal::bar::Bar;
use crate::cli::terminal::{escape, units};
use crate::extract::{self, Selection};
use crate::oci::Source;

/// Fetch artifacts, or files in them, into the cache before they are read
#[derive(Args, Clone, Debug)]
#[command(args_override_self = true)]
pub struct Warm {
    /// repository:tag[/path], repository@digest[/path], oci-archive:FILE:tag, or a path in a mount; the whole artifact without a path
    #[arg(value_name = "REF|PATH", required = true)]
    places: Vec<String>,

    /// Fetch only paths that match this glob, and everything below them; `**` crosses directories; repeatable
    #[arg(long = "path", value_name = "GLOB", action = ArgAction::Append)]
    paths: Vec<String>,

    /// The platform.
    #[command(flatten)]
    platform: ReadPlatform,

    /// Output.
    #[command(flatten)]
    printing: Output,

    /// How the registry is reached.
    #[command(flatten)]
    reaching: Reaching,
}

/// The output for one place. Its keys are stable.
#[derive(Serialize)]
struct Report {
    reference: String,
    /// The path in the artifact; empty for all of it.
    path: String,
    digest: String,
    /// Bytes of the selected content, now in the cache.
    bytes: u64,
}

impl Warm {
    /// Runs the command.
    ///
    /// # Errors
    /// A place does not exist, its registry cannot be read, or the cache cannot hold it. What was fetched by then stays.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        for text in &self.places {
            let report = self.warm(text, &invocation)?;
            self.printing.show(&report, summary)?;
        }
        Ok(())
    }

    /// Fetches what one place selects.
    fn warm(&self, text: &str, invocation: &Invocation) -> Result<Report, Failure> {
        let environment = &invocation.environment;
        let place = reference::place(text, environment)?;
        let mut reaching = self.reaching.clone();
        if reaching.storage.cache_dir.is_none() {
            // The cache of the mount that will read it.
            reaching.storage.cache_dir = mounted::cache_directory(text, environment)?;
        }
        reaching.storage = reaching.storage.with_directories(environment)?;
        reaching.registry = invocation.registry(reference::registry(&place.source))?;
        let passphrases = passphrases::read_all(&invocation.origins(&reaching.keys))?;
        let content = self.platform.content();
        let by_digest = reference::digest(&place.source).is_some();
        let reading = Reading { by_digest, passphrases, ..Reading::of(&content) };
        let fetched = async {
            let parts = wiring::build(&place.source, reading, &reaching.registry, &reaching.storage, environment)?;
            let (source, path) = place.in_source(parts.pull.as_ref()).await;
            let selection = self.selection(text, &path)?;
            let found = Resolved::find(&source, parts).await?;
            let (artifacts, repository, artifact) = (&found.parts.artifacts, &found.repository, found.artifact(false).await?);
            let wanted = match selection.is_everything() {
                true => artifacts.whole(repository, &artifact, false).await?,
                false => selected(&artifact, &selection, &source)?,
            };
            let done = Arc::new(AtomicU64::new(0));
            let bar = Bar::of_bytes(self.printing.quiet, "fetching", &done, wanted.length());
            artifacts.fill(repository, &artifact, &wanted, false, &done).await?;
            drop(bar);
            artifacts.flush().await;
            Ok(Report { reference: source.to_string(), path, digest: found.digest.to_string(), bytes: wanted.length() })
        };
        resumable(fetched, "what is fetched stays in the cache")
    }

    /// The files to fetch of a place: those at its path, else those that the globs match.
    fn selection(&self, text: &str, path: &str) -> Result<Selection, Failure> {
        match (path.is_empty(), self.paths.is_empty()) {
            (false, false) => {
                let shown = escape::terminal(text);
                Err(Failure::usage(format!("{shown} already names a path; leave out --path, which counts from the artifact's root")))
            }
            (false, true) => Ok(Selection::at(path.trim_end_matches('/').as_bytes())),
            (true, _) => Ok(Selection::new(&self.paths)?),
        }
    }
}

/// The content of the selected files.
fn selected(artifact: &Artifact, selection: &Selection, source: &Source) -> Result<Parts, Failure> {
    let mut nodes = Vec::new();
    extract::visit(&artifact.tree, selection, &mut |_, node| nodes.push(node));
    if nodes.is_empty() {
        let message = format!("nothing in {source} is selected; a glob matches whole paths, and `**/` any directories");
        return Err(Failure::new(Code::NotFound, message));
    }
    Ok(Parts::of_files(artifact, nodes.into_iter()))
}

fn summary(report: &Report) -> String {
    let path = if report.path.is_empty() { String::new() } else { format!(" {}", escape::terminal(&report.path)) };
    format!("{}{path} ({}): {} in the cache", escape::terminal(&report.reference), report.digest, units::show_size(report.bytes))
}
