//! One decompression step, for any codec.
//!
//! A [`Reader`] takes blob bytes, returns stream bytes, and reports where decoding could restart. The pass over a blob and the span decoder share it,
//! so both agree on every byte. It holds no span and no position beyond what the codec needs.

use std::sync::Arc;

use super::gzip::Gzip;
use super::step::Step;
use super::zstandard::Zstandard;
use super::{Codec, Windows};
use crate::error::Error;

/// A decompressor in progress.
pub(super) enum Reader {
    /// The stream is the blob.
    Identity,
    /// gzip.
    Gzip(Box<Gzip>),
    /// zstd.
    Zstandard(Box<Zstandard>),
}

impl Reader {
    /// A reader at the first byte of a blob, member or frame.
    pub(super) fn new(codec: Codec, windows: &Arc<dyn Windows>) -> Result<Self, Error> {
        Ok(match codec {
            Codec::Identity => Self::Identity,
            Codec::Gzip => Self::Gzip(Box::new(Gzip::new()?)),
            Codec::Zstd => Self::Zstandard(Box::new(Zstandard::new(windows)?)),
        })
    }

    /// Decodes a piece. With `stop_at_block` it also returns at the next boundary between deflate blocks; it always returns at a clean boundary.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8], stop_at_block: bool) -> Result<Step, Error> {
        match self {
            Self::Identity => {
                let length = input.len().min(output.len());
                if let (Some(source), Some(target)) = (input.get(..length), output.get_mut(..length)) {
                    target.copy_from_slice(source);
                }
                Ok(Step { consumed: length, produced: length, ..Step::default() })
            }
            Self::Gzip(gzip) => gzip.step(input, output, stop_at_block),
            Self::Zstandard(zstandard) => zstandard.step(input, output),
        }
    }

    /// The history that a later decoder needs to start at the block boundary just reported.
    pub(super) fn history(&mut self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Gzip(gzip) => gzip.history(),
            Self::Identity | Self::Zstandard(_) => Ok(Vec::new()),
        }
    }

    /// Checks that the blob may end here.
    pub(super) fn finish(&self) -> Result<(), Error> {
        match self {
            Self::Identity => Ok(()),
            Self::Gzip(gzip) => gzip.finish(),
            Self::Zstandard(zstandard) => zstandard.finish(),
        }
    }
}
