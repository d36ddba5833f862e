//! Decides where requests and credentials may go, by scheme, host and port of URLs. Pure.
//!
//! A credential goes only to the origin it is stored for, and to token servers known to belong to it. Another port, another spelling of
//! the same host and a plain-text scheme all count as other origins.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use crate::oci::Registry;
use crate::registry::mirrors::Root;

/// Longest URL accepted from a registry, in bytes; signed storage URLs are shorter.
const URL_LIMIT: usize = 16 << 10;
/// Token servers that are known to belong to a registry on another host.
const KNOWN_REALMS: [(&str, &str); 2] = [("docker.io", "https://auth.docker.io"), ("registry.gitlab.com", "https://gitlab.com")];

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    tls: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an HTTP URL; `None` for other schemes.
    pub(super) fn of(url: &Url) -> Option<Self> {
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self { tls, host: url.host_str()?.to_ascii_lowercase(), port: url.port_or_known_default()? })
    }

    /// Whether connections to it are encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.tls
    }

    /// The host and, unless it is the scheme's default, the port: the naming of certificate directories.
    pub(super) fn authority(&self) -> String {
        if self.port == if self.tls { 443 } else { 80 } { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Whether this is the local machine.
    pub(super) fn is_loopback(&self) -> bool {
        let plain = self.host.trim_start_matches('[').trim_end_matches(']');
        plain == "localhost" || plain.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// The base URL of a registry's API, ending with a slash. Docker Hub's API has its own host.
pub(super) fn api(registry: &Registry, tls: bool, root: &Root) -> Option<Url> {
    let host = if registry.as_str() == "docker.io" { "registry-1.docker.io" } else { registry.as_str() };
    let (Root::Below(path) | Root::At(path)) = root;
    Url::parse(&format!("{}://{host}{path}/", if tls { "https" } else { "http" })).ok()
}

/// Resolves the `Location` of a redirect.
pub(super) fn redirect(from: &Url, location: &str) -> Result<Url, String> {
    let url = resolve(from, location, "a redirect")?;
    if from.scheme() == "https" && url.scheme() != "https" {
        return Err(format!("it redirects from {} to plain HTTP at {}", shown(from), shown(&url)));
    }
    Ok(url)
}

/// Resolves the target of a `Link` to path and query on the registry itself. The scheme is not compared, since registries behind a proxy
/// often get it wrong; the request goes to the registry's own origin anyway.
pub(super) fn link(from: &Url, target: &str) -> Result<Url, String> {
    let url = resolve(from, target, "a list's next page")?;
    let same_port = url.port() == from.port() || url.scheme() != from.scheme();
    if url.host_str() != from.host_str() || !same_port {
        return Err(format!("its next page is on another host ({}); refusing to follow", shown(&url)));
    }
    let mut own = from.clone();
    own.set_path(url.path());
    own.set_query(url.query());
    own.set_fragment(None);
    Ok(own)
}

/// Resolves the `Location` of an upload. A registry behind a proxy often names its own host with the wrong scheme: then `own`'s encryption
/// is kept. Plain text elsewhere is refused if `own` is encrypted. The upload changes origin only if `own` itself `may_leave`, never because
/// another host says so.
pub(super) fn upload(own: &Url, from: &Url, location: &str, may_leave: bool) -> Result<Url, String> {
    let url = encrypted(own, resolve(from, location, "an upload location")?)?;
    let (origin, before) = (Origin::of(&url), Origin::of(from));
    if origin == before || (may_leave && before == Origin::of(own)) {
        return Ok(url);
    }
    Err(format!("it names an upload location on another host ({}); refusing to follow", shown(&url)))
}

fn encrypted(own: &Url, url: Url) -> Result<Url, String> {
    if own.scheme() != "https" || url.scheme() == "https" {
        return Ok(url);
    }
    // The port given, or its absence, must match our own.
    if url.host_str() == own.host_str() && url.port() == own.port() {
        let mut kept = own.clone();
        kept.set_path(url.path());
        kept.set_query(url.query());
        return Ok(kept);
    }
    Err(format!("it names a plain HTTP upload location at {}", shown(&url)))
}

fn resolve(from: &Url, target: &str, what: &str) -> Result<Url, String> {
    if target.len() > URL_LIMIT {
        return Err(format!("it names {what} of more than 16 KiB"));
    }
    let url = from.join(target).map_err(|_| format!("it names {what} that is not a valid URL"))?;
    if Origin::of(&url).is_none() {
        return Err(format!("it names {what} with the scheme `{}`", url.scheme().escape_debug()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("it names {what} with a user name in it"));
    }
    Ok(url)
}

/// A token server that the user trusts with the registry's credentials.
#[derive(Clone, Debug)]
pub(super) struct TrustedRealm {
    pub(super) origin: Origin,
    /// The only service to request tokens for there.
    pub(super) service: Option<String>,
}

impl TrustedRealm {
    /// Parses `https://auth.example.org` or `https://auth.example.org?service=NAME`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok().filter(|url| url.path() == "/")?;
        let queries: Vec<_> = url.query_pairs().collect();
        let service = match queries.as_slice() {
            [] => None,
            [(name, service)] if name == "service" => Some(service.clone().into_owned()),
            _ => return None,
        };
        Some(Self { origin: Origin::of(&url)?, service })
    }
}

/// Whether tokens for a service may be requested from a token server elsewhere that gets credentials. If the user did not name the service,
/// its name alone can reveal that it is another registry's: otherwise a registry could request tokens that open another one.
pub(super) fn may_serve(registry: &Registry, origin: &Origin, service: &str, trusted: &[TrustedRealm]) -> bool {
    let mut named = trusted.iter().filter(|realm| realm.origin == *origin).filter_map(|realm| realm.service.as_deref()).peekable();
    if named.peek().is_some() {
        return named.any(|named| named == service);
    }
    let host = service.split_once("://").map_or(service, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let plain = |host: &str| host.rsplit_once(':').map_or(host, |(host, _)| host).to_ascii_lowercase();
    let (host, own) = (plain(host), plain(registry.as_str()));
    let is_host = host.contains('.') && !host.contains(char::is_whitespace);
    !is_host || host == own || host.strip_suffix(own.as_str()).is_some_and(|below| below.ends_with('.'))
}

/// Where tokens are requested, and whether credentials may go there.
#[derive(Clone, Debug)]
pub(super) struct Realm {
    pub(super) url: Url,
    /// The registry's own origin, or known to belong to it.
    pub(super) trusted: bool,
}

/// Judges the realm that a registry names.
pub(super) fn realm(registry: &Registry, own: &Origin, realm: &str, also_trusted: &[TrustedRealm]) -> Result<Realm, String> {
    if realm.len() > URL_LIMIT {
        return Err("it names a token server with a URL of more than 16 KiB".to_owned());
    }
    let url = Url::parse(realm).map_err(|_| "it names a token server that is not an absolute URL".to_owned())?;
    let origin = Origin::of(&url).ok_or_else(|| "it names a token server that is not reached by HTTP".to_owned())?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it names a token server with a user name in its URL".to_owned());
    }
    if own.tls && !origin.tls {
        return Err(format!("it names the plain-text token server {origin}"));
    }
    let known = KNOWN_REALMS.iter().any(|(known, realm)| own.tls && registry.as_str() == *known && origin.to_string() == *realm);
    let trusted = origin == *own || known || also_trusted.iter().any(|realm| realm.origin == origin);
    Ok(Realm { url, trusted })
}

/// A URL for messages: without the query, which may be a signature.
pub(super) fn shown(url: &Url) -> String {
    match Origin::of(url) {
        Some(origin) => format!("{origin}{}", url.path().chars().take(200).collect::<String>().escape_debug()),
        None => "a URL".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn only_the_registry_s_origin_and_known_realms_are_trusted() {
        let registry = Registry::parse("reg.io").unwrap();
        let own = Origin::of(&url("https://reg.io/")).unwrap();
        let extra = [TrustedRealm::parse("https://auth.corp.io").unwrap()];
        for (text, expected) in [
            ("https://reg.io/token", Some(true)),
            ("https://REG.io:443/token", Some(true)),
            ("https://auth.corp.io/token", Some(true)),
            ("https://reg.io:444/token", Some(false)),
            ("https://auth.reg.io/token", Some(false)),
            ("https://reg.io.evil.io/token", Some(false)),
            ("https://reg.io./token", Some(false)),
            ("https://auth.docker.io/token", Some(false)),
            ("https://169.254.169.254/token", Some(false)),
            ("http://reg.io/token", None),
            ("https://user:pass@reg.io/token", None),
            ("https://reg.io@evil.io/token", None),
            ("/token", None),
            ("//evil.io/token", None),
            ("file:///etc/passwd", None),
            ("javascript:alert(1)", None),
            ("", None),
        ] {
            assert_eq!(realm(&registry, &own, text, &extra).ok().map(|realm| realm.trusted), expected, "{text}");
        }
        let hub = Registry::docker_hub();
        let own = Origin::of(&api(&hub, true, &Root::default()).unwrap()).unwrap();
        assert!(realm(&hub, &own, "https://auth.docker.io/token", &[]).unwrap().trusted);
        assert!(!realm(&hub, &own, "https://auth.docker.io:8443/token", &[]).unwrap().trusted);
        let own = Origin::of(&url("http://127.0.0.1:5000/")).unwrap();
        let loopback = Registry::parse("127.0.0.1:5000").unwrap();
        for (text, trusted) in [
            ("http://127.0.0.1:5000/t", true),
            ("http://127.0.0.1:5001/t", false),
            ("http://localhost:5000/t", false),
            ("http://127.0.0.2:5000/t", false),
            ("http://[::ffff:127.0.0.1]:5000/t", false),
        ] {
            assert_eq!(realm(&loopback, &own, text, &[]).unwrap().trusted, trusted, "{text}");
        }
    }

    #[test]
    fn a_token_server_elsewhere_serves_no_other_registry() {
        let trusted = |text: &str| [TrustedRealm::parse(text).unwrap()];
        let origin = Origin::of(&url("https://auth.corp.io")).unwrap();
        let registry = Registry::parse("reg.io:5000").unwrap();
        for (service, allowed) in [
            ("reg.io", true),
            ("REG.IO:5000", true),
            ("registry.reg.io", true),
            ("container_registry", true),
            ("Corp. Docker Registry", true),
            ("other.io", false),
            ("other.io:5000", false),
            ("https://other.io/v2/", false),
            ("evilreg.io", false),
            ("auth.corp.io", false),
        ] {
            assert_eq!(may_serve(&registry, &origin, service, &trusted("https://auth.corp.io")), allowed, "{service}");
        }
        let named = trusted("https://auth.corp.io?service=other.io");
        assert!(may_serve(&registry, &origin, "other.io", &named) && !may_serve(&registry, &origin, "reg.io", &named));
        for bad in ["https://auth.corp.io/path", "https://auth.corp.io?scope=x", "auth.corp.io", "ftp://auth.corp.io"] {
            assert!(TrustedRealm::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn redirects_never_lose_encryption_and_links_never_leave_the_host() {
        let from = url("https://reg.io/v2/a/tags/list");
        assert_eq!(redirect(&from, "/x?y").unwrap().as_str(), "https://reg.io/x?y");
        assert_eq!(redirect(&from, "https://storage.io/x").unwrap().as_str(), "https://storage.io/x");
        for bad in ["http://reg.io/x", "ftp://reg.io/x", "https://a:b@reg.io/", "https://", "data:,x"] {
            assert!(redirect(&from, bad).is_err(), "{bad}");
        }
        for good in ["/v2/a/tags/list?last=b", "https://reg.io/v2/a/tags/list?last=b", "http://reg.io/v2/a/tags/list?last=b", "?last=b"] {
            assert_eq!(link(&from, good).unwrap().as_str(), "https://reg.io/v2/a/tags/list?last=b", "{good}");
        }
        for bad in ["https://evil.io/v2/a/tags/list", "https://reg.io:444/v2/a/tags/list", "//evil.io/", "https://u@reg.io/"] {
            assert!(link(&from, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_upload_keeps_its_encryption_and_its_query() {
        let own = url("https://reg.io/");
        let from = url("https://reg.io/v2/a/blobs/uploads/");
        for (location, expected) in [
            ("/v2/a/blobs/uploads/1?_state=x%3D", "https://reg.io/v2/a/blobs/uploads/1?_state=x%3D"),
            ("2", "https://reg.io/v2/a/blobs/uploads/2"),
            ("http://reg.io/u?_state=x", "https://reg.io/u?_state=x"),
            ("http://reg.io:80/u", "https://reg.io/u"),
            ("https://storage.io/u", "https://storage.io/u"),
        ] {
            assert_eq!(upload(&own, &from, location, true).unwrap().as_str(), expected, "{location}");
        }
        for bad in
            ["http://storage.io/u", "http://reg.io:5000/u", "http://reg.io.evil.io/u", "https://u:p@reg.io/u", "ftp://reg.io/u", "http://"]
        {
            assert!(upload(&own, &from, bad, true).is_err(), "{bad}");
        }
        let (own, from) = (url("https://reg.io:5000/"), url("https://reg.io:5000/v2/a/blobs/uploads/"));
        assert_eq!(upload(&own, &from, "http://reg.io:5000/u", true).unwrap().as_str(), "https://reg.io:5000/u");
        assert!(upload(&own, &from, "http://reg.io/u", true).is_err());
        let (own, from) = (url("http://127.0.0.1:5000/"), url("http://127.0.0.1:5000/v2/a/blobs/uploads/"));
        assert_eq!(upload(&own, &from, "http://127.0.0.1:6000/u", true).unwrap().as_str(), "http://127.0.0.1:6000/u");
    }

    #[test]
    fn an_upload_changes_its_origin_only_where_the_registry_itself_says_so() {
        let (own, storage) = (url("https://reg.io/"), url("https://storage.io/u/1"));
        let session = url("https://reg.io/v2/a/blobs/uploads/1");
        for (from, location, may_leave, allowed) in [
            (&session, "https://storage.io/u", true, true),
            (&session, "https://storage.io/u", false, false),
            (&session, "/u", false, true),
            (&storage, "/u/2", false, true),
            (&storage, "https://other.io/u", true, false),
            (&storage, "https://reg.io/v2/a/manifests/v1", true, false),
            (&storage, "https://storage.io:444/u", true, false),
        ] {
            assert_eq!(upload(&own, from, location, may_leave).is_ok(), allowed, "{from} {location} {may_leave}");
        }
    }

    #[test]
    fn displayed_urls_have_no_query_and_no_control_characters() {
        assert_eq!(shown(&url("https://s3.io/b/x?X-Amz-Signature=secret")), "https://s3.io/b/x");
    }
}
