//! `ocifs rm`: deletes tags; other tags of the same digest stay.

use clap::Args;
use serde::Serialize;

use crate::cli::exit::{Code, Failure};
use crate::cli::history::{self, Done};
use crate::cli::listing::holding;
use crate::cli::runtime::{blocking, until_interrupted};
use crate::cli::settings::flags::QueryFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{opened, reference};
use crate::cli::terminal::{escape, message, output, prompt};
use crate::oci::{Digest, Tag, Version};

/// Delete tags; other tags of the same digest stay
#[derive(Args, Clone, Debug)]
#[command(visible_alias = "delete")]
pub struct Rm {
    /// repository:tag or oci:DIRECTORY:tag
    #[arg(value_name = "REF", required_unless_present = "remote")]
    references: Vec<String>,

    /// Same as REF, in oci-sync's spelling
    #[arg(short, long, value_name = "REF")]
    remote: Vec<String>,

    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,

    /// Do not ask for confirmation, and ignore missing tags
    #[arg(short, long)]
    force: bool,

    /// Format and registry.
    #[command(flatten)]
    query: QueryFlags,
}

/// The output. Its keys are stable.
#[derive(Debug, Serialize)]
struct Deleted {
    reference: String,
    digest: String,
}

impl Rm {
    /// Runs the command.
    ///
    /// # Errors
    /// A tag cannot be deleted (the others still are), or the user did not confirm.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let (mut deleted, mut outcome) = (Vec::new(), Ok(()));
        for reference in self.references.iter().chain(&self.remote) {
            match self.delete(reference, &invocation) {
                Ok(found) => deleted.extend(found),
                Err(failure) if failure.code == Code::Interrupted => return Err(failure),
                // One failure does not stop the rest; the first decides the exit code.
                Err(failure) => {
                    if outcome.is_err() {
                        message::report(&failure.message);
                    } else {
                        outcome = Err(failure);
                    }
                }
            }
        }
        output::show(self.query.format, deleted.as_slice(), |deleted| {
            let line = |deleted: &Deleted| format!("deleted {}  {}", escape::terminal(&deleted.reference), deleted.digest);
            deleted.iter().map(line).collect::<Vec<_>>().join("\n")
        })?;
        outcome
    }

    fn delete(&self, text: &str, invocation: &Invocation) -> Result<Option<Deleted>, Failure> {
        let environment = &invocation.environment;
        let (source, push) = opened::to_change(text, invocation)?;
        until_interrupted(async {
            let (repository, version) = reference::named(&source, push.as_ref()).await?;
            let Version::Tag(tag) = version else {
                return Err(Failure::usage(format!("{source} has no tag; to delete a manifest, run `ocifs manifest rm`")));
            };
            let digest = match push.resolve(&repository, &Version::Tag(tag.clone())).await {
                Ok(resolved) => resolved.digest,
                Err(error) if self.force && Code::from(error.kind) == Code::NotFound => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let reference = reference::with_version(&source, &Version::Tag(tag.clone()));
            if !self.yes && !self.force {
                prompt::needs_terminal(&format!("delete {reference}"))?;
                let tags = holding::tags(push.as_ref(), &repository).await?.into_iter().filter(|other| *other != tag).collect();
                let siblings = holding::holding(push.as_ref(), &repository, tags, &digest).await?;
                confirm(&reference, &digest, &siblings, "stay").await?;
            }
            push.delete_tag(&repository, &tag, &digest).await?;
            push.tidy(&repository, &digest).await?;
            history::add(Done::now("delete", &reference, None, digest), environment);
            Ok(Some(Deleted { reference, digest: digest.to_string() }))
        })
    }
}

/// Asks before deleting a digest. `fate` says what happens to its other tags: they "stay" or "go too".
///
/// # Errors
/// The user did not confirm.
pub async fn confirm(reference: &str, digest: &Digest, siblings: &[Tag], fate: &'static str) -> Result<(), Failure> {
    let shown = escape::terminal(reference).into_owned();
    let others = siblings.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut lines = vec![format!("{shown} is {digest}")];
    if !others.is_empty() {
        lines.push(format!("tags of the same digest, which {fate}: {others}"));
    }
    blocking(move || {
        lines.iter().for_each(|line| message::report(line));
        if prompt::confirm(&format!("Delete {shown}?"))? { Ok(()) } else { Err(Failure::other(format!("{shown} was not deleted"))) }
    })
    .await
}
