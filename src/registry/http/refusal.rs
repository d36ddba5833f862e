//! Refused writes: the error kind by status, error code and, for quotas, the message text.
//!
//! Registries report a full disk or a quota in their own ways; known ones are recognised here, since the user can act on them and a retry
//! cannot help.

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::answer;
use crate::error::{Error, ErrorKind};

/// ENOSPC, as docker-registry reports it.
const NO_SPACE: u64 = 28;

/// The error of a refused write.
pub(super) fn of_write(what: &str, status: u16, headers: &HeaderMap, body: &[u8], own: bool) -> Error {
    let plain = answer::refused(what, status, headers, body, own);
    let parsed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let errors = parsed.get("errors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let has =
        |codes: &[&str]| errors.iter().any(|error| error.get("code").and_then(Value::as_str).is_some_and(|code| codes.contains(&code)));
    if is_full(status, errors, body) {
        return Error::new(ErrorKind::NoSpace, format!("{}; the registry has no room for it", plain.message));
    }
    let kind = match status {
        405 | 501 => ErrorKind::Unsupported,
        _ if own && has(&["UNSUPPORTED"]) => ErrorKind::Unsupported,
        _ if has(&["DIGEST_INVALID"]) => ErrorKind::Integrity,
        // docker-registry answers 500 for a manifest whose foreign layer it lacks.
        500 if has(&["MANIFEST_BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "MANIFEST_INVALID"]) => ErrorKind::Invalid,
        300..=399 => ErrorKind::Unreachable,
        // The latter two are used for immutable tags.
        400 | 406 | 409 | 411 | 412 | 414 | 415 | 422 | 431 => ErrorKind::Invalid,
        _ => plain.kind,
    };
    let advice = match kind {
        ErrorKind::Unsupported => "; it does not accept this write",
        _ => "",
    };
    Error::new(kind, format!("{}{advice}", plain.message))
}

fn is_full(status: u16, errors: &[Value], body: &[u8]) -> bool {
    if matches!(status, 413 | 507) {
        return true;
    }
    let number =
        errors.iter().any(|error| error.pointer("/detail/Enclosed/Err").or(error.pointer("/detail/Err")) == Some(&NO_SPACE.into()));
    let words = String::from_utf8_lossy(body).to_ascii_lowercase();
    let told = ["quota", "no space left", "storage limit", "exceed the configured upper limit", "insufficient storage"];
    // Rate limits use the same words, but pass.
    status != 429 && (number || told.iter().any(|told| words.contains(told)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, body: &str) -> ErrorKind {
        of_write("x", status, &HeaderMap::new(), body.as_bytes(), true).kind
    }

    fn coded(code: &str) -> String {
        format!(r#"{{"errors":[{{"code":"{code}","message":"m"}}]}}"#)
    }

    #[test]
    fn refusals_of_real_registries_have_their_kinds() {
        for (status, body, expected) in [
            (401, String::new(), ErrorKind::Denied),
            (403, coded("DENIED"), ErrorKind::Denied),
            (404, coded("NAME_UNKNOWN"), ErrorKind::NotFound),
            (405, coded("UNSUPPORTED"), ErrorKind::Unsupported),
            (403, coded("UNSUPPORTED"), ErrorKind::Unsupported),
            (400, coded("DIGEST_INVALID"), ErrorKind::Integrity),
            (400, coded("MANIFEST_INVALID"), ErrorKind::Invalid),
            (422, String::new(), ErrorKind::Invalid),
            (412, coded("PRECONDITION"), ErrorKind::Invalid),
            (500, coded("MANIFEST_BLOB_UNKNOWN"), ErrorKind::Invalid),
            (500, coded("UNKNOWN"), ErrorKind::Unreachable),
            (302, String::new(), ErrorKind::Unreachable),
            (429, "quota".to_owned(), ErrorKind::Unreachable),
        ] {
            assert_eq!(kind(status, &body), expected, "{status} {body}");
        }
    }

    #[test]
    fn full_disks_and_quotas_are_no_space_in_every_wording() {
        let full = r#"{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"DriverName":"filesystem","Enclosed":{"Op":"write","Err":28}}}]}"#;
        let harbor = r#"{"errors":[{"code":"DENIED","message":"adding 1.0 GiB of storage resource, which when updated to current usage of 9 GiB will exceed the configured upper limit of 9.5 GiB."}]}"#;
        for (status, body) in [(413, ""), (507, ""), (500, full), (403, harbor), (403, r#"{"message":"Quota exceeded"}"#)] {
            assert_eq!(kind(status, body), ErrorKind::NoSpace, "{body}");
        }
    }
}
