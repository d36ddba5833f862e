//! The consumer of a scan.

use crate::error::Error;
use std::ops::Range;

/// Takes what a scan produces, in order. An error ends the scan with that error.
pub trait SpanSink {
    /// The content of a regular file of at least [`super::MEMBER_MINIMUM`] bytes begins: this range of the stream
    /// will follow. Comes before the span that holds the first byte of the range.
    fn member(&mut self, stream: Range<u64>) -> Result<(), Error>;
    /// A span is complete.
    fn span(&mut self, number: u32, stream: Range<u64>, data: &[u8]) -> Result<(), Error>;
}
