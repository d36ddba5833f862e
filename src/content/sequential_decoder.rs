//! A decoder at a border between spans, which goes on span after span.

use std::sync::Arc;

use super::Error;
use crate::error::ErrorKind;
use crate::layer::{self, LayerIndex, Restart, Span, SpanDecoder, Windows};

/// Longest span that is decoded; the layer module makes none longer than 4 MiB.
const LONGEST: u64 = 16 << 20;

/// Decodes consecutive spans.
pub(super) struct SequentialDecoder {
    decoder: SpanDecoder,
    windows: Arc<dyn Windows>,
    /// The span that comes next.
    next: u32,
    /// The blob up to where it was fed.
    fed: u64,
    /// Fed, but not consumed by the decoder yet.
    rest: Vec<u8>,
}

impl SequentialDecoder {
    /// A cursor in front of a span that can restart.
    pub(super) fn new(index: &LayerIndex, number: u32, windows: &Arc<dyn Windows>) -> Result<Self, layer::Error> {
        let (decoder, windows) = (SpanDecoder::new(index, number, windows)?, Arc::clone(windows));
        Ok(Self { decoder, windows, next: number, fed: 0, rest: Vec::new() })
    }

    /// The span that comes next.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Decodes the next span from the whole of its blob range.
    pub(super) fn decode(&mut self, index: &LayerIndex, span: &Span, blob: &[u8]) -> Result<Vec<u8>, Error> {
        let gap = self.fed != 0 && span.blob.start > self.fed;
        if self.fed != 0 && (span.restart == Restart::Clean || gap && span.restart != Restart::No) {
            // Bytes between spans belong to no span, and a decoder must not see them.
            let windows = Arc::clone(&self.windows);
            *self = Self::new(index, self.next, &windows)?;
        }
        let known = usize::try_from(self.fed.saturating_sub(span.blob.start)).unwrap_or(usize::MAX);
        let fresh = blob.get(known.min(blob.len())..).unwrap_or_default();
        self.fed = self.fed.max(span.blob.end);
        let mut joined = std::mem::take(&mut self.rest);
        let input = if joined.is_empty() {
            fresh
        } else {
            joined.extend_from_slice(fresh);
            &joined
        };
        let length = span.stream.end - span.stream.start;
        let wanted = usize::try_from(length.min(LONGEST)).unwrap_or(usize::MAX);
        let mut output = Vec::with_capacity(wanted);
        let mut used = 0;
        while output.len() < wanted {
            let before = output.len();
            let consumed = self.decoder.decode(input.get(used..).unwrap_or_default(), &mut output, wanted - before)?;
            used += consumed;
            if consumed == 0 && output.len() == before {
                break;
            }
        }
        if output.len() as u64 != length {
            let message = format!("span {} decodes to {} bytes instead of {length}", self.next, output.len());
            return Err(Error::new(ErrorKind::Integrity, message));
        }
        self.rest = input.get(used..).unwrap_or_default().to_vec();
        self.next += 1;
        Ok(output)
    }
}

impl From<layer::Error> for Error {
    fn from(error: layer::Error) -> Self {
        Self { kind: error.kind, message: error.message }
    }
}
