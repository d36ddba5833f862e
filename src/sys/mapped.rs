//! Memory-mapped files: immutable bytes, and words shared between processes.
//!
//! A mapped file must not be shortened while it is mapped (an access beyond its end raises SIGBUS). Callers therefore write or fully allocate
//! files before mapping them, and replace or unlink them; they never truncate or punch them.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{Mmap, MmapRaw};

/// A finished file as bytes.
#[derive(Debug)]
pub struct Bytes(Mmap);

impl Bytes {
    /// Maps a whole file.
    pub fn map(file: &File) -> io::Result<Self> {
        // SAFETY: by the rule above, the file is never changed or shortened while mapped. It is in a directory that only its owner can write to.
        unsafe { Mmap::map(file) }.map(Self)
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A file of 64-bit words that all processes mapping it read and change atomically.
#[derive(Debug)]
pub struct Words {
    map: MmapRaw,
    count: usize,
}

impl Words {
    /// Maps a whole file, opened for reading and writing, with allocated blocks (writing to a hole on a full disk raises SIGBUS). Bytes after the
    /// last whole word are ignored.
    pub fn map(file: &File) -> io::Result<Self> {
        let map = MmapRaw::map_raw(file)?;
        let count = map.len() / size_of::<AtomicU64>();
        Ok(Self { map, count })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the map is readable and writable, page-aligned, at least `count` words long and lives as long as `self`; any bit pattern is a valid
        // word; all accesses, here and in other processes, are atomic.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast::<AtomicU64>(), self.count) }
    }
}
