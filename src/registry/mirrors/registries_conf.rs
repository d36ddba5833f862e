//! podman's `registries.conf`, version 2: <https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md>.
//!
//! Unqualified names and aliases do not matter here: a reference always names its registry.

use std::path::{Path, PathBuf};

use super::rules::{Authority, Endpoint, Rename, Rule, Security, SourceHost, Uses};
use super::table::{self, Mistake, Table};
use crate::oci::Registry;

/// A `[[registry]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    file: PathBuf,
    prefix: String,
    /// Empty if equal to the prefix.
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

/// A `[[registry.mirror]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    location: String,
    insecure: bool,
    uses: Uses,
}

/// Parses a file; `path` is for messages.
///
/// # Errors
/// The first mistake in it.
pub(super) fn parse(text: &str, path: &Path) -> Result<Vec<Entry>, Mistake> {
    let document = table::parse(text)?;
    let root = Table::root(text, &document);
    if root.keys().any(|key| key == "registries") {
        return Err(root.mistake("registries", "version 1 of this file is not supported; write [[registry]] entries"));
    }
    root.tables("registry")?.into_iter().map(|table| entry(&table, path)).collect()
}

/// Adds the entries of a later file, which replace those for the same prefix.
pub(super) fn merge(mut entries: Vec<Entry>, later: Vec<Entry>) -> Vec<Entry> {
    entries.retain(|entry| later.iter().all(|new| new.prefix != entry.prefix));
    entries.extend(later);
    entries
}

fn entry(table: &Table<'_>, path: &Path) -> Result<Entry, Mistake> {
    table.check_keys(&["prefix", "location", "insecure", "blocked", "mirror-by-digest-only", "mirror"])?;
    let location = location(table)?;
    let prefix = table.string("prefix")?.unwrap_or_default().trim_end_matches('/');
    let prefix = if prefix.is_empty() { location.as_str() } else { prefix };
    if prefix.is_empty() {
        return Err(table.mistake("prefix", "an entry needs a prefix or a location"));
    }
    let host = prefix.strip_prefix("*.").unwrap_or(prefix).split('/').next().unwrap_or_default();
    if Registry::parse(host).is_err() {
        return Err(table.mistake("prefix", "must begin with a registry, or with `*.` and a domain"));
    }
    let by_digest = table.boolean("mirror-by-digest-only")?.unwrap_or_default();
    let mirrors = table.tables("mirror")?;
    Ok(Entry {
        file: path.to_owned(),
        prefix: prefix.to_owned(),
        location: if location == prefix { String::new() } else { location },
        insecure: table.boolean("insecure")?.unwrap_or_default(),
        blocked: table.boolean("blocked")?.unwrap_or_default(),
        mirrors: mirrors.iter().map(|mirror| mirror_of(mirror, by_digest)).collect::<Result<_, _>>()?,
    })
}

fn mirror_of(table: &Table<'_>, by_digest: bool) -> Result<Mirror, Mistake> {
    table.check_keys(&["location", "insecure", "pull-from-mirror"])?;
    let location = location(table)?;
    if location.is_empty() {
        return Err(table.mistake("location", "a mirror needs a location"));
    }
    let uses = match table.string("pull-from-mirror")?.unwrap_or_default() {
        "" => Uses { tags: !by_digest, content: true },
        _ if by_digest => return Err(table.mistake("pull-from-mirror", "conflicts with `mirror-by-digest-only` of the registry")),
        "all" => Uses { tags: true, content: true },
        "digest-only" => Uses { tags: false, content: true },
        "tag-only" => Uses { tags: true, content: false },
        _ => return Err(table.mistake("pull-from-mirror", "must be `all`, `digest-only` or `tag-only`")),
    };
    Ok(Mirror { location, insecure: table.boolean("insecure")?.unwrap_or_default(), uses })
}

/// `location`: a registry and an optional path.
fn location(table: &Table<'_>) -> Result<String, Mistake> {
    let location = table.string("location")?.unwrap_or_default().trim_end_matches('/');
    if location.is_empty() {
        return Ok(String::new());
    }
    match split(location) {
        Some(_) => Ok(location.to_owned()),
        None => Err(table.mistake("location", "must be HOST[:PORT][/PATH], without a scheme")),
    }
}

/// Registry and path of a location.
fn split(location: &str) -> Option<(Registry, &str)> {
    let (host, path) = location.split_once('/').unwrap_or((location, ""));
    Some((Registry::parse(host).ok()?, path)).filter(|_| !path.starts_with('/') && !path.contains(['@', ':']))
}

impl Entry {
    /// The file it comes from.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The rule for a registry; `None` if the entry concerns another one.
    ///
    /// # Errors
    /// It concerns a single tag or digest of this registry, which is not supported.
    pub(super) fn rule(&self, registry: &Registry) -> Result<Option<Rule>, String> {
        let path = match self.prefix.strip_prefix("*.") {
            Some(domain) if registry.as_str().strip_suffix(domain).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1) => "",
            Some(_) => return Ok(None),
            None => match self.prefix.split_once('/').unwrap_or((&self.prefix, "")) {
                (host, path) if Registry::parse(host).is_ok_and(|host| host == *registry) => path,
                _ => return Ok(None),
            },
        };
        if path.contains(['@', ':']) {
            return Err(format!("the prefix `{}` names a single tag or digest, which is not supported", self.prefix.escape_debug()));
        }
        let place = |location: &str, insecure: bool, uses| {
            let (host, to) = split(location)?;
            let security = if insecure { Security::Any } else { Security::Verified };
            let rename = Rename { from: path.to_owned(), to: to.to_owned() };
            Some(SourceHost { endpoint: Endpoint::new(host, security), uses, rename })
        };
        let authority = match place(&self.location, self.insecure, Uses { tags: true, content: true }) {
            None => Authority::Own(Rename::default()),
            Some(place) if place.endpoint.host == *registry => Authority::Own(place.rename),
            Some(place) => Authority::Elsewhere(Box::new(place)),
        };
        let mirrors = self.mirrors.iter().filter_map(|mirror| place(&mirror.location, mirror.insecure, mirror.uses)).collect();
        let (file, rank) = (self.file.clone(), self.prefix.len());
        Ok(Some(Rule { file, path: path.to_owned(), rank, blocked: self.blocked, insecure: self.insecure, mirrors, authority }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Entry>, String> {
        parse(text, Path::new("/etc/containers/registries.conf")).map_err(|mistake| mistake.to_string())
    }

    fn rules(text: &str, registry: &str) -> Vec<Rule> {
        let registry = Registry::parse(registry).unwrap();
        parsed(text).unwrap().iter().filter_map(|entry| entry.rule(&registry).unwrap()).collect()
    }

    /// The example of the manual page, with Debian's additions.
    const EXAMPLE: &str = r#"
unqualified-search-registries = ["example.com"]
short-name-mode = "enforcing"
credential-helpers = ["containers-auth.json"]

[aliases]
"debian" = "docker.io/library/debian"

[[registry]]
prefix = "example.com/foo"
insecure = false
blocked = false
location = "internal-registry-for-example.com/bar"

[[registry.mirror]]
location = "example-mirror-0.local/mirror-for-foo"

[[registry.mirror]]
location = "example-mirror-1.local/mirrors/foo"
insecure = true
pull-from-mirror = "digest-only"

[[registry]]
location = "registry.com"

[[registry.mirror]]
location = "mirror.registry.com"
"#;

    #[test]
    fn the_example_of_the_manual_is_parsed_as_documented() {
        let found = rules(EXAMPLE, "example.com");
        let [rule] = found.as_slice() else { panic!("{found:?}") };
        let place = |host: &str, security, to: &str, tags| SourceHost {
            endpoint: Endpoint::new(Registry::parse(host).unwrap(), security),
            uses: Uses { tags, content: true },
            rename: Rename { from: "foo".into(), to: to.into() },
        };
        assert_eq!((rule.path.as_str(), rule.blocked, rule.insecure), ("foo", false, false));
        assert_eq!(
            rule.mirrors,
            [
                place("example-mirror-0.local", Security::Verified, "mirror-for-foo", true),
                place("example-mirror-1.local", Security::Any, "mirrors/foo", false),
            ]
        );
        let inside = place("internal-registry-for-example.com", Security::Verified, "bar", true);
        assert_eq!(rule.authority, Authority::Elsewhere(Box::new(inside)));
        let found = rules(EXAMPLE, "registry.com");
        assert_eq!((found.len(), found[0].mirrors.len(), &found[0].authority), (1, 1, &Authority::Own(Rename::default())));
        assert!(rules(EXAMPLE, "mirror.registry.com").is_empty());
    }

    #[test]
    fn a_wildcard_matches_subdomains_but_not_the_domain() {
        let text = "[[registry]]\nprefix = \"*.example.com\"\nblocked = true\n";
        let blocked = |host: &str| rules(text, host).iter().any(|rule| rule.blocked);
        let hosts = ["a.example.com", "a.b.example.com", "example.com", "badexample.com", "a.example.com:5000"];
        assert_eq!(hosts.map(blocked), [true, true, false, false, false]);
        assert!(rules("[[registry]]\nprefix = \"*.example.com:5000\"\nblocked = true\n", "a.example.com:5000")[0].blocked);
    }

    #[test]
    fn a_later_file_replaces_entries_by_prefix_and_digest_only_applies_to_all_mirrors() {
        let first = parsed(EXAMPLE).unwrap();
        let later = "[[registry]]\nlocation = \"registry.com\"\nmirror-by-digest-only = true\nmirror = [{location = \"m\"}]\n";
        let entries = merge(first, parsed(later).unwrap());
        assert_eq!(entries.iter().map(|entry| entry.prefix.as_str()).collect::<Vec<_>>(), ["example.com/foo", "registry.com"]);
        assert_eq!(entries[1].mirrors[0].uses, Uses { tags: false, content: true });
    }

    #[test]
    fn another_path_on_the_registry_is_not_another_host() {
        let rule = &rules("[[registry]]\nprefix = \"reg.io/old\"\nlocation = \"reg.io/new\"\n", "reg.io")[0];
        assert_eq!(rule.authority, Authority::Own(Rename { from: "old".into(), to: "new".into() }));
        let one = parsed("[[registry]]\nprefix = \"reg.io/a:v1\"\n").unwrap();
        assert!(one[0].rule(&Registry::parse("reg.io").unwrap()).is_err());
        assert_eq!(one[0].rule(&Registry::parse("other.io").unwrap()), Ok(None));
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        for (text, expected) in [
            ("[[registry]]\nlocaton = \"x\"", "line 2: `locaton`: unknown key"),
            ("[registries.search]\nregistries = []", "version 1"),
            ("\n[[registry]]\nblocked = true", "line 2: `prefix`: an entry needs"),
            ("[[registry]]\nlocation = \"https://x\"", "line 2: `location`: must be HOST"),
            ("[[registry]]\nlocation = \"x\"\n[[registry.mirror]]\ninsecure = true", "line 3: `location`: a mirror needs"),
            ("[[registry]]\nlocation = \"x\"\n[[registry.mirror]]\nlocation = \"m\"\npull-from-mirror = \"never\"", "line 5: `pull"),
            ("[[registry]]\nlocation = \"x\"\nblocked = 1", "line 3: `blocked`: must be true or false"),
            ("[registry]\nlocation = \"x\"", "line 1: `registry`: must be an array of tables"),
        ] {
            let mistake = parsed(text).unwrap_err();
            assert!(mistake.contains(expected), "{text}: {mistake}");
        }
    }
}
