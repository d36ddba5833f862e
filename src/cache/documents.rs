//! Documents: whole files such as indexes, trees and manifests.
//!
//! Written once, durably, and renamed into place; never changed, truncated or punched, so a mapped one stays readable after it is replaced or
//! unlinked. The checksum also covers header, kind and file name: a broken document, or one in another's place, is a miss. Keys become file
//! names only through [`file_name`].

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::aging;
use super::config::Protection;
use super::document_name::file_name;
use super::shared::{Shared, failed};
use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::seal::{CHUNK, CHUNK_TAG, ChunkKey};
use crate::sys::mapped;

/// The bytes of a document, valid while held.
pub type Document = Arc<dyn AsRef<[u8]> + Send + Sync>;

const MAGIC: &[u8; 8] = b"ocifsDC2";
/// Magic 8, length 8, checksum 8, zeros 8, salt 32; the payload is as aligned as the map.
const HEADER: usize = 64;
/// The position of the checksum in the header.
const CHECKSUM: Range<usize> = 16..24;
/// Largest document, as a fraction (1/n) of the budget.
const LARGEST_SHARE: u64 = 4;
struct MappedDocument(mapped::Bytes);

impl AsRef<[u8]> for MappedDocument {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().get(HEADER..).unwrap_or_default()
    }
}

/// The document, or `None` if it does not exist, is broken or is sealed with another key.
pub fn load(shared: &Shared, kind: &str, key: &str, protection: &Protection) -> Result<Option<Document>, Error> {
    read(shared, kind, key, protection, true)
}

/// The same, without counting as a use.
pub fn peek(shared: &Shared, kind: &str, key: &str, protection: &Protection) -> Result<Option<Document>, Error> {
    read(shared, kind, key, protection, false)
}

fn read(shared: &Shared, kind: &str, key: &str, protection: &Protection, is_use: bool) -> Result<Option<Document>, Error> {
    let path = path(shared, kind, key, matches!(protection, Protection::Sealed(_)))?;
    let file = match durable::open_private(&path, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", &path)(error)),
    };
    let Some((bytes, salt)) = checked(&file, &path).map_err(failed("map", &path))? else {
        tracing::warn!(document = %path.display(), "ignoring a broken cached document");
        return Ok(None);
    };
    if is_use {
        shared.record(kind, &path);
        if let Err(error) = aging::touch(&file) {
            tracing::debug!(%error, document = %path.display(), "cannot record its use");
        }
    }
    match protection {
        Protection::Plain => {
            // If marking fails or it is being removed right now, its blocks are freed with the map.
            if let Err(error) = durable::mark_used(&file) {
                tracing::debug!(%error, document = %path.display(), "cannot mark it as used");
            }
            Ok(Some(Arc::new(bytes)))
        }
        Protection::Sealed(chunk_key) => {
            let sealed = bytes.as_ref();
            let mut open = Vec::with_capacity(sealed.len());
            let opened = object_key(chunk_key, kind, key, &salt).open(0, sealed, &mut open);
            Ok(opened.is_ok().then(|| Arc::new(open) as Document))
        }
    }
}

/// Stores a document.
pub fn store(shared: &Shared, kind: &str, key: &str, bytes: &[u8], protection: &Protection) -> Result<(), Error> {
    let path = path(shared, kind, key, matches!(protection, Protection::Sealed(_)))?;
    let salt: [u8; 32] = rand::random();
    let sealed = match protection {
        Protection::Plain => None,
        Protection::Sealed(chunk_key) => {
            let mut out = Vec::with_capacity(bytes.len() + bytes.len().div_ceil(CHUNK) * CHUNK_TAG);
            object_key(chunk_key, kind, key, &salt).seal(0, bytes, &mut out);
            Some(out)
        }
    };
    let payload = sealed.as_deref().unwrap_or(bytes);
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend((payload.len() as u64).to_le_bytes());
    header.extend([0; 16]);
    header.extend(salt);
    let checksum = checksum(&path, &header, payload).to_le_bytes();
    header.splice(CHECKSUM, checksum);
    let directory = path.parent().unwrap_or(&shared.root);
    durable::make_directory(directory).map_err(failed("make", directory))?;
    let size = ((HEADER + payload.len()) as u64).next_multiple_of(shared.block);
    let full = |why: &str| Error::new(ErrorKind::NoSpace, format!("the cache cannot keep {}: {why}", path.display()));
    if size > shared.limit() / LARGEST_SHARE {
        return Err(full(&format!("its {size} bytes are more than a quarter of the cache (--cache-size)")));
    }
    let Some(reservation) = shared.reserve(size)? else {
        return Err(full("no room, and nothing can be evicted"));
    };
    let replaced = std::fs::symlink_metadata(&path).map_or(0, |metadata| durable::occupied(&metadata));
    if let Err(error) = durable::replace(&path, &[&header, payload]) {
        shared.give_back(reservation.bytes());
        return Err(failed("write", &path)(error));
    }
    shared.record(kind, &path);
    shared.give_back(replaced);
    Ok(())
}

/// Removes a document, plain and sealed.
pub fn forget(shared: &Shared, kind: &str, key: &str) -> Result<(), Error> {
    for sealed in [false, true] {
        let path = path(shared, kind, key, sealed)?;
        match durable::remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the document at a path is intact and in its place; `None` if it does not exist (any more) or is being written.
pub fn check(path: &Path) -> io::Result<Option<bool>> {
    if path.file_name().is_some_and(|name| name.as_bytes().starts_with(durable::TEMPORARY.as_bytes())) {
        return Ok(None);
    }
    match durable::open_private(path, false) {
        Ok(file) => checked(&file, path).map(|found| Some(found.is_some())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn checked(file: &File, path: &Path) -> io::Result<Option<(MappedDocument, [u8; 32])>> {
    if file.metadata()?.len() < HEADER as u64 {
        return Ok(None);
    }
    let document = MappedDocument(mapped::Bytes::map(file)?);
    let (Some(header), payload) = (document.0.as_ref().first_chunk::<HEADER>(), document.as_ref()) else { return Ok(None) };
    let word = |at: usize| header.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let salt: [u8; 32] = header.last_chunk().copied().unwrap_or_default();
    let whole = header.starts_with(MAGIC) && word(8) == payload.len() as u64 && word(CHECKSUM.start) == checksum(path, header, payload);
    Ok(whole.then_some((document, salt)))
}

/// Covers the last two path components (kind and key) and all bytes except its own.
fn checksum(path: &Path, header: &[u8], payload: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    for part in [path.parent().and_then(Path::file_name), path.file_name()] {
        hasher.update(part.unwrap_or_default().as_bytes());
        hasher.update(b"\0");
    }
    for part in [header.get(..CHECKSUM.start), header.get(CHECKSUM.end..), Some(payload)] {
        hasher.update(part.unwrap_or_default());
    }
    hasher.digest()
}

fn object_key(key: &ChunkKey, kind: &str, name: &str, salt: &[u8; 32]) -> ChunkKey {
    let mut context = b"ocifs cache document 1\0".to_vec();
    context.extend(kind.as_bytes());
    context.push(0);
    context.extend(salt);
    context.extend(name.as_bytes());
    key.for_object(&context)
}

fn path(shared: &Shared, kind: &str, key: &str, sealed: bool) -> Result<PathBuf, Error> {
    let word =
        !kind.is_empty() && kind.len() <= 32 && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !word {
        let message = format!("`{}` is not a valid document kind: use lower-case letters, digits and `-`", kind.escape_default());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let suffix = if sealed { "sealed" } else { "plain" };
    Ok(shared.root.join("documents").join(kind).join(format!("{}.{suffix}", file_name(key))))
}
