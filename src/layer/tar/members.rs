//! Locates the members of a random-access tar: reads the headers and skips the content.
//!
//! For archives from which single files are read, not for layers: no attributes, sparse files or global headers.

use std::io;

use super::header::{BLOCK, Header};
use super::pax::{Malformed, Records};
use super::{is_zero, padding, path, until_nul};
use crate::error::Error;
use crate::layer::pack::{PackEntry, headers};
use crate::layer::{FileKind, Limits, Metadata};

/// The end of an archive, after its last member.
pub const ARCHIVE_END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Most headers read; no layout has that many blobs.
const MOST: usize = 4_000_000;

/// A file or link in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveMember {
    /// Its path without `./`, cleaned like all names in a tar.
    pub path: Vec<u8>,
    /// Archive offset of its bytes.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
    /// The path of the member that a link points to.
    pub link: Option<Vec<u8>>,
}

/// The files and links of an archive in order, and the offset of the next header. `read` fills a buffer from an offset.
///
/// # Errors
/// Those of `read`, and Integrity for a broken header. A caller that repairs archives still gets the members before it: they are passed to `found` one by
/// one.
pub fn archive_members(
    length: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    mut found: impl FnMut(ArchiveMember),
) -> Result<(), Error> {
    let mut at = 0;
    let mut extended = Extended::default();
    for _ in 0..MOST {
        if at + BLOCK as u64 > length {
            // Some writers omit the end marker.
            return if at == length { Ok(()) } else { Err(broken("the archive is truncated", at)) };
        }
        let mut block = [0; BLOCK];
        read(at, &mut block).map_err(|error| Error::other(format!("tar: reading byte {at}: {error}")))?;
        if is_zero(&block) {
            return Ok(());
        }
        let header = Header::parse(&block).ok_or_else(|| broken("no tar header, or one whose checksum does not match", at))?;
        let content = at + BLOCK as u64;
        let flag = header.type_flag();
        let stored = extended.records.size.filter(|_| !is_extended(flag)).map_or_else(|| header.size(at), Ok)?;
        let end = content.checked_add(stored).filter(|end| *end <= length).ok_or_else(|| broken("the archive is truncated", length))?;
        if is_extended(flag) {
            let text = extended_text(content, stored, &mut read)?;
            extended.add(flag, text).map_err(|Malformed(what)| broken(what, at))?;
        } else if let Some((path, link)) = std::mem::take(&mut extended).names(&header) {
            found(ArchiveMember { path, offset: content, size: stored, link });
        }
        at = end + padding(stored);
    }
    Err(Error::unsupported("tar: the archive has more members than any layout"))
}

/// The extended headers before a member.
#[derive(Default)]
struct Extended {
    /// GNU's long name and long link.
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

impl Extended {
    fn add(&mut self, flag: u8, text: Vec<u8>) -> Result<(), Malformed> {
        match flag {
            b'L' => self.name = Some(until_nul(text)),
            b'K' => self.link = Some(until_nul(text)),
            b'g' => {}
            _ => self.records.add(&text)?,
        }
        Ok(())
    }

    /// The path of the member with this header, and that of the member it links to; `None` if it is neither a file nor a link.
    fn names(self, header: &Header<'_>) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let path = path::clean(&self.name.or(self.records.path).unwrap_or_else(|| header.name()));
        let target = || self.link.or(self.records.link).unwrap_or_else(|| header.link());
        let link = match header.type_flag() {
            0 | b'0' | b'7' => None,
            // A hard link names a member, a symlink a path relative to itself.
            b'1' => Some(path::clean(&target())),
            b'2' => Some(beside(&path, &target())),
            _ => return None,
        };
        Some((path, link))
    }
}

/// The header of a file in an archive, before its bytes.
///
/// # Errors
/// The path is not a valid file path.
pub fn archive_header(path: &[u8], size: u64) -> Result<Vec<u8>, Error> {
    header(path, FileKind::File, 0o644, size)
}

/// The header of a directory in an archive.
///
/// # Errors
/// The path is not a valid path.
pub fn archive_directory(path: &[u8]) -> Result<Vec<u8>, Error> {
    header(path, FileKind::Directory, 0o755, 0)
}

fn header(path: &[u8], kind: FileKind, mode: u32, size: u64) -> Result<Vec<u8>, Error> {
    headers(&PackEntry {
        path: path.to_vec(),
        kind,
        metadata: Metadata { mode: Some(mode), ..Metadata::default() },
        size,
        link: Vec::new(),
        xattrs: Vec::new(),
    })
}

/// The padding after the bytes of a file.
pub fn archive_padding(size: u64) -> u64 {
    padding(size)
}

fn is_extended(flag: u8) -> bool {
    matches!(flag, b'x' | b'X' | b'g' | b'L' | b'K')
}

fn extended_text(at: u64, size: u64, read: &mut impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> Result<Vec<u8>, Error> {
    if size > u64::from(Limits::default().header_bytes) {
        return Err(broken("an extended header is too long", at));
    }
    // The limit fits.
    let mut text = vec![0; size as usize];
    read(at, &mut text).map_err(|error| Error::other(format!("tar: reading byte {at}: {error}")))?;
    Ok(text)
}

/// The archive path that a symlink points to.
fn beside(path: &[u8], target: &[u8]) -> Vec<u8> {
    path::clean(&[crate::path::parent(path).unwrap_or_default(), b"/", target].concat())
}

fn broken(what: &str, at: u64) -> Error {
    Error::integrity(format!("tar: {what}, at byte {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(bytes: &[u8]) -> Result<Vec<ArchiveMember>, Error> {
        let mut all = Vec::new();
        let read = |at: u64, into: &mut [u8]| {
            into.copy_from_slice(bytes.get(at as usize..at as usize + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        };
        archive_members(bytes.len() as u64, read, |member| all.push(member))?;
        Ok(all)
    }

    fn content<'bytes>(bytes: &'bytes [u8], member: &ArchiveMember) -> &'bytes [u8] {
        &bytes[member.offset as usize..(member.offset + member.size) as usize]
    }

    fn entry(builder: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, link: &str, data: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        match link {
            "" => builder.append_data(&mut header, path, data).unwrap(),
            link => builder.append_link(&mut header, path, link).unwrap(),
        }
    }

    #[test]
    fn files_and_links_are_found_wherever_their_bytes_lie() {
        let long = format!("blobs/sha512/{}", "a".repeat(128));
        let mut builder = tar::Builder::new(Vec::new());
        entry(&mut builder, "./blobs/", tar::EntryType::Directory, "", b"");
        entry(&mut builder, "./index.json", tar::EntryType::Regular, "", b"{}");
        entry(&mut builder, &long, tar::EntryType::Regular, "", &[7; 1000]);
        entry(&mut builder, "blobs/sha256/b", tar::EntryType::Link, &long, b"");
        entry(&mut builder, "blobs/sha256/c", tar::EntryType::Symlink, "../../index.json", b"");
        let bytes = builder.into_inner().unwrap();
        let found = members(&bytes).unwrap();
        let shown: Vec<(String, Option<String>)> = found
            .iter()
            .map(|member| {
                let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
                (text(&member.path), member.link.as_ref().map(text))
            })
            .collect();
        let plain = |path: &str| (path.to_owned(), None);
        let linked = |path: &str, target: &str| (path.to_owned(), Some(target.to_owned()));
        let wanted = [plain("index.json"), plain(&long), linked("blobs/sha256/b", &long), linked("blobs/sha256/c", "index.json")];
        assert_eq!(shown, wanted);
        assert_eq!((content(&bytes, &found[0]), content(&bytes, &found[1])), (&b"{}"[..], &[7; 1000][..]));
    }

    #[test]
    fn written_files_are_found_again_even_under_long_names() {
        let long = format!("blobs/sha512/{}", "f".repeat(128));
        let mut bytes = Vec::new();
        for (path, data) in [("oci-layout", &b"x"[..]), (&long, &[1; 512]), ("index.json", b"")] {
            bytes.extend(archive_header(path.as_bytes(), data.len() as u64).unwrap());
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len() + archive_padding(data.len() as u64) as usize, 0);
        }
        bytes.extend(ARCHIVE_END);
        let found = members(&bytes).unwrap();
        assert_eq!(found.iter().map(|member| member.size).collect::<Vec<_>>(), [1, 512, 0]);
        assert_eq!(found[1].path, long.as_bytes());
        let mut theirs = tar::Archive::new(&bytes[..]);
        assert_eq!(theirs.entries().unwrap().count(), 3);
    }

    #[test]
    fn a_truncated_or_broken_archive_is_an_error_after_its_good_entries() {
        let mut builder = tar::Builder::new(Vec::new());
        entry(&mut builder, "a", tar::EntryType::Regular, "", &[1; 600]);
        entry(&mut builder, "b", tar::EntryType::Regular, "", &[2; 600]);
        let whole = builder.into_inner().unwrap();
        for cut in [1, 511, 1000, 1536 + 100, 1536 + 512 + 599] {
            let error = members(&whole[..cut]).unwrap_err();
            assert_eq!(error.kind, crate::error::ErrorKind::Integrity, "{cut}");
        }
        let mut torn = whole.clone();
        torn[1536 + 3] ^= 1;
        let mut found = 0;
        let read = |at: u64, into: &mut [u8]| {
            into.copy_from_slice(&torn[at as usize..at as usize + into.len()]);
            Ok(())
        };
        archive_members(torn.len() as u64, read, |_| found += 1).unwrap_err();
        assert_eq!(found, 1);
    }
}
