//! A safe wrapper around raw inflate with block boundaries, primed bits and dictionaries.
//!
//! Contains the only unsafe code outside `sys`: safe interfaces to inflate expose neither stops at block boundaries nor a start inside a byte, and
//! random access needs both. Guarantees that a call never reads or writes outside the given slices and never panics on hostile input. Handles neither
//! gzip headers nor checksums.
#![allow(unsafe_code)]

use libz_rs_sys as z;

/// The farthest that deflate refers back, in bytes.
pub(super) const WINDOW: usize = 32 * 1024;

/// Raw deflate without header and trailer.
const RAW_WINDOW_BITS: i32 = -15;

/// Why [`Inflate::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The input is used up or the output is full.
    Exhausted,
    /// Between two deflate blocks; this many bits (0–7) of the last byte consumed belong to the next one.
    BlockEnd {
        /// Unused bits.
        unused_bits: u8,
    },
    /// After the last block; this many bits (0–7) of the last byte consumed belong to nothing.
    LastBlockEnd {
        /// Unused bits.
        unused_bits: u8,
    },
    /// The stream has ended.
    StreamEnd,
}

/// The result of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Bytes taken from the input.
    pub(super) consumed: usize,
    /// Bytes written to the output.
    pub(super) produced: usize,
    /// Why it stopped.
    pub(super) stop: Stop,
}

/// The bytes are not valid deflate data.
#[derive(Debug)]
pub(super) struct Malformed(pub(super) &'static str);

/// One raw inflate stream.
pub(super) struct Inflate {
    /// Boxed so that its address stays the same while the library refers to it.
    stream: Box<z::z_stream>,
}

// SAFETY: the state behind `stream` belongs to this value alone, the library has no thread-local or global state for it, and every access goes through
// `&mut self`.
unsafe impl Send for Inflate {}

impl Inflate {
    /// A stream at its first block, without history.
    pub(super) fn new() -> Result<Self, Malformed> {
        let mut stream = Box::new(z::z_stream::default());
        let size = i32::try_from(size_of::<z::z_stream>()).map_err(|_| Malformed("inflate cannot be set up"))?;
        // SAFETY: `stream` is a valid, initialised z_stream; version and size are the library's own.
        let code = unsafe { z::inflateInit2_(&mut *stream, RAW_WINDOW_BITS, z::zlibVersion(), size) };
        if code == z::Z_OK { Ok(Self { stream }) } else { Err(Malformed("inflate cannot be set up")) }
    }

    /// Resets to the start of a new stream.
    pub(super) fn reset(&mut self) -> Result<(), Malformed> {
        // SAFETY: `stream` was initialised by `inflateInit2_` and not ended.
        let code = unsafe { z::inflateReset2(&mut *self.stream, RAW_WINDOW_BITS) };
        if code == z::Z_OK { Ok(()) } else { Err(Malformed("inflate cannot be reset")) }
    }

    /// Starts inside a stream: the `bits` (0–7) low bits of `value` come first, `history` was decoded before. Only on a stream that has not run yet.
    pub(super) fn resume(&mut self, bits: u8, value: u8, history: &[u8]) -> Result<(), Malformed> {
        let history = &history[history.len().saturating_sub(WINDOW)..];
        let length = u32::try_from(history.len()).map_err(|_| Malformed("history is too long"))?;
        // SAFETY: `stream` is initialised; the library copies at most `length` bytes from `history`.
        let codes = unsafe {
            (
                z::inflatePrime(&mut *self.stream, i32::from(bits), i32::from(value)),
                z::inflateSetDictionary(&mut *self.stream, history.as_ptr(), length),
            )
        };
        if codes == (z::Z_OK, z::Z_OK) { Ok(()) } else { Err(Malformed("inflate cannot resume")) }
    }

    /// Decodes until the input is used up, the output is full, the stream ends or, with `stop_at_block`, the current block ends.
    pub(super) fn run(&mut self, input: &[u8], output: &mut [u8], stop_at_block: bool) -> Result<Progress, Malformed> {
        let available_in = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let available_out = u32::try_from(output.len()).unwrap_or(u32::MAX);
        self.stream.next_in = input.as_ptr();
        self.stream.avail_in = available_in;
        self.stream.next_out = output.as_mut_ptr();
        self.stream.avail_out = available_out;
        let flush = if stop_at_block { z::Z_BLOCK } else { z::Z_NO_FLUSH };
        // SAFETY: the pointers and lengths set above describe `input` and `output`, which outlive the call.
        let code = unsafe { z::inflate(&mut *self.stream, flush) };
        let consumed = (available_in - self.stream.avail_in.min(available_in)) as usize;
        let produced = (available_out - self.stream.avail_out.min(available_out)) as usize;
        self.stream.next_in = std::ptr::null();
        self.stream.next_out = std::ptr::null_mut();
        self.stream.avail_in = 0;
        self.stream.avail_out = 0;
        let stop = match code {
            z::Z_OK | z::Z_BUF_ERROR => self.boundary(consumed > 0 || produced > 0),
            z::Z_STREAM_END => Stop::StreamEnd,
            z::Z_DATA_ERROR => return Err(Malformed("invalid deflate data")),
            _ => return Err(Malformed("inflate failed")),
        };
        Ok(Progress { consumed, produced, stop })
    }

    /// Whether the last call stopped between two blocks, at a bit of the last byte it consumed.
    fn boundary(&self, moved: bool) -> Stop {
        let state = self.stream.data_type;
        let (bits, last, between) = (state & 63, state & 64 != 0, state & 128 != 0);
        match u8::try_from(bits) {
            Ok(unused_bits) if moved && between && unused_bits < 8 => {
                if last {
                    Stop::LastBlockEnd { unused_bits }
                } else {
                    Stop::BlockEnd { unused_bits }
                }
            }
            _ => Stop::Exhausted,
        }
    }

    /// The last decoded bytes, at most [`WINDOW`].
    pub(super) fn history(&mut self) -> Result<Vec<u8>, Malformed> {
        let mut history = vec![0; WINDOW];
        let mut length = 0;
        // SAFETY: `stream` is initialised and its window is never larger than the 32 KiB of `history`.
        let code = unsafe { z::inflateGetDictionary(&*self.stream, history.as_mut_ptr(), &mut length) };
        if code != z::Z_OK {
            return Err(Malformed("inflate has no history"));
        }
        history.truncate(length as usize);
        Ok(history)
    }
}

impl Drop for Inflate {
    fn drop(&mut self) {
        // SAFETY: `stream` was initialised by `inflateInit2_`, and nothing uses it afterwards.
        unsafe { z::inflateEnd(&mut *self.stream) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn deflate(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn decoding_resumes_at_every_block_boundary() {
        let data: Vec<u8> = (0..600_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 22).to_le_bytes()).collect();
        let packed = deflate(&data);
        let (mut inflate, mut output, mut taken, mut made) = (Inflate::new().unwrap(), vec![0; data.len() + 1], 0, 0);
        let mut boundaries = Vec::new();
        loop {
            let progress = inflate.run(&packed[taken..], &mut output[made..], true).unwrap();
            taken += progress.consumed;
            made += progress.produced;
            match progress.stop {
                Stop::BlockEnd { unused_bits } => boundaries.push((taken, made, unused_bits, inflate.history().unwrap())),
                Stop::StreamEnd => break,
                Stop::LastBlockEnd { .. } => assert_eq!(taken, packed.len()),
                Stop::Exhausted => assert!(progress.consumed + progress.produced > 0, "no progress at {taken}"),
            }
        }
        assert_eq!(&output[..made], &data[..]);
        assert!(boundaries.len() > 3, "{}", boundaries.len());
        for (taken, made, bits, history) in boundaries {
            let mut again = Inflate::new().unwrap();
            let value = if bits == 0 { 0 } else { packed[taken - 1] >> (8 - bits) };
            again.resume(bits, value, &history).unwrap();
            let mut rest = vec![0; data.len() - made + 1];
            let progress = again.run(&packed[taken..], &mut rest, false).unwrap();
            assert_eq!(progress.stop, Stop::StreamEnd);
            assert!(rest[..progress.produced] == data[made..], "resumed at {taken}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        let mut inflate = Inflate::new().unwrap();
        assert!(inflate.run(&[0xff; 64], &mut [0; 64], false).is_err());
    }
}
