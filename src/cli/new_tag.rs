//! `ocifs new`: stages an empty tag that `mkdir` cannot name.

use super::config::File;
use super::environment::Environment;
use super::exit::Failure;
use super::flags::New;
use super::subjects::covers;
use super::target::{Argument, Finder};
use super::{escape, mounts, output};
use crate::control::{PATIENCE, Request};
use crate::oci::{Source, Version};

/// Runs the command. Prints the directory of the tag.
///
/// # Errors
/// The reference names no tag, no mount covers it, or the tag exists.
pub fn run(flags: &New, file: &File, environment: &Environment) -> Result<(), Failure> {
    let state_directory = file.state_directory(flags.state_dir.clone(), environment)?;
    let finder = Finder { state_directory: state_directory.as_deref(), environment };
    let (mount, reference) = match finder.read(&flags.target)? {
        Argument::Path(mount, rest) => (mount, rest.to_string_lossy().into_owned()),
        Argument::Reference(source) => {
            check(&source)?;
            let mounted = |text: &str| Source::parse(text).is_ok_and(|mounted| covers(&mounted, &source));
            let covering = mounts::all()?.into_iter().find(|mount| mounted(&mount.source.to_string_lossy()));
            let shown = escape::terminal(&flags.target).into_owned();
            let missing = || Failure::mount(format!("no mount covers {shown}; `ocifs mount` the registry or a prefix of it first"));
            (covering.ok_or_else(missing)?, source.to_string())
        }
    };
    let client = mounts::client(&mount, state_directory.as_deref(), environment);
    let path = client.ask(&Request::New { reference }, PATIENCE)?;
    let path = mount.mount_point.join(path.as_str().unwrap_or_default());
    output::line(&escape::path(&path))
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
