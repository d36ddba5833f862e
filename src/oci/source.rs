//! The SOURCE of a mount: a registry, a prefix, one artifact, or an OCI layout.

use std::fmt;
use std::path::PathBuf;

use super::reference::parse_parts;
use super::{Digest, InvalidReference, Registry, Repository, Tag, Version};

/// A parsed SOURCE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A registry or any prefix of it.
    Registry {
        /// The registry.
        registry: Registry,
        /// The prefix, `None` for the whole registry. It may also be a repository.
        prefix: Option<Repository>,
    },
    /// One artifact, which becomes the root of the mount.
    Artifact {
        /// The registry.
        registry: Registry,
        /// The repository.
        repository: Repository,
        /// The tag or digest.
        version: Version,
    },
    /// An OCI layout on this machine.
    Layout {
        /// Its location, as given.
        place: LayoutPlace,
        /// One artifact of it, or `None` for the directory of its tags. The text after the first colon that follows the path: a tag, a digest, or a
        /// full reference as written by `podman save`.
        name: Option<LayoutName>,
    },
}

/// The location of an OCI layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutPlace {
    /// Its form.
    pub form: LayoutForm,
    /// Path of the directory or archive.
    pub path: PathBuf,
}

/// The form of an OCI layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutForm {
    /// In a directory.
    Directory,
    /// In a tar archive.
    Archive,
}

/// The name that selects an artifact in a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutName {
    /// A tag, or any other `org.opencontainers.image.ref.name` annotation.
    Name(String),
    /// A manifest by digest.
    Digest(Digest),
}

impl Source {
    /// The registry, and the repository or prefix in it; `None` for a layout.
    pub fn place(&self) -> Option<(&Registry, Option<&Repository>)> {
        match self {
            Self::Registry { registry, prefix } => Some((registry, prefix.as_ref())),
            Self::Artifact { registry, repository, .. } => Some((registry, Some(repository))),
            Self::Layout { .. } => None,
        }
    }

    /// Parses SOURCE. `oci:` introduces a layout directory, `oci-archive:` an archive; a bare host (`reg.io`, `localhost:5000`) is a registry; a
    /// trailing slash marks the text as a registry or prefix.
    ///
    /// # Errors
    /// The text is malformed. Nothing is looked up.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if let Some((form, layout)) = LayoutForm::of_text(text) {
            return Self::parse_layout(form, layout);
        }
        let trimmed = text.trim_end_matches('/');
        if !trimmed.contains('/') && (Registry::looks_like_host(trimmed) || text.ends_with('/')) {
            return Ok(Self::Registry { registry: Registry::parse(trimmed)?, prefix: None });
        }
        let (registry, repository, version) = parse_parts(trimmed)?;
        match version {
            Some(version) => Ok(Self::Artifact { registry, repository, version }),
            None if registry == Registry::docker_hub() => {
                // `docker.io/grafana` is a namespace, not `library/grafana`.
                let written = trimmed.split_once('/').filter(|(first, _)| Registry::looks_like(first));
                let prefix = match written {
                    Some((_, path)) => Repository::parse(path)?,
                    None => repository,
                };
                Ok(Self::Registry { registry, prefix: Some(prefix) })
            }
            None => Ok(Self::Registry { registry, prefix: Some(repository) }),
        }
    }

    fn parse_layout(form: LayoutForm, text: &str) -> Result<Self, InvalidReference> {
        if text.is_empty() {
            return Err(InvalidReference::new(text, form.usage()));
        }
        let layout = |path: &str, name| Ok(Self::Layout { place: LayoutPlace { form, path: path.into() }, name });
        if let Some((path, digest)) = text.rsplit_once('@')
            && let Ok(digest) = Digest::parse(digest)
        {
            return layout(path, Some(LayoutName::Digest(digest)));
        }
        if let Some((_, digest)) = text.rsplit_once('@')
            && (digest.starts_with("sha256:") || digest.starts_with("sha512:"))
        {
            return Err(InvalidReference::new(digest, "digest (sha256:<64 lower-case hex digits>)"));
        }
        // The path ends at the first colon: the rest may be a full reference with its own colons.
        match text.split_once(':') {
            Some((path, name)) if !name.is_empty() && !path.is_empty() => layout(path, Some(LayoutName::Name(name.to_owned()))),
            _ => layout(text.trim_end_matches(':'), None),
        }
    }
}

impl LayoutForm {
    const ALL: [Self; 2] = [Self::Directory, Self::Archive];

    /// The scheme of references, with its colon.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Directory => "oci:",
            Self::Archive => "oci-archive:",
        }
    }

    /// The form that a reference's scheme names, and the rest of the reference.
    pub fn of_text(text: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|form| Some((form, text.strip_prefix(form.scheme())?)))
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Directory => "layout (oci:DIRECTORY or oci:DIRECTORY:tag)",
            Self::Archive => "archive (oci-archive:FILE.tar or oci-archive:FILE.tar:tag)",
        }
    }
}

impl fmt::Display for LayoutPlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.form.scheme(), self.path.display())
    }
}

impl Registry {
    /// Whether a one-component SOURCE is a registry: an address, a name with a dot, or `localhost`.
    fn looks_like_host(text: &str) -> bool {
        let host = text.split(':').next().unwrap_or_default();
        (host == "localhost" || host.contains('.') || text.starts_with('[')) && Self::parse(text).is_ok()
    }
}

impl LayoutName {
    /// The tag, if the name is a valid one.
    pub fn tag(&self) -> Option<Tag> {
        match self {
            Self::Name(name) => Tag::parse(name).ok(),
            Self::Digest(_) => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { registry, prefix: None } => write!(formatter, "{registry}"),
            Self::Registry { registry, prefix: Some(prefix) } => write!(formatter, "{registry}/{prefix}"),
            Self::Artifact { registry, repository, version } => write!(formatter, "{registry}/{repository}{version}"),
            Self::Layout { place, name } => {
                write!(formatter, "{place}")?;
                match name {
                    Some(LayoutName::Name(name)) => write!(formatter, ":{name}"),
                    Some(LayoutName::Digest(digest)) => write!(formatter, "@{digest}"),
                    None => Ok(()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_source_is_recognised() {
        let digest = Digest::of(b"x");
        for (text, shown) in [
            ("reg.io", "reg.io"),
            ("localhost:5000", "localhost:5000"),
            ("localhost:5000/team", "localhost:5000/team"),
            ("reg.io/team/", "reg.io/team"),
            ("reg.io/team/app:v1", "reg.io/team/app:v1"),
            ("alpine", "docker.io/library/alpine"),
            ("alpine:3", "docker.io/library/alpine:3"),
            ("docker.io/grafana", "docker.io/grafana"),
            ("myhost:5000/", "myhost:5000"),
            ("oci:/a/b", "oci:/a/b"),
            ("oci:layout:v1", "oci:layout:v1"),
            ("oci-archive:/a/b.tar", "oci-archive:/a/b.tar"),
            ("oci-archive:b.tar:v1", "oci-archive:b.tar:v1"),
        ] {
            assert_eq!(Source::parse(text).unwrap().to_string(), shown, "{text}");
        }
        let by_digest = format!("reg.io/a@{digest}");
        assert!(matches!(Source::parse(&by_digest), Ok(Source::Artifact { version: Version::Digest(_), .. })));
        let layout = format!("oci:/l@{digest}");
        assert!(matches!(Source::parse(&layout), Ok(Source::Layout { name: Some(LayoutName::Digest(_)), .. })));
        assert!(Source::parse("oci:/srv/layout@sha256:../../x").is_err());
    }

    #[test]
    fn a_layout_name_may_be_a_full_reference() {
        let Ok(Source::Layout { place, name: Some(LayoutName::Name(name)) }) = Source::parse("oci:saved:localhost/app:v1") else {
            panic!("not a layout")
        };
        assert_eq!((place.path.to_str(), name.as_str()), (Some("saved"), "localhost/app:v1"));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "/", "oci:", "oci-archive:", "http://reg.io", "reg.io/UPPER", "reg.io/a:b:c"] {
            assert!(Source::parse(text).is_err(), "{text:?}");
        }
    }
}
