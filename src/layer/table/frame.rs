//! Finds and unpacks tables: the footer of eStargz, its gzip member with a tar of one file, and the zstd frame of zstd:chunked.

use std::io::Read;
use std::ops::Range;

use super::limits::{TABLE_MOST, unusable};
use crate::error::Error;
use crate::layer::pack::decompress;
use crate::layer::tar::described;
use crate::oci::{Digest, Hasher};
use crate::sys::array::{Array, Scratch};

/// Length of the footer of eStargz: an empty gzip member whose extra field holds the table's offset.
const FOOTER: usize = 51;
/// Bytes fetched together with the footer: most tables are in them.
const TAIL: u64 = 256 << 10;
/// Where the subfield of the extra field begins in the footer, and what it holds around the offset in 16 hexadecimal digits.
const SUBFIELD: usize = 12;
const SUBFIELD_HEAD: &[u8] = b"SG\x16\x00";
const SUBFIELD_TAIL: &[u8] = b"STARGZ";
/// Name of the table in its tar.
const NAME: &[u8] = b"stargz.index.json";
/// Length of a tar header.
const HEADER: usize = 512;
/// Largest window of a packed table, as a power of two: 32 MiB, as other writers use at their best level.
const WINDOW_LOG: u32 = 25;
/// Bytes unpacked at a time.
const PIECE: usize = 64 << 10;

/// The end of a blob, with the footer.
pub(super) fn tail(blob_length: u64) -> Result<Range<u64>, Error> {
    if blob_length <= FOOTER as u64 {
        return Err(unusable("the blob is too short to have one"));
    }
    Ok(blob_length - blob_length.min(TAIL)..blob_length)
}

/// Where the table is, by the footer at the end of `tail`.
pub(super) fn of_footer(tail: &[u8], blob_length: u64) -> Result<Range<u64>, Error> {
    let offset = || {
        let footer = tail.get(tail.len().checked_sub(FOOTER)?..)?;
        let field = footer.starts_with(b"\x1f\x8b\x08\x04").then(|| footer.get(SUBFIELD..))??;
        let (digits, rest) = field.strip_prefix(SUBFIELD_HEAD)?.split_at_checked(16)?;
        let digits = std::str::from_utf8(digits).ok().filter(|_| rest.starts_with(SUBFIELD_TAIL))?;
        u64::from_str_radix(digits, 16).ok()
    };
    let offset = offset().ok_or_else(|| unusable("the blob has no footer of eStargz"))?;
    Ok(offset..blob_length.saturating_sub(FOOTER as u64))
}

/// The table in a gzip member.
pub(super) fn unpack_gzip(packed: &[u8], digest: &Digest, scratch: &Scratch) -> Result<Array<u8>, Error> {
    let mut archive = flate2::bufread::GzDecoder::new(packed);
    let mut header = [0; HEADER];
    archive.read_exact(&mut header).map_err(|_| unusable("it is not compressed as expected"))?;
    let named = described(&header).filter(|(name, length)| name == NAME && *length <= TABLE_MOST);
    let (_, length) = named.ok_or_else(|| unusable("its tar does not begin with a file of its name, or with one that is too large"))?;
    let text = take(&mut archive.take(length), scratch)?;
    if text.len() as u64 != length {
        return Err(Error::integrity("the table of contents is cut short"));
    }
    check(&text, digest)?;
    Ok(text)
}

/// The table in a zstd frame.
pub(super) fn unpack_zstd(packed: &[u8], digest: &Digest, length: u64, scratch: &Scratch) -> Result<Array<u8>, Error> {
    check(packed, digest)?;
    let text = decompress(packed, WINDOW_LOG, TABLE_MOST.min(length), scratch).map_err(|problem| unusable(&problem))?;
    if text.len() as u64 == length { Ok(text) } else { Err(unusable("it is shorter than the manifest says")) }
}

fn check(bytes: &[u8], digest: &Digest) -> Result<(), Error> {
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(bytes);
    if hasher.finish() == *digest { Ok(()) } else { Err(Error::integrity("the table of contents does not match its digest")) }
}

/// All bytes of a reader; grows with those that come.
fn take(reader: &mut impl Read, scratch: &Scratch) -> Result<Array<u8>, Error> {
    let (mut bytes, mut piece) = (Array::new(scratch), vec![0; PIECE]);
    loop {
        let taken = reader.read(&mut piece).map_err(|_| Error::integrity("the table of contents cannot be decompressed"))?;
        if taken == 0 {
            return Ok(bytes);
        }
        let held = bytes.extend_from_slice(piece.get(..taken).unwrap_or_default());
        held.map_err(|error| Error::io("cannot hold a table of contents", error))?;
    }
}
