//! `ocifs sync`: flushes the kernel's dirty pages, then publishes through the daemon, or in this process if there is none.

use std::num::NonZeroUsize;

use clap::Args;

use crate::cli::exit::{Code, Failure};
use crate::cli::settings::flags::{AsKind, Format, TagFlags};
use crate::cli::settings::invocation::Invocation;
use crate::cli::staged::peer::{Asking, Peer};
use crate::cli::staged::report;
use crate::cli::staged::target::{self, AtMount, Target};
use crate::cli::terminal::{escape, output, prompt};
use crate::oci::Tag;
use crate::publish::{Options, Report};

/// Publish staged edits: new tags, changed tags, deletions
#[derive(Args, Clone, Debug)]
pub struct Sync {
    /// Show what would happen; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Publish under this tag instead; the edits move to it
    #[arg(long = "as", value_name = "TAG", value_parser = tag, conflicts_with_all = ["theirs", "rebase"])]
    as_tag: Option<String>,

    /// Overwrite tags that moved upstream, and publish tags held back for safety
    #[arg(long, conflicts_with_all = ["theirs", "rebase"])]
    force: bool,

    /// Discard the edits of tags that moved upstream
    #[arg(long, conflicts_with = "rebase")]
    theirs: bool,

    /// Reapply the edits to the new content of tags that moved upstream
    #[arg(long)]
    rebase: bool,

    /// Allow deleting tags in the registry
    #[arg(long)]
    allow_delete: bool,

    /// Publish files of encrypted artifacts unencrypted; refused without this flag
    #[arg(long)]
    plaintext: bool,

    /// Artifact kind of new tags [default: the mount's, else files]
    #[arg(long, value_name = "KIND")]
    as_kind: Option<AsKind>,

    /// Blobs uploaded at a time [default: the mount's, else 4]
    #[arg(long, value_name = "N")]
    concurrency: Option<NonZeroUsize>,

    /// Also publish files ignored by default (editor and system temporary files) or by `.ocifsignore`
    #[arg(long)]
    no_ignore: bool,

    /// Do not ask before deleting tags in the registry; without a terminal it never asks
    #[arg(short, long)]
    yes: bool,

    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// The tags.
    #[command(flatten)]
    tags: TagFlags,
}

impl Sync {
    /// Runs the command.
    ///
    /// # Errors
    /// At least one tag was not published; the exit code tells why.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let options = options(&self);
        let asking = Asking::new(self.tags.reaching, &invocation)?;
        let target = asking.finder().find(self.tags.target.as_deref())?;
        let passphrases = if matches!(target, Target::Mount(_)) { asking.passphrases()? } else { Vec::new() };
        let unknown = target.unknown_reference();
        let is_asked = !self.yes && !options.dry_run && prompt::has_terminal();
        let done = asking.ask(target, async |peer| {
            if is_asked {
                confirm_deletions(peer).await?;
            }
            peer.sync(&options, passphrases).await
        })?;
        if let Some(reference) = unknown.filter(|_| done.is_empty()) {
            target::note_unknown(&reference);
        }
        print(&done, options.dry_run, self.format)?;
        report::outcome(&done)
    }
}

/// Asks before tags are deleted in the registry.
async fn confirm_deletions(peer: &Peer) -> Result<(), Failure> {
    let staged = peer.staged().await?;
    let deleted: Vec<_> = staged.iter().filter(|tag| tag.deleted).map(|tag| escape::terminal(&tag.reference)).collect();
    if deleted.is_empty() || prompt::confirm(&format!("Delete {} in the registry?", deleted.join(", ")))? {
        return Ok(());
    }
    Err(Failure::new(Code::NotPushed, "nothing was published; to restore the tags, run `ocifs discard`"))
}

fn options(flags: &Sync) -> Options {
    Options {
        dry_run: flags.dry_run,
        as_tag: flags.as_tag.clone(),
        force: flags.force,
        theirs: flags.theirs,
        rebase: flags.rebase,
        allow_delete: flags.allow_delete,
        as_kind: flags.as_kind.map(Into::into),
        concurrency: flags.concurrency,
        no_ignore: flags.no_ignore,
        plaintext: flags.plaintext,
    }
}

/// Publishes through the daemon of a mount, with progress.
///
/// # Errors
/// The daemon cannot be reached. Tags that failed are in the reports.
pub async fn at_mount(target: AtMount, options: Options) -> Result<Vec<Report>, Failure> {
    Peer::Daemon(Box::new(target)).sync(&options, Vec::new()).await
}

/// Prints the outcome of each tag.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(reports: &[Report], dry_run: bool, format: Format) -> Result<(), Failure> {
    match format {
        format @ (Format::Json | Format::Yaml) => output::data(format, &reports.iter().map(report::Row::from).collect::<Vec<_>>()),
        Format::Text if reports.is_empty() => output::line("nothing is staged"),
        Format::Text => reports.iter().filter_map(|report| report::line(report, dry_run)).try_for_each(|line| output::line(&line)),
    }
}

fn tag(text: &str) -> Result<String, String> {
    Tag::parse(text).map(|tag| tag.to_string()).map_err(|error| error.to_string())
}
