//! Determines whether a span that starts inside deflate needs its window, by decoding its beginning without one.
//!
//! Deflate refers back at most 32 KiB. So once 32 KiB of a span have been decoded without a reference to bytes before it, none can follow, and the
//! window may be dropped: after a full flush, or in stored blocks. Ordinary compressed data fails within its first bytes, so both answers are cheap.

use super::inflate::{Inflate, Stop, WINDOW};
use crate::error::Error;

/// Decodes the beginning of one span after another.
#[derive(Default)]
pub(super) struct WindowProbe {
    decoder: Option<Decoder>,
    state: State,
}

struct Decoder {
    inflate: Inflate,
    output: Box<[u8]>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// The span does not start inside deflate, or refers to bytes before it.
    #[default]
    Needed,
    /// This many bytes were decoded without the window.
    Trying(usize),
    /// The span can be decoded alone.
    Free,
}

impl WindowProbe {
    /// Starts a span inside deflate: the `bits` (0–7) low bits of `value` come first.
    ///
    /// # Errors
    /// The decoder cannot be set up.
    pub(super) fn start(&mut self, bits: u8, value: u8) -> Result<(), Error> {
        let failed = |error: super::inflate::Malformed| Error::other(error.0.to_owned());
        let decoder = match &mut self.decoder {
            Some(decoder) => {
                decoder.inflate.reset().map_err(failed)?;
                decoder
            }
            None => {
                let inflate = Inflate::new().map_err(failed)?;
                self.decoder.insert(Decoder { inflate, output: vec![0; WINDOW].into_boxed_slice() })
            }
        };
        decoder.inflate.resume(bits, value, &[]).map_err(failed)?;
        self.state = State::Trying(0);
        Ok(())
    }

    /// Starts a span that needs no probe.
    pub(super) fn stop(&mut self) {
        self.state = State::Needed;
    }

    /// Takes the next blob bytes.
    pub(super) fn feed(&mut self, mut blob: &[u8]) {
        let (State::Trying(mut made), Some(decoder)) = (self.state, &mut self.decoder) else { return };
        while !blob.is_empty() {
            let Ok(progress) = decoder.inflate.run(blob, decoder.output.get_mut(made..).unwrap_or_default(), false) else {
                self.state = State::Needed;
                return;
            };
            made += progress.produced;
            if made >= WINDOW || progress.stop == Stop::StreamEnd {
                self.state = State::Free;
                return;
            }
            if progress.consumed == 0 && progress.produced == 0 {
                break;
            }
            blob = blob.get(progress.consumed..).unwrap_or_default();
        }
        self.state = State::Trying(made);
    }

    /// Whether the span is known or assumed to refer to bytes before it.
    pub(super) fn needs_window(&self) -> bool {
        self.state != State::Free
    }
}
