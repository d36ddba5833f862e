//! Every fixture, mounted from its layout and from a real registry, shows the tree that its tool's own reader unpacks.

use crate::support::layouts::{Layout, fixtures};
use crate::support::mounting::{Home, Mount};
use crate::support::registry::Registry;
use crate::support::skip::{Need, lacks};

const PASSPHRASE: &str = "correct horse battery staple\n";

/// The tags of the fixture that have an expected list.
fn listed_tags(fixture: &str) -> Vec<String> {
    let expected = fixtures().join(fixture).join("expected");
    let mut tags = Layout::fixture(fixture).tags();
    tags.retain(|tag| expected.join(format!("{tag}.tsv")).is_file());
    tags
}

/// Compares every listed tag below `parent` in the mount, and reports all differences.
fn compare_all(fixture: &str, mount: &Mount, parent: &str) {
    let expected = fixtures().join(fixture).join("expected");
    let tags = listed_tags(fixture);
    assert!(!tags.is_empty(), "{fixture} has no list");
    let differences: Vec<String> = tags
        .iter()
        .filter_map(|tag| {
            let differences = mount.compare(&expected.join(format!("{tag}.tsv")), &format!("{parent}{tag}")).err()?;
            Some(format!("{fixture}:{tag}: {differences}"))
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn mount<'home>(home: &'home Home, source: &str) -> Mount<'home> {
    let passphrase = home.path("passphrase");
    std::fs::write(&passphrase, PASSPHRASE).unwrap();
    home.mount(source, &["--platform", "linux/amd64", "--passphrase-file", passphrase.to_str().unwrap()])
}

fn from_layout(fixture: &str) {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("python3")]) {
        return;
    }
    let home = Home::new();
    let mount = mount(&home, &format!("oci:{}", Layout::fixture(fixture).path().display()));
    compare_all(fixture, &mount, "");
    mount.unmount();
}

fn from_registry(fixture: &str) {
    if lacks(&[Need::Fuse, Need::Root, Need::Tool("python3"), Need::Tool("docker-registry")]) {
        return;
    }
    let registry = Registry::plain();
    Layout::fixture(fixture).push(&registry.url(), &format!("team/{fixture}"));
    let home = Home::new();
    let mount = mount(&home, &format!("{}/team", registry.host()));
    compare_all(fixture, &mount, &format!("{fixture}/"));
    mount.unmount();
}

macro_rules! every_fixture {
    ($($module:ident $name:literal)*) => {$(
        mod $module {
            #[test]
            fn mounted_from_its_layout_it_equals_its_tool_s_tree() {
                super::from_layout($name);
            }

            #[test]
            fn mounted_from_a_registry_it_equals_its_tool_s_tree() {
                super::from_registry($name);
            }
        }
    )*};
}

every_fixture! {
    cosign "cosign"
    flux "flux"
    helm "helm"
    image_buildah "image-buildah"
    image_estargz "image-estargz"
    image_gnutar "image-gnutar"
    image_index "image-index"
    image_umoci "image-umoci"
    oci_sync_go "oci-sync-go"
    oci_sync_rust "oci-sync-rust"
    oras_backup "oras-backup"
    oras_dirs "oras-dirs"
    oras_fallback "oras-fallback"
    oras_files "oras-files"
    oras_referrers "oras-referrers"
}

#[test]
fn every_fixture_directory_is_tested() {
    let mut names: Vec<String> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    let this = include_str!("fixtures.rs");
    let missing: Vec<&String> = names.iter().filter(|name| !this.contains(&format!(" \"{name}\"\n"))).collect();
    assert!(missing.is_empty() && !names.is_empty(), "fixtures without a test: {missing:?}");
}

#[test]
fn an_absolute_title_becomes_a_name_inside_of_the_mount() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let layout = Layout::fixture("oras-files");
    let mount = mount(&home, &format!("oci:{}", layout.path().display()));
    let manifest = layout.manifest("absolute");
    let layers = manifest["layers"].as_array().unwrap();
    let absolute = layers.iter().find(|layer| layer["annotations"]["org.opencontainers.image.title"] == "/srv/abs-example.txt").unwrap();
    let digest = absolute["digest"].as_str().unwrap();
    let hex = digest.strip_prefix("sha256:").unwrap();
    let names = mount.ls("absolute").unwrap();
    let suffixed = format!("abs-example.txt~{}", &hex[..12]);
    let shown = names.iter().find(|name| **name == suffixed || **name == format!("sha256-{hex}"));
    let shown = shown.unwrap_or_else(|| panic!("the file with the absolute title is not among {names:?}"));
    assert!(names.contains(&"hello.txt".to_owned()) && names.len() == 2, "{names:?}");
    assert_eq!(mount.cat(&format!("absolute/{shown}")).unwrap(), layout.blob(digest));
    mount.unmount();
}

#[test]
fn an_index_without_platforms_is_a_directory_of_its_members() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    let home = Home::new();
    let layout = Layout::fixture("image-index");
    let mount = mount(&home, &format!("oci:{}", layout.path().display()));
    let members = layout.manifest("members")["manifests"].as_array().unwrap().len();
    let names = mount.ls("members").unwrap();
    assert_eq!(names.len(), members, "{names:?}");
    for name in names {
        assert!(mount.path("members").join(&name).is_dir(), "{name}");
    }
    mount.unmount();
}

#[test]
fn a_sealed_tag_without_its_passphrase_hides_no_neighbour() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    const ENOKEY: i32 = 126;
    let home = Home::new();
    let mount = home.mount(&format!("oci:{}", Layout::fixture("oci-sync-go").path().display()), &[]);
    assert_eq!(mount.ls("sealed").unwrap_err().raw_os_error(), Some(ENOKEY));
    assert!(!mount.ls("dir").unwrap().is_empty());
    mount.unmount();
}

#[test]
fn a_sealed_tag_with_the_wrong_passphrase_is_refused_as_a_wrong_key() {
    if lacks(&[Need::Fuse]) {
        return;
    }
    const EKEYREJECTED: i32 = 129;
    let home = Home::new();
    let passphrase = home.path("passphrase");
    std::fs::write(&passphrase, "correct horse battery stable").unwrap();
    let source = format!("oci:{}", Layout::fixture("oci-sync-rust").path().display());
    let mount = home.mount(&source, &["--passphrase-file", passphrase.to_str().unwrap()]);
    assert_eq!(mount.ls("sealed").unwrap_err().raw_os_error(), Some(EKEYREJECTED));
    mount.unmount();
}
