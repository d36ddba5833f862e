//! `login` and `logout`: checks, storage, and that no password is revealed.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use crate::support::commands::{fails, fixture, prints};
use crate::support::mounting::{Home, text};
use crate::support::registry::{PASSWORD, Registry, USER, Variant};
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 1] = [Need::Tool("docker-registry")];

fn login(home: &Home, arguments: &[&str], input: &str) -> Output {
    let mut child =
        home.ocifs(&[&["login"], arguments].concat()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that refuses its arguments reads no input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Logs in with a wrong and with the right password, uses the stored login, and logs out again.
fn checks_stores_and_removes(home: &Home, registry: &Registry, trust: &[&str]) {
    let (host, file) = (registry.host(), home.path(".docker/config.json"));
    let _ = std::fs::remove_file(&file);
    let flags = [&[host.as_str(), "-u", USER, "--password-stdin"], trust].concat();
    let output = login(home, &flags, "wrong\n");
    assert_eq!(output.status.code(), Some(11), "{}", text(&output));
    assert!(!file.exists(), "what is wrong is not stored");
    let output = login(home, &flags, &format!("{PASSWORD}\n"));
    assert!(output.status.success() && !text(&output).contains(PASSWORD), "{}", text(&output));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let reference = format!("{host}/app:v1");
    prints(home, &[&["cp", &format!("{}:v1", fixture("oras-files")), &reference], trust].concat());
    let resolve = [&["resolve", reference.as_str()], trust].concat();
    assert!(prints(home, &resolve).starts_with("sha256:"));
    assert_eq!(prints(home, &["logout", &host]), format!("logged out of {host}\n"));
    fails(home, &resolve, 11, &host);
    assert!(prints(home, &["logout", &host]).contains("not logged in to"));
}

#[test]
fn a_right_password_is_stored_where_docker_does_and_a_wrong_one_nowhere() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::start(Variant { htpasswd: true, ..Variant::default() });
    checks_stores_and_removes(&Home::new(), &registry, &[]);
}

#[test]
fn a_token_server_checks_the_password_and_an_unknown_one_gets_none() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::start(Variant { tokens: true, ..Variant::default() }));
    registry.tokens().set_pushes(true);
    let output = login(&home, &[&registry.host(), "-u", USER, "--password-stdin"], PASSWORD);
    assert_eq!(output.status.code(), Some(11), "{}", text(&output));
    assert!(text(&output).contains("--trusted-realm") && !home.path(".docker/config.json").exists(), "{}", text(&output));
    let realm = registry.tokens().realm();
    checks_stores_and_removes(&home, &registry, &["--trusted-realm", realm.strip_suffix("/token").unwrap()]);
}

#[test]
fn a_registry_that_needs_no_login_is_reported() {
    if lacks(&NEEDS) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let output = login(&home, &[&registry.host(), "-u", USER, "--password-stdin"], PASSWORD);
    assert!(output.status.success() && text(&output).contains("were stored unchecked"), "{}", text(&output));
}

#[test]
fn a_login_goes_into_the_named_file() {
    if lacks(&NEEDS) {
        return;
    }
    let mut home = Home::new();
    let registry = Registry::start(Variant { htpasswd: true, ..Variant::default() });
    let (host, named, podman) = (registry.host(), home.path("named.json"), home.path("podman.json"));
    let flags = [host.as_str(), "-u", USER, "--password-stdin"];
    let output = login(&home, &[&flags[..], &["--registry-config", named.to_str().unwrap()]].concat(), PASSWORD);
    assert!(output.status.success() && text(&output).contains("named.json"), "{}", text(&output));
    home.set("REGISTRY_AUTH_FILE", &podman);
    assert!(login(&home, &flags, PASSWORD).status.success());
    for file in [named, podman] {
        assert!(std::fs::read_to_string(file).unwrap().contains(&host));
    }
    assert!(!home.path(".docker/config.json").exists());
}

#[test]
fn passwords_are_refused_as_arguments_for_two_registries_and_without_a_terminal() {
    let home = Home::new();
    fails(&home, &["login", "reg.io", "-u", "a", "-p", "secret"], 2, "--password-stdin");
    fails(&home, &["login", "reg.io"], 2, "--username");
    fails(&home, &["login", "reg.io", "-u", "a"], 2, "--password-stdin");
    fails(&home, &["login", "https://reg.io/team"], 2, "write it like reg.io");
    for (flags, flag) in
        [(&["-u", "a"][..], "--to-username"), (&["-H", "X-Token: b"], "--to-header"), (&["--identity-token-stdin"], "token-stdin")]
    {
        fails(&home, &[&["cp", "one.example/a:v1", "two.example/a:v1"], flags].concat(), 2, flag);
    }
    let output = login(&home, &["reg.io", "-u", "a", "--password-stdin"], "\n");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let output = login(&home, &["127.0.0.1:1", "-u", "a", "--password-stdin", "--io-timeout", "1s"], "secret");
    assert_eq!(output.status.code(), Some(14), "{}", text(&output));
    assert!(!text(&output).contains("secret"));
}
