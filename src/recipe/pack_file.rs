//! The Pack file: its content and syntax. Strict: unknown keys and anything ambiguous are errors. Reads none of the files it names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::oci::Digest;

/// The annotation for a layer's path.
pub const TITLE: &str = "org.opencontainers.image.title";

/// A validated Pack file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackFile {
    /// `artifactType` of the manifest or index.
    pub artifact_type: Option<String>,
    /// Annotations of the manifest or index.
    pub annotations: BTreeMap<String, String>,
    /// The config of a manifest.
    pub config: Option<PackConfig>,
    /// At least one.
    pub items: Vec<PackItem>,
}

/// A config blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackConfig {
    /// Its file.
    pub file: PathBuf,
    /// Its media type.
    pub media_type: Option<String>,
    /// Platform in its descriptor.
    pub platform: Option<PackPlatform>,
    /// Annotations of its descriptor.
    pub annotations: BTreeMap<String, String>,
}

/// One item: layers, or a member of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackItem {
    /// Where its content comes from.
    pub source: PackSource,
    /// `artifactType` of the layer; in an index, of the member's manifest.
    pub artifact_type: Option<String>,
    /// Media type of the layer, overriding the one implied by the name.
    pub media_type: Option<String>,
    /// Platform of the member; makes the artifact an index.
    pub platform: Option<PackPlatform>,
    /// Annotations of the layer; for an artifact, of its entry in the index. An empty title means no title.
    pub annotations: BTreeMap<String, String>,
    /// Config of the member's manifest.
    pub config: Option<PackConfig>,
    /// Required SHA-256 of the file.
    pub sha256: Option<Digest>,
}

/// Where an item's content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PackSource {
    /// A local file.
    File(PathBuf),
    /// All files of a directory, one layer each.
    Directory(PathBuf),
    /// A URL.
    Web(String),
    /// An object in S3.
    Object {
        /// The bucket.
        bucket: String,
        /// Its key.
        key: String,
        /// The endpoint may lack TLS.
        plain_http: bool,
    },
    /// An artifact, by its reference.
    Artifact(String),
}

/// A platform exactly as written to an index: `os[(version)]/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackPlatform {
    /// Operating system.
    pub os: String,
    /// Its version.
    pub os_version: Option<String>,
    /// Architecture.
    pub architecture: String,
    /// Variant.
    pub variant: Option<String>,
}

impl PackFile {
    /// Whether the items become members of an index instead of layers of a manifest.
    pub fn is_index(&self) -> bool {
        self.items.iter().any(|item| item.platform.is_some() || matches!(item.source, PackSource::Artifact(_)))
    }

    /// Parses a Pack file.
    ///
    /// # Errors
    /// Invalid, with the position: `item[1]: …`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |what: String| Error::new(ErrorKind::Invalid, format!("the Pack file {what}"));
        if text.trim().is_empty() {
            return Err(invalid("is empty".to_owned()));
        }
        let written: Written = serde_saphyr::from_str(text).map_err(|error| invalid(format!("cannot be read: {error}")))?;
        let items = written.items.unwrap_or_default();
        if items.is_empty() {
            return Err(invalid("must contain at least one item".to_owned()));
        }
        let file = Self {
            artifact_type: written.artifact_type,
            annotations: written.annotations,
            config: written.config.map(WrittenItem::config).transpose().map_err(|what| invalid(format!("is wrong: config: {what}")))?,
            items: items
                .into_iter()
                .enumerate()
                .map(|(number, item)| item.item().map_err(|what| invalid(format!("is wrong: item[{number}]: {what}"))))
                .collect::<Result<_, _>>()?,
        };
        if file.is_index() && file.config.is_some() {
            let why = "an index has no config: give it to its items, with `config` in each";
            return Err(invalid(format!("is wrong: config: {why}")));
        }
        Ok(file)
    }

    /// The text of a Pack file; [`PackFile::parse`] reads it back.
    ///
    /// # Errors
    /// None in practice: everything in it is text.
    pub fn text(&self) -> Result<String, Error> {
        let written = Written {
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
            config: self.config.as_ref().map(WrittenItem::of_config),
            items: Some(self.items.iter().map(WrittenItem::of_item).collect()),
        };
        serde_saphyr::to_string(&written).map_err(|error| Error::new(ErrorKind::Other, format!("cannot encode the Pack file: {error}")))
    }
}

impl PackSource {
    fn parse(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid source format `{}`: use file:, dir:, http(s)://, s3://, cr:// or oci:", text.escape_debug());
        if text.starts_with("http://") || text.starts_with("https://") {
            return Ok(Self::Web(text.to_owned()));
        }
        for (scheme, plain_http) in [("s3://", false), ("s3+http://", true)] {
            if let Some(rest) = text.strip_prefix(scheme) {
                let (bucket, key) =
                    rest.split_once('/').filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty()).ok_or_else(invalid)?;
                return Ok(Self::Object { bucket: bucket.to_owned(), key: key.to_owned(), plain_http });
            }
        }
        let rest = |scheme: &str| {
            let rest = text.strip_prefix(scheme)?;
            Some(rest.strip_prefix("//").unwrap_or(rest)).filter(|rest| !rest.is_empty())
        };
        if let Some(path) = rest("file:") {
            return Ok(Self::File(path.into()));
        }
        if let Some(path) = rest("dir:") {
            return Ok(Self::Directory(path.into()));
        }
        if let Some(reference) = rest("cr:").or_else(|| rest("docker:")) {
            return Ok(Self::Artifact(reference.to_owned()));
        }
        // A complete reference; the meaning of `oci://` is explained where references are parsed.
        match rest("oci:").or_else(|| rest("oci-archive:")) {
            Some(_) => Ok(Self::Artifact(text.to_owned())),
            None => Err(invalid()),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::File(path) => format!("file:{}", path.display()),
            Self::Directory(path) => format!("dir:{}", path.display()),
            Self::Web(url) => url.clone(),
            Self::Object { bucket, key, plain_http } => format!("{}://{bucket}/{key}", if *plain_http { "s3+http" } else { "s3" }),
            Self::Artifact(reference) if reference.starts_with("oci:") || reference.starts_with("oci-archive:") => reference.clone(),
            Self::Artifact(reference) => format!("cr://{reference}"),
        }
    }
}

impl PackPlatform {
    fn parse(text: &str) -> Result<Self, String> {
        let invalid =
            || format!("`{}` is not a platform, like linux/amd64, linux/arm/v7 or windows(10.0.17763)/amd64", text.escape_debug());
        let is_word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        let (system, machine) = match text.split_once(')') {
            Some((system, machine)) => (system, machine.strip_prefix('/').ok_or_else(invalid)?),
            None => text.split_once('/').ok_or_else(invalid)?,
        };
        let (os, os_version) = match system.split_once('(') {
            Some((os, version)) if text.contains(')') => (os, Some(version).filter(|version| !version.is_empty())),
            Some(_) => return Err(invalid()),
            None => (system, None),
        };
        let (architecture, variant) = match machine.split_once('/') {
            Some((architecture, variant)) => (architecture, Some(variant)),
            None => (machine, None),
        };
        if ![Some(os), os_version, Some(architecture), variant].into_iter().flatten().all(is_word) {
            return Err(invalid());
        }
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Ok(Self { os: os.to_owned(), os_version: owned(os_version), architecture: architecture.to_owned(), variant: owned(variant) })
    }

    /// The platform in an index entry; `None` if a Pack file cannot express it.
    pub fn of_value(value: &Value) -> Option<Self> {
        let members = value.as_object()?;
        let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
        let known = ["os", "os.version", "architecture", "variant"];
        let platform =
            Self { os: text("os")?, os_version: text("os.version"), architecture: text("architecture")?, variant: text("variant") };
        let is_same = members.keys().all(|name| known.contains(&name.as_str())) && Self::parse(&platform.text()).ok()? == platform;
        is_same.then_some(platform)
    }

    fn text(&self) -> String {
        let version = self.os_version.as_ref().map(|version| format!("({version})")).unwrap_or_default();
        let variant = self.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
        format!("{}{version}/{}{variant}", self.os, self.architecture)
    }
}

/// The YAML document.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<WrittenItem>,
    items: Option<Vec<WrittenItem>>,
}

/// An item or a config in the YAML document.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WrittenItem {
    #[serde(default)]
    from: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, rename = "mediaType", skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<Box<WrittenItem>>,
}

impl WrittenItem {
    fn item(self) -> Result<PackItem, String> {
        let source = self.source()?;
        let is_artifact = matches!(source, PackSource::Artifact(_));
        let one_file = matches!(source, PackSource::File(_) | PackSource::Web(_) | PackSource::Object { .. });
        let config = self.config.map(|config| config.config().map_err(|what| format!("config: {what}"))).transpose()?;
        if is_artifact && (config.is_some() || self.media_type.is_some() || self.kind.is_some()) {
            return Err("an artifact brings its own config and types".to_owned());
        }
        if self.sha256.is_some() && !one_file {
            return Err("`sha256` applies to a single file: file:, http(s): or s3:".to_owned());
        }
        let sha256 = self.sha256.map(|hex| {
            let digest = format!("sha256:{}", hex.strip_prefix("sha256:").unwrap_or(&hex).to_ascii_lowercase());
            Digest::parse(&digest).map_err(|_| format!("`{}` is not a SHA-256: 64 hexadecimal digits", hex.escape_debug()))
        });
        Ok(PackItem {
            source,
            artifact_type: self.kind,
            media_type: self.media_type,
            platform: self.platform.as_deref().map(PackPlatform::parse).transpose()?,
            annotations: self.annotations,
            config,
            sha256: sha256.transpose()?,
        })
    }

    fn config(self) -> Result<PackConfig, String> {
        let PackSource::File(file) = self.source()? else { return Err("it must be a file:".to_owned()) };
        if self.config.is_some() || self.sha256.is_some() || self.media_type.is_some() {
            return Err("a config has only `from`, `type`, `platform` and `annotations`".to_owned());
        }
        let platform = self.platform.as_deref().map(PackPlatform::parse).transpose()?;
        Ok(PackConfig { file, media_type: self.kind, platform, annotations: self.annotations })
    }

    fn source(&self) -> Result<PackSource, String> {
        let from = self.from.as_deref().filter(|from| !from.is_empty()).ok_or("'from' field is required")?;
        PackSource::parse(from)
    }

    fn of_item(item: &PackItem) -> Self {
        Self {
            from: Some(item.source.text()),
            kind: item.artifact_type.clone(),
            media_type: item.media_type.clone(),
            platform: item.platform.as_ref().map(PackPlatform::text),
            sha256: item.sha256.as_ref().map(|digest| digest.hex().to_owned()),
            annotations: item.annotations.clone(),
            config: item.config.as_ref().map(|config| Box::new(Self::of_config(config))),
        }
    }

    fn of_config(config: &PackConfig) -> Self {
        Self {
            from: Some(PackSource::File(config.file.clone()).text()),
            kind: config.media_type.clone(),
            platform: config.platform.as_ref().map(PackPlatform::text),
            annotations: config.annotations.clone(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let error = PackFile::parse(text).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
        error.message.into_owned()
    }

    #[test]
    fn a_pack_file_without_items_is_refused() {
        for text in ["items: []", "type: a/b", "annotations: {a: b}\nitems:\n"] {
            assert!(refused(text).contains("must contain at least one item"), "{text}");
        }
    }

    #[test]
    fn errors_name_the_item_and_the_mistake() {
        for (text, wanted) in [
            ("items: [{type: a/b}]", "item[0]: 'from' field is required"),
            ("items: [{from: 'invalid://x'}]", "item[0]: invalid source format `invalid://x`"),
            ("items: [{from: 'file:a'}, {from: 'x'}]", "item[1]: invalid source format `x`"),
            ("items: [{from: 'file:a'}, {from: 's3://bucket'}]", "item[1]: invalid source format"),
            ("items: [{from: 'file:a', platform: linux}]", "item[0]: `linux` is not a platform"),
            ("items: [{from: 'file:a', config: {type: a}}]", "item[0]: config: 'from' field is required"),
            ("items: [{from: 'file:a', config: {from: 'http://x/y'}}]", "item[0]: config: it must be a file:"),
            ("items: [{from: 'cr://reg.io/a:v1', config: {from: 'file:c'}}]", "item[0]: an artifact brings its own config"),
            ("items: [{from: 'dir:d', sha256: abc}]", "item[0]: `sha256` applies to a single file"),
            ("items: [{from: 'file:d', sha256: abc}]", "item[0]: `abc` is not a SHA-256"),
            ("config: {type: a}\nitems: [{from: 'file:a'}]", "config: 'from' field is required"),
        ] {
            let message = refused(text);
            assert!(message.contains(wanted), "{text}: {message}");
        }
    }

    #[test]
    fn unknown_keys_empty_files_and_broken_yaml_are_refused() {
        for text in
            ["", "  \n", "items: [{from: 'file:a', titel: x}]", "itmes: []", "items: [", "- a", "items: [{from: 'file:a'}]\nitems: []"]
        {
            refused(text);
        }
    }

    #[test]
    fn an_artifact_or_platform_makes_an_index_with_configs_in_its_items() {
        let is_index = |text: &str| PackFile::parse(text).unwrap().is_index();
        assert!(!is_index("items: [{from: 'file:a'}, {from: 'dir://b'}, {from: 'https://x/y'}, {from: 's3://b/k'}]"));
        for member in ["{from: 'file:b', platform: linux/amd64}", "{from: 'cr://reg.io/a:v1'}", "{from: 'oci:layout:v1'}"] {
            assert!(is_index(&format!("items: [{{from: 'file:a'}}, {member}]")), "{member}");
            let message = refused(&format!("config: {{from: 'file:c'}}\nitems: [{{from: 'file:a'}}, {member}]"));
            assert!(message.contains("give it to its items"), "{message}");
        }
    }

    #[test]
    fn sources_are_spelled_with_and_without_slashes() {
        let source = |text: &str| PackSource::parse(text).unwrap();
        assert_eq!(source("file://a/b"), source("file:a/b"));
        assert_eq!(source("file:///a"), PackSource::File("/a".into()));
        assert_eq!(source("cr://reg.io/a:v1"), PackSource::Artifact("reg.io/a:v1".to_owned()));
        assert_eq!(source("docker://reg.io/a:v1"), source("cr:reg.io/a:v1"));
        assert_eq!(source("oci:/l:v1"), PackSource::Artifact("oci:/l:v1".to_owned()));
        let object = |plain_http| PackSource::Object { bucket: "b".to_owned(), key: "k/x".to_owned(), plain_http };
        assert_eq!((source("s3://b/k/x"), source("s3+http://b/k/x")), (object(false), object(true)));
    }

    #[test]
    fn platforms_are_kept_as_written() {
        for text in ["linux/amd64", "linux/arm64/v8", "windows(10.0.17763)/amd64", "linux/arm/v6"] {
            assert_eq!(PackPlatform::parse(text).unwrap().text(), text);
        }
        assert_eq!(PackPlatform::parse("linux()/amd64").unwrap().text(), "linux/amd64");
        for text in ["linux", "linux/", "/amd64", "linux(8/amd64", "linux/a/b/c", "li nux/amd64", "linux(1)amd64", ""] {
            assert!(PackPlatform::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pack_file_survives_a_round_trip() {
        let text = "
type: application/vnd.acme.bundle
annotations: {k: v, time: '2024-01-01T00:00:00Z', number: '7', odd: \"a: b\\n\"}
items:
  - {from: 'file:a.tar.gz', type: x/y, mediaType: z/w, annotations: {org.opencontainers.image.title: ''}}
  - {from: 'https://x/y?z#f', sha256: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae}
  - {from: 'dir:d', platform: 'windows(10)/amd64', config: {from: 'file:c', type: c/d, platform: linux/arm/v7, annotations: {a: b}}}
  - {from: 'cr://reg.io/a@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae'}
  - {from: 'oci:layout:v1'}
  - {from: 's3+http://b/k'}
";
        let file = PackFile::parse(text).unwrap();
        assert_eq!(file.items.len(), 6);
        assert_eq!(PackFile::parse(&file.text().unwrap()).unwrap(), file);
    }
}
