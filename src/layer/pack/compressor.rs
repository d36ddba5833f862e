//! Compressors of libdeflate by their level.

use libdeflater::{CompressionLvl, Compressor};

use crate::layer::Error;

/// A compressor of a level.
pub(super) fn compressor(level: i32) -> Result<Compressor, Error> {
    let level = CompressionLvl::new(level).map_err(|_| Error::other(format!("invalid compression level {level}")))?;
    Ok(Compressor::new(level))
}
