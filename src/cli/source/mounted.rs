//! Resolves a path inside a mount to a reference: `~/oci/app/v1` is the tag at that path.
//!
//! Tags with unpublished edits are refused: a reference names published content.

use std::path::{Path, PathBuf};

use crate::cli::exit::{Code, Failure};
use crate::cli::mounts::{self, health};
use crate::cli::settings::environment::Environment;
use crate::cli::terminal::escape;
use crate::fs::Selection;
use crate::oci::{LayoutForm, Source, Tag, Version};
use crate::sys::attributes;
use crate::sys::mountinfo::Mount;

/// The extended attribute that holds the reference of a path in a mount.
const REFERENCE: &str = "user.oci.reference";

/// The reference at a path inside a mount, and the path inside its artifact, if any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The artifact, repository or prefix.
    pub source: Source,
    /// The path inside the artifact; empty for all of it.
    pub rest: String,
}

/// The mount and the path in it, if the text is such a path; `None` if it begins like a reference. In a mount, a relative path that looks
/// like a registry (`v1.0/data`) is a path, unless it is the mounted registry or has a port.
///
/// # Errors
/// The path is not in a mount.
pub fn path(text: &str, environment: &Environment) -> Result<Option<(Mount, PathBuf)>, Failure> {
    if LayoutForm::of_text(text).is_some() {
        return Ok(None);
    }
    match mounts::containing(Path::new(text), environment) {
        Ok((mount, rest)) if !begins_with_registry(text) || !means_registry(text, &mount) => Ok(Some((mount, rest))),
        Err(failure) if !begins_with_registry(text) => Err(failure),
        _ => Ok(None),
    }
}

/// Resolves a path inside a mount; `None` if the text is a reference.
///
/// # Errors
/// The path is not in a mount, the mount does not answer, or NotPushed for a tag with edits.
pub fn find(text: &str, environment: &Environment) -> Result<Option<Mounted>, Failure> {
    let (mount, below) = match path(text, environment) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        Err(_) if is_path(text) => {
            let text = escape::terminal(text);
            return Err(Failure::usage(format!("{text} is not in an ocifs mount; for a layout directory, write oci:{text}")));
        }
        Err(_) => return Ok(None),
    };
    if !mounts::is_own(&mount) {
        let shown = escape::path(&mount.mount_point);
        return Err(Failure::usage(format!("the mount on {shown} is another user's; write the reference instead of a path")));
    }
    let path = environment.absolute(Path::new(text), None)?;
    let Some(reference) = reference(&path)? else {
        // A text that leads into the mount from outside is a path; inside it may still be a reference.
        let leads_in = !std::env::current_dir().is_ok_and(|directory| directory.starts_with(&mount.mount_point));
        return if is_path(text) || leads_in { unborn(&path).map(Some) } else { Ok(None) };
    };
    let root = root(&path, &reference)?;
    let rest = path.strip_prefix(&root).unwrap_or(Path::new("")).to_string_lossy().into_owned();
    let source = Source::parse(&reference)?;
    if is_artifact(&source) {
        let depth = Path::new(&rest).components().count();
        let below: PathBuf = below.components().take(below.components().count().saturating_sub(depth)).collect();
        check_published(&mount, &below, &reference, environment)?;
    }
    Ok(Some(Mounted { source, rest }))
}

/// The cache directory of the mount that contains a path; `None` if the text is a reference.
///
/// # Errors
/// As [`path`]; also if the mount does not answer.
pub fn cache_directory(text: &str, environment: &Environment) -> Result<Option<PathBuf>, Failure> {
    let Some((mount, _)) = path(text, environment)? else { return Ok(None) };
    Ok(Some(mounts::client(&mount, None, environment).status(health::PULSE)?.cache.directory))
}

/// A tag that does not exist yet, in a repository that does.
fn unborn(path: &Path) -> Result<Mounted, Failure> {
    let missing = || Failure::new(Code::NotFound, format!("{} does not exist", escape::path(path)));
    let (Some(parent), Some(tag)) = (path.parent(), path.file_name().and_then(|name| Tag::parse(name.to_str()?).ok())) else {
        return Err(missing());
    };
    let repository = reference(parent)?.and_then(|text| Source::parse(&text).ok()).ok_or_else(missing)?;
    match &repository {
        Source::Registry { prefix: Some(_), .. } | Source::Layout { name: None, .. } => {
            Ok(Mounted { source: Source::parse(&format!("{repository}:{tag}"))?, rest: String::new() })
        }
        _ => Err(missing()),
    }
}

/// The reference of a path, from the mount; `None` if the path does not exist.
fn reference(path: &Path) -> Result<Option<String>, Failure> {
    let failed =
        |error: std::io::Error| Failure::mount(format!("cannot get the reference of {} from the mount: {error}", escape::path(path)));
    match health::look(path, |path| attributes::xattr(path, REFERENCE)) {
        Ok(Some(value)) => Ok(String::from_utf8(value).ok()),
        Ok(None) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The root directory of the artifact: the topmost one with this reference.
fn root(path: &Path, of: &str) -> Result<PathBuf, Failure> {
    let mut root = path;
    while let Some(parent) = root.parent() {
        if reference(parent)?.as_deref() != Some(of) {
            break;
        }
        root = parent;
    }
    Ok(root.to_path_buf())
}

fn is_artifact(source: &Source) -> bool {
    matches!(source, Source::Artifact { version: Version::Tag(_), .. } | Source::Layout { name: Some(_), .. })
}

/// Refuses a tag with unpublished edits.
fn check_published(mount: &Mount, below: &Path, reference: &str, environment: &Environment) -> Result<(), Failure> {
    let client = mounts::client(mount, None, environment);
    let selection = match below.as_os_str().is_empty() {
        true => Selection::All,
        false => Selection::Path(below.to_string_lossy().into_owned()),
    };
    let shown = escape::path(&mount.mount_point.join(below));
    let staged = health::staged(&client, selection).map_err(|failure| failure.context(format_args!("cannot check {shown} for edits")))?;
    if staged.iter().any(|tag| tag.reference == reference && (tag.edited || tag.writers || tag.deleted)) {
        let message =
            format!("{shown} has unpublished edits; publish them with `ocifs sync {shown}`, or use {reference} for the published content");
        return Err(Failure::new(Code::NotPushed, message));
    }
    Ok(())
}

/// Whether a text can only be a path.
fn is_path(text: &str) -> bool {
    let first = text.split('/').next().unwrap_or_default();
    text.starts_with('/') || first.starts_with('~') || first == "." || first == ".."
}

/// Whether a text begins with a registry.
fn begins_with_registry(text: &str) -> bool {
    let first = text.split('/').next().unwrap_or_default();
    !is_path(text) && (first == "localhost" || first.contains(['.', ':']))
}

/// Whether a relative path in this mount begins with a registry instead: the mounted one, or a host and port.
fn means_registry(text: &str, mount: &Mount) -> bool {
    let Some((first, _)) = text.split_once('/') else { return false };
    let mounted = mount.source.to_string_lossy();
    let has_port = first.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    has_port || mounted.split('/').next() == Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_begin_with_a_registry_and_paths_do_not() {
        for text in ["reg.io", "reg.io/team/app:v1", "localhost/app", "localhost:5000", "127.0.0.1:5000/a", "[::1]:5000/a"] {
            assert!(begins_with_registry(text), "{text}");
        }
        for text in ["oci", "app/v1", "./reg.io/x", "../reg.io", "/srv/reg.io", "~/oci", "", "."] {
            assert!(!begins_with_registry(text), "{text}");
        }
    }

    #[test]
    fn in_a_mount_only_its_own_registry_or_a_port_makes_a_reference() {
        let mount = Mount {
            id: 1,
            device: (0, 1),
            root: "/".into(),
            mount_point: "/oci".into(),
            kind: crate::sys::mount::KIND.to_owned(),
            source: "reg.io/team".into(),
            options: String::new(),
        };
        assert!(means_registry("reg.io/team/app:v1", &mount) && means_registry("localhost:5000/app", &mount));
        for text in ["v1.0", "v1.0/data", "app:v1/x", "other.io/app"] {
            assert!(!means_registry(text, &mount), "{text}");
        }
    }

    #[test]
    fn outside_mounts_paths_are_explained_and_words_are_references() {
        let (environment, folder) = (Environment::default(), tempfile::tempdir().unwrap());
        let path = folder.path().join("app").display().to_string();
        let failure = find(&path, &environment).unwrap_err();
        assert!(failure.code == Code::Usage && failure.message.contains(&format!("oci:{path}")), "{failure}");
        for text in ["alpine:3", "team/app", "reg.io/a:v1", "oci:/layout", "oci-archive:/a.tar"] {
            assert_eq!(find(text, &environment).unwrap(), None, "{text}");
        }
    }
}
