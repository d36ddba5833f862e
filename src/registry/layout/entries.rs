//! Edits the list in `index.json`: names an entry, removes a name, keeps an entry without a name.
//!
//! Pure. Everything else is preserved, including members and entries unknown to ocifs.

use serde_json::{Map, Value, json};

use super::names::{FULL_NAME, NAME};
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Manifest, Tag, media_type};

/// The parsed `index.json`.
pub(super) struct Entries {
    members: Map<String, Value>,
    list: Vec<Value>,
}

impl Entries {
    /// The index of an empty layout.
    pub(super) fn none() -> Self {
        let members = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX});
        Self { members: members.as_object().cloned().unwrap_or_default(), list: Vec::new() }
    }

    pub(super) fn parse(raw: &[u8], origin: &str) -> Result<Self, Error> {
        let broken = |what: &str| Error::new(ErrorKind::Integrity, format!("index.json of {origin}: {what}; not changing it"));
        let mut members = match serde_json::from_slice(raw) {
            Ok(Value::Object(members)) => members,
            Ok(_) => return Err(broken("not a JSON object")),
            Err(error) => return Err(broken(&error.to_string())),
        };
        let list = match members.remove("manifests") {
            Some(Value::Array(list)) => list,
            Some(Value::Null) => Vec::new(),
            _ => return Err(broken("it has no `manifests` list")),
        };
        Ok(Self { members, list })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut whole = self.members.clone();
        whole.insert("manifests".to_owned(), Value::Array(self.list.clone()));
        Value::Object(whole).to_string().into_bytes()
    }

    /// The entry of a tag; if two entries have one name, the last counts.
    fn position(&self, tag: &Tag) -> Option<usize> {
        self.list.iter().rposition(|entry| annotation(entry, NAME) == Some(tag.as_str()))
    }

    /// The entry of a tag.
    pub(super) fn entry(&self, tag: &Tag) -> Option<Value> {
        self.position(tag).and_then(|at| self.list.get(at)).cloned()
    }

    /// Points a tag at a manifest, in place of the entry that had the name.
    pub(super) fn name(&mut self, tag: &Tag, manifest: &Manifest) {
        let mut entry = plain(manifest);
        let mut annotations = json!({NAME: tag.as_str()});
        let before = self.position(tag).and_then(|at| self.list.get_mut(at));
        // `docker load` knows the manifest by this full name with the same tag.
        if let Some(full) = before.as_ref().and_then(|before| annotation(before, FULL_NAME)) {
            annotations[FULL_NAME] = json!(full);
        }
        entry["annotations"] = annotations;
        match before {
            Some(before) => *before = entry,
            None => self.list.push(entry),
        }
    }

    /// Removes a tag that holds `digest`. Entries that it shadowed keep their full name and do not reappear under the tag.
    ///
    /// # Errors
    /// `NotFound` if the tag does not exist, `Conflict` if it holds another digest.
    pub(super) fn unname(&mut self, tag: &Tag, digest: &Digest, origin: &str) -> Result<(), Error> {
        let absent = || Error::new(ErrorKind::NotFound, format!("tag {tag} does not exist in {origin}"));
        let at = self.position(tag).ok_or_else(absent)?;
        let held = self.list.get(at).and_then(digest_of).unwrap_or_default().to_owned();
        if held != digest.to_string() {
            let message = format!("tag {tag} of {origin} holds {}, not {digest}", held.escape_debug());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        self.list.remove(at);
        self.list.retain(|entry| annotation(entry, NAME) != Some(tag.as_str()) || annotation(entry, FULL_NAME).is_some());
        for entry in self.list.iter_mut().filter(|entry| annotation(entry, NAME) == Some(tag.as_str())) {
            if let Some(annotations) = entry.get_mut("annotations").and_then(Value::as_object_mut) {
                annotations.remove(NAME);
            }
        }
        Ok(())
    }

    /// Removes all entries of a digest, or only the unnamed ones.
    pub(super) fn forget(&mut self, digest: &Digest, named_too: bool) {
        let gone = digest.to_string();
        self.list.retain(|entry| digest_of(entry) != Some(&gone) || !(named_too || is_nameless(entry)));
    }

    /// Whether any entry has this digest.
    pub(super) fn holds(&self, digest: &Digest) -> bool {
        let wanted = digest.to_string();
        self.list.iter().any(|entry| digest_of(entry) == Some(&wanted))
    }

    /// The digests of all entries.
    pub(super) fn digests(&self) -> Vec<Digest> {
        self.list.iter().filter_map(|entry| Digest::parse(digest_of(entry)?).ok()).collect()
    }

    /// The digests of the unnamed entries.
    pub(super) fn nameless(&self) -> Vec<Digest> {
        self.list.iter().filter(|entry| is_nameless(entry)).filter_map(|entry| Digest::parse(digest_of(entry)?).ok()).collect()
    }

    /// Ensures that there is an unnamed entry, which is how a layout lists a referrer.
    pub(super) fn keep(&mut self, entry: Value) {
        if !self.list.iter().any(|known| is_nameless(known) && digest_of(known) == digest_of(&entry)) {
            self.list.push(entry);
        }
    }
}

/// The unnamed entry of a manifest.
pub(super) fn plain(manifest: &Manifest) -> Value {
    let mut entry = json!({"mediaType": manifest.media_type, "digest": manifest.digest.to_string(), "size": manifest.raw.len()});
    if let Some(artifact_type) = manifest.artifact_type() {
        entry["artifactType"] = json!(artifact_type);
    }
    entry
}

fn annotation<'entry>(entry: &'entry Value, key: &str) -> Option<&'entry str> {
    entry.get("annotations")?.get(key)?.as_str()
}

fn is_nameless(entry: &Value) -> bool {
    annotation(entry, NAME).is_none() && annotation(entry, FULL_NAME).is_none()
}

fn digest_of(entry: &Value) -> Option<&str> {
    entry.get("digest")?.as_str()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::names::NamedEntries;
    use super::*;

    fn manifest(note: &str) -> Manifest {
        let config = json!({"mediaType": "a/b", "digest": Digest::of(b"{}").to_string(), "size": 2});
        let raw = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [],
            "annotations": {"note": note}});
        let raw = Bytes::from(raw.to_string());
        let digest = Digest::of(&raw);
        Manifest::parse(raw, digest).unwrap()
    }

    fn tag(text: &str) -> Tag {
        Tag::parse(text).unwrap()
    }

    fn names(entries: &Entries) -> NamedEntries {
        NamedEntries::parse(&entries.bytes(), "oci:/x").unwrap()
    }

    #[test]
    fn a_tag_moves_in_place_and_unknown_fields_stay() {
        let text = json!({"schemaVersion": 2, "x": 1, "manifests": [7, {"digest": "odd", "annotations": {NAME: "v0"}}]}).to_string();
        let mut entries = Entries::parse(text.as_bytes(), "oci:/x").unwrap();
        for (name, content) in [("v1", "one"), ("v2", "two"), ("v1", "three")] {
            entries.name(&tag(name), &manifest(content));
        }
        let whole: Value = serde_json::from_slice(&entries.bytes()).unwrap();
        assert_eq!((&whole["x"], &whole["manifests"][0], &whole["manifests"][1]["digest"]), (&json!(1), &json!(7), &json!("odd")));
        assert_eq!(whole["manifests"].as_array().unwrap().len(), 4);
        let found = names(&entries);
        assert_eq!((found.tags["v1"].digest, found.tags["v2"].digest), (manifest("three").digest, manifest("two").digest));
    }

    #[test]
    fn deleting_a_tag_touches_no_sibling_of_the_same_digest() {
        let mut entries = Entries::none();
        for name in ["v1", "v2"] {
            entries.name(&tag(name), &manifest("one"));
        }
        let digest = manifest("one").digest;
        assert_eq!(entries.unname(&tag("v1"), &manifest("two").digest, "oci:/x").unwrap_err().kind, ErrorKind::Conflict);
        entries.unname(&tag("v1"), &digest, "oci:/x").unwrap();
        assert_eq!(names(&entries).tags.keys().collect::<Vec<_>>(), ["v2"]);
        assert_eq!(entries.unname(&tag("v1"), &digest, "oci:/x").unwrap_err().kind, ErrorKind::NotFound);
    }

    #[test]
    fn an_entry_hidden_by_a_deleted_tag_keeps_its_full_name() {
        let entry = |content: &str, full: &str| {
            let mut entry = plain(&manifest(content));
            entry["annotations"] = json!({NAME: "latest", FULL_NAME: full});
            entry
        };
        let text = json!({"manifests": [entry("a", "docker.io/library/a:latest"), entry("b", "docker.io/library/b:latest")]});
        let mut entries = Entries::parse(text.to_string().as_bytes(), "oci:/x").unwrap();
        entries.name(&tag("latest"), &manifest("c"));
        let whole: Value = serde_json::from_slice(&entries.bytes()).unwrap();
        assert_eq!(whole["manifests"][1]["annotations"][FULL_NAME], "docker.io/library/b:latest");
        entries.unname(&tag("latest"), &manifest("c").digest, "oci:/x").unwrap();
        let found = names(&entries);
        assert!(found.tags.is_empty());
        assert_eq!(found.odd, [("docker.io/library/a:latest".to_owned(), found.odd[0].1.clone())]);
    }

    #[test]
    fn a_referrer_is_kept_once_without_a_name() {
        let mut entries = Entries::none();
        entries.name(&tag("v1"), &manifest("one"));
        for _ in 0..2 {
            entries.keep(plain(&manifest("one")));
        }
        assert_eq!((names(&entries).untagged.len(), names(&entries).tags.len()), (1, 1));
    }

    #[test]
    fn a_broken_index_is_not_replaced() {
        for text in ["", "[]", "{}", r#"{"manifests":3}"#] {
            assert_eq!(Entries::parse(text.as_bytes(), "oci:/x").err().map(|error| error.kind), Some(ErrorKind::Integrity), "{text}");
        }
    }
}
