//! Lists a directory of the namespace: tags, child repositories, and which of them a tag hides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::location::Location;
use super::names::Names;
use super::namespace::Namespace;
use super::tag_table::TagTable;
use crate::artifact::Listing;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Repository, Tag};

/// The list of repositories, including those that exist because of staged tags.
pub(super) struct Catalog<'a> {
    listed: Listing,
    /// `None` in a layout, which has no repositories.
    staged: Option<&'a TagTable>,
    /// Why there is no list, unless the registry just has none.
    pub(super) trouble: Option<Error>,
}

impl Catalog<'_> {
    /// No repositories at all.
    pub(super) fn nothing() -> Self {
        Self { listed: Listing { names: Arc::from([]), complete: true }, staged: None, trouble: None }
    }

    /// Whether the list is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.listed.complete
    }

    /// Whether the repository itself is listed.
    pub(super) fn has(&self, repository: &Repository) -> bool {
        self.listed.has(repository.as_str()) || self.staged.is_some_and(|staged| staged.has_repository(repository))
    }

    /// Whether the repository or one below it is listed.
    pub(super) fn leads_to(&self, repository: &Repository) -> bool {
        self.has(repository)
            || self.listed.below(Some(repository)).next().is_some()
            || self.staged.is_some_and(|staged| staged.has_repository_below(repository))
    }

    /// The first components below a path.
    fn children(&self, path: Option<&Repository>) -> BTreeSet<String> {
        let start = path.map_or(0, |path| path.as_str().len() + 1);
        let staged = self.staged.map(|staged| staged.repositories_below(path)).unwrap_or_default();
        let below = self.listed.below(path).chain(staged.iter().map(String::as_str));
        let first = below.filter_map(|name| name.get(start..)?.split('/').next());
        first.filter(|child| Repository::is_component(child)).map(str::to_owned).collect()
    }
}

/// The tags of a repository, including staged changes.
fn with_staged(tags: Arc<[String]>, staged: &[(Tag, bool)]) -> Arc<[String]> {
    if staged.is_empty() {
        return tags;
    }
    let mut names: BTreeSet<String> = tags.iter().cloned().collect();
    for (tag, deleted) in staged {
        if *deleted {
            names.remove(tag.as_str());
        } else {
            names.insert(tag.to_string());
        }
    }
    names.into_iter().collect()
}

/// One component for a name of a layout that is a full reference: every slash becomes `_`.
fn shown_name(name: &str) -> Option<String> {
    let shown = name.replace('/', "_");
    let harmless = !shown.starts_with(['.', '@']) && !shown.is_empty() && shown.len() <= 255;
    (harmless && shown.chars().all(|letter| letter.is_ascii_graphic())).then_some(shown)
}

impl Namespace {
    /// The known repositories.
    pub(super) async fn catalog(&self) -> Catalog<'_> {
        if self.is_layout() {
            return Catalog::nothing();
        }
        let staged = Some(&self.staged);
        match self.context.artifacts.repositories().await {
            Ok(listed) => Catalog { listed, staged, trouble: None },
            Err(error) => {
                let usual = matches!(error.kind, ErrorKind::Unsupported | ErrorKind::NotFound | ErrorKind::Denied);
                let listed = Listing { names: Arc::from([]), complete: false };
                Catalog { listed, staged, trouble: (!usual).then_some(error) }
            }
        }
    }

    /// The names of a directory, requested unless it was listed within the tag TTL.
    ///
    /// # Errors
    /// Errors if nothing is known about it. A directory that may not exist is not an error: see [`Names::exists`].
    pub(super) async fn names(&self, path: &Option<Repository>) -> Result<Arc<Names>, Error> {
        let location = Location::Directory(path.clone());
        if let Some(names) = self.locations.names(&location, self.context.tag_ttl) {
            return Ok(names);
        }
        let names = Arc::new(self.take_names(path).await?);
        self.warn_of_hidden(path, &names);
        self.locations.keep_names(&location, &names);
        Ok(names)
    }

    async fn take_names(&self, path: &Option<Repository>) -> Result<Names, Error> {
        let taken = Instant::now();
        let catalog = self.catalog().await;
        let children: Vec<String> = catalog.children(path.as_ref()).into_iter().collect();
        let root = self.is_source(path);
        let mut complete = catalog.is_complete();
        let mut tags: Arc<[String]> = Arc::from([]);
        let mut listed = false;
        let staged = path.as_ref().map(|repository| self.staged.of_repository(repository)).unwrap_or_default();
        if let Some(repository) = path {
            listed = catalog.has(repository);
            if self.may_be_repository(&catalog, repository) {
                match self.context.artifacts.tags(repository).await {
                    Ok(list) => {
                        complete &= list.complete;
                        tags = list.names;
                    }
                    Err(error) if error.kind == ErrorKind::NotFound => {}
                    // A prefix of Docker Hub is not a repository, and Docker Hub answers "denied" for it.
                    Err(error) if error.kind == ErrorKind::Denied && (root || !children.is_empty()) => complete = false,
                    Err(error) if !children.is_empty() || !staged.is_empty() => {
                        tracing::warn!(%error, "cannot list tags; showing only child repositories and staged tags");
                        complete = false;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if let (Some(trouble), true) = (catalog.trouble, tags.is_empty()) {
            return Err(trouble);
        }
        let tags = with_staged(tags, &staged);
        let odd = self.odd_names(path, &tags).await?;
        let exists = root || listed || !tags.is_empty() || !children.is_empty();
        if let Some(repository) = path.as_ref().filter(|_| !tags.is_empty() && staged.is_empty() && !listed) {
            self.context.artifacts.learned(repository);
        }
        Ok(Names { tags, odd, children, complete, exists, taken })
    }

    /// Whether a path may have tags: not if a complete list says that it is only a prefix.
    pub(super) fn may_be_repository(&self, catalog: &Catalog, path: &Repository) -> bool {
        let known = catalog.is_complete() || self.context.artifacts.is_away();
        self.is_layout() || !known || catalog.has(path) || !catalog.leads_to(path)
    }

    async fn odd_names(&self, path: &Option<Repository>, tags: &[String]) -> Result<Vec<(String, Digest)>, Error> {
        let Some(repository) = path.as_ref().filter(|_| self.is_layout()) else { return Ok(Vec::new()) };
        let list = self.context.artifacts.odd_names(repository).await?;
        let mut shown: BTreeMap<String, Digest> = BTreeMap::new();
        for (name, descriptor) in list.iter() {
            let Some(name) = shown_name(name) else { continue };
            let taken = shown.contains_key(&name) || tags.binary_search(&name).is_ok();
            let name = if taken { format!("{name}~{}", descriptor.digest.short()) } else { name };
            shown.entry(name).or_insert(descriptor.digest);
        }
        Ok(shown.into_iter().collect())
    }

    /// Warns once per mount that a tag hides a repository.
    fn warn_of_hidden(&self, path: &Option<Repository>, names: &Names) {
        let hidden = names.children.iter().find(|child| names.has_tag(child));
        if let (Some(path), Some(child)) = (path, hidden) {
            self.warn_hidden(path, child);
        }
    }

    pub(super) fn warn_hidden(&self, path: &Repository, child: &str) {
        if !self.warned.swap(true, std::sync::atomic::Ordering::Relaxed) {
            tracing::warn!(
                "{path}/{child} is a tag of {path} and a repository too: the tag has the plain name, the repository is at .oci/repos/{child}"
            );
        }
    }

    /// Whether a fresh list contains a tag, without a request.
    pub(super) fn lists_tag(&self, repository: &Repository, tag: &Tag) -> bool {
        let location = Location::Directory(Some(repository.clone()));
        self.locations.names(&location, self.context.tag_ttl).is_some_and(|names| names.has_tag(tag.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(names: &[&str]) -> Catalog<'static> {
        let names = names.iter().map(ToString::to_string).collect();
        Catalog { listed: Listing { names, complete: true }, ..Catalog::nothing() }
    }

    #[test]
    fn a_catalog_leads_to_repositories_and_their_prefixes_by_whole_components() {
        let catalog = catalog(&["team-x/a", "team/app", "team/app/web"]);
        let leads = |text: &str| catalog.leads_to(&Repository::parse(text).unwrap());
        assert!(leads("team") && leads("team/app") && leads("team-x"));
        assert!(!leads("tea") && !leads("team/ap") && !leads("team/app/we"));
    }

    #[test]
    fn children_are_first_components_below_a_path() {
        let catalog = catalog(&["app", "team-x/a", "team/app", "team/app/web"]);
        let children = |path: Option<&str>| catalog.children(path.map(|path| Repository::parse(path).unwrap()).as_ref());
        assert_eq!(children(None), ["app", "team", "team-x"].map(str::to_owned).into());
        assert_eq!(children(Some("team")), ["app".to_owned()].into());
        assert_eq!(children(Some("app")), BTreeSet::new());
    }

    #[test]
    fn layout_names_become_one_harmless_path_component() {
        assert_eq!(shown_name("localhost/app:v1").as_deref(), Some("localhost_app:v1"));
        assert_eq!(shown_name("../x"), None);
        assert_eq!(shown_name("a\u{7}b"), None);
    }
}
