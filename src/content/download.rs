//! Downloads a raw blob straight to a caller that reads it once: verified as a whole, never cached.
//!
//! An extraction of many gigabytes thus neither writes them twice nor evicts what mounts use. Never serves a range; see
//! [`ContentStream`](super::ContentStream).

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::budget::Use;
use super::contents::Contents;
use super::shared::Shared;
use super::{BlobSource, Sealing, parallel, pass};
use crate::error::Error;
use crate::layer::{Form, RAW_SPAN};
use crate::oci::Hasher;
use crate::registry::BlobStream;

/// A raw blob being downloaded from start to end.
pub struct Download {
    shared: Arc<Shared>,
    source: BlobSource,
    stream: BlobStream,
    hasher: Hasher,
    length: u64,
    _turn: OwnedSemaphorePermit,
}

impl Contents {
    /// Starts downloading a raw blob. `None` for one that is better read as a stream: an archive, or a blob that is sealed, small, or at least half
    /// cached.
    ///
    /// # Errors
    /// Errors of the registry.
    pub async fn download(&self, source: &BlobSource) -> Result<Option<Download>, Error> {
        if !Download::suits(source) || self.has_half(source)? {
            return Ok(None);
        }
        let size = source.descriptor.size;
        let shared = Arc::clone(self.shared());
        let turn = shared.turns.request(Use::Demand).await?;
        let stream = parallel::fetch(&shared, &source.repository, &source.descriptor, 0..size).await?;
        let hasher = Hasher::new(source.descriptor.digest.algorithm());
        Ok(Some(Download { shared, source: source.clone(), stream, hasher, length: 0, _turn: turn }))
    }

    fn has_half(&self, source: &BlobSource) -> Result<bool, Error> {
        let Some(reader) = self.ready(source)? else { return Ok(false) };
        let spans = reader.layout.count();
        let here = (0..spans).filter(|span| reader.has(*span)).count();
        Ok(here * 2 >= spans as usize)
    }
}

impl Download {
    /// Whether a blob may be downloaded: raw, unsealed, and more than a span, which is verified as a whole anyway.
    pub fn suits(source: &BlobSource) -> bool {
        source.form == Form::Raw && source.sealing == Sealing::None && source.descriptor.size > RAW_SPAN
    }

    /// The next bytes; `None` once all were returned and their digest matches.
    ///
    /// # Errors
    /// Integrity at the end if the bytes do not match the digest; TimedOut and errors of the registry.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let next = self.shared.next_piece(&mut self.stream, || format!("{}: no byte", self.source.label())).await?;
        let Some(piece) = next else {
            let hasher = std::mem::replace(&mut self.hasher, Hasher::new(self.source.descriptor.digest.algorithm()));
            pass::check(&self.source, &hasher.finish(), self.length)?;
            return Ok(None);
        };
        self.length += piece.len() as u64;
        self.hasher.update(&piece);
        Ok(Some(piece))
    }
}
