//! Paths in a mount as references of commands: accepted ones, refused ones, and text that only looks like a path.

use std::fs;

use crate::support::commands::{fails, fixture, json, prints};
use crate::support::mounting::{Home, text};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

/// A registry with `team/app:v1`, `team/app:v2` and `team/app/web:v3`.
fn registry(home: &Home) -> Registry {
    let registry = Registry::plain();
    for (tag, place) in [("v1", "app:v1"), ("v2", "app:v2"), ("v1", "app/web:v3")] {
        prints(home, &["cp", &format!("{}:{tag}", fixture("oras-files")), &format!("{}/team/{place}", registry.host())]);
    }
    registry
}

#[test]
fn commands_accept_a_path_in_a_mount_as_a_reference() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let registry = registry(&home);
    let mount = home.mount(&format!("{}/team", registry.host()), &[]);
    let at = |path: &str| mount.path(path).to_str().unwrap().to_owned();
    let name = |rest: &str| format!("{}/team/{rest}", registry.host());
    for (path, reference) in [("app/v1", "app:v1"), ("app/web/v3", "app/web:v3"), ("app:v2", "app:v2")] {
        assert_eq!(prints(&home, &["resolve", &at(path)]), prints(&home, &["resolve", &name(reference)]), "{path}");
    }
    let digest = prints(&home, &["resolve", &name("app:v1")]).trim().to_owned();
    assert_eq!(prints(&home, &["resolve", &at(&format!("app/@{}", digest.replace(':', "-")))]).trim(), digest);
    assert_eq!(prints(&home, &["ls", &at("app")]), prints(&home, &["ls", &name("app")]));
    assert_eq!(prints(&home, &["ls", "-lR", &at("app/v1")]), prints(&home, &["ls", "-lR", &name("app:v1")]));
    let first = json(&home, &["ls", "-R", &at("app/v1")])["entries"].as_array().unwrap().last().unwrap()["path"].clone();
    let inside = at(&format!("app/v1/{}", first.as_str().unwrap()));
    assert_eq!(json(&home, &["ls", &inside])["entries"].as_array().unwrap().len(), 1);
    fails(&home, &["pull", &inside, home.path("x").to_str().unwrap()], 2, "is inside");
    prints(&home, &["pull", &at("app/v1"), home.path("pulled").to_str().unwrap()]);
    prints(&home, &["cp", &at("app/v1"), &format!("{},copied", at("app/v4"))]);
    assert_eq!(prints(&home, &["resolve", &name("app:copied")]).trim(), digest);
    prints(&home, &["tag", &at("app/v4"), "v5"]);
    let listed = prints(&home, &["repo", "tags", &at("app")]);
    assert_eq!(listed, "copied\nv1\nv2\nv4\nv5\n");
    fails(&home, &["resolve", &at("app/none/deeper")], 10, "does not exist");
    fails(&home, &["resolve", home.path("elsewhere").to_str().unwrap()], 2, "not in an ocifs mount");
    // Inside the mount, a relative path is a path, and other references keep their meaning.
    let inside = |arguments: &[&str]| {
        let output = home.ocifs(arguments).current_dir(mount.path("app")).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(inside(&["resolve", "v1"]), digest);
    assert_eq!(inside(&["resolve", &name("app:v1")]), digest);
    // One that leads into the mount is a path even if nothing is there, and never a repository of Docker Hub.
    let point = mount.path("");
    let (parent, below) = (point.parent().unwrap(), point.file_name().unwrap().to_str().unwrap());
    for (path, code) in [("app/v1", 0), ("app/none/deeper", 10), ("app/none:x", 10)] {
        let output = home.ocifs(&["resolve", &format!("{below}/{path}")]).current_dir(parent).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{path}: {}", text(&output));
    }
    mount.unmount();
}

#[test]
fn a_tag_with_unpublished_edits_is_refused_but_its_siblings_are_not() {
    if lacks(&NEEDS) {
        return;
    }
    let home = Home::new();
    let registry = registry(&home);
    let mount = home.mount(&format!("{}/team", registry.host()), &[]);
    let at = |path: &str| mount.path(path).to_str().unwrap().to_owned();
    fs::write(mount.path("app/v1/new"), "edited").unwrap();
    fs::create_dir(mount.path("app/fresh")).unwrap();
    for path in ["app/v1", "app/fresh"] {
        fails(&home, &["resolve", &at(path)], 16, "unpublished edits");
    }
    fails(&home, &["cp", &at("app/v1"), &format!("{}/team/app:x", registry.host())], 16, "ocifs sync");
    prints(&home, &["resolve", &at("app/v2")]);
    prints(&home, &["ls", &at("app")]);
    fs::write(mount.path("app/fresh/file"), "new").unwrap();
    mount.sync(&[]);
    prints(&home, &["resolve", &at("app/v1")]);
    mount.unmount();
}
