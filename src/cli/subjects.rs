//! Which staged tags a path or reference means, told from their names alone.

use std::path::Path;

use crate::oci::{LayoutName, Repository, Source, Version};

/// Staged tags that a command means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of them.
    All,
    /// None.
    Nothing,
    /// Those of a registry, prefix, repository or layout, or one tag.
    Reference(Source),
    /// Those at, below or above a path of a mount of this source.
    Path(Source, String),
}

/// Whether one source shows all that another names.
pub fn covers(wide: &Source, narrow: &Source) -> bool {
    match (wide, narrow) {
        (Source::Layout { directory, name }, Source::Layout { directory: other, name: wanted }) => {
            same_directory(directory, other) && (name.is_none() || name == wanted)
        }
        (Source::Registry { registry, prefix }, Source::Registry { registry: other, prefix: repository }) => {
            registry == other && is_below(prefix.as_ref(), repository.as_ref())
        }
        (Source::Registry { registry, prefix }, Source::Artifact { registry: other, repository, .. }) => {
            registry == other && is_below(prefix.as_ref(), Some(repository))
        }
        (Source::Artifact { .. }, Source::Artifact { .. }) => wide == narrow,
        _ => false,
    }
}

/// Whether a tag, by its reference, is wanted.
pub fn is_wanted(wanted: &Wanted, reference: &str) -> bool {
    match wanted {
        Wanted::All => true,
        Wanted::Nothing => false,
        Wanted::Reference(source) => Source::parse(reference).is_ok_and(|tag| covers(source, &tag)),
        Wanted::Path(source, path) => place(source, reference).is_some_and(|place| meets(&place, path)),
    }
}

/// The rest of a path inside of a tag; empty where the whole tag is meant.
pub fn inside<'path>(wanted: &'path Wanted, reference: &str) -> &'path str {
    match wanted {
        Wanted::Path(source, path) => {
            let place = place(source, reference).unwrap_or_default();
            strip(path, &place).unwrap_or_default()
        }
        _ => "",
    }
}

/// Where a tag is in a mount of a source: the path of its directory.
fn place(source: &Source, reference: &str) -> Option<String> {
    let tag = Source::parse(reference).ok().filter(|tag| covers(source, tag))?;
    match (source, &tag) {
        (Source::Registry { prefix, .. }, Source::Artifact { repository, version: Version::Tag(tag), .. }) => {
            let below =
                prefix.as_ref().map_or(repository.as_str(), |prefix| strip(repository.as_str(), prefix.as_str()).unwrap_or_default());
            Some(if below.is_empty() { tag.to_string() } else { format!("{below}/{tag}") })
        }
        (Source::Layout { name: None, .. }, Source::Layout { name: Some(LayoutName::Name(name)), .. }) => Some(name.clone()),
        // The tag is the mount itself.
        (Source::Artifact { .. }, _) | (Source::Layout { name: Some(_), .. }, _) => Some(String::new()),
        _ => None,
    }
}

/// Whether one path lies in the other.
fn meets(one: &str, other: &str) -> bool {
    strip(one, other).is_some() || strip(other, one).is_some()
}

/// A path below another, by whole names.
fn strip<'path>(path: &'path str, above: &str) -> Option<&'path str> {
    let (path, above) = (path.trim_matches('/'), above.trim_matches('/'));
    if above.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(above)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

fn is_below(prefix: Option<&Repository>, repository: Option<&Repository>) -> bool {
    match (prefix, repository) {
        (None, _) => true,
        (Some(prefix), Some(repository)) => repository.is_within(prefix.as_str()),
        (Some(_), None) => false,
    }
}

/// A layout is the same whatever links lead to it.
fn same_directory(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::parse(text).unwrap()
    }

    #[test]
    fn a_reference_means_the_tag_or_all_below_it() {
        let wanted = |text: &str| is_wanted(&Wanted::Reference(source(text)), "reg.io/team/app:v1");
        for text in ["reg.io", "reg.io/team", "reg.io/team/app", "reg.io/team/app:v1"] {
            assert!(wanted(text), "{text}");
        }
        for text in ["reg.io/te", "reg.io/team/app/web", "reg.io/team/app:v2", "other.io", "oci:/l"] {
            assert!(!wanted(text), "{text}");
        }
        assert!(is_wanted(&Wanted::Reference(source("oci:/l")), "oci:/l:v1"));
        assert!(!is_wanted(&Wanted::Reference(source("oci:/l:v2")), "oci:/l:v1"));
        assert!(is_wanted(&Wanted::All, "anything") && !is_wanted(&Wanted::Nothing, "oci:/l:v1"));
    }

    #[test]
    fn a_path_means_the_tags_below_it_or_the_one_around_it() {
        let at = |path: &str| Wanted::Path(source("reg.io/team"), path.to_owned());
        let tag = "reg.io/team/app/web:v1";
        for path in ["", "app", "app/web", "app/web/v1", "app/web/v1/deep/file"] {
            assert!(is_wanted(&at(path), tag), "{path}");
        }
        for path in ["ap", "app/v1", "app/web/v2"] {
            assert!(!is_wanted(&at(path), tag), "{path}");
        }
        assert_eq!(inside(&at("app/web/v1/deep/file"), tag), "deep/file");
        assert_eq!((inside(&at("app/web/v1"), tag), inside(&at("app"), tag)), ("", ""));
        assert!(is_wanted(&at("v2/x"), "reg.io/team:v2"));
    }

    #[test]
    fn a_mount_of_one_tag_has_its_content_at_its_root() {
        let whole = Wanted::Path(source("reg.io/app:v1"), "etc/motd".to_owned());
        assert!(is_wanted(&whole, "reg.io/app:v1") && !is_wanted(&whole, "reg.io/app:v2"));
        assert_eq!(inside(&whole, "reg.io/app:v1"), "etc/motd");
        let layout = Wanted::Path(source("oci:/l"), "v1/a".to_owned());
        assert_eq!((is_wanted(&layout, "oci:/l:v1"), inside(&layout, "oci:/l:v1")), (true, "a"));
    }

    #[test]
    fn a_wide_source_covers_what_is_below_and_nothing_beside() {
        assert!(covers(&source("reg.io/team"), &source("reg.io/team/app")));
        assert!(!covers(&source("reg.io/team/app"), &source("reg.io/team")));
        assert!(covers(&source("reg.io/app:v1"), &source("reg.io/app:v1")));
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::fs::create_dir(directory.path().join("l")).unwrap();
        std::os::unix::fs::symlink("l", &link).unwrap();
        assert!(covers(&source(&format!("oci:{}", link.display())), &source(&format!("oci:{}/l:v1", directory.path().display()))));
    }
}
