//! Trees installed by packages: copied into a mount, published, and read by a reader without prior state.

use super::{NEEDS, same, sync};
use crate::support::mounting::Home;
use crate::support::registry::Registry;
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};
use std::path::Path;

/// Publishes a copy of a directory and compares it with what another mount with an empty cache shows, and with what ORAS pulls, unless a link
/// leaves the tree, which ORAS refuses. Returns whether ORAS pulled it.
fn comes_back(source: &Path) -> bool {
    let (home, registry, shell) = (Home::new(), Registry::plain(), Shell::new());
    let mount = home.mount(&registry.host(), &[]);
    shell.run(r#"mkdir -p "$M" && cp -a "$SOURCE/." "$M/""#, &[("SOURCE", source), ("M", &mount.path("app/v1"))]);
    sync(&home, mount.root());
    mount.unmount();
    let stranger = Home::new();
    let mount = stranger.mount(&registry.host(), &["--read-only"]);
    same(&shell, source, &mount.path("app/v1"), "--links --xattrs");
    mount.unmount();
    let leaves = r#"import os, sys
top = os.environb[b"SOURCE"]
for folder, folders, files in os.walk(top):
    for path in (os.path.join(folder, name) for name in folders + files):
        if os.path.islink(path):
            target = os.path.join(folder, os.readlink(path))
            if not os.path.normpath(target).startswith(top + b"/"):
                print("leaves")
                sys.exit()"#;
    if !shell.run(r#"python3 -c "$SCRIPT""#, &[("SCRIPT", leaves.as_ref()), ("SOURCE", source.as_os_str())]).is_empty() {
        return false;
    }
    shell.run("umask 022; mkdir got; interop pull --plain-http $HOST/app:v1 got", &[("HOST", registry.host())]);
    same(&shell, source, &shell.path("got"), "--links --no-owner --ignore mtime");
    true
}

/// Requirements besides the trees.
const TOOLS: [Need; 3] = [Need::Root, Need::Tool("interop"), Need::Tool("python3")];

#[test]
fn time_zone_files_survive_a_round_trip() {
    if lacks(&NEEDS) || lacks(&TOOLS) || lacks(&[Need::File("/usr/share/zoneinfo")]) {
        return;
    }
    comes_back(Path::new("/usr/share/zoneinfo"));
}

/// No Debian package has many hard links, but language installations do.
#[test]
fn a_library_with_hard_links_across_directories_survives_and_oras_pulls_it() {
    if lacks(&NEEDS) || lacks(&TOOLS) || lacks(&[Need::File("/usr/share/perl")]) {
        return;
    }
    let shell = Shell::new();
    let script = r#"cp -a /usr/share/perl tree; cd tree; find . -type l -delete
find . -type f | sort | awk 'NR % 7 == 0' | while read -r file; do
    folder=$(dirname "$(dirname "$file")")/with-links; mkdir -p "$folder"
    ln -f "$file" "$folder/$(basename "$file").linked"; ln -sf nowhere "$folder/zz"; : >"$folder/$(basename "$file").z"
done"#;
    shell.run::<&str>(script, &[]);
    assert!(comes_back(&shell.path("tree")), "no link leaves it");
}

#[test]
fn whole_language_installations_survive_a_round_trip() {
    let trees = ["/usr/lib/git-core", "/usr/share/perl", "/usr/lib/python3.11", "/usr/share/go-1.19"];
    if !crate::support::is_long() || lacks(&NEEDS) || lacks(&TOOLS) || lacks(&trees.map(Need::File)) {
        return;
    }
    for tree in trees {
        let pulled = comes_back(Path::new(tree));
        println!("{tree} came back{}", if pulled { ", from ORAS too" } else { "; links leave it, which ORAS refuses" });
    }
}
