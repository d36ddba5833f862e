//! Limits on the cost of a layer. Plain data.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::sys::array::Scratch;

/// Largest zstd window ever accepted in bytes, as used by `zstd --long=27` and `--ultra -22`.
pub const WINDOW_MOST: u64 = 1 << 27;

/// Limits of a scan.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most entries per layer. The largest images have some hundred thousand; each costs 112 bytes of index and as much of tree on disk, and a few hundred
    /// compressed bytes of hostile tar suffice for a thousand.
    pub entries: u32,
    /// Longest PAX record, long name or link in bytes.
    pub header_bytes: u32,
    /// Most bytes of names, link targets and extended attributes: a compressed layer of 1 MiB can contain a thousand times as many.
    pub text_bytes: u64,
    /// Largest index in bytes (paths, xattrs, windows).
    pub index_bytes: u64,
    /// The setting behind `index_bytes`, for the error.
    pub index_reason: &'static str,
    /// Most bytes of compressed windows. Beyond that every other window is dropped, repeatedly if necessary, and decoding starts earlier for most spans.
    pub window_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 5_000_000,
            header_bytes: 1 << 20,
            text_bytes: 512 << 20,
            index_bytes: 4 << 30,
            index_reason: "the format",
            window_bytes: u64::MAX,
        }
    }
}

/// Grants memory for zstd windows.
pub trait Windows: Send + Sync {
    /// Waits until a decoder may take this many bytes, and until it drops the result. Blocks.
    ///
    /// # Errors
    /// Unsupported if that exceeds the maximum, which the message names.
    fn grant(&self, bytes: u64) -> Result<Box<dyn Send>, Error>;
}

/// Grants windows up to a size at once, for callers that account for them elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct WindowsUpTo(pub u64);

impl Windows for WindowsUpTo {
    fn grant(&self, bytes: u64) -> Result<Box<dyn Send>, Error> {
        if bytes <= self.0 {
            return Ok(Box::new(()));
        }
        Err(Error::unsupported(format!("a zstd frame needs a window of {bytes} bytes, and at most {} are provided for it", self.0)))
    }
}

/// Resources of a scan or packer.
#[derive(Clone)]
pub struct Resources {
    /// The limits.
    pub limits: Limits,
    /// Where an index is built.
    pub scratch: Scratch,
    /// Memory for decoders.
    pub windows: Arc<dyn Windows>,
}

impl Default for Resources {
    /// Everything on the heap, within the default limits.
    fn default() -> Self {
        Self { limits: Limits::default(), scratch: Scratch::memory(), windows: Arc::new(WindowsUpTo(2 * WINDOW_MOST)) }
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Resources").field("limits", &self.limits).field("scratch", &self.scratch).finish_non_exhaustive()
    }
}
