//! Files as memory: bytes that never change, and words that processes share.
//!
//! A mapped file must not become shorter while it is mapped (the kernel answers an access beyond its end with
//! SIGBUS). The callers' rule is therefore: mapped files are written once, or allocated in full, before they are
//! mapped; they are replaced or unlinked, never truncated or punched.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;

use memmap2::{Mmap, MmapRaw};

/// A file that is not written any more, as bytes.
#[derive(Debug)]
pub struct Bytes(Mmap);

impl Bytes {
    /// Maps a whole file.
    pub fn map(file: &File) -> io::Result<Self> {
        // SAFETY: by the rule above the file is never changed or shortened while it is mapped. It lies in a directory
        // that only its owner can write to.
        unsafe { Mmap::map(file) }.map(Self)
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A file of 64-bit words that every process which maps it sees and changes atomically.
#[derive(Debug)]
pub struct Words {
    map: MmapRaw,
    count: usize,
}

impl Words {
    /// Maps a whole file, opened for reading and writing, whose blocks are allocated (a write to a hole of a full
    /// disk is SIGBUS). Bytes behind the last whole word are left alone.
    pub fn map(file: &File) -> io::Result<Self> {
        let map = MmapRaw::map_raw(file)?;
        let count = map.len() / size_of::<AtomicU64>();
        Ok(Self { map, count })
    }

    /// The words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the map is readable and writable, page-aligned, at least `count` words long and lives as long as
        // `self`; any bit pattern is a valid word; all accesses, here and in other processes, are atomic.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast::<AtomicU64>(), self.count) }
    }
}
