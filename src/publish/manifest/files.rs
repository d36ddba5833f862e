//! Manifests of the files dialect: titled layers as ORAS writes and reads them, each followed by its index.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{described, empty, finish, members, set_config};
use crate::error::Error;
use crate::oci::{Descriptor, Digest, Manifest, media_type};

/// Artifact type of the files dialect.
pub(in crate::publish) const ARTIFACT_TYPE: &str = "application/vnd.ocifs.files.v1";
/// The annotation for a layer's path.
pub(in crate::publish) const TITLE: &str = "org.opencontainers.image.title";
/// The annotation for a layer that is an archive to unpack.
const UNPACK: &str = "io.deis.oras.content.unpack";
/// The annotation for the digest of the uncompressed archive.
pub(in crate::publish) const CONTENT: &str = "io.deis.oras.content.digest";
const ARCHIVE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const RAW: &str = "application/octet-stream";

/// The layer of an archive with paths from the root, under a unique title (see [`roots`]).
pub(in crate::publish) fn archive(blob: (Digest, u64), diff_id: &Digest, title: &str) -> Descriptor {
    described(ARCHIVE, blob, &[(CONTENT, &diff_id.to_string()), (UNPACK, "true"), (TITLE, title)])
}

/// Distinct spellings of the root, since ORAS accepts no title twice. `.`, `./`, `./.`, `.//`, `.//.`, … stay short even by the thousand.
pub(in crate::publish) fn roots() -> impl Iterator<Item = String> {
    (1_u64..).map(|number| {
        let digits = number.ilog2();
        let tokens = (0..digits).rev().map(|digit| if number >> digit & 1 == 0 { "/" } else { "/." });
        std::iter::once(".").chain(tokens).collect()
    })
}

/// Whether a title is one of [`roots`].
pub(in crate::publish) fn is_root(title: &str) -> bool {
    title.starts_with('.') && !title.contains("..") && title.chars().all(|letter| matches!(letter, '.' | '/'))
}

/// The layer of one file.
pub(in crate::publish) fn raw(blob: (Digest, u64), title: &str) -> Descriptor {
    described(RAW, blob, &[(TITLE, title)])
}

/// The manifest with these layers: a new one, or `base` with its layers and possibly its config replaced.
pub(in crate::publish) fn manifest(
    layers: Vec<Value>,
    base: Option<&Manifest>,
    config: Option<&Descriptor>,
) -> Result<Arc<Manifest>, Error> {
    // ORAS requires a layer; the empty one shows nothing.
    let layers = if layers.is_empty() { vec![empty()] } else { layers };
    let mut all = match base {
        Some(base) => members(base)?,
        None => {
            let mut all = Map::new();
            all.insert("schemaVersion".to_owned(), json!(2));
            all.insert("mediaType".to_owned(), json!(media_type::OCI_MANIFEST));
            all.insert("artifactType".to_owned(), json!(ARTIFACT_TYPE));
            all.insert("config".to_owned(), empty());
            all
        }
    };
    if let Some(config) = config {
        set_config(&mut all, config);
    }
    all.insert("layers".to_owned(), Value::Array(layers));
    finish(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::manifest::descriptor;

    #[test]
    fn spellings_of_the_root_are_all_different_and_short() {
        let first: Vec<String> = roots().take(7).collect();
        assert_eq!(first, [".", "./", "./.", ".//", ".//.", "././", "././."]);
        let many: std::collections::BTreeSet<String> = roots().take(5000).collect();
        assert!(many.len() == 5000 && many.iter().all(|title| is_root(title) && title.len() < 30));
        assert!(!is_root("..") && !is_root("./a") && !is_root("a") && !is_root("./../."));
    }

    #[test]
    fn a_new_manifest_has_the_fields_that_oras_writes() {
        let layer = raw((Digest::of(b"x"), 1), "a/b");
        let manifest = manifest(vec![descriptor(&layer)], None, None).unwrap();
        let expected = format!(
            concat!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.ocifs.files.v1","#,
                r#""config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="}},"#,
                r#""layers":[{{"mediaType":"application/octet-stream","digest":"{}","size":1,"annotations":{{"org.opencontainers.image.title":"a/b"}}}}]}}"#
            ),
            Digest::of(b"x")
        );
        assert_eq!(std::str::from_utf8(&manifest.raw).unwrap(), expected);
    }

    #[test]
    fn an_edit_changes_only_the_layers() {
        let base = format!(
            r#"{{"schemaVersion":2,"config":{c},"layers":[{c}],"subject":{c},"annotations":{{"k":"v"}},"artifactType":"t/t","x":7}}"#,
            c = descriptor(&Descriptor::new("a/b", Digest::of(b"{}"), 2))
        );
        let base = Manifest::parse(base.clone().into(), Digest::of(base.as_bytes())).unwrap();
        let layers = || vec![descriptor(&raw((Digest::of(b"x"), 1), "a"))];
        let edited = manifest(layers(), Some(&base), None).unwrap();
        let value: Value = serde_json::from_slice(&edited.raw).unwrap();
        assert_eq!((&value["x"], &value["annotations"]["k"], &value["artifactType"]), (&json!(7), &json!("v"), &json!("t/t")));
        assert_eq!(value["subject"]["mediaType"], "a/b");
        assert_eq!(value["layers"][0]["annotations"][TITLE], "a");
        let config = Descriptor::new("c/d", Digest::of(b"other"), 5);
        let value: Value = serde_json::from_slice(&manifest(layers(), Some(&base), Some(&config)).unwrap().raw).unwrap();
        assert_eq!((&value["config"]["digest"], &value["x"]), (&json!(Digest::of(b"other").to_string()), &json!(7)));
    }
}
