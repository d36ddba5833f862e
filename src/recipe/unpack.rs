//! Unpacks an artifact into files and a Pack file that packs to the same digest.
//!
//! The directory appears as a whole, once everything in it is verified. A title that cannot be a local file name stays in the Pack file, and the
//! file gets another name. Whether the Pack file reproduces the digest is computed, not assumed.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::Value;
use tempfile::TempDir;

use super::manifest::{self, Content, LayerFile, UNKNOWN_CONFIG, media_type_of};
use super::on_disk;
use super::pack_file::{PackConfig, PackFile, PackItem, PackPlatform, PackSource, TITLE};
use crate::blocking::blocking;
use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Hasher, Manifest, Version, document};
use crate::registry::Layout;
use crate::transfer::{self, Copier, Destination, Options, RemoteBlob};

/// The Pack file.
const PACK_FILE: &str = "pack.yaml";
/// Directory of the layers' files.
const FILES: &str = "files";
/// A layout for the index members that are more than a file.
const MEMBERS: &str = "members";
/// Bytes written at once.
const PIECE: usize = 1 << 20;

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Number of files of layers and configs.
    pub files: usize,
    /// Number of index members that were kept as they are.
    pub members: usize,
    /// Whether the Pack file reproduces the artifact's digest.
    pub is_same: bool,
}

/// Unpacks an artifact into a missing or empty directory.
///
/// # Errors
/// The directory is not empty, a blob cannot be read or verified, or the disk is full. The directory is left unchanged.
pub async fn unpack(source: &transfer::Source, whole: &Manifest, directory: &Path, concurrency: NonZeroUsize) -> Result<Unpacked, Error> {
    let place = directory.to_path_buf();
    let building = blocking(move || begin(&place)).await?;
    let done = Unpacked { files: 0, members: 0, is_same: false };
    let mut unpacking = Unpacking { source, root: building.path().to_path_buf(), concurrency, names: UsedNames::default(), done };
    let (file, rebuilt) = match whole.index() {
        Some(_) => unpacking.index(whole).await?,
        None => unpacking.manifest(whole).await?,
    };
    let is_same =
        rebuilt.is_some_and(|rebuilt| rebuilt.digest == whole.digest) && PackFile::parse(&file.text()?).is_ok_and(|read| read == file);
    let (text, place) = (file.text()?, directory.to_path_buf());
    blocking(move || end(building, &text, &place)).await?;
    Ok(Unpacked { is_same, ..unpacking.done })
}

struct Unpacking<'a> {
    source: &'a transfer::Source,
    /// The directory under construction.
    root: PathBuf,
    concurrency: NonZeroUsize,
    names: UsedNames,
    done: Unpacked,
}

/// The parts a manifest is unpacked into.
struct Parts {
    artifact_type: Option<String>,
    config: Option<(PackConfig, Content)>,
    layers: Vec<(PackItem, LayerFile)>,
    /// Blobs and their file paths, relative to the directory.
    files: Vec<(Descriptor, PathBuf)>,
}

impl Parts {
    /// The manifest that packing them would give.
    fn rebuilt(&self, artifact_type: Option<&str>, in_index: bool, annotations: &BTreeMap<String, String>) -> Option<Manifest> {
        let config = self.config.as_ref().map(|(config, content)| manifest::config(config, *content));
        let layers: Vec<Descriptor> = self.layers.iter().map(|(item, file)| manifest::layer(item, file, in_index)).collect();
        manifest::flat(artifact_type, config, &layers, annotations).ok()
    }
}

impl Unpacking<'_> {
    async fn manifest(&mut self, whole: &Manifest) -> Result<(PackFile, Option<Manifest>), Error> {
        let parts = self.parts(whole, "");
        self.save_all(&parts.files).await?;
        let rebuilt = parts.rebuilt(parts.artifact_type.as_deref(), false, whole.annotations());
        let mut items: Vec<PackItem> = parts.layers.into_iter().map(|(item, _)| item).collect();
        if items.is_empty() {
            // A Pack file needs an item; use one without files.
            let nothing = self.root.join(FILES);
            blocking(move || std::fs::create_dir_all(&nothing).map_err(|error| on_disk("cannot create", &nothing, error))).await?;
            items.push(item(PackSource::Directory(FILES.into())));
        }
        let config = parts.config.map(|(config, _)| config);
        Ok((PackFile { artifact_type: parts.artifact_type, annotations: whole.annotations().clone(), config, items }, rebuilt))
    }

    async fn index(&mut self, whole: &Manifest) -> Result<(PackFile, Option<Manifest>), Error> {
        let members = document::members(whole).unwrap_or_default();
        let listed = members.get("manifests").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut file = PackFile {
            artifact_type: manifest::artifact_type(whole),
            annotations: whole.annotations().clone(),
            config: None,
            items: Vec::new(),
        };
        let mut entries = Vec::new();
        for (number, listed) in listed.iter().enumerate() {
            let (item, entry) = self.member(&file, number, listed).await.map_err(|error| error.context(format_args!("item[{number}]")))?;
            file.items.push(item);
            entries.push(entry);
        }
        if file.items.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, "the index has no members, and a Pack file must have items"));
        }
        let rebuilt = manifest::index(&file, entries).ok().filter(|_| file.is_index());
        Ok((file, rebuilt))
    }

    /// One member: a file if it consists of nothing else, otherwise the artifact as it is.
    async fn member(&mut self, file: &PackFile, number: usize, listed: &Value) -> Result<(PackItem, Value), Error> {
        let descriptor = Descriptor::parse(listed.clone()).map_err(|error| Error::new(ErrorKind::Integrity, error.to_string()))?;
        let version = Version::Digest(descriptor.digest);
        let member = self.source.pull.manifest(&self.source.repository, &version).await?;
        let platform = listed.get("platform").and_then(PackPlatform::of_value);
        if let Some(platform) = platform.as_ref().filter(|_| descriptor.annotations.is_empty())
            && let Some((item, parts)) = self.simple(file, number, &member)
        {
            self.save_all(&parts.files).await?;
            let entry = manifest::entry(&member, Some(platform), &BTreeMap::new());
            return Ok((PackItem { platform: Some(platform.clone()), ..item }, entry));
        }
        self.keep(&version).await?;
        let kept = PackSource::Artifact(format!("oci:{MEMBERS}@{}", descriptor.digest));
        let entry = manifest::entry(&member, platform.as_ref(), &descriptor.annotations);
        Ok((PackItem { platform, annotations: descriptor.annotations, ..item(kept) }, entry))
    }

    /// The item for a single-layer manifest that a pack would reproduce.
    fn simple(&mut self, file: &PackFile, number: usize, member: &Manifest) -> Option<(PackItem, Parts)> {
        member.image().filter(|image| image.layers.len() == 1)?;
        let before = self.names.clone();
        let parts = self.parts(member, &format!("{number}-"));
        let artifact_type = parts.artifact_type.as_ref().or(file.artifact_type.as_ref());
        let rebuilt = parts.rebuilt(artifact_type.map(String::as_str), true, &BTreeMap::new());
        let [(only, _)] = parts.layers.as_slice() else {
            self.names = before;
            return None;
        };
        if rebuilt.is_none_or(|rebuilt| rebuilt.digest != member.digest) {
            self.names = before;
            return None;
        }
        let config = parts.config.as_ref().map(|(config, _)| config.clone());
        let item = PackItem { artifact_type: parts.artifact_type.clone(), config, ..only.clone() };
        Some((item, parts))
    }

    /// Items, config and files of an image manifest. Writes nothing.
    fn parts(&mut self, whole: &Manifest, prefix: &str) -> Parts {
        let mut parts = Parts { artifact_type: manifest::artifact_type(whole), config: None, layers: Vec::new(), files: Vec::new() };
        let Some(image) = whole.image() else { return parts };
        if !manifest::is_empty(&image.config) {
            let path = PathBuf::from(format!("{prefix}config.json"));
            let media_type = Some(image.config.media_type.clone()).filter(|media_type| media_type != UNKNOWN_CONFIG);
            let platform =
                document::members(whole).ok().and_then(|members| PackPlatform::of_value(members.get("config")?.get("platform")?));
            let config = PackConfig { file: path.clone(), media_type, platform, annotations: image.config.annotations.clone() };
            parts.config = Some((config, content(&image.config)));
            parts.files.push((image.config.clone(), path));
        }
        if image.layers.len() == 1 && image.layers.iter().all(manifest::is_empty) {
            return parts;
        }
        for (number, layer) in image.layers.iter().enumerate() {
            let title = layer.annotation(TITLE);
            let path = self.names.place(title, &format!("layer-{prefix}{number}"));
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
            let mut annotations = layer.annotations.clone();
            match title {
                Some(title) if title == name => drop(annotations.remove(TITLE)),
                Some(_) => {}
                None => drop(annotations.insert(TITLE.to_owned(), String::new())),
            }
            let path = Path::new(FILES).join(path);
            let item = PackItem {
                artifact_type: layer.artifact_type.clone(),
                media_type: Some(layer.media_type.clone()).filter(|media_type| media_type != media_type_of(&name)),
                annotations,
                ..item(PackSource::File(path.clone()))
            };
            let file = LayerFile { title: Some(name.clone()), name, directory: None, content: content(layer) };
            parts.layers.push((item, file));
            parts.files.push((layer.clone(), path));
        }
        parts
    }

    /// Keeps a member with everything below it.
    async fn keep(&mut self, version: &Version) -> Result<(), Error> {
        let place = self.root.join(MEMBERS);
        let layout = blocking(move || Layout::open_or_begin(&place)).await?;
        let destination = Destination { push: Arc::new(layout), repository: Layout::repository()? };
        let options = Options { concurrency: self.concurrency, referrers: false, platform: None };
        Copier::new(self.source.clone(), destination, options).copy(version, &[]).await?;
        self.done.members += 1;
        Ok(())
    }

    async fn save_all(&mut self, files: &[(Descriptor, PathBuf)]) -> Result<(), Error> {
        let saving = files.iter().map(|(blob, path)| self.save(blob, self.root.join(path)));
        stream::iter(saving).buffer_unordered(self.concurrency.get()).try_collect::<()>().await?;
        self.done.files += files.len();
        Ok(())
    }

    /// Writes a blob, whose last bytes arrive only if the digest matches.
    async fn save(&self, blob: &Descriptor, path: PathBuf) -> Result<(), Error> {
        let remote = RemoteBlob::new(self.source.clone(), blob.clone());
        let mut state = blocking(move || {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|error| on_disk("cannot create", parent, error))?;
            }
            let file = File::create_new(&path).map_err(|error| on_disk("cannot write", &path, error))?;
            Ok((file, path))
        })
        .await?;
        let mut offset = 0;
        while offset < blob.size {
            let piece = remote.piece(offset, PIECE).await?;
            if piece.is_empty() {
                let message = format!("blob {} ends after {offset} of {} bytes", blob.digest, blob.size);
                return Err(Error::new(ErrorKind::Integrity, message));
            }
            offset += piece.len() as u64;
            let (mut file, path) = state;
            state = blocking(move || {
                file.write_all(&piece).map_err(|error| on_disk("cannot write", &path, error))?;
                Ok((file, path))
            })
            .await?;
        }
        if blob.size == 0 && Hasher::new(blob.digest.algorithm()).finish() != blob.digest {
            return Err(Error::new(ErrorKind::Integrity, format!("blob {} is not empty, but has size 0", blob.digest)));
        }
        Ok(())
    }
}

/// Names already in use.
#[derive(Clone, Debug, Default)]
struct UsedNames {
    files: HashSet<PathBuf>,
    directories: HashSet<PathBuf>,
}

impl UsedNames {
    /// The path for a file: its title if that is possible, else another name.
    fn place(&mut self, title: Option<&str>, otherwise: &str) -> PathBuf {
        let wanted = title.map(Path::new).filter(|path| can_be(path) && self.are_free(path)).map(Path::to_path_buf);
        let mut numbers = 0_u64..;
        let mut another =
            || numbers.find_map(|number| Some(PathBuf::from(format!("{otherwise}{}", suffix(number)))).filter(|path| self.are_free(path)));
        let path = wanted.or_else(&mut another).unwrap_or_default();
        self.directories.extend(path.ancestors().skip(1).map(folded));
        self.files.insert(folded(&path));
        path
    }

    fn are_free(&self, path: &Path) -> bool {
        let own = folded(path);
        !self.files.contains(&own) && !self.directories.contains(&own) && own.ancestors().skip(1).all(|above| !self.files.contains(above))
    }
}

/// Folds case: names that differ only in case are the same on some file systems.
fn folded(path: &Path) -> PathBuf {
    path.to_string_lossy().to_lowercase().into()
}

fn suffix(number: u64) -> String {
    if number == 0 { String::new() } else { format!("-{number}") }
}

/// Whether a title can be used verbatim as a relative file path.
fn can_be(path: &Path) -> bool {
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(name) if name.len() <= 255));
    let text = path.to_string_lossy();
    is_plain
        && !text.is_empty()
        && text.len() < 2048
        && !text.contains(['\0', '\n', '\r'])
        && path.components().collect::<PathBuf>().as_os_str() == path.as_os_str()
}

fn item(source: PackSource) -> PackItem {
    PackItem { source, artifact_type: None, media_type: None, platform: None, annotations: BTreeMap::new(), config: None, sha256: None }
}

fn content(descriptor: &Descriptor) -> Content {
    Content { digest: descriptor.digest, size: descriptor.size }
}

/// Creates a temporary directory beside the requested one. Blocks.
fn begin(directory: &Path) -> Result<TempDir, Error> {
    match std::fs::read_dir(directory).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) => {
            let message = format!("{} is not empty; unpack into a new directory", super::shown(directory));
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(on_disk("cannot read", directory, error)),
    }
    let parent = durable::directory_of(directory);
    let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    std::fs::create_dir_all(parent).map_err(|error| on_disk("cannot create", parent, error))?;
    let made = tempfile::Builder::new().prefix(&format!(".{name}.new-")).permissions(Permissions::from_mode(0o777)).tempdir_in(parent);
    made.map_err(|error| on_disk("cannot create a directory in", parent, error))
}

/// Writes the Pack file and renames the directory to its final name. Blocks.
fn end(building: TempDir, text: &str, directory: &Path) -> Result<(), Error> {
    let file = building.path().join(PACK_FILE);
    std::fs::write(&file, text).map_err(|error| on_disk("cannot write", &file, error))?;
    std::fs::rename(building.path(), directory).map_err(|error| on_disk("cannot create", directory, error))?;
    // The directory has been renamed, so nothing must be removed.
    drop(building.keep());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping_clashing_and_invalid_titles_get_other_names() {
        let mut names = UsedNames::default();
        for (title, path) in [
            (Some("a/b.txt"), "a/b.txt"),
            (Some("a"), "layer"),
            (Some("a/b.txt/c"), "layer-1"),
            (Some("A/B.TXT"), "layer-2"),
            (Some("../x"), "layer-3"),
            (Some("/etc/passwd"), "layer-4"),
            (Some("x//y"), "layer-5"),
            (Some("."), "layer-6"),
            (Some(""), "layer-7"),
            (None, "layer-8"),
            (Some("c d"), "c d"),
        ] {
            assert_eq!(names.place(title, "layer"), Path::new(path), "{title:?}");
        }
    }
}
