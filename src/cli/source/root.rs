//! The root of a mount, as determined by its source.

use std::sync::Arc;
use std::time::Duration;

use crate::cli::exit::{Code, Failure};
use crate::cli::source::wiring::Parts;
use crate::cli::terminal::escape;
use crate::fs::{self, Root, Scope, Space};
use crate::oci::{LayoutName, Repository, Source, Version};
use crate::registry::{Layout, Pull};
use crate::sys::process;
use crate::view::{Authority, Defaults, Meaning};

/// Looks up a name in a layout.
///
/// # Errors
/// The layout has no such name.
pub async fn in_layout(pull: &dyn Pull, name: &LayoutName) -> Result<(Repository, Version), Failure> {
    let repository = Layout::repository()?;
    let version = match (name, name.tag()) {
        (LayoutName::Digest(digest), _) => Version::Digest(*digest),
        (LayoutName::Name(_), Some(tag)) => Version::Tag(tag),
        (LayoutName::Name(name), None) => {
            let names = pull.odd_names(&repository).await?;
            let found = names.into_iter().find(|(known, _)| known == name);
            let missing = || Failure::new(Code::NotFound, format!("the layout has no artifact named `{}`", escape::terminal(name)));
            Version::Digest(found.ok_or_else(missing)?.1.digest)
        }
    };
    Ok((repository, version))
}

/// The root of a mount of this source and the prefix of its references. `None` for a layout name that is not a tag, which only the layout
/// can resolve.
pub fn of_source(source: &Source) -> Option<(Root, Authority)> {
    let root = match source {
        Source::Registry { prefix, .. } => Root::Prefix(prefix.clone()),
        Source::Artifact { repository, version, .. } => Root::Content(repository.clone(), version.clone()),
        Source::Layout { name: None, .. } => Root::Layout(Layout::repository().ok()?),
        Source::Layout { name: Some(LayoutName::Digest(digest)), .. } => {
            Root::Content(Layout::repository().ok()?, Version::Digest(*digest))
        }
        Source::Layout { name: Some(name), .. } => Root::Content(Layout::repository().ok()?, Version::Tag(name.tag()?)),
    };
    Some((root, authority(source)))
}

/// Applies a function to the scope of a mount of this source. `None` as in [`of_source`].
pub fn with_scope<T>(source: &Source, apply: impl FnOnce(Scope<'_>) -> T) -> Option<T> {
    of_source(source).map(|(root, authority)| apply(Scope { root: &root, authority: &authority }))
}

/// The prefix of a source's references.
pub fn authority(source: &Source) -> Authority {
    match source {
        Source::Registry { registry, .. } | Source::Artifact { registry, .. } => Authority::Registry(registry.to_string()),
        Source::Layout { place, .. } => Authority::Layout(place.to_string()),
    }
}

/// The configuration of a file system without a kernel mount.
pub fn bare(
    root: Root,
    authority: Authority,
    parts: &Parts,
    defaults: Defaults,
    meaning: Meaning,
    writing: Option<fs::Writing>,
) -> fs::Config {
    fs::Config {
        root,
        authority,
        defaults,
        meaning,
        tag_ttl: parts.artifacts.options().tag_ttl,
        mount_json: Vec::new(),
        status_json: Arc::new(Vec::new),
        space: Arc::new(Space::default),
        others: fs::Others::None,
        writing,
        skips_opens: false,
    }
}

/// Attributes for what an archive leaves unset: this user's, with this time since the Unix epoch.
pub fn defaults(since: Duration) -> Defaults {
    Defaults {
        uid: process::uid(),
        gid: process::gid(),
        time: (i64::try_from(since.as_secs()).unwrap_or_default(), since.subsec_nanos()),
        force_uid: None,
        force_gid: None,
        file_mode: None,
        dir_mode: None,
    }
}
