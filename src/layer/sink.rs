//! The consumer of a scan.

use crate::error::Error;
use std::ops::Range;

/// Receives the results of a scan, in order. An error ends the scan with that error.
pub trait SpanSink {
    /// The content of a regular file of at least [`super::MEMBER_MINIMUM`] bytes starts: this range of the stream will follow. Called before the span with the
    /// range's first byte.
    fn member(&mut self, stream: Range<u64>) -> Result<(), Error>;
    /// A span is complete.
    fn span(&mut self, number: u32, stream: Range<u64>, data: &[u8]) -> Result<(), Error>;
}
