//! Which staged tags a command means: all, those at a path below the mount, or those of a reference.

use super::staged::{StagedView, TagName};
use super::{Error, FileSystem, Lookup, ROOT, Root, Selection};
use crate::error::ErrorKind;
use crate::oci::{Repository, Tag, Version};

/// One staged tag that was selected.
pub(super) struct Selected {
    pub name: TagName,
    pub staged: StagedView,
    /// What of the tag is meant; all of it if empty.
    pub below: Vec<u8>,
}

impl FileSystem {
    /// The reference of a tag.
    pub(super) fn reference(&self, name: &TagName) -> String {
        format!("{}:{}", self.context.authority.reference(Some(&name.0)), name.1)
    }

    /// Where a tag is below the mount; empty for the mount itself.
    pub(super) fn path_of(&self, name: &TagName) -> String {
        let (repository, tag) = name;
        match &self.config.root {
            Root::Content(..) => String::new(),
            Root::Layout(_) => tag.to_string(),
            Root::Prefix(prefix) => {
                let below = prefix.as_ref().and_then(|prefix| repository.as_str().strip_prefix(prefix.as_str()));
                let below = below.unwrap_or(repository.as_str()).trim_start_matches('/');
                if below.is_empty() { tag.to_string() } else { format!("{below}/{tag}") }
            }
        }
    }

    /// Whether a tag is one of this mount.
    pub(super) fn covers(&self, repository: &Repository, tag: &Tag) -> bool {
        match &self.config.root {
            Root::Prefix(prefix) => prefix.as_ref().is_none_or(|prefix| repository.is_within(prefix.as_str())),
            Root::Layout(layout) => repository == layout,
            Root::Content(of, Version::Tag(shown)) => repository == of && tag == shown,
            Root::Content(_, Version::Digest(_)) => false,
        }
    }

    /// The staged tags that are meant. None is no error where the place or reference is one of this mount.
    ///
    /// # Errors
    /// `NotFound` where it is not.
    pub(super) async fn select(&self, selection: &Selection) -> Result<Vec<Selected>, Error> {
        let all = self.staged.all().into_iter();
        let whole = |(name, staged)| Selected { name, staged, below: Vec::new() };
        match selection {
            Selection::All => Ok(all.map(whole).collect()),
            Selection::Path(path) => {
                let path: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
                let path = path.join("/");
                let selected: Vec<Selected> = all.filter_map(|(name, staged)| self.at_path(name, staged, &path)).collect();
                if selected.is_empty() && !self.is_path(&path).await? {
                    return Err(Error::new(ErrorKind::NotFound, format!("{path:?} is not in this mount")));
                }
                Ok(selected)
            }
            Selection::Reference(reference) => {
                let meant = |name: &TagName| {
                    let repository = self.context.authority.reference(Some(&name.0));
                    let rest = repository.strip_prefix(reference.trim_end_matches('/'));
                    self.reference(name) == *reference || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                let selected: Vec<Selected> = all.filter(|(name, _)| meant(name)).map(whole).collect();
                if selected.is_empty() && !self.is_reference(reference) {
                    return Err(Error::new(ErrorKind::NotFound, format!("{reference:?} is not in this mount")));
                }
                Ok(selected)
            }
        }
    }

    fn at_path(&self, name: TagName, staged: StagedView, path: &str) -> Option<Selected> {
        let place = self.path_of(&name);
        let is_below = |place: &str, of: &str| of.is_empty() || place == of || place.starts_with(&format!("{of}/"));
        if is_below(&place, path) {
            return Some(Selected { name, staged, below: Vec::new() });
        }
        if is_below(path, &place) {
            let below = path.get(place.len()..)?.trim_start_matches('/').as_bytes().to_vec();
            return Some(Selected { name, staged, below });
        }
        None
    }

    /// Whether a path leads to anything.
    async fn is_path(&self, path: &str) -> Result<bool, Error> {
        let mut directory = ROOT;
        let mut known = Vec::new();
        let mut found = true;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match self.lookup(directory, name.as_bytes()).await {
                Ok(Lookup::Found(entry)) => {
                    known.push(entry.inode);
                    directory = entry.inode;
                }
                Ok(Lookup::Absent(_)) => found = false,
                Err(error) => {
                    known.iter().for_each(|inode| self.forget(*inode, 1));
                    return Err(error);
                }
            }
            if !found {
                break;
            }
        }
        // The kernel was not told of any of them.
        known.iter().for_each(|inode| self.forget(*inode, 1));
        Ok(found)
    }

    fn is_reference(&self, reference: &str) -> bool {
        match self.parse_reference(reference) {
            Some((repository, Some(tag))) => self.covers(&repository, &tag),
            Some((repository, None)) => match &self.config.root {
                Root::Prefix(prefix) => prefix.as_ref().is_none_or(|prefix| repository.is_within(prefix.as_str())),
                Root::Layout(of) | Root::Content(of, _) => repository == *of,
            },
            None => reference.trim_end_matches('/') == self.context.authority.to_string(),
        }
    }

    /// Repository and tag of a reference to this registry or layout.
    pub(super) fn parse_reference(&self, reference: &str) -> Option<(Repository, Option<Tag>)> {
        let rest = reference.strip_prefix(&self.context.authority.to_string())?;
        if let Root::Layout(repository) = &self.config.root {
            return match rest.strip_prefix(':') {
                Some(tag) => Some((repository.clone(), Some(Tag::parse(tag).ok()?))),
                None => rest.is_empty().then(|| (repository.clone(), None)),
            };
        }
        self.parse_name(rest.strip_prefix('/')?)
    }

    /// Repository and tag of `team/app:v1`.
    pub(super) fn parse_name(&self, name: &str) -> Option<(Repository, Option<Tag>)> {
        match name.rsplit_once(':') {
            Some((repository, tag)) => Some((Repository::parse(repository).ok()?, Some(Tag::parse(tag).ok()?))),
            None => Some((Repository::parse(name.trim_end_matches('/')).ok()?, None)),
        }
    }
}
