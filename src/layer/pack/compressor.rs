//! libdeflate compressors by level.

use crate::error::Error;
use libdeflater::{CompressionLvl, Compressor};

/// A compressor with this level.
pub(super) fn compressor(level: i32) -> Result<Compressor, Error> {
    let level = CompressionLvl::new(level).map_err(|_| Error::other(format!("invalid compression level {level}")))?;
    Ok(Compressor::new(level))
}
