//! The attached form of an index: the content of an index layer, and its validation on arrival.
//!
//! An attached index may come from anywhere. Guarantees: nothing is allocated by a declared length, the index belongs to the caller's blob, every span
//! can be verified on its own, and no records overlap, so that reading all of it costs no more than its length.

use std::io::{Read, Write};
use std::sync::Arc;

use crate::error::Error;
use crate::layer::tar::path::TARGET;
use crate::layer::{FileKind, LayerIndex, Resources};
use crate::oci::Digest;
use crate::sys::array::{Array, Scratch};

/// Largest attached index, compressed and uncompressed, in bytes; readers refuse more. A layer that would need more is published without one.
pub const ATTACHED_INDEX_MOST: u64 = 256 << 20;

/// A skippable frame, so that any zstd tool can open the whole: its magic, its length, our magic, and the version.
const MAGIC: [u8; 16] = *b"\x5e\x2a\x4d\x18\x08\x00\x00\x00ocifsTI\x01";
/// The version in it.
const VERSION: u8 = 1;

/// Compression level: slow enough to be small, fast enough for a million entries.
const LEVEL: i32 = 9;
/// Largest window that readers support: 8 MiB.
const WINDOW_LOG: u32 = 23;
/// Bytes decompressed at a time.
const PIECE: usize = 64 * 1024;

/// Limits that a scan enforces, but the index format does not.
const XATTR_NAME: usize = 255;
const XATTR_VALUE: usize = 64 * 1024;
const XATTRS: usize = 1024;
const PATH: usize = 1 << 20;
/// Most blob bytes per span. Those written here are hardly larger than their spans.
const SPAN_BLOB: u64 = 8 << 20;

/// The attached form of an index: the content of an index layer. Deterministic.
///
/// # Errors
/// Unsupported for an index that would not help a reader: if a span has no digest of its bytes in the blob, or it exceeds [`ATTACHED_INDEX_MOST`]. Such
/// a layer is published without one. NoSpace and Other if there is no scratch space.
pub fn encode_attached(index: &LayerIndex, scratch: &Scratch) -> Result<Array<u8>, Error> {
    let plain = index.without_warnings(scratch)?;
    check(&plain).map_err(|problem| Error::unsupported(format!("the index of {} cannot be attached: {problem}", plain.blob_digest())))?;
    let bytes = plain.as_bytes();
    if bytes.len() as u64 > ATTACHED_INDEX_MOST {
        return Err(Error::unsupported(format!("the index of {} is larger than {ATTACHED_INDEX_MOST} bytes", plain.blob_digest())));
    }
    compress(bytes, scratch).map_err(|error| Error::other(format!("an index cannot be compressed: {error}")))
}

/// Memory needed to compress an index in bytes: the window, and tables as large as a short index or as four windows.
pub fn attached_index_memory(index: &LayerIndex) -> u64 {
    let length = (index.as_bytes().len() as u64).min(1 << WINDOW_LOG);
    (1 << 20) + 8 * length
}

/// The magic, followed by one frame.
fn compress(plain: &[u8], scratch: &Scratch) -> std::io::Result<Array<u8>> {
    let mut output = Array::new(scratch);
    output.extend_from_slice(&MAGIC)?;
    let mut encoder = zstd::stream::write::Encoder::new(output, LEVEL)?;
    encoder.set_pledged_src_size(Some(plain.len() as u64))?;
    encoder.include_checksum(true)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.write_all(plain)?;
    encoder.finish()
}

/// Opens an attached index for this blob; validates everything and trusts nothing.
///
/// # Errors
/// Integrity for broken bytes or another blob's index; Unsupported for a newer version.
pub fn decode_attached(bytes: &[u8], blob: &Digest, resources: &Resources) -> Result<LayerIndex, Error> {
    let refused = |error: Error| error.context(format_args!("the index attached to {blob} is refused"));
    let index = open_attached(bytes, resources).map_err(refused)?;
    if index.blob_digest() != *blob {
        return Err(refused(Error::integrity(format!("it belongs to {}", index.blob_digest()))));
    }
    Ok(index)
}

/// Opens an attached index, whichever blob it describes.
///
/// # Errors
/// As [`decode_attached`].
pub fn open_attached(bytes: &[u8], resources: &Resources) -> Result<LayerIndex, Error> {
    let broken = |problem: &str| Error::integrity(problem.to_owned());
    let (magic, frame) = bytes.split_first_chunk::<16>().ok_or_else(|| broken("it is too short"))?;
    if magic.get(..15) != MAGIC.get(..15) {
        return Err(broken("it is not an index"));
    }
    if magic.last() != Some(&VERSION) {
        return Err(Error::unsupported("it has a version that this program does not support".to_owned()));
    }
    let most = ATTACHED_INDEX_MOST.min(resources.limits.index_bytes);
    let plain = decompress(frame, WINDOW_LOG, most, &resources.scratch).map_err(|problem| broken(&problem))?;
    let index = LayerIndex::open(Arc::new(plain))?;
    check(&index).map_err(broken)?;
    Ok(index)
}

/// Decompresses one complete frame; the output grows with the actual data.
pub(in crate::layer) fn decompress(frame: &[u8], window_log: u32, most: u64, scratch: &Scratch) -> Result<Array<u8>, String> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(frame).map_err(|error| error.to_string())?.single_frame();
    decoder.window_log_max(window_log).map_err(|error| error.to_string())?;
    let mut plain = Array::new(scratch);
    let mut piece = vec![0; PIECE];
    loop {
        let taken = decoder.read(&mut piece).map_err(|error| error.to_string())?;
        plain.extend_from_slice(piece.get(..taken).unwrap_or_default()).map_err(|error| error.to_string())?;
        if plain.len() as u64 > most {
            return Err(format!("it is larger than {most} bytes"));
        }
        if taken == 0 {
            break;
        }
    }
    if !decoder.finish().is_empty() {
        return Err("something follows it".to_owned());
    }
    Ok(plain)
}

/// Checks that an index can be attached.
fn check(index: &LayerIndex) -> Result<(), &'static str> {
    index.check_packed().map_err(|_| "its parts are not in order")?;
    if index.is_of_content() {
        return Err("it was made from a table of contents");
    }
    for number in 0..index.span_count() {
        let span = index.span(number).ok_or("a span is missing")?;
        if span.digest.is_none() {
            return Err("a span has no digest");
        }
        if span.blob.end - span.blob.start > SPAN_BLOB {
            return Err("a span takes too much of the blob");
        }
    }
    for entry in index.entries() {
        if entry.path.len() > PATH || entry.link.len() > if entry.kind == FileKind::Symlink { TARGET } else { PATH } {
            return Err("a name is too long");
        }
        let xattrs = index.xattrs(entry.number);
        let sound = |name: &[u8], value: &[u8]| {
            !name.is_empty() && name.len() <= XATTR_NAME && !name.contains(&0) && (1..=XATTR_VALUE).contains(&value.len())
        };
        if xattrs.len() > XATTRS || !xattrs.iter().all(|(name, value)| sound(name, value)) {
            return Err("an extended attribute is invalid");
        }
    }
    if !index.is_archive() {
        let whole = index.entries().all(|entry| entry.kind == FileKind::File && entry.size == index.stream_length());
        if index.entry_count() > 1 || !whole {
            return Err("it lists more than the single file of a raw layer");
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "attached_index_tests.rs"]
mod tests;
