//! Makes a self-contained deflate stream part of a longer one: its last block becomes an ordinary one, and an empty stored block aligns it to a byte
//! boundary, as a full flush would.
//!
//! The compressor offers no flush. Only a decoder knows where its last block starts, so each span is decoded once, which also verifies that it yields the
//! data.

use crate::error::Error;
use crate::layer::inflate::{Inflate, Malformed, Stop};

/// An empty stored block after its three header bits: length 0, and its complement.
const EMPTY: [u8; 4] = [0, 0, 0xff, 0xff];

/// Kept between spans only for its memory.
pub(super) struct Splicer {
    inflate: Inflate,
    plain: Vec<u8>,
}

/// Bit positions in a stream, counted from the lowest bit of each byte.
#[derive(Clone, Copy)]
struct LastBlock {
    /// First bit of the last block.
    last_block: usize,
    /// First bit after it.
    end: usize,
}

impl Splicer {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self { inflate: Inflate::new().map_err(failed)?, plain: Vec::new() })
    }

    /// Opens the end of a stream for the next span, unless it is the last.
    pub(super) fn splice(&mut self, packed: &mut Vec<u8>, data: &[u8], last: bool) -> Result<(), Error> {
        let place = self.read_back(packed, data)?;
        if last {
            return Ok(());
        }
        let header = packed.get_mut(place.last_block / 8).ok_or_else(wrong)?;
        *header &= !(1 << (place.last_block % 8));
        // The empty block's header is three zero bits; those that do not fit into the last byte start another one.
        let used = place.end % 8;
        if let Some(byte) = packed.last_mut().filter(|_| used != 0) {
            *byte &= (1_u8 << used) - 1;
        }
        if used == 0 || used > 5 {
            packed.push(0);
        }
        packed.extend_from_slice(&EMPTY);
        Ok(())
    }

    /// Decodes, compares, and locates the last block.
    fn read_back(&mut self, packed: &[u8], data: &[u8]) -> Result<LastBlock, Error> {
        self.inflate.reset().map_err(failed)?;
        // One byte too many, so that the decoder never stops for lack of room.
        self.plain.resize(data.len() + 1, 0);
        let (mut taken, mut made, mut last_block) = (0, 0, 0);
        loop {
            let (input, output) = (packed.get(taken..).unwrap_or_default(), self.plain.get_mut(made..).unwrap_or_default());
            let progress = self.inflate.run(input, output, true).map_err(failed)?;
            taken += progress.consumed;
            made += progress.produced;
            match progress.stop {
                Stop::BlockEnd { unused_bits } => last_block = (taken * 8).saturating_sub(unused_bits.into()),
                Stop::LastBlockEnd { unused_bits } => {
                    let end = (taken * 8).saturating_sub(unused_bits.into());
                    let same = taken == packed.len() && self.plain.get(..made) == Some(data);
                    return if same { Ok(LastBlock { last_block, end }) } else { Err(wrong()) };
                }
                Stop::Exhausted if progress.consumed + progress.produced > 0 => {}
                Stop::Exhausted | Stop::StreamEnd => return Err(wrong()),
            }
        }
    }
}

fn failed(error: Malformed) -> Error {
    Error::other(format!("a packed span cannot be read back: {}", error.0))
}

fn wrong() -> Error {
    Error::other("a packed span does not read back unchanged".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::pack::compressor::compressor;

    /// Streams that end at every bit of a byte, spliced together, form one stream.
    #[test]
    fn spliced_streams_are_one_stream_wherever_their_last_bits_lie() {
        let (mut splicer, mut compressor) = (Splicer::new().unwrap(), compressor(6).unwrap());
        let (mut stream, mut whole, mut ends) = (Vec::new(), Vec::new(), [false; 8]);
        for length in 0..400_usize {
            let data: Vec<u8> = (0..length * 7).map(|at| (at * at % 251 % (length + 1)) as u8).collect();
            let mut packed = vec![0; data.len() + 100];
            let size = compressor.deflate_compress(&data, &mut packed).unwrap();
            packed.truncate(size);
            ends[splicer.read_back(&packed, &data).unwrap().end % 8] = true;
            splicer.splice(&mut packed, &data, length == 399).unwrap();
            stream.extend_from_slice(&packed);
            whole.extend_from_slice(&data);
        }
        assert_eq!(ends, [true; 8]);
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::DeflateDecoder::new(&stream[..]), &mut plain).unwrap();
        assert!(plain == whole);
    }

    #[test]
    fn bytes_that_do_not_decode_to_the_data_are_refused() {
        let (mut splicer, data) = (Splicer::new().unwrap(), b"some text, another text, no text at all; ".repeat(30));
        let mut packed = vec![0; data.len()];
        let size = compressor(6).unwrap().deflate_compress(&data, &mut packed).unwrap();
        packed.truncate(size);
        assert!(size < data.len() / 4);
        let mut refused = 0;
        for at in 0..size {
            let mut flipped = packed.clone();
            flipped[at] ^= 0x10;
            let mut plain = Vec::new();
            let read = std::io::Read::read_to_end(&mut flate2::read::DeflateDecoder::new(&flipped[..]), &mut plain);
            let same = read.is_ok() && plain == data;
            assert_eq!(splicer.splice(&mut flipped, &data, false).is_ok(), same, "{at}");
            refused += usize::from(!same);
        }
        assert!(refused > size / 2);
        assert!(splicer.splice(&mut packed[..size - 1].to_vec(), &data, false).is_err());
        assert!(splicer.splice(&mut [&packed[..], b"x"].concat(), &data, false).is_err());
        assert!(splicer.splice(&mut packed, &data, false).is_ok());
    }
}
