//! The `.oci` window of a registry, prefix or repository: never listed by its parent, read-only, found by name.

use bytes::Bytes;
use serde_json::json;

use super::location::{Location, WindowFile};
use super::namespace::Namespace;
use super::resolve::{Finding, Item, metadata_item};
use super::{ABSENT_TTL, NAME_TTL};
use crate::error::Error;
use crate::oci::{Repository, Tag};

impl Location {
    /// The target of a link.
    pub(super) fn link(&self) -> Option<String> {
        match self {
            // `.oci/repos/NAME` is two directories below the one that holds NAME.
            Self::RepositoryLink(child) => child.as_str().rsplit('/').next().map(|name| format!("../../{name}")),
            // `.oci/tags/NAME/fs` is three directories below the one that holds NAME.
            Self::NewTagLink(tag) => Some(format!("../../../{tag}")),
            Self::Pasted(_, _, target) => Some(target.clone()),
            _ => None,
        }
    }
}

impl Namespace {
    /// The fixed names of a window.
    pub(super) fn window_names(&self, path: &Option<Repository>) -> Vec<(&'static str, Location)> {
        let mut names = Vec::new();
        if self.is_source(path) {
            names.push(("mount.json", Location::File(path.clone(), WindowFile::Mount)));
            names.push(("status.json", Location::File(path.clone(), WindowFile::Status)));
        }
        if let Some(repository) = path {
            names.push(("repo.json", Location::File(path.clone(), WindowFile::Repository)));
            names.push(("tags", Location::Tags(repository.clone())));
        }
        if !self.is_layout() {
            names.push(("repos", Location::Repositories(path.clone())));
        }
        names
    }

    /// Resolves a name in a window or in its `repos` and `tags`.
    pub(super) async fn find_in_window(&self, location: &Location, name: &[u8]) -> Result<Finding, Error> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(Finding::Nothing(ABSENT_TTL)) };
        match location {
            Location::Window(path) => {
                let found = self.window_names(path).into_iter().find(|(other, _)| *other == name);
                Ok(found
                    .map_or(Finding::Nothing(ABSENT_TTL), |(_, location)| Finding::Item { item: Item::Location(location), guessed: false }))
            }
            Location::Repositories(path) => self.find_repository(path, name).await,
            Location::Tags(repository) => match Tag::parse(name) {
                Ok(tag) if self.tag_exists(repository, &tag).await? => {
                    Ok(Finding::Item { item: self.metadata_of(repository, tag), guessed: false })
                }
                _ => Ok(Finding::Nothing(NAME_TTL)),
            },
            Location::NewTag(repository, tag) => {
                let found = new_tag_names(repository, tag).into_iter().find(|(other, _)| *other == name);
                Ok(found
                    .map_or(Finding::Nothing(ABSENT_TTL), |(_, location)| Finding::Item { item: Item::Location(location), guessed: false }))
            }
            _ => Ok(Finding::Nothing(ABSENT_TTL)),
        }
    }

    /// `.oci/repos/NAME`: a link to the repository, or the repository itself if a tag hides it.
    async fn find_repository(&self, path: &Option<Repository>, name: &str) -> Result<Finding, Error> {
        let Some(child) = self.child(path, name) else { return Ok(Finding::Nothing(ABSENT_TTL)) };
        if let Finding::Nothing(ttl) = self.find_plain(path, None, Some(child.clone())).await? {
            return Ok(Finding::Nothing(ttl));
        }
        let hidden = match (path, Tag::parse(name)) {
            (Some(repository), Ok(tag)) => self.tag_exists(repository, &tag).await?,
            _ => false,
        };
        Ok(Finding::Item { item: Item::Location(repository_location(child, hidden)), guessed: false })
    }

    /// The target of `.oci/tags/NAME`: a tag that does not exist upstream yet has few files there.
    pub(super) fn metadata_of(&self, repository: &Repository, tag: Tag) -> Item {
        match self.staged.tag(repository, &tag) {
            Some(staged) if staged.new => Item::Location(Location::NewTag(repository.clone(), tag)),
            _ => metadata_item(repository, tag),
        }
    }

    /// The bytes of a generated file; empty for other locations.
    pub(super) fn made_file(&self, location: &Location) -> Bytes {
        match location {
            Location::File(_, WindowFile::Mount) => Bytes::from(self.config.mount_json.clone()),
            Location::File(_, WindowFile::Status) => Bytes::from((self.config.status_json)()),
            Location::File(path, WindowFile::Repository) => Bytes::from(self.repository_json(path)),
            Location::NewTagReference(repository, tag) => {
                Bytes::from(format!("{}:{tag}\n", self.context.authority.reference(Some(repository))))
            }
            _ => Bytes::new(),
        }
    }

    /// The last known names of a repository, without a request.
    fn repository_json(&self, path: &Option<Repository>) -> String {
        let names = self.locations.last_names(&Location::Directory(path.clone()));
        let repository = path.as_ref().map(Repository::as_str).unwrap_or_default();
        let listing = match &names {
            None => "unknown",
            Some(names) if names.complete => "complete",
            Some(_) => "partial",
        };
        let value = json!({
            "registry": self.context.authority.to_string(),
            "repository": repository,
            "reference": self.context.authority.reference(path.as_ref()),
            "listing": listing,
            "tags": names.as_ref().map(|names| names.tags.len()),
            "repositories": names.as_ref().map(|names| &names.children),
        });
        format!("{value:#}\n")
    }
}

/// The names of `.oci/tags/NAME` of a tag that does not exist upstream yet.
pub(super) fn new_tag_names(repository: &Repository, tag: &Tag) -> Vec<(&'static str, Location)> {
    vec![("fs", Location::NewTagLink(tag.clone())), ("reference", Location::NewTagReference(repository.clone(), tag.clone()))]
}

/// The target of `.oci/repos/NAME`.
pub(super) fn repository_location(child: Repository, hidden: bool) -> Location {
    if hidden { Location::Directory(Some(child)) } else { Location::RepositoryLink(child) }
}
