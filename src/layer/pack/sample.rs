//! Decides from a sample whether bytes are worth compressing. A pure function of the bytes, so that every run decides alike.

use libdeflater::Compressor;

use super::compressor::compressor;
use crate::error::Error;

/// Compression level for samples: the fastest.
const LEVEL: i32 = 1;

/// How to sample, and what compression must save.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    /// Pieces taken, spread evenly, including the first and last byte.
    pieces: usize,
    /// Bytes per piece.
    length: usize,
    /// The minimum saving, in percent.
    percent: usize,
}

/// For a span: when in doubt, compress.
pub(super) const SPAN: Rule = Rule { pieces: 16, length: 4096, percent: 1 };

/// For a file's sample: with a smaller saving the file is stored raw.
const FILE: Rule = Rule { pieces: 1, length: 0, percent: 2 };

/// Number and length of the pieces of a file for [`compressible`].
const FILE_PIECES: u64 = 32;
const FILE_PIECE: u64 = 8192;

/// Compresses samples quickly.
pub(super) struct Sampler {
    compressor: Compressor,
    sample: Vec<u8>,
    packed: Vec<u8>,
}

impl Sampler {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self { compressor: compressor(LEVEL)?, sample: Vec::new(), packed: Vec::new() })
    }

    /// Whether the data shrinks by at least the rule's percentage.
    pub(super) fn shrinks(&mut self, data: &[u8], rule: Rule) -> bool {
        self.sample.clear();
        for range in ranges(data.len() as u64, rule.pieces as u64, rule.length as u64) {
            let piece = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
            self.sample.extend_from_slice(piece.and_then(|(start, end)| data.get(start..end)).unwrap_or_default());
        }
        // Data that does not fit into less than its size has not shrunk.
        let most = self.sample.len() * (100 - rule.percent) / 100;
        self.packed.resize(most, 0);
        self.compressor.deflate_compress(&self.sample, &mut self.packed).is_ok()
    }
}

/// The ranges of a file of this size whose concatenated bytes are the sample for [`compressible`]: all of a small file, 256 KiB of a large one.
pub fn sample_ranges(size: u64) -> Vec<std::ops::Range<u64>> {
    ranges(size, FILE_PIECES, FILE_PIECE)
}

/// Whether a sample shrinks by at least 2 %. Depends only on the bytes.
///
/// # Errors
/// Other if the compressor cannot be set up.
pub fn compressible(sample: &[u8]) -> Result<bool, Error> {
    Ok(Sampler::new()?.shrinks(sample, FILE))
}

/// This many evenly spread pieces, from the first byte to the last; everything if that is not more.
fn ranges(size: u64, pieces: u64, length: u64) -> Vec<std::ops::Range<u64>> {
    if size <= pieces.saturating_mul(length) || pieces < 2 {
        return std::iter::once(0..size).collect();
    }
    let last = u128::from(size - length);
    let start = |piece: u64| u64::try_from(last * u128::from(piece) / u128::from(pieces - 1)).unwrap_or(0);
    (0..pieces).map(|piece| start(piece)..start(piece) + length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_spread_over_the_whole_file_and_never_overlaps() {
        for size in [0, 256 << 10] {
            assert_eq!(sample_ranges(size), vec![0..size; 1]);
        }
        for size in [(256 << 10) + 1, 5_000_000, u64::MAX] {
            let ranges = sample_ranges(size);
            assert_eq!((ranges[0].start, ranges.last().unwrap().end), (0, size));
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{size}");
            assert_eq!(ranges.iter().map(|range| range.end - range.start).sum::<u64>(), 256 << 10);
        }
    }

    #[test]
    fn text_is_compressible_and_noise_is_not() {
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        assert!(!compressible(&noise).unwrap());
        assert!(compressible(&b"one word after the other ".repeat(400)).unwrap());
        assert!(compressible(&[&noise[..80_000], &[0; 20_000]].concat()).unwrap());
        assert!(!compressible(&[&noise[..], &[0; 1500]].concat()).unwrap(), "less than 2 %");
        assert!(!compressible(b"").unwrap());
    }
}
