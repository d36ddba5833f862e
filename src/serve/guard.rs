//! Checks `Host` and `Origin`: a page of another site in a browser on this machine must not reach the server, neither by its address nor through
//! a name rebound to it (DNS rebinding). Pure.

use axum::http::{HeaderMap, StatusCode, Uri, header};

use super::config::Hosts;
use super::problem::{Code, Problem};
use crate::oci::Registry;

/// Checks the headers of a request.
///
/// # Errors
/// 421 for a host name not served here, 403 for a cross-origin request.
pub(super) fn check(hosts: &Hosts, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    // HTTP/2 has the authority instead of the header; if both are present, both must be right.
    let named = headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or_default());
    let authorities: Vec<&str> = uri.authority().map(|authority| authority.as_str()).into_iter().chain(named).collect();
    let known = |authority: &&str| hosts.any || is_served(hosts, authority);
    if authorities.is_empty() || !authorities.iter().all(known) {
        let message = "this server does not answer under that host name; see --host";
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, Code::Denied, message));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority.to_ascii_lowercase());
    if origin.is_some_and(|origin| authorities.iter().all(|authority| authority.to_ascii_lowercase() == origin)) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, Code::Denied, "cross-origin requests are refused"))
}

fn is_served(hosts: &Hosts, authority: &str) -> bool {
    let Ok(parsed) = Registry::parse(authority) else { return false };
    let host = parsed.host().trim_end_matches('.');
    parsed.is_loopback() || hosts.names.iter().any(|name| name.eq_ignore_ascii_case(host) || name.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(hosts: &Hosts, host: Option<&str>, origin: Option<&str>) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
            value.map(|value| headers.insert(name, value.parse().unwrap()));
        }
        check(hosts, &Uri::from_static("/v2/"), &headers).err().map(|problem| problem.status.as_u16())
    }

    #[test]
    fn only_local_and_configured_host_names_are_served() {
        let hosts = Hosts { any: false, names: vec!["Cache.lan".to_owned()] };
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.8.8.8", "[::1]:5000", "cache.lan", "cache.lan:443"] {
            assert_eq!(status(&hosts, Some(host), None), None, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:5000", "10.0.0.1", "", "a b", "localhost@evil"] {
            assert_eq!(status(&hosts, Some(host), None), Some(421), "{host}");
        }
        assert_eq!(status(&hosts, None, None), Some(421));
        assert_eq!(status(&Hosts { any: true, names: Vec::new() }, Some("reg.example"), None), None);
    }

    #[test]
    fn cross_origin_requests_are_refused() {
        let hosts = Hosts::default();
        assert_eq!(status(&hosts, Some("localhost:5000"), Some("http://localhost:5000")), None);
        for origin in ["http://evil.example", "null", "http://localhost:6000", "http://localhost", "localhost:5000"] {
            assert_eq!(status(&hosts, Some("localhost:5000"), Some(origin)), Some(403), "{origin}");
        }
        let mut two = HeaderMap::new();
        two.append(header::HOST, "localhost".parse().unwrap());
        two.append(header::HOST, "evil.example".parse().unwrap());
        assert!(check(&hosts, &Uri::from_static("/"), &two).is_err());
    }
}
