//! Shortcuts, their file and oci-sync's, and the command history.

use crate::support::commands::{fails, json, prints};
use crate::support::mounting::Home;
use crate::support::registry::{PASSWORD, Registry, USER, Variant};
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 1] = [Need::Tool("docker-registry")];

fn home_with_files() -> Home {
    let home = Home::new();
    home.write("notes/hello.txt", "hello");
    home.write("notes/sub/nested.txt", "nested");
    home
}

fn at(home: &Home, name: &str) -> String {
    home.path(name).to_str().unwrap().to_owned()
}

#[test]
fn a_shortcut_pushes_lists_pulls_and_deletes() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (Registry::plain(), home_with_files());
    let repository = format!("{}/me/docs", registry.host());
    prints(&home, &["alias", "add", "docs", "--repo", &repository]);
    let shortcuts = json(&home, &["shortcut", "list"]);
    assert_eq!((shortcuts[0]["name"].as_str(), shortcuts[0]["repository"].as_str()), (Some("docs"), Some(repository.as_str())));
    prints(&home, &["docs", "push", "-l", &at(&home, "notes"), "--tag", "v1"]);
    let listed: serde_json::Value = serde_json::from_str(&prints(&home, &["docs", "list", "-f", "json"])).unwrap();
    assert_eq!(listed[0]["fullName"], format!("{repository}:v1"), "what it pushes is what it lists");
    prints(&home, &["docs", "pull", "-t", "v1", "-l", &at(&home, "out")]);
    assert_eq!(std::fs::read(home.path("out/notes/sub/nested.txt")).unwrap(), b"nested");
    fails(&home, &["docs", "delete", "--tag", "v1"], 2, "--yes");
    prints(&home, &["docs", "delete", "--tag", "v1", "--yes"]);
    assert_eq!(json(&home, &["recent"]).as_array().unwrap().len(), 3);
    let kinds = json(&home, &["recent", "-n", "2"]);
    assert_eq!([&kinds[0]["type"], &kinds[1]["type"]], ["delete", "pull"]);
    assert_eq!(kinds[1]["local_path"], at(&home, "out"));
    prints(&home, &["recent", "--clear"]);
    assert_eq!(prints(&home, &["recent"]), "nothing yet\n");
    prints(&home, &["shortcut", "rm", "docs"]);
    fails(&home, &["docs", "push", "-l", &at(&home, "notes"), "--tag", "v1"], 2, "unknown command or shortcut `docs`");
}

#[test]
fn a_shortcut_is_a_repository_and_never_hides_a_command() {
    let home = Home::new();
    prints(&home, &["shortcut", "add", "local", "localhost:5000/x"]);
    for bad in ["host.example/x:tag", "host.example/x@sha256:0000000000000000000000000000000000000000000000000000000000000000", ""] {
        fails(&home, &["shortcut", "add", "docs", bad], 2, "");
    }
    fails(&home, &["shortcut", "add", "push", "localhost:5000/x"], 2, "is the name of a command");
    fails(&home, &["local", "push", "-l", "x", "--tag", ""], 2, "name a tag");
    fails(&home, &["local", "pull", "-l", "x"], 2, "name a tag: ocifs local pull --tag TAG");
    fails(&home, &["unknown", "push", "-l", "x", "--tag", "v1"], 2, "unknown command or shortcut `unknown`");
    fails(&home, &["unknown"], 2, "unrecognized subcommand");
    home.write("config/oci-sync/oci-sync.yaml", "shortcuts: { list: { repo: reg.io/never } }");
    assert!(prints(&home, &["list", "--help"]).contains("oci-sync"), "the command wins");
}

/// Unlike in oci-sync, a file in the working directory is not read implicitly.
#[test]
fn oci_sync_s_file_is_read_from_the_home_directory_or_where_named() {
    if lacks(&NEEDS) {
        return;
    }
    let (registry, home) = (Registry::start(Variant { htpasswd: true, ..Variant::default() }), home_with_files());
    let host = registry.host();
    let text = |repository: &str| {
        let login = format!("{{ username: {USER}, password: {PASSWORD} }}");
        format!("shortcuts: {{ docs: {{ repo: '{host}/{repository}' }} }}\nauths: {{ '{host}': {login} }}\n")
    };
    home.write("work/oci-sync.yaml", text("of/work"));
    let push = ["docs", "push", "-l", "../notes", "--tag", "v1"];
    let in_work = |arguments: &[&str]| home.ocifs(arguments).current_dir(home.path("work")).output().unwrap();
    assert_eq!(in_work(&push).status.code(), Some(2), "the working directory says nothing by itself");
    let named = in_work(&[&["--oci-sync-config", "oci-sync.yaml"], &push[..]].concat());
    assert!(named.status.success(), "{}", crate::support::mounting::text(&named));
    home.write_private("config/oci-sync/oci-sync.yaml", text("of/home"));
    assert!(in_work(&push).status.success());
    assert_eq!(prints(&home, &["repo", "ls", &host]), "of/home\nof/work\n", "with the login of the file too");
}
