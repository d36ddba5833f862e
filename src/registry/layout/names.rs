//! The names in a layout's `index.json`: tags, names that are not tags, and unnamed entries.
//!
//! Each entry is parsed by itself, so a broken one affects no other. Plain data; reads no file.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Tag};

/// The annotation that holds a tag.
pub(super) const NAME: &str = "org.opencontainers.image.ref.name";
/// The full reference, written by Docker and containerd beside the tag.
pub(super) const FULL_NAME: &str = "io.containerd.image.name";

/// The entries of an index, grouped by naming.
#[derive(Debug, Default, PartialEq)]
pub(super) struct NamedEntries {
    /// Entries named by a tag. If two have one name, the last counts.
    pub(super) tags: BTreeMap<String, Descriptor>,
    /// Entries named by something else, mostly a full reference.
    pub(super) odd: Vec<(String, Descriptor)>,
    /// Unnamed entries: referrers, or members of an index.
    pub(super) untagged: Vec<Descriptor>,
}

impl NamedEntries {
    pub(super) fn parse(raw: &[u8], origin: &str) -> Result<Self, Error> {
        let broken = |what: &str| Error::new(ErrorKind::Integrity, format!("index.json of {origin}: {what}"));
        let mut value: Value = serde_json::from_slice(raw).map_err(|error| broken(&error.to_string()))?;
        let entries = match value.get_mut("manifests").map(Value::take) {
            Some(Value::Array(entries)) => entries,
            Some(Value::Null) => Vec::new(),
            _ => return Err(broken("it has no `manifests` list")),
        };
        let mut names = Self::default();
        for entry in entries {
            match Descriptor::parse(entry) {
                Ok(descriptor) => names.add(descriptor),
                Err(error) => tracing::warn!("skipping an entry of index.json of {origin}: {error}"),
            }
        }
        names.odd.sort_by(|one, other| one.0.cmp(&other.0));
        names.odd.dedup_by(|later, earlier| later.0 == earlier.0);
        Ok(names)
    }

    fn add(&mut self, descriptor: Descriptor) {
        let Some(name) = descriptor.annotation(NAME).map(str::to_owned) else {
            match descriptor.annotation(FULL_NAME).map(str::to_owned) {
                Some(name) => self.odd.push((name, descriptor)),
                None => self.untagged.push(descriptor),
            }
            return;
        };
        if Tag::parse(&name).is_err() {
            self.odd.push((name, descriptor));
            return;
        }
        let digest = descriptor.digest;
        if let Some(before) = self.tags.insert(name, descriptor)
            && before.digest != digest
        {
            // `docker save a:latest b:latest` names both `latest`: the first stays reachable by its full name.
            match before.annotation(FULL_NAME).map(str::to_owned) {
                Some(name) => self.odd.push((name, before)),
                None => self.untagged.push(before),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oci::Digest;

    fn entry(content: &str, annotations: Value) -> Value {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
            "digest": Digest::of(content.as_bytes()).to_string(), "annotations": annotations,
        })
    }

    #[test]
    fn a_broken_entry_costs_only_itself() {
        let good = entry("good", json!({NAME: "v1"}));
        let text = json!({"manifests": [{"digest": "sha256:../../x"}, 7, good]}).to_string();
        let names = NamedEntries::parse(text.as_bytes(), "oci:/x").unwrap();
        assert_eq!(names.tags.keys().collect::<Vec<_>>(), ["v1"]);
    }

    #[test]
    fn full_references_are_separate_names_even_if_they_share_a_tag() {
        let text = json!({"manifests": [
            entry("a", json!({NAME: "docker.io/library/alpine:3.20"})),
            entry("b", json!({NAME: "latest", FULL_NAME: "docker.io/library/b:latest"})),
            entry("c", json!({NAME: "latest", FULL_NAME: "docker.io/library/c:latest"})),
            entry("d", json!({})),
        ]})
        .to_string();
        let names = NamedEntries::parse(text.as_bytes(), "oci:/x").unwrap();
        assert_eq!(names.tags["latest"].digest, Digest::of(b"c"));
        let odd: Vec<_> = names.odd.iter().map(|(name, descriptor)| (name.as_str(), descriptor.digest)).collect();
        assert_eq!(odd, [("docker.io/library/alpine:3.20", Digest::of(b"a")), ("docker.io/library/b:latest", Digest::of(b"b"))]);
        assert_eq!(names.untagged.len(), 1);
    }

    #[test]
    fn malformed_indexes_are_refused() {
        for text in ["", "[]", "{}", r#"{"manifests":3}"#] {
            assert_eq!(NamedEntries::parse(text.as_bytes(), "oci:/x").unwrap_err().kind, ErrorKind::Integrity, "{text}");
        }
    }
}
