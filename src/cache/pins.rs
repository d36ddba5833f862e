//! Pins: which blobs and documents the evictor spares. One small file per pin: its name, then one digest per line, then one `KIND/FILE` per line for
//! the documents.

use std::collections::HashSet;
use std::fs;
use std::io;

use super::document_name::{DocumentName, file_name};
use super::shared::{Shared, failed};
use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::oci::Digest;

/// Longest pin name in bytes.
const LONGEST_NAME: usize = 1024;

/// Adds or replaces a pin.
pub fn pin(shared: &Shared, name: &str, blobs: &[Digest]) -> Result<(), Error> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(['\n', '\r']) {
        return Err(Error::new(ErrorKind::Invalid, format!("`{}` is not a valid pin name", name.escape_default())));
    }
    let mut text = format!("{name}\n");
    for blob in blobs {
        text.push_str(&format!("{blob}\n"));
    }
    for (kind, file) in shared.recorded() {
        text.push_str(&format!("{kind}/{file}\n"));
    }
    let path = shared.root.join("pins").join(file_name(name));
    durable::replace(&path, &[text.as_bytes()]).map_err(failed("write", &path))
}

/// Removes a pin.
pub fn unpin(shared: &Shared, name: &str) -> Result<bool, Error> {
    let path = shared.root.join("pins").join(file_name(name));
    durable::remove(&path).map_err(failed("remove", &path))
}

/// Streams and documents that the evictor spares.
#[derive(Default)]
pub struct Pinned {
    /// Their streams are spared.
    pub blobs: HashSet<Digest>,
    /// These documents are spared, and the indexes of the blobs.
    documents: HashSet<DocumentName>,
    hexes: HashSet<String>,
}

impl Pinned {
    /// Whether a document is spared: an index's name starts with its blob's digest.
    pub fn has_document(&self, kind: &str, file: &str) -> bool {
        let hex = file.split(['-', '.']).nth(1).unwrap_or_default();
        self.hexes.contains(hex) || self.documents.contains(&(kind.to_owned(), file.to_owned()))
    }
}

/// All pins, by name, with their blobs.
pub fn pins(shared: &Shared) -> Result<Vec<(String, Vec<Digest>)>, Error> {
    Ok(read_all(shared)?.into_iter().map(|pin| (pin.name, pin.blobs)).collect())
}

struct Pin {
    name: String,
    blobs: Vec<Digest>,
    documents: Vec<DocumentName>,
}

/// All pins, by name. A file that is not a pin is an error: guessing could cost the user pinned data.
fn read_all(shared: &Shared) -> Result<Vec<Pin>, Error> {
    let root = shared.root.join("pins");
    let mut pins = Vec::new();
    for entry in fs::read_dir(&root).map_err(failed("list", &root))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(durable::TEMPORARY) {
            // The temporary file of a pin being written.
            continue;
        }
        let path = entry.path();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let (name, rest) = text.split_once('\n').unwrap_or_default();
        let (documents, blobs): (Vec<&str>, Vec<&str>) = rest.lines().partition(|line| line.contains('/'));
        let documents = documents.iter().filter_map(|line| line.split_once('/')).map(|(kind, file)| (kind.to_owned(), file.to_owned()));
        let Ok(blobs) = blobs.into_iter().map(Digest::parse).collect::<Result<Vec<_>, _>>() else {
            let message = format!("{} is not a valid pin: remove it, and pin its artifact again", path.display());
            return Err(Error::new(ErrorKind::Invalid, message));
        };
        pins.push(Pin { name: name.to_owned(), blobs, documents: documents.collect() });
    }
    pins.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(pins)
}

/// Everything that is pinned.
pub fn pinned(shared: &Shared) -> Result<Pinned, Error> {
    let mut pinned = Pinned::default();
    for pin in read_all(shared)? {
        pinned.hexes.extend(pin.blobs.iter().map(Digest::hex));
        pinned.blobs.extend(pin.blobs);
        pinned.documents.extend(pin.documents);
    }
    Ok(pinned)
}
