//! `ocifs discard`: lists staged edits, asks, then drops them.

use clap::Args;

use crate::cli::exit::Failure;
use crate::cli::runtime::{EDITS_ARE_KEPT, blocking, resumable};
use crate::cli::settings::flags::TagFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::staged::peer::{Asking, Peer};
use crate::cli::staged::summary;
use crate::cli::staged::target::{self, AtMount};
use crate::cli::terminal::{escape, message, output, prompt};

/// Discard staged edits
#[derive(Args, Clone, Debug)]
pub struct Discard {
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,

    /// The tags.
    #[command(flatten)]
    tags: TagFlags,
}

impl Discard {
    /// Runs the command.
    ///
    /// # Errors
    /// The user did not confirm, or a tag is in use.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let asking = Asking::new(self.tags.reaching, &invocation)?;
        let target = asking.finder().find(self.tags.target.as_deref())?;
        let unknown = target.unknown_reference();
        let references = asking.ask(target, async |peer| discard(peer, self.yes).await)?;
        if references.is_empty() {
            unknown.as_deref().iter().for_each(|reference| target::note_unknown(reference));
            return output::line("nothing is staged");
        }
        references.iter().try_for_each(|reference| report(reference))
    }
}

/// Prints that the edits of a tag were discarded.
///
/// # Errors
/// Standard output cannot be written.
pub fn report(reference: &str) -> Result<(), Failure> {
    output::line(&format!("discarded the edits of {}", escape::terminal(reference)))
}

/// Discards edits of a mount and returns the references of their tags.
///
/// # Errors
/// As [`Discard::run`].
pub fn at_mount(target: AtMount, yes: bool) -> Result<Vec<String>, Failure> {
    resumable(discard(&Peer::Daemon(Box::new(target)), yes), EDITS_ARE_KEPT)
}

async fn discard(peer: &Peer, yes: bool) -> Result<Vec<String>, Failure> {
    if !yes {
        let tags = peer.staged().await?;
        if tags.is_empty() {
            return Ok(Vec::new());
        }
        let lines: Vec<String> =
            tags.iter().map(|tag| format!("{} ({})", escape::terminal(&tag.reference), summary::summary(tag))).collect();
        let below =
            peer.path().filter(|below| !below.is_empty()).map(|below| format!(" at {}", escape::terminal(below))).unwrap_or_default();
        let what = format!("permanently discard the edits of {}", summary::count(lines.len()));
        blocking(move || {
            prompt::needs_terminal(&what)?;
            lines.iter().for_each(|line| message::report(line));
            let is_sure = prompt::confirm(&format!("Discard these edits{below} permanently?"))?;
            if is_sure { Ok(()) } else { Err(Failure::other("nothing was discarded")) }
        })
        .await?;
    }
    peer.discard().await
}
