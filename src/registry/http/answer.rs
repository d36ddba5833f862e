//! Maps answers of a registry to errors: kinds by status, messages with the registry's own text escaped.
//!
//! Only a 404 from the registry itself is `NotFound`. Bodies are read up to a limit that the registry does not choose.

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::retry::{Attempts, Cause, Failure};
use crate::error::{Error, ErrorKind};

/// Largest error body that is read, in bytes.
pub(super) const ERROR_LIMIT: u64 = 64 << 10;
/// Characters of a registry's message that are shown.
const SHOWN: usize = 300;
/// The answer of Go servers (most registries) to plain HTTP on a TLS port.
const PLAIN_TO_TLS: &[u8] = b"Client sent an HTTP request to an HTTPS server";

/// The error chain in one line, without URLs (they may be signed).
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = match error.downcast_ref::<reqwest::Error>() {
            // Its own text contains the URL; the inner errors say what happened.
            Some(inner) if std::error::Error::source(inner).is_some() => String::new(),
            _ => error.to_string(),
        };
        if !text.is_empty() && !parts.last().is_some_and(|last| last.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ").escape_debug().to_string()
}

/// Whether the address refuses connections.
fn is_refused(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut refused = false;
    while let Some(error) = next {
        refused |= error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        next = error.source();
    }
    refused
}

/// The errors behind a failed connection, in plain words where known.
fn plain(error: &reqwest::Error) -> String {
    if error.is_dns() {
        "the host name cannot be resolved".to_owned()
    } else if is_refused(error) {
        "connection refused".to_owned()
    } else {
        chain(error)
    }
}

/// Explains why a request got no answer.
pub(super) fn unanswered(what: &str, error: &reqwest::Error) -> Failure {
    let reason = plain(error);
    let error_of = |kind, advice: &str| Error::new(kind, format!("{what}: {reason}{advice}"));
    if error.is_builder() {
        return Failure::Final(error_of(ErrorKind::Invalid, ""));
    }
    // The TLS library's errors can be recognised only by their text.
    let lower = reason.to_ascii_lowercase();
    if lower.contains("invalid peer certificate") || lower.contains("unknownissuer") {
        let advice = "; give its CA with --ca-file or certs.d";
        return Failure::Final(error_of(ErrorKind::Unreachable, advice));
    }
    if lower.contains("invalidcontenttype") {
        return Failure::Final(error_of(ErrorKind::Unreachable, "; it seems to use plain HTTP (--plain-http)"));
    }
    let kind = if error.is_timeout() && !error.is_connect() { ErrorKind::TimedOut } else { ErrorKind::Unreachable };
    let cause = match (error.is_dns(), error.is_connect()) {
        (true, _) => Cause::Unknown,
        (false, true) if is_refused(error) => Cause::Refused,
        (false, true) => Cause::Unconnected,
        (false, false) => Cause::Silent,
    };
    Failure::passing(error_of(kind, ""), cause)
}

/// Reads a body of at most `limit` bytes. More is an integrity error, whatever the header says.
pub(super) async fn body(mut response: Response, limit: u64, what: &str, attempts: &mut Attempts) -> Result<Bytes, Failure> {
    let too_large = || {
        let size = if limit >= 1 << 20 { format!("{} MiB", limit >> 20) } else { format!("{} KiB", limit >> 10) };
        Failure::Final(Error::new(ErrorKind::Integrity, format!("{what}: the response is larger than {size}")))
    };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut whole = BytesMut::new();
    attempts.progress();
    loop {
        // The deadline covers the whole body: it is small, so a trickle does not count as progress.
        let next = attempts.within(attempts.patience(), what, response.chunk()).await?;
        match next.map_err(|error| unanswered(what, &error))? {
            Some(piece) if whole.len() as u64 + piece.len() as u64 > limit => return Err(too_large()),
            Some(piece) => whole.extend_from_slice(&piece),
            None => return Ok(whole.freeze()),
        }
    }
}

/// The error for a refused request.
pub(super) fn refused(what: &str, status: u16, headers: &HeaderMap, body: &[u8], own: bool) -> Error {
    let kind = match status {
        404 if own => ErrorKind::NotFound,
        401 | 403 if own => ErrorKind::Denied,
        405 | 501 => ErrorKind::Unsupported,
        416 => ErrorKind::Integrity,
        400 if body.starts_with(PLAIN_TO_TLS) => ErrorKind::Unreachable,
        408 | 429 | 500..=599 => ErrorKind::Unreachable,
        _ if !own => ErrorKind::Unreachable,
        _ => ErrorKind::Other,
    };
    let reason = match status {
        401 => "authentication failed",
        403 => "the registry denies access",
        404 => "not found",
        429 => "the registry asks for fewer requests",
        400 if body.starts_with(PLAIN_TO_TLS) => {
            "it uses TLS but got a plain HTTP request; use --plain-http=false, --ca-file or --insecure"
        }
        _ => "the registry answered",
    };
    let words = own_words(body).map(|words| format!(": {words}")).unwrap_or_default();
    let after = headers.get("retry-after").and_then(|value| value.to_str().ok()).filter(|_| status == 429);
    let after = after.map(|after| format!(", again after {}", after.chars().take(40).collect::<String>().escape_debug()));
    Error::new(kind, format!("{what}: {reason} (status {status}{}){words}", after.unwrap_or_default()))
}

/// The message in an error body, in the format of the specification.
fn own_words(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let first = value.get("errors").and_then(|errors| errors.get(0)).unwrap_or(&value);
    let text = |name: &str| first.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let words = match (text("code"), text("message").or_else(|| text("details"))) {
        (Some(code), Some(message)) => format!("{code}, {message}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => return None,
    };
    Some(escaped(&words))
}

/// A registry's text for messages: truncated, with terminal controls escaped.
pub(super) fn escaped(text: &str) -> String {
    text.chars().take(SHOWN).collect::<String>().escape_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_to_kinds_and_only_the_registry_itself_can_say_not_found() {
        let kind = |status, own| refused("x", status, &HeaderMap::new(), b"", own).kind;
        assert_eq!(kind(404, true), ErrorKind::NotFound);
        assert_eq!(kind(404, false), ErrorKind::Unreachable);
        assert_eq!((kind(401, true), kind(403, true)), (ErrorKind::Denied, ErrorKind::Denied));
        assert_eq!((kind(429, true), kind(503, true)), (ErrorKind::Unreachable, ErrorKind::Unreachable));
        assert_eq!(kind(405, true), ErrorKind::Unsupported);
    }

    #[test]
    fn registry_messages_are_escaped_and_truncated() {
        let body = format!(r#"{{"errors":[{{"code":"DENIED","message":"no\u001b]0;x\u0007 {}"}}]}}"#, "y".repeat(1000));
        let message = refused("tags of a", 403, &HeaderMap::new(), body.as_bytes(), true).message;
        assert!(message.starts_with("tags of a: the registry denies access (status 403): DENIED, no\\u{1b}]0;x\\u{7}"), "{message}");
        assert!(message.len() < 500);
        assert!(refused("a", 500, &HeaderMap::new(), b"<html>\x1b", true).message.bytes().all(|byte| byte >= b' '));
    }
}
