//! `ocifs new`: stages an empty tag that `mkdir` cannot name.

use std::path::Path;

use clap::ArgMatches;

use crate::cli::exit::Failure;
use crate::cli::settings::environment::Environment;
use crate::cli::settings::file::File;
use crate::cli::settings::flags::New;
use crate::cli::staged::peer::Asking;
use crate::cli::staged::target::Argument;
use crate::cli::terminal::escape;
use crate::cli::terminal::output;
use crate::oci::{Source, Version};
use crate::sys::mountinfo::Mount;

/// Runs the command. Prints the directory of the tag.
///
/// # Errors
/// The reference names no tag, no mount covers it, or the tag exists.
pub fn run(flags: New, matches: &ArgMatches, file: &File, environment: &Environment) -> Result<(), Failure> {
    let asking = Asking::new(flags.without, matches, file, environment)?;
    let finder = asking.finder();
    let (mount, source) = match finder.read(&flags.target)? {
        Argument::Path(mount, rest) => {
            let source = at_path(&mount, &rest)?;
            (Some(mount), source)
        }
        Argument::Reference(source) => (None, source),
    };
    check(&source)?;
    let reference = source.to_string();
    let missing =
        || Failure::mount(format!("no mount covers {}; `ocifs mount` the registry or a prefix of it first", escape::terminal(&reference)));
    let (mount, path) = finder.showing(mount, &reference)?.ok_or_else(missing)?;
    let mount_point = mount.mount_point.clone();
    let path = asking.ask(finder.in_mount(mount, path.into())?, async |peer| peer.new_tag(reference.clone()).await)?;
    output::line(&escape::path(&mount_point.join(path)))
}

/// The reference of the tag that a path below a mount would be: `app/v1`, or `app:v1` as references are pasted.
fn at_path(mount: &Mount, rest: &Path) -> Result<Source, Failure> {
    let (source, rest) = (mount.source.to_string_lossy(), rest.to_string_lossy());
    let reference = match rest.rsplit_once(['/', ':']) {
        Some((repository, tag)) => format!("{source}/{repository}:{tag}"),
        None => format!("{source}:{rest}"),
    };
    Ok(Source::parse(&reference)?)
}

/// A reference that says which tag it shall be.
fn check(source: &Source) -> Result<(), Failure> {
    let names_tag = match source {
        Source::Artifact { version, .. } => matches!(version, Version::Tag(_)),
        Source::Layout { name, .. } => name.as_ref().is_some_and(|name| name.tag().is_some()),
        Source::Registry { .. } => false,
    };
    if names_tag { Ok(()) } else { Err(Failure::usage(format!("{source} names no tag; write it like {source}:v1"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_has_a_tag() {
        let check = |text: &str| check(&Source::parse(text).unwrap());
        assert!(check("reg.io/a/b:v1").is_ok() && check("oci:/l:v1").is_ok());
        for text in ["reg.io", "reg.io/a/b", "oci:/l", &format!("reg.io/a@sha256:{}", "0".repeat(64))] {
            assert!(check(text).unwrap_err().message.contains("names no tag"), "{text}");
        }
    }
}
