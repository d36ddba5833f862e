//! Builds the manifests of a pack from its blobs. Pure, so that the same Pack file and content give the same digest.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::pack_file::{PackConfig, PackFile, PackItem, PackPlatform, TITLE};
use crate::error::{Error, ErrorKind};
use crate::oci::document::{self, EMPTY};
use crate::oci::{Descriptor, Digest, Manifest, media_type};

/// Artifact type if there is neither a type nor a config, which the specification forbids.
const UNKNOWN_ARTIFACT: &str = "application/vnd.unknown.artifact.v1";
/// Media type of a config without one.
pub const UNKNOWN_CONFIG: &str = "application/vnd.unknown.config.v1+json";
/// The annotation for an item's directory, as written by oci-packer.
const DIRECTORY: &str = "io.arenadata.oci-packer.dir";

/// Media types by file extension, longer ones first: archives, and the common types of web servers.
const MEDIA_TYPES: [(&str, &str); 23] = [
    (".tar.gz", "application/vnd.oci.image.layer.v1.tar+gzip"),
    (".tar.zst", "application/vnd.oci.image.layer.v1.tar+zstd"),
    (".tgz", "application/vnd.oci.image.layer.v1.tar+gzip"),
    (".tar", "application/vnd.oci.image.layer.v1.tar"),
    (".avif", "image/avif"),
    (".css", "text/css"),
    (".gif", "image/gif"),
    (".htm", "text/html"),
    (".html", "text/html"),
    (".jpeg", "image/jpeg"),
    (".jpg", "image/jpeg"),
    (".js", "text/javascript"),
    (".json", "application/json"),
    (".mjs", "text/javascript"),
    (".pdf", "application/pdf"),
    (".png", "image/png"),
    (".svg", "image/svg+xml"),
    (".txt", "text/plain"),
    (".wasm", "application/wasm"),
    (".webp", "image/webp"),
    (".xml", "text/xml"),
    (".yaml", "application/yaml"),
    (".yml", "application/yaml"),
];

/// The identity of a blob's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Their digest.
    pub digest: Digest,
    /// Their length.
    pub size: u64,
}

/// A file that becomes a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFile {
    /// Its name, whose extension determines the media type.
    pub name: String,
    /// Its own title, if any.
    pub title: Option<String>,
    /// The directory of the item, as written.
    pub directory: Option<String>,
    /// Its content.
    pub content: Content,
}

/// The media type implied by a name.
pub fn media_type_of(name: &str) -> &'static str {
    let name = name.to_ascii_lowercase();
    MEDIA_TYPES.iter().find(|(ending, _)| name.ends_with(ending)).map_or(media_type::OCTET_STREAM, |(_, media_type)| media_type)
}

/// The layer of a file.
pub fn layer(item: &PackItem, file: &LayerFile, in_index: bool) -> Descriptor {
    let media_type = item.media_type.as_deref().unwrap_or_else(|| media_type_of(&file.name));
    let mut layer = Descriptor::new(media_type, file.content.digest, file.content.size);
    layer.annotations.extend(file.title.iter().map(|title| (TITLE.to_owned(), title.clone())));
    layer.annotations.extend(file.directory.iter().map(|directory| (DIRECTORY.to_owned(), directory.clone())));
    layer.annotations.extend(item.annotations.iter().map(|(name, text)| (name.clone(), text.clone())));
    layer.annotations.retain(|name, text| name != TITLE || !text.is_empty());
    // In an index, the member's manifest carries the type.
    layer.artifact_type = item.artifact_type.clone().filter(|_| !in_index);
    layer
}

/// The descriptor of a config.
pub fn config(config: &PackConfig, content: Content) -> Value {
    let media_type = config.media_type.as_deref().unwrap_or(UNKNOWN_CONFIG);
    let mut descriptor = Descriptor::new(media_type, content.digest, content.size);
    descriptor.annotations.clone_from(&config.annotations);
    with_platform(document::descriptor(&descriptor), config.platform.as_ref())
}

/// A manifest with layers.
///
/// # Errors
/// None in practice.
pub fn flat(
    artifact_type: Option<&str>,
    config: Option<Value>,
    layers: &[Descriptor],
    annotations: &BTreeMap<String, String>,
) -> Result<Manifest, Error> {
    let mut members = Map::new();
    members.insert("schemaVersion".to_owned(), json!(2));
    members.insert("mediaType".to_owned(), json!(media_type::OCI_MANIFEST));
    let artifact_type = artifact_type.or(config.is_none().then_some(UNKNOWN_ARTIFACT));
    members.extend(artifact_type.map(|artifact_type| ("artifactType".to_owned(), json!(artifact_type))));
    members.insert("config".to_owned(), config.unwrap_or_else(document::empty));
    // Registries require a layer.
    let layers: Vec<Value> = match layers {
        [] => vec![document::empty()],
        layers => layers.iter().map(document::descriptor).collect(),
    };
    members.insert("layers".to_owned(), Value::Array(layers));
    finish(members, annotations)
}

/// The index entry of a member.
pub fn entry(manifest: &Manifest, platform: Option<&PackPlatform>, annotations: &BTreeMap<String, String>) -> Value {
    let mut descriptor = manifest.descriptor();
    descriptor.artifact_type = artifact_type(manifest);
    descriptor.annotations.clone_from(annotations);
    with_platform(document::descriptor(&descriptor), platform)
}

/// An index of members.
///
/// # Errors
/// None in practice.
pub fn index(file: &PackFile, entries: Vec<Value>) -> Result<Manifest, Error> {
    let mut members = Map::new();
    members.insert("schemaVersion".to_owned(), json!(2));
    members.insert("mediaType".to_owned(), json!(media_type::OCI_INDEX));
    members.extend(file.artifact_type.as_ref().map(|artifact_type| ("artifactType".to_owned(), json!(artifact_type))));
    members.insert("manifests".to_owned(), Value::Array(entries));
    finish(members, &file.annotations)
}

/// The artifact type in the manifest itself, ignoring its config.
pub fn artifact_type(manifest: &Manifest) -> Option<String> {
    let members = document::members(manifest).ok()?;
    members.get("artifactType")?.as_str().map(str::to_owned)
}

/// Whether a blob is the empty one.
pub fn is_empty(content: &Descriptor) -> bool {
    content.media_type == media_type::OCI_EMPTY && content.digest == Digest::of(EMPTY)
}

/// The name in a path or URL: the part after the last slash, without a query.
pub fn name_of(path: &str) -> &str {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// A path as a title: components joined by slashes.
///
/// # Errors
/// Invalid if a name is not UTF-8.
pub fn title_of(path: &Path) -> Result<String, Error> {
    let refused = || Error::new(ErrorKind::Invalid, format!("{} has a name that is not UTF-8, and a title must be", path.display()));
    path.to_str().map(str::to_owned).ok_or_else(refused)
}

fn finish(mut members: Map<String, Value>, annotations: &BTreeMap<String, String>) -> Result<Manifest, Error> {
    if !annotations.is_empty() {
        members.insert("annotations".to_owned(), json!(annotations));
    }
    document::manifest(members).map_err(|error| Error::new(ErrorKind::Other, format!("cannot encode the manifest: {error}")))
}

fn with_platform(mut descriptor: Value, platform: Option<&PackPlatform>) -> Value {
    if let Some(platform) = platform {
        let mut value = json!({"architecture": platform.architecture, "os": platform.os});
        if let Some(version) = &platform.os_version {
            value["os.version"] = json!(version);
        }
        if let Some(variant) = &platform.variant {
            value["variant"] = json!(variant);
        }
        descriptor["platform"] = value;
    }
    descriptor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_determines_the_media_type() {
        for (name, media_type) in [
            ("a.tar", "application/vnd.oci.image.layer.v1.tar"),
            ("a.tar.gz", "application/vnd.oci.image.layer.v1.tar+gzip"),
            ("a.tgz", "application/vnd.oci.image.layer.v1.tar+gzip"),
            ("a.b.TAR.ZST", "application/vnd.oci.image.layer.v1.tar+zstd"),
            ("a.json", "application/json"),
            ("a.bin", "application/octet-stream"),
            ("tar", "application/octet-stream"),
        ] {
            assert_eq!(media_type_of(name), media_type, "{name}");
        }
        let endings: std::collections::BTreeSet<&str> = MEDIA_TYPES.iter().map(|(ending, _)| *ending).collect();
        assert_eq!(endings.len(), MEDIA_TYPES.len());
    }

    #[test]
    fn the_name_of_a_url_is_its_last_part_without_the_query() {
        for (url, name) in [("https://x/a/b.tar.gz?token=1/2#x", "b.tar.gz"), ("https://x/", "x"), ("k/x", "x"), ("", "")] {
            assert_eq!(name_of(url), name, "{url}");
        }
    }
}
