//! Manifests: the registry's exact bytes together with their parsed content.
//!
//! The bytes are kept because the digest, `.oci/…/manifest.json` and every copy need them unchanged. They are parsed as `oci-spec` types
//! and then validated; Docker schema 2 manifests and lists have the same shape.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::{Descriptor, Digest, InvalidManifest, media_type};

/// A parsed manifest with the bytes it was parsed from.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The bytes as stored by the registry.
    pub raw: Bytes,
    /// Digest of `raw`: SHA-256, or the algorithm of the requested digest.
    pub digest: Digest,
    /// Its media type: the `mediaType` member, else implied by the shape.
    pub media_type: String,
    /// The parsed content.
    pub body: ManifestBody,
}

/// The two shapes of a manifest.
#[derive(Clone, Debug)]
pub enum ManifestBody {
    /// A config and layers.
    Image(Box<ImageManifest>),
    /// A list of other manifests.
    Index(Box<Index>),
}

/// An image manifest (or Docker schema 2 manifest); also used for artifacts that are not images.
#[derive(Clone, Debug)]
pub struct ImageManifest {
    /// The config blob.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// `artifactType`, else the config's media type unless that is an image config or empty.
    pub artifact_type: Option<String>,
    /// The manifest that this one refers to.
    pub subject: Option<Descriptor>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// An image index (or Docker manifest list).
#[derive(Clone, Debug)]
pub struct Index {
    /// The members, in order.
    pub manifests: Vec<Descriptor>,
    /// `artifactType` of the index.
    pub artifact_type: Option<String>,
    /// The manifest that this one refers to.
    pub subject: Option<Descriptor>,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Parses a manifest. `digest` is the digest that the bytes were verified against.
    ///
    /// # Errors
    /// The bytes are not JSON, claim both shapes (CVE-2021-41190), contradict their own `mediaType`, or contain malformed digests.
    pub fn parse(raw: Bytes, digest: Digest) -> Result<Self, InvalidManifest> {
        let mut value: Value = serde_json::from_slice(&raw).map_err(json)?;
        let members = value.as_object_mut().ok_or_else(|| InvalidManifest::Json("not a JSON object".to_owned()))?;
        // Go encodes an empty list as null.
        for list in ["layers", "manifests"] {
            if members.get(list).is_some_and(Value::is_null) {
                members.insert(list.to_owned(), Value::Array(Vec::new()));
            }
        }
        let claimed = members.get("mediaType").and_then(Value::as_str).map(str::to_owned);
        if let Some(name) = unsupported(claimed.as_deref(), members) {
            return Err(InvalidManifest::Unsupported(name));
        }
        drop_nulls(&mut value);
        let Some(members) = value.as_object() else { return Err(unknown_type(claimed)) };
        let (layers, manifests) = (members.contains_key("layers") || members.contains_key("config"), members.contains_key("manifests"));
        let index = match (layers, manifests) {
            (true, true) => return Err(InvalidManifest::Ambiguous),
            (false, false) => return Err(unknown_type(claimed)),
            (_, index) => index,
        };
        let (expected, default) = if index {
            ([media_type::OCI_INDEX, media_type::DOCKER_INDEX], media_type::OCI_INDEX)
        } else {
            ([media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST], media_type::OCI_MANIFEST)
        };
        if let Some(claim) = claimed.as_deref()
            && !expected.contains(&claim)
        {
            return Err(unknown_type(claimed));
        }
        let body = if index {
            ManifestBody::Index(Box::new(Index::from_value(value)?))
        } else {
            ManifestBody::Image(Box::new(ImageManifest::from_value(value)?))
        };
        Ok(Self { raw, digest, media_type: claimed.unwrap_or_else(|| default.to_owned()), body })
    }

    /// The descriptor of this manifest itself.
    pub fn descriptor(&self) -> Descriptor {
        let mut descriptor = Descriptor::new(self.media_type.clone(), self.digest, self.raw.len() as u64);
        descriptor.artifact_type = self.artifact_type().map(str::to_owned);
        descriptor.annotations = self.annotations().clone();
        descriptor
    }

    /// The image manifest, unless this is an index.
    pub fn image(&self) -> Option<&ImageManifest> {
        match &self.body {
            ManifestBody::Image(image) => Some(image),
            ManifestBody::Index(_) => None,
        }
    }

    /// The index, unless this is an image manifest.
    pub fn index(&self) -> Option<&Index> {
        match &self.body {
            ManifestBody::Index(index) => Some(index),
            ManifestBody::Image(_) => None,
        }
    }

    /// The artifact type, if any.
    pub fn artifact_type(&self) -> Option<&str> {
        match &self.body {
            ManifestBody::Image(image) => image.artifact_type.as_deref(),
            ManifestBody::Index(index) => index.artifact_type.as_deref(),
        }
    }

    /// Annotations of the manifest.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        match &self.body {
            ManifestBody::Image(image) => &image.annotations,
            ManifestBody::Index(index) => &index.annotations,
        }
    }

    /// The manifest that this one refers to.
    pub fn subject(&self) -> Option<&Descriptor> {
        match &self.body {
            ManifestBody::Image(image) => image.subject.as_ref(),
            ManifestBody::Index(index) => index.subject.as_ref(),
        }
    }
}

impl ImageManifest {
    fn from_value(mut value: Value) -> Result<Self, InvalidManifest> {
        for one in ["config", "subject"] {
            value.get_mut(one).map(prepare).transpose()?;
        }
        for layer in value.get_mut("layers").and_then(Value::as_array_mut).into_iter().flatten() {
            prepare(layer)?;
        }
        let spec: oci_spec::image::ImageManifest = serde_json::from_value(value).map_err(json)?;
        let config = Descriptor::from_spec(spec.config())?;
        let artifact_type = spec.artifact_type().as_ref().map(ToString::to_string).or_else(|| {
            let plain = media_type::is_image_config(&config.media_type) || config.media_type == media_type::OCI_EMPTY;
            (!plain).then(|| config.media_type.clone())
        });
        Ok(Self {
            layers: spec.layers().iter().map(Descriptor::from_spec).collect::<Result<_, _>>()?,
            subject: spec.subject().as_ref().map(Descriptor::from_spec).transpose()?,
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
            config,
            artifact_type,
        })
    }
}

impl Index {
    fn from_value(mut value: Value) -> Result<Self, InvalidManifest> {
        let members = match value.get_mut("manifests").map(Value::take) {
            Some(Value::Array(members)) => members,
            _ => return Err(InvalidManifest::Json("`manifests` is not a list".to_owned())),
        };
        if let Some(place) = value.get_mut("manifests") {
            *place = Value::Array(Vec::new());
        }
        let spec: oci_spec::image::ImageIndex = serde_json::from_value(value).map_err(json)?;
        Ok(Self {
            manifests: members.into_iter().filter_map(member).collect(),
            artifact_type: spec.artifact_type().as_ref().map(ToString::to_string),
            subject: spec.subject().as_ref().map(Descriptor::from_spec).transpose()?,
            annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
        })
    }
}

impl Descriptor {
    /// Parses one descriptor.
    ///
    /// # Errors
    /// The member is not a descriptor, or its digest is malformed.
    pub fn parse(mut value: Value) -> Result<Self, InvalidManifest> {
        drop_nulls(&mut value);
        prepare(&mut value)?;
        let spec: oci_spec::image::Descriptor = serde_json::from_value(value).map_err(json)?;
        Self::from_spec(&spec)
    }
}

/// The name of an obsolete kind of manifest.
fn unsupported(media_type: Option<&str>, members: &serde_json::Map<String, Value>) -> Option<&'static str> {
    match media_type {
        Some(media_type::DOCKER_SCHEMA_1 | media_type::DOCKER_SCHEMA_1_SIGNED) => Some("a Docker schema 1 manifest"),
        Some(media_type::OCI_ARTIFACT_MANIFEST) => Some("an OCI artifact manifest"),
        None if members.contains_key("fsLayers") => Some("a Docker schema 1 manifest"),
        _ => None,
    }
}

/// Drops null members, which count as absent, as in Go.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Validates the digest of a descriptor, since the parser reports neither its place nor its grammar, and defaults a missing media type to
/// plain bytes.
fn prepare(descriptor: &mut Value) -> Result<(), InvalidManifest> {
    if let Some(digest) = descriptor.get("digest").and_then(Value::as_str) {
        Digest::parse(digest)?;
    }
    if let Some(members) = descriptor.as_object_mut() {
        members.entry("mediaType").or_insert_with(|| media_type::OCTET_STREAM.into());
    }
    Ok(())
}

/// Parses a member of an index; a broken one is skipped by itself.
fn member(value: Value) -> Option<Descriptor> {
    let parsed = Descriptor::parse(value);
    if let Err(error) = &parsed {
        tracing::warn!("skipping a broken member of an index: {error}");
    }
    parsed.ok()
}

/// The parser's text may quote the registry, so it is escaped.
fn json(error: serde_json::Error) -> InvalidManifest {
    InvalidManifest::Json(error.to_string().escape_debug().to_string())
}

fn unknown_type(claimed: Option<String>) -> InvalidManifest {
    InvalidManifest::UnknownType(claimed.unwrap_or_else(|| "none".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, InvalidManifest> {
        Manifest::parse(Bytes::copy_from_slice(text.as_bytes()), Digest::of(text.as_bytes()))
    }

    fn descriptor(media_type: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":2}}"#, Digest::of(b"{}"))
    }

    #[test]
    fn a_manifest_without_a_media_type_is_recognised_by_its_shape() {
        let text = format!(r#"{{"schemaVersion":2,"config":{},"layers":null}}"#, descriptor("application/vnd.example"));
        let manifest = parse(&text).unwrap();
        assert_eq!(manifest.media_type, media_type::OCI_MANIFEST);
        assert_eq!(manifest.artifact_type(), Some("application/vnd.example"));
        assert!(manifest.image().unwrap().layers.is_empty());
        assert_eq!(manifest.raw, text.as_bytes());
    }

    #[test]
    fn an_index_keeps_platforms_and_annotations() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{{"mediaType":"{}","digest":"{}","size":9,"platform":{{"os":"linux","architecture":"arm64","variant":"v8"}}}}],"annotations":{{"a":"b"}}}}"#,
            media_type::DOCKER_INDEX,
            media_type::DOCKER_MANIFEST,
            Digest::of(b"x"),
        );
        let manifest = parse(&text).unwrap();
        assert_eq!(manifest.index().unwrap().manifests[0].platform.as_ref().unwrap().to_string(), "linux/arm64");
        assert_eq!(manifest.annotations()["a"], "b");
    }

    #[test]
    fn a_broken_member_of_an_index_costs_only_itself() {
        let good = descriptor(media_type::OCI_MANIFEST);
        let text = format!(r#"{{"schemaVersion":2,"manifests":[7,{{"digest":"md5:x","size":1,"mediaType":"a"}},{good}]}}"#);
        assert_eq!(parse(&text).unwrap().index().unwrap().manifests.len(), 1);
    }

    #[test]
    fn null_is_treated_as_absent() {
        let layer =
            format!(r#"{{"mediaType":null,"digest":"{}","size":2,"annotations":{{"k":null,"l":"v"}},"urls":null}}"#, Digest::of(b"{}"));
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":null,"config":{},"layers":[{layer}],"annotations":null,"subject":null}}"#,
            descriptor(media_type::OCI_EMPTY)
        );
        let manifest = parse(&text).unwrap();
        let layer = &manifest.image().unwrap().layers[0];
        assert_eq!((layer.media_type.as_str(), layer.annotation("k"), layer.annotation("l")), (media_type::OCTET_STREAM, None, Some("v")));
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"a/b","digest":"{}","size":1,"platform":null,"annotations":{{"k":null}}}}]}}"#,
            Digest::of(b"x")
        );
        assert!(parse(&text).unwrap().index().unwrap().manifests[0].platform.is_none());
    }

    #[test]
    fn outdated_manifest_types_are_named() {
        for (text, name) in [
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "schema 1"),
            (format!(r#"{{"schemaVersion":1,"mediaType":"{}"}}"#, media_type::DOCKER_SCHEMA_1_SIGNED), "schema 1"),
            (format!(r#"{{"mediaType":"{}","blobs":[]}}"#, media_type::OCI_ARTIFACT_MANIFEST), "artifact manifest"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(matches!(error, InvalidManifest::Unsupported(_)) && error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn ambiguous_unknown_and_broken_manifests_are_refused() {
        let config = descriptor(media_type::OCI_CONFIG);
        assert!(matches!(
            parse(&format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#)),
            Err(InvalidManifest::Ambiguous)
        ));
        assert!(matches!(parse(r#"{"schemaVersion":3}"#), Err(InvalidManifest::UnknownType(_))));
        let lie = format!(r#"{{"schemaVersion":2,"mediaType":"{}","config":{config},"layers":[]}}"#, media_type::OCI_INDEX);
        assert!(matches!(parse(&lie), Err(InvalidManifest::UnknownType(_))));
        assert!(matches!(parse("<html>"), Err(InvalidManifest::Json(_))));
        assert!(matches!(parse("[]"), Err(InvalidManifest::Json(_))));
        let evil = r#"{"schemaVersion":2,"config":{"mediaType":"a/b","digest":"sha256:../../x","size":1},"layers":[]}"#;
        assert!(parse(evil).is_err());
    }
}
