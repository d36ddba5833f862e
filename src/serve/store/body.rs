//! A stored blob as a response body. If it has not been verified since the server started, it is verified while sent whole: its last piece is
//! withheld until the digest matches.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

use super::verified::{Verified, stamp};
use crate::blocking::spawn_blocking;
use crate::oci::{Digest, Hasher};

/// Bytes read at once.
const PIECE: u64 = 512 << 10;

struct Reading {
    file: Arc<File>,
    range: Range<u64>,
    hasher: Option<Hasher>,
}

/// A range of a blob with this size.
pub(crate) fn of_file(verified: &Verified, file: File, digest: Digest, size: u64, range: Range<u64>) -> Body {
    let stamp = stamp(&file);
    let is_known = verified.holds(&digest, stamp);
    let hasher = (!is_known && range == (0..size)).then(|| Hasher::new(digest.algorithm()));
    let verified = verified.clone();
    let reading = Reading { file: Arc::new(file), range, hasher };
    Body::from_stream(stream::unfold(Some(reading), move |reading| {
        let verified = verified.clone();
        async move {
            let reading = reading.filter(|reading| reading.range.start < reading.range.end)?;
            let read = spawn_blocking(move || next(reading)).await;
            match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok((bytes, reading)) if reading.range.is_empty() && reading.hasher.is_some() => {
                    let found = reading.hasher.map(Hasher::finish);
                    if found != Some(digest) {
                        tracing::error!("stored blob {digest} is damaged: its bytes do not match the digest");
                        return Some((Err(io::Error::other("a stored blob is damaged")), None));
                    }
                    verified.note(digest, stamp);
                    Some((Ok(bytes), None))
                }
                Ok((bytes, reading)) => Some((Ok(bytes), Some(reading))),
                Err(error) => {
                    tracing::warn!(%error, "cutting off a blob");
                    Some((Err(error), None))
                }
            }
        }
    }))
}

fn next(mut reading: Reading) -> io::Result<(Bytes, Reading)> {
    let end = reading.range.end.min(reading.range.start.saturating_add(PIECE));
    // At most one piece, so the conversion is lossless.
    let mut bytes = vec![0; (end - reading.range.start).min(PIECE) as usize];
    reading.file.read_exact_at(&mut bytes, reading.range.start)?;
    if let Some(hasher) = &mut reading.hasher {
        hasher.update(&bytes);
    }
    reading.range.start = end;
    Ok((bytes.into(), reading))
}
