//! Blobs in an in-memory registry, read through a cache in a temporary directory.

use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tempfile::TempDir;

use super::*;
use crate::cache;
use crate::error::{Error, ErrorKind};
use crate::layer::{FileKind, LayerIndex};
use crate::oci::Digest;
use crate::registry::Trust;
use crate::registry::{Fault, Memory, RequestKind};

pub(crate) mod attached_index;
mod blob_bytes;
mod local;
mod packed;
mod presence;
mod raw;
mod sealed;
pub(crate) mod tables;

const REPOSITORY: &str = "team/app";
const MIB: u64 = 1 << 20;

/// A registry, a cache directory and a mount's readers.
struct ContentFixture {
    memory: Arc<Memory>,
    directory: TempDir,
}

impl ContentFixture {
    fn new() -> Self {
        Self::with(Trust::Transport)
    }

    fn with(trust: Trust) -> Self {
        Self { memory: Arc::new(Memory::with_origin("memory:", trust)), directory: TempDir::new().unwrap() }
    }

    fn cache(&self, size: u64) -> SpanCache {
        SpanCache::open(cache::Config { directory: self.directory.path().join("cache"), size, min_free: 0 }).unwrap()
    }

    fn config(&self, size: u64) -> Config {
        Config { io_timeout: Duration::from_secs(20), ..Config::new(Arc::clone(&self.memory) as Arc<dyn Pull>, self.cache(size)) }
    }

    fn contents(&self) -> Contents {
        Contents::new(self.config(1 << 30))
    }

    fn add(&self, form: Form, data: &[u8]) -> BlobSource {
        let descriptor = self.memory.add_blob(REPOSITORY, "a/b", data.to_vec());
        let repository = Repository::parse(REPOSITORY).unwrap();
        BlobSource { repository, descriptor, form, sealing: Sealing::None, strict: false, guide: None }
    }

    /// The index of a blob that is not in this registry yet.
    async fn contents_of(&self, source: &BlobSource, data: &[u8]) -> LayerIndex {
        self.memory.add_blob(REPOSITORY, "a/b", data.to_vec());
        self.contents().index(source).await.unwrap()
    }

    /// Blob requests so far.
    fn requests(&self) -> usize {
        self.memory.count(RequestKind::Blob)
    }

    /// Blob bytes requested so far.
    fn asked(&self) -> u64 {
        let ranges = self.memory.requests().into_iter().filter_map(|request| request.range);
        ranges.map(|range| range.end - range.start).sum()
    }
}

/// Incompressible bytes without repetition.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(length + 8);
    while data.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(length);
    data
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, path, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(data, 1).unwrap()
}

/// The stream range of a file.
fn extent(index: &LayerIndex, path: &str) -> Range<u64> {
    let entry = (0..index.entry_count()).filter_map(|number| index.entry(number)).find(|entry| entry.path == path.as_bytes()).unwrap();
    assert_eq!(entry.kind, FileKind::File);
    let extent = index.extents(entry.number)[0];
    extent.stream..extent.stream + extent.length
}

/// Reads a whole stream like a program that reads 128 KiB at a time.
async fn read_all(stream: &ContentStream) -> Result<Vec<u8>, Error> {
    let mut data = Vec::new();
    while (data.len() as u64) < stream.length() {
        let start = data.len() as u64;
        data.extend_from_slice(&stream.read(start..start + (128 << 10)).await?);
    }
    Ok(data)
}

fn is_stored(place: &ContentFixture, source: &BlobSource) -> bool {
    place.cache(1 << 30).document(names::INDEX, &names::index(source), &cache::Protection::Plain).unwrap().is_some()
}

/// Waits for a background task.
async fn until(mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it never happened");
}
