//! The metadata of one tag or attachment as a directory: `.oci/tags/T/` and everything below it.
//!
//! Bound to one digest like every view. Text from a registry appears as file content only; names are digests,
//! numbers and media types reduced to characters safe in a path. Blobs and attachments are requested when
//! they are read or listed, never before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Attributes, Context, Defaults, Found, Key, Member, Name, Origin, Reader, ViewNode, no_node};
use crate::artifact::attached_index::is_index_layer;
use crate::error::{Error, ErrorKind};
use crate::layer::Extent;
use crate::oci::{Descriptor, Digest, Manifest, Platform, Repository, Tag};

const CONFIG: ViewNode = 0x40;
const LINK: ViewNode = 0x41;
const PLATFORMS: ViewNode = 0x42;
const LAYERS: ViewNode = 0x43;
const BLOBS: ViewNode = 0x44;
const REFERRERS: ViewNode = 0x45;
/// First node of the blobs of the manifest: config first, then layers.
const BLOB_BASE: ViewNode = 1 << 33;
/// First node of the types of attachments, in the order seen.
const TYPE_BASE: ViewNode = 1 << 34;

/// Directories between a tag's metadata and that of an attachment below it: `referrers/TYPE/HEX`.
const REFERRER_DEPTH: usize = 3;

/// Metadata of one manifest.
pub struct Metadata {
    repository: Repository,
    /// The manifest that the tag names.
    named: Arc<Manifest>,
    /// The image manifest: the same, or that of the chosen platform of an index.
    image: Option<Arc<Manifest>>,
    /// Name and bytes; a file's node is its index plus one.
    files: Vec<(&'static str, Bytes)>,
    /// Target of `fs`.
    link: String,
    depth: usize,
    /// Attachments and when they were requested. Held for copying only.
    referrers: Mutex<Option<(Instant, Arc<[Descriptor]>)>>,
    /// Directory names of attachment types; positions never change. Held for copying only.
    types: Mutex<Vec<String>>,
}

impl Metadata {
    /// Reads the manifests that the metadata describes. `depth` directories lie between this one and the
    /// repository's.
    pub(super) async fn load(
        context: &Context,
        repository: &Repository,
        digest: &Digest,
        tag: Option<&Tag>,
        depth: usize,
    ) -> Result<Self, Error> {
        let named = context.artifacts.named_manifest(repository, digest).await?;
        let image = match named.index() {
            None => Some(Arc::clone(&named)),
            Some(_) => match chosen(&named, context.artifacts.platform()) {
                Some(member) => Some(context.artifacts.manifest(repository, &member.digest).await?),
                None => None,
            },
        };
        let image = image.filter(|manifest| manifest.image().is_some());
        let (version, link) = match tag {
            Some(tag) => (format!(":{tag}"), tag.to_string()),
            None => (format!("@{digest}"), format!("@{}", digest.path_name())),
        };
        let files = files(&named, image.as_deref(), &format!("{}{version}", context.authority.reference(Some(repository))));
        Ok(Self {
            repository: repository.clone(),
            named,
            image,
            files,
            link: format!("{}{link}", "../".repeat(depth)),
            depth,
            referrers: Mutex::default(),
            types: Mutex::default(),
        })
    }

    /// The digest described.
    pub fn digest(&self) -> Digest {
        self.named.digest
    }

    /// The manifest described.
    pub fn manifest(&self) -> &Manifest {
        &self.named
    }

    pub(super) fn is_directory(&self, node: ViewNode) -> bool {
        matches!(node, 0 | PLATFORMS | LAYERS | BLOBS | REFERRERS) || self.type_of(node).is_some()
    }

    pub(super) fn parent(&self, directory: ViewNode) -> ViewNode {
        if directory >= TYPE_BASE { REFERRERS } else { 0 }
    }

    pub(super) fn target(&self, node: ViewNode) -> Option<Vec<u8>> {
        (node == LINK).then(|| self.link.clone().into_bytes())
    }

    pub(super) fn attributes(&self, defaults: &Defaults, node: ViewNode) -> Option<Attributes> {
        if self.is_directory(node) {
            return Some(defaults.directory());
        }
        if node == LINK {
            return Some(defaults.symlink(&self.link));
        }
        self.memory(node).map(|bytes| bytes.len() as u64).or_else(|| self.blob(node).map(|blob| blob.size)).map(|size| defaults.file(size))
    }

    pub(super) async fn open(&self, context: &Context, node: ViewNode) -> Result<Reader, Error> {
        if let Some(bytes) = self.memory(node) {
            return Ok(Reader::of_memory(bytes.clone()));
        }
        let blob = self.blob(node).ok_or_else(no_node)?;
        if blob.size == 0 {
            return Ok(Reader::of_memory(Bytes::new()));
        }
        let stream = context.artifacts.blob(&self.repository, blob, context.meaning.strict).await?;
        Ok(Reader::of_stream(blob.size, stream, vec![Extent { file: 0, stream: 0, length: blob.size }]))
    }

    pub(super) async fn lookup(&self, context: &Context, view: u32, directory: ViewNode, name: &str) -> Result<Option<Found>, Error> {
        let names = self.names(context, view, directory).await?;
        Ok(names.into_iter().find(|entry| entry.name == name.as_bytes()).map(|entry| entry.found))
    }

    pub(super) async fn names(&self, context: &Context, view: u32, directory: ViewNode) -> Result<Vec<Name>, Error> {
        match directory {
            0 => Ok(self.top()),
            PLATFORMS => Ok(self.platforms(view)),
            LAYERS => Ok(self.layers(view)),
            BLOBS => Ok(self.blob_names()),
            REFERRERS => self.types(context).await,
            _ => self.attachments(context, view, directory).await,
        }
    }

    fn top(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.files.iter().zip(1..).map(|((name, _), node)| entry(*name, node)).collect();
        if self.image.is_some() {
            names.extend([entry("config.json", CONFIG), entry("layers", LAYERS), entry("blobs", BLOBS)]);
        }
        if self.named.index().is_some() {
            names.push(entry("platforms", PLATFORMS));
        }
        names.extend([entry("fs", LINK), entry("referrers", REFERRERS)]);
        names
    }

    fn platforms(&self, view: u32) -> Vec<Name> {
        let members = self.named.index().map(|index| index.manifests.as_slice()).unwrap_or_default();
        let mut names: Vec<Name> = Vec::new();
        for (member, number) in members.iter().zip(0..) {
            let Some(platform) = member.platform.as_ref().filter(|platform| !platform.is_unknown()) else { continue };
            let name = safe_name(&platform.path_name());
            let name =
                if names.iter().any(|other| other.name == name.as_bytes()) { format!("{name}~{}", member.digest.short()) } else { name };
            let origin = Origin::Platform { repository: self.repository.clone(), digest: member.digest };
            names.push(Name { name: name.into_bytes(), found: Found::View(Key::Member(view, Member::Platform(number)), origin) });
        }
        names
    }

    fn layers(&self, view: u32) -> Vec<Name> {
        let Some((manifest, image)) = self.image.as_ref().and_then(|manifest| Some((manifest, manifest.image()?))) else {
            return Vec::new();
        };
        let name = |(number, layer): (usize, &Descriptor)| {
            let key = Key::Member(view, Member::Layer(u32::try_from(number).unwrap_or(u32::MAX)));
            let origin = Origin::Layer { repository: self.repository.clone(), manifest: Arc::clone(manifest), number };
            Name { name: format!("{number:02}-{}", layer.digest.short()).into_bytes(), found: Found::View(key, origin) }
        };
        image.layers.iter().enumerate().filter(|(_, layer)| !is_index_layer(layer)).map(name).collect()
    }

    /// Config and layers, in order.
    fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.image.as_deref().and_then(Manifest::image).into_iter().flat_map(|image| std::iter::once(&image.config).chain(&image.layers))
    }

    fn blob_names(&self) -> Vec<Name> {
        // A blob listed twice is one file: the first position counts.
        let mut unique: BTreeMap<String, ViewNode> = BTreeMap::new();
        for (blob, node) in self.blobs().zip(BLOB_BASE..) {
            unique.entry(blob.digest.path_name()).or_insert(node);
        }
        unique.into_iter().map(|(name, node)| entry(name, node)).collect()
    }

    fn blob(&self, node: ViewNode) -> Option<&Descriptor> {
        let place = if node == CONFIG { 0 } else { node.checked_sub(BLOB_BASE)? };
        self.blobs().nth(usize::try_from(place).ok()?)
    }

    fn memory(&self, node: ViewNode) -> Option<&Bytes> {
        self.files.get(usize::try_from(node.checked_sub(1)?).ok()?).map(|(_, bytes)| bytes)
    }

    async fn referrers(&self, context: &Context) -> Result<Arc<[Descriptor]>, Error> {
        let kept = self.referrers.lock().clone();
        if let Some((asked, list)) = kept
            && asked.elapsed() < context.tag_ttl
        {
            return Ok(list);
        }
        let list = context.artifacts.referrers(&self.repository, &self.named.digest).await?;
        *self.referrers.lock() = Some((Instant::now(), Arc::clone(&list)));
        Ok(list)
    }

    fn type_of(&self, node: ViewNode) -> Option<String> {
        let place = usize::try_from(node.checked_sub(TYPE_BASE)?).ok()?;
        self.types.lock().get(place).cloned()
    }

    async fn types(&self, context: &Context) -> Result<Vec<Name>, Error> {
        let list = self.referrers(context).await?;
        let mut known = self.types.lock();
        let mut names: BTreeMap<String, ViewNode> = BTreeMap::new();
        for descriptor in list.iter() {
            let name = type_name(descriptor);
            let place = known.iter().position(|other| *other == name).unwrap_or_else(|| {
                known.push(name.clone());
                known.len() - 1
            });
            names.insert(name, TYPE_BASE + place as ViewNode);
        }
        Ok(names.into_iter().map(|(name, node)| entry(name, node)).collect())
    }

    async fn attachments(&self, context: &Context, view: u32, directory: ViewNode) -> Result<Vec<Name>, Error> {
        let kind = self.type_of(directory).ok_or_else(|| Error::new(ErrorKind::NotDirectory, "not a directory"))?;
        let list = self.referrers(context).await?;
        let mut names: BTreeMap<String, Digest> = BTreeMap::new();
        for digest in list.iter().filter(|descriptor| type_name(descriptor) == kind).map(|descriptor| descriptor.digest) {
            let short = digest.short();
            let taken = names.get(&short).is_some_and(|other| *other != digest);
            names.insert(if taken { digest.hex() } else { short }, digest);
        }
        let named = |(name, digest): (String, Digest)| {
            let origin = Origin::DigestMetadata { repository: self.repository.clone(), digest, depth: self.depth + REFERRER_DEPTH };
            Name { name: name.into_bytes(), found: Found::View(Key::Member(view, Member::Referrer(digest)), origin) }
        };
        Ok(names.into_iter().map(named).collect())
    }
}

fn entry(name: impl Into<String>, node: ViewNode) -> Name {
    Name { name: name.into().into_bytes(), found: Found::Node(node) }
}

/// The member of an index that fits a platform best; the first among equals.
fn chosen<'a>(index: &'a Manifest, platform: &Platform) -> Option<&'a Descriptor> {
    let members = index.index()?.manifests.iter();
    let ranked = members.filter_map(|member| {
        let theirs = member.platform.as_ref().filter(|theirs| !theirs.is_unknown())?;
        Some((platform.rank(theirs)?, member))
    });
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, member)| member)
}

fn files(named: &Manifest, image: Option<&Manifest>, reference: &str) -> Vec<(&'static str, Bytes)> {
    let line = |text: &str| Bytes::from(format!("{text}\n"));
    let mut files =
        vec![("digest", line(&named.digest.to_string())), ("reference", line(reference)), ("media-type", line(&named.media_type))];
    if let Some(artifact_type) = named.artifact_type().or_else(|| image.and_then(Manifest::artifact_type)) {
        files.push(("artifact-type", line(artifact_type)));
    }
    if let Some(image) = image {
        files.push(("manifest.json", image.raw.clone()));
    }
    if named.index().is_some() {
        files.push(("index.json", named.raw.clone()));
    }
    let annotations = serde_json::to_string_pretty(named.annotations()).unwrap_or_else(|_| "{}".to_owned());
    files.push(("annotations.json", line(&annotations)));
    files
}

/// The directory name for an attachment's type.
fn type_name(descriptor: &Descriptor) -> String {
    match descriptor.artifact_type.as_deref() {
        None | Some("") => "unknown".to_owned(),
        Some(text) => safe_name(text),
    }
}

/// Registry text as one path component: everything but letters, digits and `.+-` becomes `_`, as does a leading dot;
/// at most 128 characters.
fn safe_name(text: &str) -> String {
    let safe = |(place, letter): (usize, char)| match letter {
        '.' if place == 0 => '_',
        letter if letter.is_ascii_alphanumeric() || ".+-".contains(letter) => letter,
        _ => '_',
    };
    text.chars().take(128).enumerate().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_text_becomes_one_harmless_path_component() {
        assert_eq!(safe_name("application/spdx+json"), "application_spdx+json");
        assert_eq!(safe_name("../../etc/passwd"), "_._.._etc_passwd");
        assert_eq!(safe_name(".."), "_.");
        assert_eq!(safe_name("\u{1b}[31m"), "__31m");
        assert_eq!(safe_name(&"x".repeat(500)).len(), 128);
    }
}
