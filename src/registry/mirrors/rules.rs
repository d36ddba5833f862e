//! The rules of the files for one registry: the sources of its content, and what is blocked. Pure.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::oci::{Registry, Repository};

/// How the connection to a host is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Security {
    /// TLS.
    Verified,
    /// TLS with any certificate.
    Unverified,
    /// Plain HTTP.
    Plain,
    /// TLS with any certificate, else plain HTTP.
    Any,
}

/// Where the API of a host begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// At `/v2/` below this path (without a final slash).
    Below(String),
    /// At this path itself.
    At(String),
}

/// A host and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: Registry,
    pub(super) security: Security,
    pub(super) root: Root,
    /// PEM files of certificate authorities.
    pub(super) authorities: Vec<PathBuf>,
    /// PEM files of certificate and key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    pub(super) headers: Vec<(String, String)>,
    /// Limit for connecting.
    pub(super) connect: Option<Duration>,
    /// Set if each request carries the registry's name (`?ns=`).
    pub(super) is_proxy: bool,
}

impl Default for Root {
    fn default() -> Self {
        Self::Below(String::new())
    }
}

impl Endpoint {
    /// A host with default settings.
    pub(super) fn new(host: Registry, security: Security) -> Self {
        Self {
            host,
            security,
            root: Root::default(),
            authorities: Vec::new(),
            client: None,
            headers: Vec::new(),
            connect: None,
            is_proxy: false,
        }
    }
}

/// The uses of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uses {
    /// Resolving tags.
    pub(super) tags: bool,
    /// Manifests and blobs by digest.
    pub(super) content: bool,
}

/// Renames repositories for another source: replaces a prefix of the name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rename {
    pub(super) from: String,
    pub(super) to: String,
}

impl Rename {
    /// The repository's name there; `None` if it has no valid one.
    pub(super) fn apply(&self, repository: &Repository) -> Option<Repository> {
        let rest = match self.from.as_str() {
            "" => repository.as_str(),
            from => repository.as_str().strip_prefix(from)?.trim_start_matches('/'),
        };
        let parts: Vec<&str> = [self.to.as_str(), rest].into_iter().filter(|part| !part.is_empty()).collect();
        Repository::parse(&parts.join("/")).ok()
    }
}

/// A source to read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceHost {
    pub(super) endpoint: Endpoint,
    pub(super) uses: Uses,
    pub(super) rename: Rename,
}

/// The source that decides what exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Authority {
    /// The registry itself, perhaps under another name.
    Own(Rename),
    /// Another host.
    Elsewhere(Box<SourceHost>),
}

/// The rule of one file for a registry or part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) file: PathBuf,
    /// The repositories it applies to: those at or below this path; all if empty.
    pub(super) path: String,
    /// Of several rules for a repository, the one with the highest rank applies.
    pub(super) rank: usize,
    pub(super) blocked: bool,
    /// Whether the registry itself may be reached without a verified certificate.
    pub(super) insecure: bool,
    /// In the order they are asked.
    pub(super) mirrors: Vec<SourceHost>,
    pub(super) authority: Authority,
}

impl Rule {
    /// Whether reads may go anywhere but to the registry itself in the usual way.
    pub(super) fn redirects(&self) -> bool {
        !self.mirrors.is_empty() || !self.is_own() || self.insecure
    }

    /// Whether the registry itself is the authority, under its usual names.
    pub(super) fn is_own(&self) -> bool {
        self.authority == Authority::Own(Rename::default())
    }

    fn concerns(&self, repository: Option<&Repository>) -> bool {
        self.path.is_empty() || repository.is_some_and(|repository| repository.is_within(&self.path))
    }
}

/// How the registry itself is reached, unless flags say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Plain HTTP or TLS.
    pub plain_http: Option<bool>,
    /// Accept any certificate.
    pub insecure: bool,
    /// PEM files of certificate authorities.
    pub authorities: Vec<PathBuf>,
    /// PEM files of the client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Headers for every request.
    pub headers: Vec<(String, String)>,
    /// Limit for connecting.
    pub connect: Option<Duration>,
}

/// All rules of the files for one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Its `hosts.toml`.
    pub(super) of_host: Option<Rule>,
    /// Entries of `registries.conf`.
    pub(super) entries: Vec<Rule>,
    /// The `hosts.toml` for registries without one.
    pub(super) of_all: Option<Rule>,
    pub(super) own: Own,
}

impl Rules {
    /// How the registry itself is reached for a repository or prefix.
    pub fn own(&self, repository: Option<&Repository>) -> Own {
        let insecure = self.own.insecure || self.entry(repository).is_some_and(|entry| entry.insecure);
        Own { insecure, ..self.own.clone() }
    }

    /// Refuses registries and repositories that a file blocks.
    ///
    /// # Errors
    /// Denied, naming the file.
    pub fn check(&self, repository: Option<&Repository>) -> Result<(), Error> {
        let Some(entry) = self.entry(repository).filter(|entry| entry.blocked) else { return Ok(()) };
        let what = repository.map_or_else(|| "the registry".to_owned(), |repository| format!("repository {repository}"));
        let file = entry.file.display().to_string();
        let message = format!("{what} is blocked by {}; remove the entry there, or use --no-mirrors to ignore it", file.escape_debug());
        Err(Error::new(ErrorKind::Denied, message))
    }

    /// The entry of `registries.conf` for a repository.
    fn entry(&self, repository: Option<&Repository>) -> Option<&Rule> {
        self.entries.iter().filter(|entry| entry.concerns(repository)).max_by_key(|entry| entry.rank)
    }

    /// The rule for reading a repository: of its own `hosts.toml`, else of `registries.conf`, else of `_default/hosts.toml`.
    pub(super) fn rule(&self, repository: Option<&Repository>) -> Option<&Rule> {
        let entry = || self.entry(repository).filter(|entry| entry.redirects());
        self.of_host.as_ref().or_else(entry).or(self.of_all.as_ref())
    }

    /// Whether any reads may be redirected.
    pub fn redirects(&self) -> bool {
        self.redirecting().next().is_some()
    }

    /// All rules that may redirect reads.
    pub(super) fn redirecting(&self) -> impl Iterator<Item = &Rule> {
        self.of_host.iter().chain(&self.entries).chain(&self.of_all).filter(|rule| rule.redirects())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(text: &str) -> Repository {
        Repository::parse(text).unwrap()
    }

    #[test]
    fn a_source_with_another_prefix_renames_repositories() {
        for (from, to, name, expected) in [
            ("", "", "team/app", Some("team/app")),
            ("", "hub", "team/app", Some("hub/team/app")),
            ("foo", "bar/foo", "foo/app", Some("bar/foo/app")),
            ("foo", "", "foo/app", Some("app")),
            ("foo", "", "foo", None),
            ("foo", "other", "foo", Some("other")),
        ] {
            let rename = Rename { from: from.to_owned(), to: to.to_owned() };
            assert_eq!(rename.apply(&repository(name)), expected.map(repository), "{from} {to} {name}");
        }
    }

    fn entry(path: &str, blocked: bool) -> Rule {
        let (rank, path, file) = (path.len(), path.to_owned(), PathBuf::from("/etc/x.conf"));
        Rule { file, path, rank, blocked, insecure: false, mirrors: Vec::new(), authority: Authority::Own(Rename::default()) }
    }

    #[test]
    fn the_longest_prefix_wins_and_a_block_names_its_file() {
        let rules = Rules { entries: vec![entry("", true), entry("team", false), entry("team/secret", true)], ..Rules::default() };
        let blocked = |name: &str| rules.check(Some(&repository(name))).is_err();
        assert_eq!(["a", "team/a", "team", "teams", "team/secret/x"].map(blocked), [true, false, false, true, true]);
        let error = rules.check(None).unwrap_err();
        assert!(error.kind == ErrorKind::Denied && error.message.contains("/etc/x.conf"), "{error}");
    }
}
