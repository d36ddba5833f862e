//! REF of commands on one artifact: the same forms as SOURCE of `mount`. There is no default tag, except the only tag of a layout.

use super::mounted::{self, Mounted};
use super::root;
use crate::cli::exit::{Code, Failure};
use crate::cli::settings::environment::Environment;
use crate::cli::terminal::escape;
use crate::oci::{Digest, LayoutForm, LayoutName, LayoutPlace, Registry, Repository, Source, Tag, Version};
use crate::registry::{Layout, Pull};

/// Repository and version of an artifact.
///
/// # Errors
/// The source is a registry, a repository without tag or digest, or a layout with several tags and no name given.
pub async fn named(source: &Source, pull: &dyn Pull) -> Result<(Repository, Version), Failure> {
    match source {
        Source::Artifact { repository, version, .. } => Ok((repository.clone(), version.clone())),
        Source::Registry { registry, prefix: Some(repository) } => {
            let right = match as_tag(repository, pull).await {
                Some((parent, tag)) => format!("{registry}/{parent}:{tag}"),
                None => format!("{registry}/{repository}:TAG"),
            };
            Err(Failure::usage(format!("{registry}/{repository} has no tag; write {right}")))
        }
        Source::Registry { registry, prefix: None } => {
            Err(Failure::usage(format!("{registry} is a registry; name an artifact in it, like {registry}/app:v1")))
        }
        Source::Layout { name: Some(name), .. } => root::in_layout(pull, name).await,
        Source::Layout { name: None, .. } => only_one(source, pull).await,
    }
}

/// The tag meant by a slash typed instead of the colon, if the registry has it.
pub async fn as_tag(repository: &Repository, pull: &dyn Pull) -> Option<(Repository, Tag)> {
    let (parent, tag) = repository.as_str().rsplit_once('/')?;
    let (parent, tag) = (Repository::parse(parent).ok()?, Tag::parse(tag).ok()?);
    pull.resolve(&parent, &Version::Tag(tag.clone())).await.is_ok().then_some((parent, tag))
}

/// Splits `repository:one,two` into `repository:one` and the other tags.
///
/// # Errors
/// A tag is invalid.
pub fn split_tags(text: &str) -> Result<(&str, Vec<Tag>), Failure> {
    let Some((first, rest)) = text.split_once(',') else { return Ok((text, Vec::new())) };
    let tags = rest.split(',').map(Tag::parse).collect::<Result<_, _>>()?;
    Ok((first, tags))
}

/// The tag or digest that a source names. A layout name that is not a tag counts as none.
pub fn version(source: &Source) -> Option<Version> {
    match source {
        Source::Artifact { version, .. } => Some(version.clone()),
        Source::Layout { name: Some(LayoutName::Digest(digest)), .. } => Some(Version::Digest(*digest)),
        Source::Layout { name: Some(name), .. } => name.tag().map(Version::Tag),
        Source::Layout { name: None, .. } | Source::Registry { .. } => None,
    }
}

/// The repository that a source names, or the only one of a layout.
///
/// # Errors
/// The source is a registry.
pub fn repository(source: &Source) -> Result<Repository, Failure> {
    match source {
        Source::Artifact { repository, .. } | Source::Registry { prefix: Some(repository), .. } => Ok(repository.clone()),
        Source::Registry { registry, prefix: None } => Err(Failure::usage(format!("{registry} is a registry; name a repository in it"))),
        Source::Layout { .. } => Ok(Layout::repository()?),
    }
}

/// The reference of another version in the source's repository or layout.
pub fn with_version(source: &Source, version: &Version) -> String {
    match source {
        Source::Artifact { registry, repository, .. } | Source::Registry { registry, prefix: Some(repository) } => {
            format!("{registry}/{repository}{version}")
        }
        Source::Registry { registry, prefix: None } => format!("{registry}{version}"),
        Source::Layout { place, .. } => format!("{place}{version}"),
    }
}

/// The references to an artifact by its tags, or by digest if it has none.
pub fn all(source: &Source, tags: &[Tag], digest: Digest) -> Vec<String> {
    match tags {
        [] => vec![with_version(source, &Version::Digest(digest))],
        tags => tags.iter().map(|tag| with_version(source, &Version::Tag(tag.clone()))).collect(),
    }
}

/// The tags to set on an artifact that `what` makes: that of the destination, and others.
///
/// # Errors
/// The destination names a digest.
pub fn tags_to_set(to: &Source, others: &[Tag], what: &str) -> Result<Vec<Tag>, Failure> {
    match version(to) {
        Some(Version::Digest(_)) => Err(Failure::usage(format!("{to}: a {what} cannot choose its digest; name a tag"))),
        Some(Version::Tag(tag)) => Ok(std::iter::once(tag).chain(others.iter().cloned()).collect()),
        None => Ok(others.to_vec()),
    }
}

async fn only_one(source: &Source, pull: &dyn Pull) -> Result<(Repository, Version), Failure> {
    let repository = Layout::repository()?;
    let names = pull.tags(&repository, None).await?.names;
    match names.as_slice() {
        [tag] => Ok((repository, Version::Tag(Tag::parse(tag)?))),
        [] => Err(Failure::usage(format!("{source} has no tags"))),
        [first, ..] => Err(Failure::usage(format!("{source} has {} tags; name one, like {source}:{first}", names.len()))),
    }
}

/// The repository or layout of a source, without tag or digest.
pub fn without_version(source: &Source) -> String {
    match source {
        Source::Artifact { registry, repository, .. } => format!("{registry}/{repository}"),
        Source::Layout { place, .. } => place.to_string(),
        Source::Registry { .. } => source.to_string(),
    }
}

/// The digest, if the reference has one.
pub fn digest(source: &Source) -> Option<Digest> {
    match source {
        Source::Artifact { version: Version::Digest(digest), .. } | Source::Layout { name: Some(LayoutName::Digest(digest)), .. } => {
            Some(*digest)
        }
        _ => None,
    }
}

/// The registry, if the reference has one.
pub fn registry(source: &Source) -> Option<&Registry> {
    source.place().map(|(registry, _)| registry)
}

/// Resolves SOURCE or REF: a reference, or a path in a mount, which stands for the artifact or repository there.
///
/// # Errors
/// As [`written`]; also if the path is inside an artifact, and NotPushed for a tag with edits.
pub fn parse(text: &str, environment: &Environment) -> Result<Source, Failure> {
    match mounted::find(text, environment)? {
        Some(Mounted { source, rest }) if rest.is_empty() => Ok(source),
        Some(Mounted { source, .. }) => {
            Err(Failure::usage(format!("{} is inside {source}; name the whole artifact", escape::terminal(text))))
        }
        None => written(text, environment),
    }
}

/// Parses SOURCE or REF, also in the spelling of other tools (`docker://`, `cr://`). A layout's path becomes absolute, since the daemon
/// runs in `/`.
///
/// # Errors
/// The text is invalid; the message suggests the right spelling where it is known.
pub fn written(text: &str, environment: &Environment) -> Result<Source, Failure> {
    let text = ["docker://", "cr://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    check_scheme(text)?;
    Ok(match Source::parse(text)? {
        Source::Layout { place: LayoutPlace { form, path }, name } => {
            Source::Layout { place: LayoutPlace { form, path: environment.absolute(&path, None)? }, name }
        }
        other => other,
    })
}

/// Transports of skopeo and podman that would otherwise be taken for Docker Hub names.
const OTHER_TRANSPORTS: [&str; 7] = ["containers-storage", "dir", "docker-archive", "docker-daemon", "ostree", "sif", "tarball"];

/// Rejects spellings that mean something else.
fn check_scheme(text: &str) -> Result<(), Failure> {
    let wrong = |rest: &str, right: String| {
        let scheme = text.strip_suffix(rest).unwrap_or_default();
        Err(Failure::usage(format!("a reference cannot begin with `{}`; write {}", scheme, escape::terminal(&right))))
    };
    if let Some(rest) = text.strip_prefix("oci://") {
        let why = "tools disagree on `oci://`: for a registry write";
        return Err(Failure::usage(format!("{why} {rest}, for a layout directory oci:{rest}").escape_debug().to_string()));
    }
    if let Some((transport, _)) = text.split_once(':').filter(|(transport, _)| OTHER_TRANSPORTS.contains(transport)) {
        let ways = "a reference is registry/repository:tag, docker://… of a registry, or oci:DIRECTORY:tag of a layout";
        return Err(Failure::usage(format!("`{transport}:` is a transport of other tools that ocifs does not support; {ways}")));
    }
    match text.split_once("://") {
        Some(("http" | "https", rest)) => wrong(rest, format!("{rest} (and --plain-http for a registry without TLS)")),
        Some((_, rest)) if LayoutForm::of_text(text).is_none() => wrong(rest, format!("{rest} for a registry, oci:DIRECTORY for a layout")),
        _ => Ok(()),
    }
}

/// Splits `REF/path` into the reference and the path in the artifact: the part after the first slash that follows a tag or digest.
pub fn split_path(text: &str) -> (&str, Option<&str>) {
    let version = match LayoutForm::of_text(text) {
        Some((form, rest)) => text.find("@sha").or_else(|| rest.find(':').map(|at| at + form.scheme().len())),
        // A port's colon comes before the first slash.
        None => {
            let start = text.find("://").map_or(0, |at| at + 3);
            let slash = text.get(start..).and_then(|rest| rest.find('/')).map(|at| at + start);
            slash.and_then(|slash| text.get(slash..)?.find([':', '@']).map(|at| at + slash))
        }
    };
    let slash = version.and_then(|version| text.get(version..)?.find('/').map(|at| at + version));
    match slash.map(|slash| text.split_at(slash)) {
        Some((reference, path)) => (reference, Some(path.trim_start_matches('/'))),
        None => (text, None),
    }
}

/// A reference that may be followed by a path in the artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceAndPath {
    /// The artifact or repository.
    pub source: Source,
    /// The whole text as a name: names in a layout may contain slashes.
    pub whole: Source,
    /// The path in the artifact; empty for its root.
    pub path: String,
}

impl ReferenceAndPath {
    /// The artifact and the path in it, once the layout can tell which names it has.
    pub async fn in_source(self, pull: &dyn Pull) -> (Source, String) {
        match &self.source {
            Source::Layout { name: Some(_), .. } if named(&self.whole, pull).await.is_ok() => (self.whole, String::new()),
            _ => (self.source, self.path),
        }
    }
}

/// Splits a text into an artifact or repository, and a path in the artifact.
///
/// # Errors
/// Those of [`mounted::find`] and [`written`].
pub fn place(text: &str, environment: &Environment) -> Result<ReferenceAndPath, Failure> {
    if let Some(Mounted { source, rest }) = mounted::find(text, environment)? {
        return Ok(ReferenceAndPath { source: source.clone(), whole: source, path: rest });
    }
    let (name, path) = split_path(text);
    let source = written(name, environment)?;
    let whole = if matches!(source, Source::Layout { .. }) { written(text, environment)? } else { source.clone() };
    Ok(ReferenceAndPath { source, whole, path: path.unwrap_or_default().to_owned() })
}

/// The error for a missing repository, if the user may have meant a tag.
pub async fn no_repository(source: &Source, pull: &dyn Pull, failure: Failure) -> Failure {
    let Source::Registry { registry, prefix: Some(repository) } = source else { return failure };
    if failure.code != Code::NotFound {
        return failure;
    }
    match as_tag(repository, pull).await {
        Some((parent, tag)) => {
            Failure::new(failure.code, format!("no repository {source}; did you mean the tag {registry}/{parent}:{tag}?"))
        }
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_other_tools_are_accepted_or_explained() {
        let environment = Environment::default();
        for text in ["docker://reg.io/a:v1", "cr://reg.io/a:v1"] {
            assert_eq!(parse(text, &environment).unwrap().to_string(), "reg.io/a:v1");
        }
        for (text, right) in [
            ("https://reg.io/a:v1", "write reg.io/a:v1"),
            ("oci://reg.io/a", "oci:reg.io/a"),
            ("ftp://reg.io/a", "write reg.io/a"),
            ("containers-storage:alpine", "oci:DIRECTORY:tag"),
            ("docker-daemon:alpine:3", "oci:DIRECTORY:tag"),
            ("http://\u{1b}[2J", "\\u{1b}[2J"),
        ] {
            let failure = parse(text, &environment).unwrap_err();
            assert!(failure.message.contains(right), "{}", failure.message);
        }
    }

    #[test]
    fn a_path_in_an_artifact_follows_its_tag_or_digest() {
        let digest = Digest::of(b"x");
        let by_digest = format!("reg.io/a@{digest}/etc/passwd");
        for (text, reference, path) in [
            ("reg.io/a:v1", "reg.io/a:v1", None),
            ("reg.io/a/b", "reg.io/a/b", None),
            ("localhost:5000", "localhost:5000", None),
            ("localhost:5000/a", "localhost:5000/a", None),
            ("localhost:5000/a:v1/etc/x:y", "localhost:5000/a:v1", Some("etc/x:y")),
            ("reg.io/a:v1/", "reg.io/a:v1", Some("")),
            ("docker://reg.io/a:v1/etc", "docker://reg.io/a:v1", Some("etc")),
            ("https://localhost:5000/a", "https://localhost:5000/a", None),
            ("oci:/l/m:v1", "oci:/l/m:v1", None),
            ("oci:/l/m:v1/etc", "oci:/l/m:v1", Some("etc")),
            ("oci:/l/m", "oci:/l/m", None),
            ("oci-archive:/l/m.tar", "oci-archive:/l/m.tar", None),
            ("oci-archive:/l/m.tar:v1/etc", "oci-archive:/l/m.tar:v1", Some("etc")),
            (&by_digest, by_digest.strip_suffix("/etc/passwd").unwrap(), Some("etc/passwd")),
        ] {
            assert_eq!(split_path(text), (reference, path), "{text}");
        }
    }

    #[test]
    fn several_tags_are_separated_by_commas() {
        let (first, others) = split_tags("localhost:5000/app:v1,v2,latest").unwrap();
        assert_eq!(first, "localhost:5000/app:v1");
        assert_eq!(others.iter().map(ToString::to_string).collect::<Vec<_>>(), ["v2", "latest"]);
        assert!(split_tags("reg.io/app:v1,").is_err());
    }

    #[test]
    fn the_directory_of_a_layout_becomes_absolute() {
        let source = parse("oci:some/layout:v1", &Environment::default()).unwrap();
        assert!(source.to_string().starts_with("oci:/") && source.to_string().ends_with("some/layout:v1"));
    }
}
