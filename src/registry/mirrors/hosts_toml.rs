//! containerd's `hosts.toml`: <https://github.com/containerd/containerd/blob/main/docs/hosts.md>.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

use super::rules::{Authority, Endpoint, Own, Rename, Root, Rule, Security, SourceHost, Uses};
use super::table::{self, Mistake, Table};
use crate::oci::{Registry, Repository};

/// The keys of a host, also valid at the top for the server.
const HOST: [&str; 7] = ["capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"];

/// Parses the file of `registry`; relative paths in it start from the directory of `path`.
///
/// # Errors
/// The first mistake or unsupported setting in it.
pub(super) fn parse(text: &str, path: &Path, registry: &Registry) -> Result<(Rule, Own), Mistake> {
    let document = table::parse(text)?;
    let root = Table::root(text, &document);
    root.check_keys(&[&HOST[..], &["server", "host"]].concat())?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let (mut mirrors, mut own) = (Vec::new(), Own::default());
    if let Some(hosts) = root.table("host")? {
        for name in hosts.keys() {
            let Some(host) = hosts.table(name)? else { continue };
            host.check_keys(&HOST)?;
            let place = place(name, &hosts, name, &host, folder)?;
            if place.endpoint.host == *registry {
                own = own_of(place, &host)?;
            } else if place.uses.tags || place.uses.content {
                mirrors.push(place);
            }
        }
    }
    let server = place(root.string("server")?.unwrap_or(registry.as_str()), &root, "server", &root, folder)?;
    let authority = if server.endpoint.host == *registry {
        if HOST.iter().any(|key| root.keys().any(|given| given == *key)) {
            own = own_of(server, &root)?;
        }
        Authority::Own(Rename::default())
    } else {
        if server.uses != (Uses { tags: true, content: true }) {
            return Err(root.mistake("capabilities", "the server must be able to pull and to resolve"));
        }
        Authority::Elsewhere(Box::new(server))
    };
    let file = path.to_owned();
    Ok((Rule { file, path: String::new(), rank: 0, blocked: false, insecure: false, mirrors, authority }, own))
}

/// The settings of a host that is the registry itself.
fn own_of(place: SourceHost, host: &Table<'_>) -> Result<Own, Mistake> {
    let SourceHost { endpoint, uses, rename } = place;
    if endpoint.root != Root::Below(String::new()) || !rename.to.is_empty() {
        return Err(host.mistake("override_path", "the registry itself cannot have another path"));
    }
    if uses != (Uses { tags: true, content: true }) {
        return Err(host.mistake("capabilities", "the registry itself must be able to pull and to resolve"));
    }
    let Endpoint { security, authorities, client, headers, connect, .. } = endpoint;
    let means_tls = security == Security::Unverified || !authorities.is_empty() || client.is_some();
    let plain_http = if security == Security::Plain { Some(true) } else { means_tls.then_some(false) };
    let insecure = security == Security::Unverified;
    Ok(Own { plain_http, insecure, authorities, client, headers, connect })
}

/// A host; its name is `key` in `within`.
fn place(name: &str, within: &Table<'_>, key: &str, host: &Table<'_>, folder: &Path) -> Result<SourceHost, Mistake> {
    let overrides = host.boolean("override_path")?.unwrap_or_default();
    let (registry, plain, root, to) = address(name, overrides).map_err(|what| within.mistake_at(key, what))?;
    let security = match (plain, host.boolean("skip_verify")?.unwrap_or_default()) {
        (true, _) => Security::Plain,
        (false, true) => Security::Unverified,
        (false, false) => Security::Verified,
    };
    let absolute = |file: &str| folder.join(file);
    let endpoint = Endpoint {
        root,
        authorities: host.strings("ca")?.unwrap_or_default().into_iter().map(absolute).collect(),
        client: client(host, folder)?,
        headers: headers(host)?,
        connect: host
            .string("dial_timeout")?
            .map(|text| duration(text).ok_or(text))
            .transpose()
            .map_err(|_| host.mistake("dial_timeout", "must be a duration like `5s` or `1m30s`"))?,
        is_proxy: true,
        ..Endpoint::new(registry, security)
    };
    Ok(SourceHost { endpoint, uses: uses(host)?, rename: Rename { from: String::new(), to } })
}

fn uses(host: &Table<'_>) -> Result<Uses, Mistake> {
    let capabilities = host.strings("capabilities")?.unwrap_or_default();
    let known = ["pull", "resolve", "push", "referrers"];
    if capabilities.iter().any(|given| !known.contains(&given.to_ascii_lowercase().as_str())) {
        return Err(host.mistake("capabilities", "must consist of `pull`, `resolve` and `push`"));
    }
    let has = |wanted: &str| capabilities.is_empty() || capabilities.iter().any(|given| given.eq_ignore_ascii_case(wanted));
    Ok(Uses { tags: has("resolve"), content: has("pull") })
}

fn client(host: &Table<'_>, folder: &Path) -> Result<Option<(PathBuf, PathBuf)>, Mistake> {
    let pairs = host.pairs("client")?.unwrap_or_default();
    match pairs.as_slice() {
        [] => Ok(None),
        [(certificate, key)] => Ok(Some((folder.join(certificate), folder.join(key.unwrap_or(certificate))))),
        _ => Err(host.mistake("client", "several client certificates for one host are not supported")),
    }
}

fn headers(host: &Table<'_>) -> Result<Vec<(String, String)>, Mistake> {
    let mut headers = Vec::new();
    if let Some(table) = host.table("header")? {
        for name in table.keys() {
            headers.extend(table.strings(name)?.unwrap_or_default().into_iter().map(|value| (name.to_owned(), value.to_owned())));
        }
    }
    Ok(headers)
}

/// The host, whether it uses plain HTTP, the root of its API, and the prefix of repository names there.
fn address(name: &str, overrides: bool) -> Result<(Registry, bool, Root, String), &'static str> {
    let full = match name.split_once("://") {
        Some(("http" | "https", _)) => name.to_owned(),
        Some(_) => return Err("not a host or an HTTP URL"),
        None => format!("https://{name}"),
    };
    let url = Url::parse(&full).map_err(|_| "not a host or URL")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a user name in a URL is not supported; log in to the host instead");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a URL with a query is not supported");
    }
    let host = url.host_str().ok_or("a URL without a host")?;
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let registry = Registry::parse(&host).map_err(|_| "not a host or URL")?;
    let path = url.path().trim_end_matches('/');
    let below = path.strip_suffix("/v2");
    // Really a prefix of repository names; treated as one, it also gets the right token scopes.
    let prefix = path.strip_prefix("/v2/").filter(|prefix| overrides && Repository::parse(prefix).is_ok());
    let (root, to) = match (below, prefix) {
        (Some(below), _) => (Root::Below(below.to_owned()), String::new()),
        (None, Some(prefix)) => (Root::Below(String::new()), prefix.to_owned()),
        (None, None) if overrides => (Root::At(path.to_owned()), String::new()),
        (None, None) => (Root::Below(path.to_owned()), String::new()),
    };
    Ok((registry, url.scheme() == "http", root, to))
}

/// A duration as Go writes it: `1m30s`, `1.5s`, `200ms`.
fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (mut rest, mut seconds) = (text, 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?);
        let (unit, next) = after.split_at(after.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(after.len()));
        let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        seconds += number.parse::<f64>().ok()? * factor;
        rest = next;
    }
    Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(Rule, Own), String> {
        let path = Path::new("/etc/containerd/certs.d/reg.io/hosts.toml");
        parse(text, path, &Registry::parse("reg.io").unwrap()).map_err(|mistake| mistake.to_string())
    }

    fn host(text: &str) -> Registry {
        Registry::parse(text).unwrap()
    }

    #[test]
    fn mirrors_keep_their_order_and_settings() {
        let text = r#"
server = "https://reg.io"

[host."https://b.mirror:5000"]
  capabilities = ["pull"]
  ca = ["ca.pem", "/etc/other.pem"]
  client = [["/etc/client.cert", "client.key"]]
  dial_timeout = "1m1.5s"

[host."https://b.mirror:5000".header]
  x-token = ["one", "two"]

[host."http://a.mirror"]
  skip_verify = true

[host."https://harbor/v2/proxy-cache"]
  override_path = true
"#;
        let (rule, own) = parsed(text).unwrap();
        assert_eq!((&rule.authority, own), (&Authority::Own(Rename::default()), Own::default()));
        let [first, second, third] = rule.mirrors.as_slice() else { panic!("{rule:?}") };
        let folder = Path::new("/etc/containerd/certs.d/reg.io");
        assert_eq!(
            first.endpoint,
            Endpoint {
                authorities: vec![folder.join("ca.pem"), "/etc/other.pem".into()],
                client: Some(("/etc/client.cert".into(), folder.join("client.key"))),
                headers: vec![("x-token".into(), "one".into()), ("x-token".into(), "two".into())],
                connect: Some(Duration::from_millis(61_500)),
                is_proxy: true,
                ..Endpoint::new(host("b.mirror:5000"), Security::Verified)
            }
        );
        assert_eq!(first.uses, Uses { tags: false, content: true });
        assert_eq!((&second.endpoint.host, second.endpoint.security), (&host("a.mirror"), Security::Plain));
        assert_eq!((third.endpoint.root.clone(), third.rename.to.as_str()), (Root::Below(String::new()), "proxy-cache"));
        assert_eq!(third.uses, Uses { tags: true, content: true });
    }

    #[test]
    fn the_path_of_a_host_is_the_root_of_its_api() {
        for (url, overrides, root, to) in [
            ("https://m", false, Root::Below(String::new()), ""),
            ("https://m/", true, Root::At(String::new()), ""),
            ("https://m/v2", true, Root::Below(String::new()), ""),
            ("https://m/v2/", false, Root::Below(String::new()), ""),
            ("https://m/art/v2", false, Root::Below("/art".into()), ""),
            ("https://m/art", false, Root::Below("/art".into()), ""),
            ("https://m/art", true, Root::At("/art".into()), ""),
            ("https://m/v2/a/b", true, Root::Below(String::new()), "a/b"),
            ("m:5000", false, Root::Below(String::new()), ""),
        ] {
            let (_, plain, found, prefix) = address(url, overrides).unwrap();
            assert_eq!((plain, found, prefix.as_str()), (false, root, to), "{url} {overrides}");
        }
    }

    #[test]
    fn a_server_on_another_host_is_the_authority_and_the_registry_itself_is_configured() {
        let (rule, own) = parsed("server = \"https://inside.io\"\nskip_verify = true\n").unwrap();
        let Authority::Elsewhere(place) = rule.authority else { panic!("{rule:?}") };
        assert_eq!((place.endpoint.host, place.endpoint.security, own), (host("inside.io"), Security::Unverified, Own::default()));
        for text in ["server = \"https://reg.io\"\nca = \"ca.pem\"", "ca = \"ca.pem\"", "[host.\"https://reg.io\"]\nca = \"ca.pem\""] {
            let (rule, own) = parsed(text).unwrap();
            assert!(!rule.redirects() && own.authorities == ["/etc/containerd/certs.d/reg.io/ca.pem"].map(PathBuf::from), "{text}");
        }
        let hub = parse("server = \"https://registry-1.docker.io\"", Path::new("/x/hosts.toml"), &Registry::docker_hub());
        assert!(!hub.unwrap().0.redirects());
    }

    #[test]
    fn a_mistake_is_reported_with_its_line_but_no_values() {
        for (text, expected) in [
            ("a = [\n", "not valid TOML"),
            ("\nservr = \"x\"", "line 2: `servr`: unknown key"),
            ("[host.\"https://m\"]\n\nproxy = \"x\"", "line 3: `proxy`: unknown key"),
            ("[host.\"https://m\"]\ncapabilities = [\"pul\"]", "line 2: `capabilities`: must consist of"),
            ("[host.\"https://m\"]\nskip_verify = \"yes\"", "line 2: `skip_verify`: must be true or false"),
            ("\n[host.\"ftp://m\"]\n", "line 2: not a host or an HTTP URL"),
            ("[host.\"https://u:hunter2@m\"]\n", "log in to the host instead"),
            ("[host.\"https://m\"]\nclient = [[\"a\", \"b\"], [\"c\", \"d\"]]", "line 2: `client`: several"),
            ("[host.\"https://m\"]\ndial_timeout = \"5\"", "line 2: `dial_timeout`: must be a duration"),
            ("capabilities = [\"pull\"]", "line 1: `capabilities`: the registry itself"),
            ("[host.\"https://m\".header]\nx = 1", "line 2: `x`: must be a string"),
        ] {
            let mistake = parsed(text).unwrap_err();
            assert!(mistake.contains(expected), "{text}: {mistake}");
        }
        for text in ["[host.\"https://m\"]\nheader = \"hunter2\"", "[host.\"https://u:hunter2@m\"]\n", "server = \"https://u:hunter2@m\""] {
            assert!(!parsed(text).unwrap_err().contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn durations_follow_go_s_syntax() {
        for (text, expected) in [("3s", Some(3000)), ("1.5s", Some(1500)), ("1m30s", Some(90_000)), ("200ms", Some(200))] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        }
        for bad in ["", "5", "s", "-1s", "1x", "0s", "1..s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
