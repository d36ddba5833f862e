//! Which tags a command selects: all, those at a path below the mount, or those of a reference. Decided by their names alone.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::staged_tags::StagedTags;
use super::tag_table::{StagedView, TagName};
use super::{Lookup, ROOT, Root};
use crate::error::{Error, ErrorKind};
use crate::oci::{LayoutName, Repository, Source, Tag, Version};
use crate::path;
use crate::staging::TagKey;
use crate::view::Authority;

/// The staged tags that a command selects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// All of this mount.
    #[default]
    All,
    /// Those at or below a path below the mount, or the tag that contains it; `/` between names.
    Path(String),
    /// The tag with this reference, or all of the layout, registry, prefix or repository.
    Reference(String),
}

/// The tags that a mount shows, and where.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The root of the mount.
    pub root: &'a Root,
    /// The registry or layout.
    pub authority: &'a Authority,
}

impl Scope<'_> {
    /// The reference of a tag.
    pub fn reference(&self, (repository, tag): &TagName) -> String {
        format!("{}:{tag}", self.authority.reference(Some(repository)))
    }

    /// Where a tag is below the mount; empty for the mount itself.
    pub fn path(&self, (repository, tag): &TagName) -> String {
        match self.root {
            Root::Content(..) => String::new(),
            Root::Layout(_) => tag.to_string(),
            Root::Prefix(prefix) => {
                let prefix = prefix.as_ref().map_or("", Repository::as_str);
                let below = path::below(repository.as_str().as_bytes(), prefix.as_bytes()).unwrap_or_default();
                String::from_utf8_lossy(&path::join(below, tag.as_str().as_bytes())).into_owned()
            }
        }
    }

    /// Whether a tag belongs to this mount.
    pub fn covers(&self, (repository, tag): &TagName) -> bool {
        match self.root {
            Root::Prefix(prefix) => is_within(Some(repository), prefix.as_ref()),
            Root::Layout(layout) => repository == layout,
            Root::Content(of, Version::Tag(shown)) => repository == of && tag == shown,
            Root::Content(_, Version::Digest(_)) => false,
        }
    }

    /// The selected part of a tag: a path in it, empty for all of it; `None` if the tag is not selected.
    pub fn part(&self, selection: &Selection, name: &TagName) -> Option<Vec<u8>> {
        match selection {
            Selection::All => Some(Vec::new()),
            Selection::Path(path) => {
                let (path, place) = (path::typed(path), self.path(name).into_bytes());
                let whole = path::is_within(&place, &path).then(Vec::new);
                whole.or_else(|| path::below(&path, &place).map(<[u8]>::to_vec))
            }
            Selection::Reference(reference) => {
                let named = Source::parse(reference).is_ok_and(|source| self.is_of(&source) && names(&source, name));
                named.then(Vec::new)
            }
        }
    }

    /// Whether a tag of a registry or layout, given as the start of references, is shown here.
    pub fn covers_in(&self, authority: &str, name: &TagName) -> bool {
        let source = Source::parse(authority).or_else(|_| Source::parse(&format!("{authority}/")));
        source.is_ok_and(|source| self.is_of(&source)) && self.covers(name)
    }

    /// Whether a reference belongs to this mount, or contains the mount.
    pub fn overlaps(&self, reference: &str) -> bool {
        let Ok(source) = Source::parse(reference) else { return false };
        let shown = match self.root {
            Root::Prefix(prefix) => prefix.as_ref(),
            Root::Layout(repository) | Root::Content(repository, _) => Some(repository),
        };
        self.is_of(&source)
            && match &source {
                Source::Registry { prefix, .. } => is_within(prefix.as_ref(), shown) || is_within(shown, prefix.as_ref()),
                Source::Layout { name: None, .. } => true,
                named => tag_name(named, shown).is_some_and(|name| self.covers(&name)),
            }
    }

    /// Whether a source is in the registry or layout of this mount.
    fn is_of(&self, source: &Source) -> bool {
        match (source, self.authority) {
            (Source::Registry { registry, .. } | Source::Artifact { registry, .. }, Authority::Registry(own)) => registry.as_str() == own,
            (Source::Layout { place, .. }, Authority::Layout(own)) => {
                own.strip_prefix(place.form.scheme()).is_some_and(|own| is_same_place(&place.path, Path::new(own)))
            }
            _ => false,
        }
    }

    /// The tag of a reference, if it belongs to this registry or layout.
    pub fn tag(&self, reference: &str) -> Option<TagName> {
        let source = Source::parse(reference).ok().filter(|source| self.is_of(source))?;
        let layout = match self.root {
            Root::Layout(repository) | Root::Content(repository, _) => Some(repository),
            Root::Prefix(_) => None,
        };
        tag_name(&source, layout)
    }
}

/// The tag whose edits an upper holds; `None` if its names are invalid. The directory of a tag that moved during
/// edits has a name of its own.
pub fn tag_of(tag_key: &TagKey) -> Option<TagName> {
    let tag = tag_key.tag.split('@').next().unwrap_or_default();
    Some((Repository::parse(&tag_key.repository).ok()?, Tag::parse(tag).ok()?))
}

/// Whether a source in the right registry or layout is a tag or contains it.
fn names(source: &Source, name: &TagName) -> bool {
    match source {
        Source::Registry { prefix, .. } => is_within(Some(&name.0), prefix.as_ref()),
        Source::Layout { name: None, .. } => true,
        named => tag_name(named, Some(&name.0)).is_some_and(|named| named == *name),
    }
}

/// The tag of a source. `layout` is the placeholder repository of a layout.
fn tag_name(source: &Source, layout: Option<&Repository>) -> Option<TagName> {
    match source {
        Source::Artifact { repository, version: Version::Tag(tag), .. } => Some((repository.clone(), tag.clone())),
        Source::Layout { name: Some(name @ LayoutName::Name(_)), .. } => Some((layout?.clone(), name.tag()?)),
        _ => None,
    }
}

fn is_within(repository: Option<&Repository>, prefix: Option<&Repository>) -> bool {
    prefix.is_none_or(|prefix| repository.is_some_and(|repository| repository.is_within(prefix.as_str())))
}

/// Compares layouts by location, through any links.
fn is_same_place(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().ok().zip(other.canonicalize().ok()).is_some_and(|(one, other)| one == other)
}

/// One staged tag that was selected.
pub(super) struct Selected {
    pub name: TagName,
    /// Its edits, or why they are unreadable.
    pub staged: Result<StagedView, String>,
    /// The selected path in the tag; all of it if empty.
    pub part: Vec<u8>,
}

impl StagedTags {
    /// The registry, repository or artifact that this mount shows.
    pub(super) fn scope(&self) -> Scope<'_> {
        Scope { root: &self.namespace.config.root, authority: &self.namespace.context.authority }
    }

    /// The reference of a tag.
    pub(super) fn reference(&self, name: &TagName) -> String {
        self.scope().reference(name)
    }

    /// The selected staged tags, including those whose edits are unreadable.
    pub(super) fn selected(&self, selection: &Selection) -> Vec<Selected> {
        let scope = self.scope();
        let readable = self.namespace.staged.all().into_iter().map(|(name, staged)| (name, Ok(staged)));
        let broken = self.namespace.staged.broken().into_iter().map(|(name, why)| (name, Err(why)));
        let selected = |(name, staged)| scope.part(selection, &name).map(|part| Selected { name, staged, part });
        readable.chain(broken).filter_map(selected).collect()
    }

    /// The same. An empty result is not an error if the place or reference belongs to this mount.
    ///
    /// # Errors
    /// `NotFound` if it does not.
    pub(super) async fn select(&self, selection: &Selection) -> Result<Vec<Selected>, Error> {
        let (scope, selected) = (self.scope(), self.selected(selection));
        let is_known = match selection {
            _ if !selected.is_empty() => true,
            Selection::All => true,
            Selection::Path(path) => self.is_path(path).await?,
            Selection::Reference(reference) => scope.overlaps(reference),
        };
        match selection {
            Selection::Path(what) | Selection::Reference(what) if !is_known => {
                Err(Error::new(ErrorKind::NotFound, format!("{what:?} is not in this mount")))
            }
            _ => Ok(selected),
        }
    }

    /// Whether a path leads to anything.
    async fn is_path(&self, path: &str) -> Result<bool, Error> {
        let mut directory = ROOT;
        let mut known = Vec::new();
        let mut found = Ok(true);
        for name in path::components(&path::typed(path)) {
            match self.namespace.lookup(directory, name).await {
                Ok(Lookup::Found(entry)) => {
                    known.push(entry.inode);
                    directory = entry.inode;
                    continue;
                }
                Ok(Lookup::Absent(_)) => found = Ok(false),
                Err(error) => found = Err(error),
            }
            break;
        }
        // The kernel was told about none of them.
        known.iter().for_each(|inode| self.namespace.forget(*inode, 1));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tests::test_mount::repository;

    fn name(of: &str, tag: &str) -> TagName {
        (repository(of), Tag::parse(tag).unwrap())
    }

    /// The selected part of `team/app/web:v1` in registry `reg.io`.
    fn part(root: &Root, selection: Selection) -> Option<Vec<u8>> {
        let scope = Scope { root, authority: &Authority::Registry("reg.io".to_owned()) };
        scope.part(&selection, &name("team/app/web", "v1"))
    }

    #[test]
    fn a_reference_selects_a_tag_or_everything_below_it() {
        let root = Root::Prefix(None);
        let by = |text: &str| part(&root, Selection::Reference(text.to_owned()));
        for text in ["reg.io", "reg.io/team", "reg.io/team/", "reg.io/team/app/web", "reg.io/team/app/web:v1"] {
            assert_eq!(by(text).as_deref(), Some(&b""[..]), "{text}");
        }
        for text in ["reg.io/te", "reg.io/team/app/web/x", "reg.io/team/app/web:v2", "other.io", "oci:/l", "reg.io/UPPER"] {
            assert_eq!(by(text), None, "{text}");
        }
        assert_eq!(part(&root, Selection::All).as_deref(), Some(&b""[..]));
    }

    #[test]
    fn a_path_selects_the_tags_below_it_or_a_path_inside_one() {
        let at = |prefix: &str, path: &str| part(&Root::Prefix(Some(repository(prefix))), Selection::Path(path.to_owned()));
        for path in ["", "app", "app/", "./app//web", "app/web/v1"] {
            assert_eq!(at("team", path).as_deref(), Some(&b""[..]), "{path}");
        }
        assert_eq!(at("team", "app/web/v1/deep/./file").as_deref(), Some(&b"deep/file"[..]));
        for path in ["ap", "app/v1", "app/web/v2", "app/web/v11"] {
            assert_eq!(at("team", path), None, "{path}");
        }
        assert_eq!(at("team/app/web", "v1/x").as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn a_mount_of_one_tag_has_its_content_at_its_root() {
        let root = Root::Content(repository("team/app/web"), Version::Tag(Tag::parse("v1").unwrap()));
        assert_eq!(part(&root, Selection::Path("etc/motd".to_owned())).as_deref(), Some(&b"etc/motd"[..]));
        let scope = Scope { root: &root, authority: &Authority::Registry("reg.io".to_owned()) };
        assert!(scope.covers(&name("team/app/web", "v1")) && !scope.covers(&name("team/app/web", "v2")));
    }

    #[test]
    fn a_layout_is_the_same_through_any_link() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("l"), directory.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink("l", &link).unwrap();
        let (root, authority) = (Root::Layout(repository("layout")), Authority::Layout(format!("oci:{}", link.display())));
        let scope = Scope { root: &root, authority: &authority };
        let by = |text: String| scope.part(&Selection::Reference(text), &name("layout", "v1"));
        assert!(by(format!("oci:{}", real.display())).is_some() && by(format!("oci:{}:v1", real.display())).is_some());
        assert!(by(format!("oci:{}:v2", real.display())).is_none() && by("oci:/l".to_owned()).is_none());
    }

    #[test]
    fn references_inside_and_around_the_mount_are_recognised() {
        let root = Root::Prefix(Some(repository("team/app")));
        let scope = Scope { root: &root, authority: &Authority::Registry("reg.io".to_owned()) };
        for text in ["reg.io", "reg.io/team", "reg.io/team/app", "reg.io/team/app/web", "reg.io/team/app:v9"] {
            assert!(scope.overlaps(text), "{text}");
        }
        for text in ["other.io/team/app", "reg.io/team/other", "reg.io/team/other:v1", "oci:/l", ""] {
            assert!(!scope.overlaps(text), "{text}");
        }
    }
}
