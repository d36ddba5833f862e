//! Manifest fields set by the user: types, annotations, config, subject.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::EMPTY;
use super::files::TITLE;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest};
use crate::publish::manifest;

/// Default artifact type, as in ORAS.
pub(in crate::publish) const UNKNOWN_ARTIFACT: &str = "application/vnd.unknown.artifact.v1";
/// Default config type.
const UNKNOWN_CONFIG: &str = "application/vnd.unknown.config.v1+json";
/// Annotations with this prefix belong to oci-sync.
const RESERVED: &str = "io.oci-sync.";

/// A config blob given by the user.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its media type.
    pub media_type: Option<String>,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The manifest format to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageSpec {
    /// Version 1.0: the artifact type is the config's media type.
    V1_0,
    /// Version 1.1: the artifact type has its own field.
    #[default]
    V1_1,
}

/// Manifest fields set by the user. All are optional.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    /// `artifactType`.
    pub artifact_type: Option<String>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the config.
    pub config_annotations: BTreeMap<String, String>,
    /// Annotations of layers, by title.
    pub layer_annotations: BTreeMap<String, BTreeMap<String, String>>,
    /// Replaces the empty config.
    pub config: Option<Config>,
    /// The manifest that the artifact refers to.
    pub subject: Option<Descriptor>,
    /// The manifest format.
    pub image_spec: ImageSpec,
}

impl Metadata {
    /// Rejects invalid fields.
    ///
    /// # Errors
    /// Invalid for annotations reserved by oci-sync.
    pub fn check(&self) -> Result<(), Error> {
        if let Some(name) = self.annotations.keys().find(|name| name.starts_with(RESERVED)) {
            return Err(Error::new(ErrorKind::Invalid, format!("annotation `{name}` is reserved for oci-sync; choose another name")));
        }
        Ok(())
    }

    /// The config blob to send; `None` for the empty one.
    pub(in crate::publish) fn config_blob(&self) -> Option<(Descriptor, Bytes)> {
        let media_type = match (&self.config, self.image_spec) {
            (Some(config), _) => config.media_type.as_deref().unwrap_or(UNKNOWN_CONFIG),
            (None, ImageSpec::V1_0) => self.artifact_type.as_deref().unwrap_or(UNKNOWN_CONFIG),
            (None, ImageSpec::V1_1) => return None,
        };
        let bytes = self.config.as_ref().map_or(Bytes::from_static(EMPTY), |config| config.bytes.clone());
        let mut descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        descriptor.annotations = self.config_annotations.clone();
        Some((descriptor, bytes))
    }

    /// Applies the fields to a manifest.
    pub(in crate::publish) fn applied(&self, manifest: &Arc<Manifest>) -> Result<Arc<Manifest>, Error> {
        let mut members = manifest::members(manifest)?;
        if let Some(artifact_type) = &self.artifact_type {
            members.insert("artifactType".to_owned(), json!(artifact_type));
        }
        if self.image_spec == ImageSpec::V1_0 {
            members.remove("artifactType");
        }
        if let Some((config, _)) = self.config_blob() {
            members.insert("config".to_owned(), manifest::descriptor(&config));
        } else if let Some(config) = members.get_mut("config") {
            annotate(config, &self.config_annotations);
        }
        if let Some(subject) = &self.subject {
            let plain = Descriptor::new(&subject.media_type, subject.digest, subject.size);
            members.insert("subject".to_owned(), manifest::descriptor(&plain));
        }
        self.annotate_layers(&mut members)?;
        let mut whole = Value::Object(members);
        annotate(&mut whole, &self.annotations);
        let Value::Object(members) = whole else { return Err(Error::other("a manifest is not an object")) };
        manifest::finish(members)
    }

    fn annotate_layers(&self, members: &mut Map<String, Value>) -> Result<(), Error> {
        let mut left: BTreeMap<&str, &BTreeMap<String, String>> =
            self.layer_annotations.iter().map(|(title, annotations)| (title.as_str(), annotations)).collect();
        for layer in members.get_mut("layers").and_then(Value::as_array_mut).into_iter().flatten() {
            let title = layer["annotations"][TITLE].as_str().map(str::to_owned);
            if let Some(annotations) = title.and_then(|title| left.remove(title.as_str())) {
                annotate(layer, annotations);
            }
        }
        match left.keys().next() {
            None => Ok(()),
            Some(title) => Err(Error::new(ErrorKind::Invalid, format!("annotations given for `{title}`, but no layer has that title"))),
        }
    }
}

fn annotate(value: &mut Value, annotations: &BTreeMap<String, String>) {
    if annotations.is_empty() {
        return;
    }
    let Some(members) = value.as_object_mut() else { return };
    let place = members.entry("annotations").or_insert_with(|| json!({}));
    if let Some(place) = place.as_object_mut() {
        place.extend(annotations.iter().map(|(name, text)| (name.clone(), json!(text))));
    }
}
