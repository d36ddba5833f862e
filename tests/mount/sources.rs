//! Sources and access: each form of SOURCE, TLS, passwords, token servers, and a one-line reason for each failure.

use crate::support::artifacts::Draft;
use crate::support::mounting::{Home, text};
use crate::support::registry::{PASSWORD, Registry, USER, Variant};
use crate::support::skip::{Need, lacks};
use crate::support::stored_login;
use std::process::Output;

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

fn hello() -> Draft {
    let mut draft = Draft::new();
    draft.files("v1", &[("hello.txt", b"hello from a registry\n")]);
    draft
}

/// A registry with `team/app:v1`.
fn serving(variant: Variant) -> Registry {
    let registry = Registry::start(variant);
    registry.writing(|url| hello().layout().push(url, "team/app"));
    registry
}

/// The one-line reason of a failed mount.
fn reason(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.stdout.is_empty() && said.trim_end().lines().count() <= 2, "{}", text(output));
    said
}

fn refused(home: &Home, source: &str, flags: &[&str], code: i32) -> String {
    match home.try_mount(source, flags) {
        Ok(_) => panic!("{source} was mounted"),
        Err(output) => reason(&output, code),
    }
}

#[test]
fn a_registry_a_prefix_a_repository_a_tag_and_a_digest_are_sources() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = serving(Variant::default());
    let digest = hello().layout().entries()[0]["digest"].as_str().unwrap().to_owned();
    let home = Home::new();
    let host = registry.host();
    for (source, file) in [
        (host.clone(), "team/app/v1/hello.txt"),
        (format!("{host}/team"), "app/v1/hello.txt"),
        (format!("{host}/team/app"), "v1/hello.txt"),
        (format!("{host}/team/app:v1"), "hello.txt"),
        (format!("{host}/team/app@{digest}"), "hello.txt"),
        (format!("{host}/team/app:v1@{digest}"), "hello.txt"),
        (host.replace("127.0.0.1", "localhost"), "team/app/v1/hello.txt"),
    ] {
        let mount = home.mount(&source, &[]);
        assert_eq!(mount.cat(file).unwrap(), b"hello from a registry\n", "{source}");
        mount.unmount();
    }
    let half = home.mount(&format!("{host}/tea"), &[]);
    assert_eq!(half.ls("").unwrap(), Vec::<String>::new(), "half a path segment is another prefix");
    half.unmount();
    assert!(refused(&home, &format!("{host}/team/app:none"), &[], 10).contains("none"));
    assert!(refused(&home, &format!("{host}/team/none:v1"), &[], 10).contains("team/none"));
    let absent = format!("{host}/team/app@sha256:{}", "0".repeat(64));
    assert!(refused(&home, &absent, &[], 10).contains("sha256:0000"));
    refused(&home, &format!("{host}/team/app@sha256:../../x"), &[], 2);
    refused(&home, &format!("{host}/Team/app:v1"), &[], 2);
}

#[test]
fn a_private_ca_is_trusted_only_by_flag_or_directory() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = serving(Variant { tls: true, ..Variant::default() });
    let (home, source) = (Home::new(), format!("{}/team", registry.host()));
    let authority = registry.ca_file().to_str().unwrap().to_owned();
    let works = |flags: &[&str]| {
        let mount = home.mount(&source, flags);
        assert_eq!(mount.cat("app/v1/hello.txt").unwrap(), b"hello from a registry\n");
        mount.unmount();
    };
    works(&["--ca-file", &authority]);
    works(&["--insecure"]);
    let said = refused(&home, &source, &["--plain-http=false"], 14);
    assert!(said.contains("certificate") && said.contains("--ca-file"), "{said}");
    let said = refused(&home, &source, &[], 14);
    assert!(said.contains("--plain-http=false"), "{said}");
    home.write(&format!("config/containers/certs.d/{}/ca.crt", registry.host()), std::fs::read(registry.ca_file()).unwrap());
    works(&["--plain-http=false"]);
}

#[test]
fn a_registry_with_a_password_admits_those_who_have_it() {
    if lacks(&NEEDS) {
        return;
    }
    for variant in [Variant { htpasswd: true, ..Variant::default() }, Variant { htpasswd: true, tls: true, ..Variant::default() }] {
        let registry = serving(variant);
        let (home, host) = (Home::new(), registry.host());
        let file = home.path("auth.json");
        let mut flags = vec!["--registry-config", file.to_str().unwrap()];
        let authority = registry.ca_file();
        if variant.tls {
            flags.extend(["--ca-file", authority.to_str().unwrap()]);
        }
        for source in [host.clone(), format!("{host}/team"), format!("{host}/team/app:v1")] {
            home.write("auth.json", "{}");
            let said = refused(&home, &source, &flags, 11);
            assert!(said.contains("no credentials are stored"), "{said}");
            home.write("auth.json", stored_login(&host, USER, "n0t-the-passw0rd"));
            let said = refused(&home, &source, &flags, 11);
            assert!(said.contains("auth.json") && !said.contains("n0t-the-passw0rd"), "{said}");
            home.write("auth.json", stored_login(&host, USER, PASSWORD));
            home.mount(&source, &flags).unmount();
        }
        let mount = home.mount(&host, &flags);
        assert_eq!(mount.cat("team/app/v1/hello.txt").unwrap(), b"hello from a registry\n");
        assert_eq!(mount.ls("team/app").unwrap(), ["v1"]);
        mount.unmount();
    }
}

#[test]
fn a_token_server_gets_the_password_only_if_it_is_trusted() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = serving(Variant { tokens: true, ..Variant::default() });
    let (home, host) = (Home::new(), registry.host());
    let source = format!("{host}/team/app:v1");
    let realm = registry.tokens().realm();
    let origin = realm.strip_suffix("/token").unwrap();
    home.write(".docker/config.json", stored_login(&host, USER, PASSWORD));
    let said = refused(&home, &source, &[], 11);
    assert!(said.contains(&format!("--trusted-realm {origin}")), "the way out is named: {said}");
    assert!(registry.tokens().requests().iter().all(|request| !request.authenticated));
    for source in [host.clone(), source.clone()] {
        let mount = home.mount(&source, &["--trusted-realm", origin]);
        let folder = if source == host { "team/app/v1/" } else { "" };
        assert_eq!(mount.cat(&format!("{folder}hello.txt")).unwrap(), b"hello from a registry\n");
        mount.unmount();
    }
    home.write(".docker/config.json", stored_login(&host, USER, "n0t-the-passw0rd"));
    refused(&home, &source, &["--trusted-realm", origin], 11);
    std::fs::remove_file(home.path(".docker/config.json")).unwrap();
    refused(&home, &source, &[], 11);
    registry.tokens().set_anonymous(true);
    home.mount(&source, &[]).unmount();
}

#[test]
fn absent_hosts_are_unreachable() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let mut registry = Registry::plain();
    registry.stop();
    let said = refused(&home, &format!("{}/team", registry.host()), &[], 14);
    assert!(said.contains(&registry.host()), "{said}");
    let said = refused(&home, "no-such-host.invalid/team", &[], 14);
    assert!(said.contains("no-such-host.invalid"), "{said}");
}
