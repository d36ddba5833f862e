//! References in the grammar of the distribution specification: registry, repository, tag or digest.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests>; `docker.io` expands as in other tools:
//! `alpine:3` is `docker.io/library/alpine:3`.

use std::fmt;

use super::Digest;

/// Longest host plus repository name that registries accept, in bytes.
const NAME_LIMIT: usize = 255;

/// A registry: a host name or address with an optional port, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Registry(String);

/// A repository name, one or more path components.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(String);

/// A tag or digest: the name of one manifest inside a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// A movable name.
    Tag(Tag),
    /// Immutable content.
    Digest(Digest),
}

/// Text that is not a valid reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a {what}", .text.escape_default())]
pub struct InvalidReference {
    text: String,
    what: &'static str,
}

impl InvalidReference {
    pub(super) fn new(text: &str, what: &'static str) -> Self {
        Self { text: text.chars().take(160).collect(), what }
    }
}

impl Registry {
    /// Parses `host`, `host:port`, `[v6]:port`. `index.docker.io` and `registry-1.docker.io` are `docker.io`.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let refuse = || InvalidReference::new(text, "registry (host or host:port)");
        let lower = text.to_ascii_lowercase();
        let (host, port) = match lower.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or_else(refuse)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| refuse())?;
                (None, after.strip_prefix(':').or_else(|| after.is_empty().then_some("")).ok_or_else(refuse)?)
            }
            None => match lower.split_once(':') {
                Some((_, "")) => return Err(refuse()),
                Some((host, port)) => (Some(host), port),
                None => (Some(lower.as_str()), ""),
            },
        };
        if let Some(host) = host {
            let label = |part: &str| {
                !part.is_empty()
                    && !part.starts_with('-')
                    && !part.ends_with('-')
                    && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            };
            if host.len() > NAME_LIMIT || !host.split('.').all(label) {
                return Err(refuse());
            }
        }
        if !port.is_empty() && (port.parse::<u16>().is_err() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(refuse());
        }
        match lower.as_str() {
            "index.docker.io" | "registry-1.docker.io" => Ok(Self("docker.io".to_owned())),
            _ => Ok(Self(lower)),
        }
    }

    /// Docker Hub, the default of unqualified references.
    pub fn docker_hub() -> Self {
        Self("docker.io".to_owned())
    }

    /// The name as written in references.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host without port and brackets.
    pub fn host(&self) -> &str {
        match self.0.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.0.split(':').next().unwrap_or_default(),
        }
    }

    /// Whether this is `localhost`, `127.0.0.0/8` or `[::1]`, which speak plain HTTP unless told otherwise.
    pub fn is_loopback(&self) -> bool {
        self.host() == "localhost" || self.host().parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether the first component of a reference is a registry, by Docker's rule.
    pub(super) fn looks_like(component: &str) -> bool {
        component == "localhost" || component.contains(['.', ':']) || component.starts_with('[')
    }
}

impl Repository {
    /// Parses a repository name: components of lower-case letters, digits and separators, joined by `/`.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        if text.len() > NAME_LIMIT || !text.split('/').all(Self::is_component) {
            return Err(InvalidReference::new(text, "repository name (lower-case letters, digits, `.`, `_`, `-` and `/`)"));
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether the text is a valid component of a repository name: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
    pub fn is_component(text: &str) -> bool {
        let word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        if !bytes.first().is_some_and(word) || !bytes.last().is_some_and(word) {
            return false;
        }
        bytes.split(word).all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-'))
    }

    /// The child of this repository with the given name.
    pub fn child(&self, component: &str) -> Result<Self, InvalidReference> {
        Self::parse(&format!("{}/{component}", self.0))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `self` equals `prefix` or is below it, by whole components.
    pub fn is_within(&self, prefix: &str) -> bool {
        prefix.is_empty() || self.0.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Tag {
    /// Parses a tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let bytes = text.as_bytes();
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if bytes.len() > 128 || !bytes.first().is_some_and(word) || !bytes.iter().all(|byte| word(byte) || b".-".contains(byte)) {
            return Err(InvalidReference::new(text, "tag (at most 128 letters, digits, `_`, `.` and `-`)"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The first of all tags in their order.
    pub fn first() -> Self {
        Self("0".to_owned())
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is a tag of the referrers tag schema or of cosign (`sha256-<hex>`, `.sig`, `.att`, `.sbom`): bookkeeping, which opens by name
    /// but is never listed.
    pub fn is_bookkeeping(&self) -> bool {
        let stem = self.0.split('.').next().unwrap_or_default();
        Digest::parse_path_name(stem).is_ok()
    }
}

impl Version {
    /// Parses a tag or a digest.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        Digest::parse(text).map(Self::Digest).or_else(|_| Tag::parse(text).map(Self::Tag))
    }

    /// The part after the repository in a URL: tag or digest.
    pub fn to_path(&self) -> String {
        match self {
            Self::Tag(tag) => tag.0.clone(),
            Self::Digest(digest) => digest.to_string(),
        }
    }
}

/// Splits a reference; the version is `None` if the text has none.
pub(super) fn parse_parts(text: &str) -> Result<(Registry, Repository, Option<Version>), InvalidReference> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            (rest, Some(Digest::parse(digest).map_err(|_| InvalidReference::new(digest, "digest (sha256:<64 lower-case hex digits>)"))?))
        }
        None => (text, None),
    };
    let (registry, path) = match rest.split_once('/') {
        Some((first, path)) if Registry::looks_like(first) => (Registry::parse(first)?, path),
        _ => (Registry::docker_hub(), rest),
    };
    let (name, tag) = match path.rsplit_once(':') {
        Some((name, tag)) => (name, Some(Tag::parse(tag)?)),
        None => (path, None),
    };
    let name = if registry == Registry::docker_hub() && !name.contains('/') { format!("library/{name}") } else { name.to_owned() };
    let repository = Repository::parse(&name).map_err(|_| {
        InvalidReference::new(text, "reference (registry/repository:tag or registry/repository@digest; repository names are in lower case)")
    })?;
    Ok((registry, repository, digest.map(Version::Digest).or(tag.map(Version::Tag))))
}

impl fmt::Display for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Version {
    /// Includes the leading separator: `:tag` or `@sha256:…`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(formatter, ":{tag}"),
            Self::Digest(digest) => write!(formatter, "@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_references_expand_to_docker_hub() {
        let parts = |text: &str| {
            let (registry, repository, version) = parse_parts(text).unwrap();
            (format!("{registry}/{repository}"), version.map(|version| version.to_string()))
        };
        assert_eq!(parts("alpine"), ("docker.io/library/alpine".to_owned(), None));
        assert_eq!(parts("team/app:v1"), ("docker.io/team/app".to_owned(), Some(":v1".to_owned())));
        assert_eq!(parts("index.docker.io/alpine:3"), ("docker.io/library/alpine".to_owned(), Some(":3".to_owned())));
        assert_eq!(parts("localhost/a"), ("localhost/a".to_owned(), None));
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let digest = Digest::of(b"x");
        let (registry, _, version) = parse_parts(&format!("[::1]:5000/a/b:v1@{digest}")).unwrap();
        assert_eq!(version, Some(Version::Digest(digest)));
        assert!(registry.is_loopback());
    }

    #[test]
    fn component_grammar_follows_the_specification() {
        for good in ["a", "a.b", "a_b", "a__b", "a--b", "0", "a-b.c"] {
            assert!(Repository::is_component(good), "{good}");
        }
        for bad in ["", "A", ".git", "a..b", "a___b", "-a", "a-", "a b", "a._b", "é", "Desktop.ini"] {
            assert!(!Repository::is_component(bad), "{bad}");
        }
    }

    #[test]
    fn a_prefix_never_matches_half_a_component() {
        let repository = Repository::parse("team/app").unwrap();
        assert!(repository.is_within("team") && repository.is_within("team/app") && repository.is_within(""));
        assert!(!repository.is_within("tea") && !repository.is_within("team/ap"));
    }

    #[test]
    fn bookkeeping_tags_are_recognised_by_their_form() {
        let hex = "0".repeat(64);
        for text in [format!("sha256-{hex}"), format!("sha256-{hex}.sig")] {
            assert!(Tag::parse(&text).unwrap().is_bookkeeping());
        }
        assert!(!Tag::parse("sha256-abc").unwrap().is_bookkeeping());
    }

    #[test]
    fn malformed_references_are_refused() {
        for bad in [
            "",
            "reg.io/",
            "reg.io/A",
            "reg.io/a:",
            "reg.io/a:-x",
            "reg.io/a@sha256:12",
            "reg.io/a@md5:0",
            "http://reg.io/a",
            "reg.io:port/a",
            "reg.io/a/../b",
            "reg.io/a\n",
        ] {
            assert!(parse_parts(bad).is_err(), "{bad:?}");
        }
    }
}
