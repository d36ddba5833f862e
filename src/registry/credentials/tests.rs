//! Which credential is found for which scope.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;
use crate::oci::{Registry, Repository};

fn auth(user: &str) -> Value {
    use base64::Engine as _;
    json!({"auth": base64::engine::general_purpose::STANDARD.encode(format!("{user}:secret"))})
}

fn written(directory: &Path, name: &str, content: &Value) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content.to_string()).unwrap();
    path
}

fn helper(directory: &Path, name: &str, script: &str) {
    let path = directory.join(format!("docker-credential-{name}"));
    // Written by another process: a file that this process has open for writing could not be executed by a thread that forks at the same
    // moment.
    let write = ["-c", r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod 755 "$2""#, "sh", script];
    assert!(std::process::Command::new("sh").args(write).arg(&path).status().unwrap().success());
}

async fn found(credentials: &Credentials, registry: &str, repository: &str, tls: bool) -> Found {
    let (registry, repository) = (Registry::parse(registry).unwrap(), Repository::parse(repository).ok());
    credentials.find(CredentialScope { registry: &registry, repository: repository.as_ref(), tls }, false).await.unwrap()
}

async fn user(credentials: &Credentials, registry: &str, repository: &str) -> Option<String> {
    match found(credentials, registry, repository, true).await.credential {
        Credential::Password { user, password } => {
            assert_eq!(password.expose(), "secret");
            Some(user)
        }
        _ => None,
    }
}

#[tokio::test]
async fn the_longest_match_by_whole_segments_wins_and_nothing_else_matches() {
    let directory = tempfile::tempdir().unwrap();
    let file = written(
        directory.path(),
        "auth.json",
        &json!({"auths": {
            "reg.io": auth("host"), "reg.io/team": auth("team"), "reg.io/team/app": auth("app"),
            "other.io:5000": auth("port"), "https://legacy.io/v1/": auth("legacy"), "https://index.docker.io/v1/": auth("hub"),
            "docker.io@evil.io": auth("evil"), "placeholder.io": {}, "UPPER.io": auth("upper"),
        }}),
    );
    let credentials = Credentials::new(vec![file], Vec::new());
    for (registry, repository, expected) in [
        ("reg.io", "team/app", Some("app")),
        ("reg.io", "team/app/web", Some("app")),
        ("reg.io", "team/apple", Some("team")),
        ("reg.io", "teammate/app", Some("host")),
        ("reg.io", "", Some("host")),
        ("reg.io:5000", "team/app", None),
        ("sub.reg.io", "team/app", None),
        ("other.io", "a", None),
        ("other.io:5000", "a", Some("port")),
        ("legacy.io", "a", Some("legacy")),
        ("docker.io", "library/alpine", Some("hub")),
        ("index.docker.io", "library/alpine", Some("hub")),
        ("evil.io", "a", None),
        ("placeholder.io", "a", None),
        ("upper.io", "a", Some("upper")),
    ] {
        assert_eq!(user(&credentials, registry, repository).await.as_deref(), expected, "{registry}/{repository}");
    }
}

#[tokio::test]
async fn an_https_credential_is_not_used_over_plain_http() {
    let directory = tempfile::tempdir().unwrap();
    let file =
        written(directory.path(), "auth.json", &json!({"auths": {"https://reg.io/v1/": auth("tls"), "http://plain.io": auth("plain")}}));
    let credentials = Credentials::new(vec![file], Vec::new());
    assert_eq!(found(&credentials, "reg.io", "a", false).await.credential, Credential::Anonymous);
    assert_eq!(found(&credentials, "plain.io", "a", true).await.credential, Credential::Anonymous);
    assert_ne!(found(&credentials, "plain.io", "a", false).await.credential, Credential::Anonymous);
}

#[tokio::test]
async fn the_first_file_with_a_match_wins_and_changes_are_seen() {
    let directory = tempfile::tempdir().unwrap();
    let first = written(directory.path(), "first.json", &json!({"auths": {"one.io": auth("first")}}));
    let second = written(directory.path(), "second.json", &json!({"auths": {"one.io/a": auth("second"), "two.io": auth("second")}}));
    let credentials = Credentials::new(vec![directory.path().join("none.json"), first.clone(), second], Vec::new());
    assert_eq!(user(&credentials, "one.io", "a").await.as_deref(), Some("first"));
    assert_eq!(user(&credentials, "two.io", "a").await.as_deref(), Some("second"));
    written(directory.path(), "first.json", &json!({"auths": {"one.io": auth("rotated")}}));
    assert_eq!(user(&credentials, "one.io", "a").await.as_deref(), Some("rotated"));
    fs::remove_file(&first).unwrap();
    assert_eq!(user(&credentials, "one.io", "a").await.as_deref(), Some("second"));
}

#[tokio::test]
async fn tokens_are_distinguished_from_passwords() {
    let directory = tempfile::tempdir().unwrap();
    let mut identity = auth("00000000-0000-0000-0000-000000000000");
    identity["identitytoken"] = json!("refresh");
    let file = written(directory.path(), "c.json", &json!({"auths": {"identity.io": identity, "bearer.io": {"registrytoken": "bearer"}}}));
    let credentials = Credentials::new(vec![file], Vec::new());
    assert_eq!(found(&credentials, "identity.io", "a", true).await.credential, Credential::IdentityToken(Secret::new("refresh")));
    assert_eq!(found(&credentials, "bearer.io", "a", true).await.credential, Credential::RegistryToken(Secret::new("bearer")));
}

#[tokio::test]
async fn helpers_precede_auths_and_are_asked_for_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    helper(directory.path(), "one", &format!(r#"cat >> {0}; echo >> {0}; echo '{{"Username":"one","Secret":"secret"}}'"#, log.display()));
    helper(
        directory.path(),
        "all",
        r#"read -r server; case $server in
        https://index.docker.io/v1/) echo '{"Username":"<token>","Secret":"hub"}';;
        *) echo credentials not found in native keychain; exit 1;; esac"#,
    );
    let content = json!({"credHelpers": {"one.io": "one"}, "credsStore": "all", "auths": {"one.io": auth("file"), "two.io": auth("file")}});
    let credentials = Credentials::new(vec![written(directory.path(), "c.json", &content)], vec![directory.path().to_owned()]);
    assert_eq!(user(&credentials, "one.io", "a").await.as_deref(), Some("one"));
    assert_eq!(user(&credentials, "one.io", "b").await.as_deref(), Some("one"));
    assert_eq!(fs::read_to_string(&log).unwrap(), "one.io\n", "the answer is kept for a while");
    assert_eq!(user(&credentials, "two.io", "a").await.as_deref(), Some("file"));
    assert_eq!(found(&credentials, "docker.io", "library/a", true).await.credential, Credential::IdentityToken(Secret::new("hub")));
}

#[tokio::test]
async fn a_failing_helper_is_noted_and_the_next_source_is_tried() {
    let directory = tempfile::tempdir().unwrap();
    helper(directory.path(), "broken", "echo secret-in-message >&2; exit 3");
    helper(directory.path(), "garbage", "echo '<html>'");
    helper(directory.path(), "huge", "head -c 100000 /dev/zero");
    helper(directory.path(), "slow", "exec sleep 1000");
    for name in ["broken", "garbage", "huge", "slow", "missing", "../evil", "a/b", ""] {
        let content = json!({"credHelpers": {"one.io": name}, "auths": {"one.io": auth("file")}});
        let file = written(directory.path(), "c.json", &content);
        let mut credentials = Credentials::new(vec![file], vec![directory.path().to_owned()]);
        credentials.helper_limit = Duration::from_millis(300);
        let found = found(&credentials, "one.io", "a", true).await;
        assert!(matches!(found.credential, Credential::Password { .. }), "{name}");
        assert_eq!(found.notes.len(), 1, "{name}");
        assert!(!found.notes[0].contains("secret"), "{name}");
    }
}

#[tokio::test]
async fn concurrent_callers_start_a_helper_once_and_a_failed_one_is_not_retried() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    for (name, answer) in [("good", r#"echo '{"Username":"me","Secret":"secret"}'"#), ("bad", "exit 3")] {
        helper(directory.path(), name, &format!("echo {name} >> {}; {answer}", log.display()));
        let file = written(directory.path(), &format!("{name}.json"), &json!({"credHelpers": {"one.io": name}}));
        let credentials = Credentials::new(vec![file], vec![directory.path().to_owned()]);
        futures_util::future::join_all((0..16).map(|_| found(&credentials, "one.io", "a", true))).await;
        found(&credentials, "one.io", "b", true).await;
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "good\nbad\n");
}

#[tokio::test]
async fn a_broken_file_is_an_error_that_names_it_and_quotes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::parse("one.io").unwrap();
    for text in ["{", r#"{"auths":{"one.io":{"auth":"c2VjcmV0"}}}"#, r#"{"auths":"secret"}"#] {
        let path = directory.path().join("broken.json");
        fs::write(&path, text).unwrap();
        let credentials = Credentials::new(vec![path], Vec::new());
        let error = credentials.find(CredentialScope { registry: &registry, repository: None, tls: true }, false).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{text}");
        assert!(error.message.contains("broken.json") && !error.message.contains("secret"), "{error}");
    }
}

#[test]
fn secrets_are_never_printed() {
    let credential = Credential::Password { user: "me".to_owned(), password: Secret::new("hunter2") };
    assert!(!format!("{credential:?}").contains("hunter2"));
}
