//! Resolves names above tags: window, digest, pasted reference, tag, child repository, or nothing.
//!
//! Names that no grammar allows cost no request. A list is never a negative answer: names missing from it are requested.
//! Only what the registry itself says does not exist is reported as absent; a network failure never is.

use std::time::{Duration, Instant};

use super::listing::Catalog;
use super::location::Location;
use super::namespace::Namespace;
use super::{ABSENT_TTL, NAME_TTL};
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Repository, Tag};
use crate::view::{Key, Origin};

/// The target of a name.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// A location in the namespace.
    Location(Location),
    /// A view.
    View(Key, Origin),
}

/// The answer to a name.
pub(super) enum Finding {
    /// It exists. `guessed`: found without a request, so the name must not be cached.
    Item {
        /// The object behind the name.
        item: Item,
        /// Whether this was found without a request.
        guessed: bool,
    },
    /// It does not exist; the absence may be cached this long.
    Nothing(Duration),
}

impl Finding {
    fn certain(item: Item) -> Self {
        Self::Item { item, guessed: false }
    }

    fn location(location: Location) -> Self {
        Self::certain(Item::Location(location))
    }

    fn child(repository: Repository, guessed: bool) -> Self {
        Self::Item { item: Item::Location(Location::Directory(Some(repository))), guessed }
    }
}

/// The state of a tag after the request.
enum Asked {
    Absent,
    Trouble(Error),
    /// The path has no tags to request.
    Never,
}

impl Namespace {
    /// Resolves a name in a registry, prefix or repository directory.
    pub(super) async fn find(&self, path: &Option<Repository>, name: &[u8]) -> Result<Finding, Error> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(Finding::Nothing(ABSENT_TTL)) };
        if name == ".oci" {
            return Ok(Finding::location(Location::Window(path.clone())));
        }
        if let Some(digest) = name.strip_prefix('@') {
            return self.find_digest(path, digest).await;
        }
        if self.is_layout()
            && let Some(found) = self.find_odd(path, name).await?
        {
            return Ok(found);
        }
        if name.contains([':', '@']) {
            return self.find_pasted(path, name).await;
        }
        let tag = path.as_ref().and_then(|_| Tag::parse(name).ok());
        self.find_plain(path, tag, self.child(path, name)).await
    }

    /// The repository for a name below a path, if the grammar allows it.
    pub(super) fn child(&self, path: &Option<Repository>, name: &str) -> Option<Repository> {
        if self.is_layout() || !Repository::is_component(name) {
            return None;
        }
        match path {
            Some(path) => path.child(name).ok(),
            None => Repository::parse(name).ok(),
        }
    }

    async fn find_digest(&self, path: &Option<Repository>, name: &str) -> Result<Finding, Error> {
        let (Some(repository), Ok(digest)) = (path, Digest::parse_path_name(name)) else {
            return Ok(Finding::Nothing(ABSENT_TTL));
        };
        let key = Key::Digest(repository.clone(), digest);
        if !self.views.contains(&key) {
            match self.context.artifacts.manifest(repository, &digest).await {
                Ok(_) => {}
                Err(error) if error.kind == ErrorKind::NotFound => return Ok(Finding::Nothing(NAME_TTL)),
                Err(error) => return Err(error),
            }
        }
        Ok(Finding::certain(Item::View(key, Origin::Digest(repository.clone(), digest))))
    }

    /// A name of a layout that is not a tag.
    async fn find_odd(&self, path: &Option<Repository>, name: &str) -> Result<Option<Finding>, Error> {
        let Some(repository) = path else { return Ok(None) };
        let names = self.names(path).await?;
        Ok(names.odd(name).map(|digest| Finding::certain(self.odd_item(repository, name, digest))))
    }

    pub(super) fn odd_item(&self, repository: &Repository, name: &str, digest: Digest) -> Item {
        Item::View(Key::Odd(name.to_owned(), digest), Origin::Digest(repository.clone(), digest))
    }

    /// `app:v1` or `app@sha256:…` as a link to the path without a colon.
    async fn find_pasted(&self, path: &Option<Repository>, name: &str) -> Result<Finding, Error> {
        let Some((component, version)) = split_pasted(name) else { return Ok(Finding::Nothing(ABSENT_TTL)) };
        let Some(child) = self.child(path, component) else { return Ok(Finding::Nothing(ABSENT_TTL)) };
        let tag = path.as_ref().and_then(|_| Tag::parse(component).ok());
        let directory = match self.find_plain(path, tag, Some(child.clone())).await? {
            Finding::Nothing(ttl) => return Ok(Finding::Nothing(ttl)),
            Finding::Item { item: Item::Location(_), .. } => component.to_owned(),
            Finding::Item { item: Item::View(..), .. } => {
                // A tag has the plain name; perhaps there is no such repository at all.
                if let Finding::Nothing(ttl) = self.find_plain(path, None, Some(child)).await? {
                    return Ok(Finding::Nothing(ttl));
                }
                format!(".oci/repos/{component}")
            }
        };
        Ok(Finding::location(Location::Pasted(path.clone(), name.to_owned(), format!("{directory}/{version}"))))
    }

    /// A tag, a child repository, or nothing.
    pub(super) async fn find_plain(
        &self,
        path: &Option<Repository>,
        tag: Option<Tag>,
        child: Option<Repository>,
    ) -> Result<Finding, Error> {
        let staged = path.as_ref().zip(tag.as_ref()).and_then(|(repository, tag)| self.staged.tag(repository, tag));
        let tag = match (staged, path, tag) {
            (Some(staged), Some(repository), Some(tag)) if !staged.deleted => return Ok(Finding::certain(tag_item(repository, tag))),
            (Some(_), ..) => None,
            (None, _, tag) => tag,
        };
        if tag.is_none() && child.is_none() {
            return Ok(Finding::Nothing(ABSENT_TTL));
        }
        if let Some(child) = &child
            && self.locations.is_confirmed(&Location::Directory(Some(child.clone())), self.context.tag_ttl)
            && !self.is_listed_tag(path, tag.as_ref())
        {
            return Ok(Finding::child(child.clone(), false));
        }
        let catalog = match &child {
            Some(_) => self.catalog().await,
            None => Catalog::nothing(),
        };
        let asked = match (path, tag) {
            (Some(repository), Some(tag)) if self.holds_tags(&catalog, repository, child.as_ref()).await? => {
                match self.tag_exists(repository, &tag).await {
                    Ok(true) => {
                        if child.as_ref().is_some_and(|child| catalog.leads_to(child)) {
                            self.warn_hidden(repository, tag.as_str());
                        }
                        return Ok(Finding::certain(tag_item(repository, tag)));
                    }
                    Ok(false) => Asked::Absent,
                    Err(error) => Asked::Trouble(error),
                }
            }
            _ => Asked::Never,
        };
        self.find_child(path, child, &catalog, asked).await
    }

    fn is_listed_tag(&self, path: &Option<Repository>, tag: Option<&Tag>) -> bool {
        path.as_ref().zip(tag).is_some_and(|(repository, tag)| {
            self.lists_tag(repository, tag) || self.views.contains(&Key::Tag(repository.clone(), tag.clone()))
        })
    }

    async fn find_child(
        &self,
        path: &Option<Repository>,
        child: Option<Repository>,
        catalog: &Catalog<'_>,
        asked: Asked,
    ) -> Result<Finding, Error> {
        let Some(child) = child else {
            return match asked {
                Asked::Trouble(error) => Err(error),
                Asked::Absent | Asked::Never => Ok(Finding::Nothing(NAME_TTL)),
            };
        };
        if catalog.leads_to(&child) {
            return Ok(Finding::child(child, false));
        }
        let unlisted = !catalog.is_complete() && catalog.trouble.is_none() && !self.context.artifacts.options().offline;
        if matches!(asked, Asked::Never) && unlisted && self.is_source(path) {
            return Ok(Finding::child(child, true));
        }
        if let Asked::Trouble(error) = &asked
            && error.kind != ErrorKind::Denied
        {
            return Err(error.clone());
        }
        match self.context.artifacts.tags(&child).await {
            Ok(list) if !list.names.is_empty() => {
                self.context.artifacts.learned(&child);
                Ok(Finding::child(child, false))
            }
            Ok(_) => nothing(asked),
            Err(error) if error.kind == ErrorKind::NotFound => nothing(asked),
            // The registry knows the repository but not the tag; for a repository below it, "denied"
            // is how most registries say that it does not exist.
            Err(error) if error.kind == ErrorKind::Denied && matches!(asked, Asked::Absent) => Ok(Finding::Nothing(Duration::ZERO)),
            Err(error) => Err(error),
        }
    }

    /// Whether names below this path are requested as tags.
    async fn holds_tags(&self, catalog: &Catalog<'_>, path: &Repository, child: Option<&Repository>) -> Result<bool, Error> {
        if self.is_layout() || child.is_none() {
            return Ok(true);
        }
        // While the registry is unreachable, the last known list decides.
        if catalog.is_complete() || self.context.artifacts.is_away() {
            let only_prefix = !catalog.has(path) && child.is_some_and(|child| catalog.leads_to(child));
            return Ok(!only_prefix);
        }
        if !self.is_source(&Some(path.clone())) || catalog.has(path) {
            return Ok(true);
        }
        self.source_holds_tags(path).await
    }

    /// Whether SOURCE itself is a repository with tags; requested once per tag TTL if there is no catalog.
    async fn source_holds_tags(&self, source: &Repository) -> Result<bool, Error> {
        if self.staged.has_tags(source) {
            return Ok(true);
        }
        let kept = *self.source_tags();
        if let Some((asked, holds)) = kept
            && asked.elapsed() < self.context.tag_ttl
        {
            return Ok(holds);
        }
        let holds = match self.context.artifacts.tags(source).await {
            Ok(list) => !list.names.is_empty(),
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Denied) => false,
            // An unreadable list proves nothing; each tag is then requested by name.
            Err(error) if matches!(error.kind, ErrorKind::Integrity | ErrorKind::Unsupported) => {
                tracing::warn!("tags are found by name only: {error}");
                true
            }
            Err(error) => return Err(error),
        };
        *self.source_tags() = Some((Instant::now(), holds));
        Ok(holds)
    }

    /// Whether a tag exists, from the fresh list or by a request. If it moved, the view of its old digest is retired.
    pub(super) async fn tag_exists(&self, repository: &Repository, tag: &Tag) -> Result<bool, Error> {
        if let Some(staged) = self.staged.tag(repository, tag) {
            // A tag with edits does not follow upstream.
            return Ok(!staged.deleted);
        }
        let keys = [Key::Tag(repository.clone(), tag.clone()), Key::Metadata(repository.clone(), tag.clone())];
        let bound: Vec<_> = keys.iter().filter_map(|key| self.views.opened(key)).filter(|view| view.shown().is_some()).collect();
        if bound.is_empty() && self.lists_tag(repository, tag) {
            return Ok(true);
        }
        let now = match self.context.artifacts.tag(repository, tag).await {
            Ok(digest) => Some(digest),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            // The name exists; entering it reports that it is unreadable now.
            Err(error)
                if matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut)
                    && self.context.artifacts.is_listed(repository, tag) =>
            {
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        for view in &bound {
            match view.key() {
                Key::Tag(..) => self.answered(&(repository.clone(), tag.clone()), view, now).await,
                _ if view.digest() != now => self.views.retire(view.number()),
                _ => {}
            }
        }
        // The tag may have been edited, created or deleted here since the request.
        Ok(self.staged.tag(repository, tag).map_or(now.is_some(), |staged| !staged.deleted))
    }
}

/// The view of a tag.
pub(super) fn tag_item(repository: &Repository, tag: Tag) -> Item {
    Item::View(Key::Tag(repository.clone(), tag.clone()), Origin::Tag(repository.clone(), tag))
}

/// The metadata of a tag.
pub(super) fn metadata_item(repository: &Repository, tag: Tag) -> Item {
    Item::View(Key::Metadata(repository.clone(), tag.clone()), Origin::TagMetadata(repository.clone(), tag))
}

fn nothing(asked: Asked) -> Result<Finding, Error> {
    match asked {
        Asked::Trouble(error) => Err(error),
        Asked::Absent | Asked::Never => Ok(Finding::Nothing(NAME_TTL)),
    }
}

/// A pasted reference as repository component and path component of its version. If it has both a tag and a digest,
/// the digest counts.
fn split_pasted(name: &str) -> Option<(&str, String)> {
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(Digest::parse(digest).ok()?)),
        None => (name, None),
    };
    let (component, tag) = match rest.split_once(':') {
        Some((component, tag)) => (component, Some(Tag::parse(tag).ok()?)),
        None => (rest, None),
    };
    let version = match (digest, tag) {
        (Some(digest), _) => format!("@{}", digest.path_name()),
        (None, tag) => tag?.to_string(),
    };
    Repository::is_component(component).then_some((component, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pasted_references_are_split_into_repository_and_version() {
        let digest = Digest::of(b"x");
        assert_eq!(split_pasted("app:v1"), Some(("app", "v1".to_owned())));
        let by_digest = format!("@{}", digest.path_name());
        assert_eq!(split_pasted(&format!("app@{digest}")), Some(("app", by_digest.clone())));
        assert_eq!(split_pasted(&format!("app:v1@{digest}")), Some(("app", by_digest)));
        for bad in ["app:", ":v1", "App:v1", "app:v1:v2", "app@sha256:12", "a b:v1", "app:-x", "C:"] {
            assert_eq!(split_pasted(bad), None, "{bad}");
        }
    }
}
