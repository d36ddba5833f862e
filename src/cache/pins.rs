//! Pins: which blobs the evictor spares. One small file a pin: its name, then a digest a line.

use std::collections::HashSet;
use std::fs;
use std::io;

use super::Error;
use super::documents::file_name;
use super::shared::{Shared, failed};
use crate::durable;
use crate::error::ErrorKind;
use crate::oci::Digest;

/// Longest name of a pin.
const LONGEST_NAME: usize = 1024;

/// Adds or replaces a pin.
pub fn pin(shared: &Shared, name: &str, blobs: &[Digest]) -> Result<(), Error> {
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(['\n', '\r']) {
        return Err(Error { kind: ErrorKind::Invalid, message: format!("`{}` cannot name a pin", name.escape_default()) });
    }
    let mut text = format!("{name}\n");
    for blob in blobs {
        text.push_str(&format!("{blob}\n"));
    }
    let path = shared.root.join("pins").join(file_name(name));
    durable::replace(&path, &[text.as_bytes()]).map_err(failed("write", &path))
}

/// Removes a pin.
pub fn unpin(shared: &Shared, name: &str) -> Result<bool, Error> {
    let path = shared.root.join("pins").join(file_name(name));
    durable::remove(&path).map_err(failed("remove", &path))
}

/// All pins, by name. A file that is no pin is an error: guessing could cost the user what he pinned.
pub fn pins(shared: &Shared) -> Result<Vec<(String, Vec<Digest>)>, Error> {
    let root = shared.root.join("pins");
    let mut pins = Vec::new();
    for entry in fs::read_dir(&root).map_err(failed("list", &root))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(durable::TEMPORARY) {
            // The temporary file of a pin that is just being written.
            continue;
        }
        let path = entry.path();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let (name, rest) = text.split_once('\n').unwrap_or_default();
        let blobs = rest.lines().map(Digest::parse).collect::<Result<Vec<_>, _>>();
        let Ok(blobs) = blobs else {
            let message = format!("{} is not a pin: remove it, and pin again what it named", path.display());
            return Err(Error { kind: ErrorKind::Invalid, message });
        };
        pins.push((name.to_owned(), blobs));
    }
    pins.sort();
    Ok(pins)
}

/// All blobs that any pin names.
pub fn pinned_blobs(shared: &Shared) -> Result<HashSet<Digest>, Error> {
    Ok(pins(shared)?.into_iter().flat_map(|(_, blobs)| blobs).collect())
}
