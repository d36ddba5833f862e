//! `ocifs new`: stages an empty tag that `mkdir` cannot name.

use std::path::Path;

use clap::Args;

use crate::cli::exit::Failure;
use crate::cli::settings::flags::Reaching;
use crate::cli::settings::invocation::Invocation;
use crate::cli::staged::peer::Asking;
use crate::cli::staged::target::Argument;
use crate::cli::terminal::{escape, output};
use crate::oci::{Source, Version};
use crate::sys::mountinfo::Mount;

/// Stage an empty tag that `mkdir` cannot name
#[derive(Args, Clone, Debug)]
pub struct New {
    /// repository:tag in a mounted registry, or its future path in a mount
    #[arg(value_name = "REF")]
    target: String,

    /// Needed only for a dead mount.
    #[command(flatten)]
    reaching: Reaching,
}

impl New {
    /// Runs the command and prints the tag's directory.
    ///
    /// # Errors
    /// The reference has no tag, no mount covers it, or the tag exists.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let asking = Asking::new(self.reaching, &invocation)?;
        let finder = asking.finder();
        let (mount, source) = match finder.read(&self.target)? {
            Argument::Path(mount, rest) => {
                let source = at_path(&mount, &rest)?;
                (Some(mount), source)
            }
            Argument::Reference(source) => (None, source),
        };
        check(&source)?;
        let reference = source.to_string();
        let missing = || Failure::mount(format!("no mount covers {}; mount its registry or a prefix first", escape::terminal(&reference)));
        let (mount, path) = finder.showing(mount, &reference)?.ok_or_else(missing)?;
        let mount_point = mount.mount_point.clone();
        let path = asking.ask(finder.in_mount(mount, path.into())?, async |peer| peer.new_tag(reference.clone()).await)?;
        output::line(&escape::path(&mount_point.join(path)))
    }
}

/// The reference of a tag from its path below a mount: `app/v1`, or `app:v1` as in pasted references.
fn at_path(mount: &Mount, rest: &Path) -> Result<Source, Failure> {
    let (source, rest) = (mount.source.to_string_lossy(), rest.to_string_lossy());
    let reference = match rest.rsplit_once(['/', ':']) {
        Some((repository, tag)) => format!("{source}/{repository}:{tag}"),
        None => format!("{source}:{rest}"),
    };
    Ok(Source::parse(&reference)?)
}

/// Checks that a reference has a tag.
fn check(source: &Source) -> Result<(), Failure> {
    let names_tag = match source {
        Source::Artifact { version, .. } => matches!(version, Version::Tag(_)),
        Source::Layout { name, .. } => name.as_ref().is_some_and(|name| name.tag().is_some()),
        Source::Registry { .. } => false,
    };
    if names_tag { Ok(()) } else { Err(Failure::usage(format!("{source} has no tag; write it like {source}:v1"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_tag_needs_a_name() {
        let check = |text: &str| check(&Source::parse(text).unwrap());
        assert!(check("reg.io/a/b:v1").is_ok() && check("oci:/l:v1").is_ok());
        for text in ["reg.io", "reg.io/a/b", "oci:/l", &format!("reg.io/a@sha256:{}", "0".repeat(64))] {
            assert!(check(text).unwrap_err().message.contains("has no tag"), "{text}");
        }
    }
}
