//! Tests of the cache through its public interface, with the files on disk as a second witness.

mod budget;
mod documents;
mod faults;
mod leases;
mod power;
mod present;
mod racing;
mod reading;
mod sealing;
mod swapping;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use std::ops::Range;

use super::*;
use crate::error::ErrorKind;
use crate::seal::ChunkKey;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;

/// A cache in its own directory.
pub struct CacheFixture {
    pub directory: tempfile::TempDir,
    pub size: u64,
}

impl CacheFixture {
    pub fn new(size: u64) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), size }
    }

    /// Opens the cache again; instances share nothing but the directory.
    pub fn open(&self) -> SpanCache {
        SpanCache::open(Config { directory: self.path(), size: self.size, min_free: 0 }).unwrap()
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    /// Disk usage of the data files, by stat.
    pub fn occupied(&self) -> u64 {
        self.occupied_by_file().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Data files with the disk usage of each. Not an atomic snapshot.
    pub fn occupied_by_file(&self) -> Vec<(PathBuf, u64)> {
        let occupied = |path: PathBuf| fs::metadata(&path).ok().map(|metadata| (path, metadata.blocks() * 512));
        self.data_files().into_iter().filter_map(occupied).collect()
    }

    /// All files that hold span data, committed or not.
    pub fn data_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for part in ["streams", "work"] {
            files(&self.path().join("v2").join(part), &mut found);
        }
        found.retain(|path| path.file_name().is_some_and(|name| name != "table"));
        found
    }

    pub fn tables(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        files(&self.path().join("v2/streams"), &mut found);
        found.retain(|path| path.file_name().is_some_and(|name| name == "table"));
        found
    }
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

/// Bytes that differ at every position and for every seed.
pub fn bytes(seed: u64, range: Range<u64>) -> Vec<u8> {
    range.map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed.wrapping_mul(0xd134_2543_de82_ef95)) >> 56) as u8).collect()
}

pub fn blob(number: u64) -> Digest {
    Digest::of(&number.to_le_bytes())
}

/// A layout of `count` spans of `span` bytes.
pub fn even(count: u64, span: u64) -> Layout {
    Layout::new((0..count).map(|number| number * span).collect::<Vec<_>>(), count * span, [])
}

pub fn span_range(layout: &Layout, span: u32) -> Range<u64> {
    layout.span(span)
}

/// Stores a span of the blob's bytes.
pub fn store(stream: &CachedStream, seed: u64, layout: &Layout, span: u32) -> bool {
    stream.store(span, &bytes(seed, span_range(layout, span)), Trust::Proved).unwrap()
}

/// Reads a span; any result must be right. Returns whether it was present.
pub fn check(stream: &CachedStream, seed: u64, layout: &Layout, span: u32) -> bool {
    let range = span_range(layout, span);
    match stream.read(span, range.clone()).unwrap() {
        None => false,
        Some(found) => {
            assert!(found == bytes(seed, range), "span {span} of stream {seed} holds other bytes");
            true
        }
    }
}

/// Fills a stream and commits it. Returns which spans were kept.
pub fn fill(cache: &SpanCache, seed: u64, layout: &Layout, protection: &Protection) -> Vec<bool> {
    let mut fill = cache.fill(&blob(seed), protection).unwrap();
    let kept = fill_spans(&mut fill, seed, layout);
    fill.commit().unwrap();
    kept
}

/// Gives a fill all spans and members in the order of a scan.
pub fn fill_spans(fill: &mut Fill, seed: u64, layout: &Layout) -> Vec<bool> {
    let mut members = layout.members().iter().peekable();
    (0..layout.count())
        .map(|span| {
            let range = span_range(layout, span);
            while let Some(member) = members.next_if(|member| member.start < range.end) {
                fill.member(member.clone()).unwrap();
            }
            fill.span(&bytes(seed, range)).unwrap()
        })
        .collect()
}
