//! One decompression step, in the same terms for every codec. Plain data.

/// A place where decoding could restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boundary {
    /// Between members or frames: only the following bytes are needed.
    Clean,
    /// Between deflate blocks: this many bits of the last byte consumed are still unused.
    Block {
        /// Unused bits (0–7).
        unused_bits: u8,
    },
}

/// The result of one step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    /// Bytes taken from the input.
    pub(super) consumed: usize,
    /// Bytes written to the output.
    pub(super) produced: usize,
    /// Set if decoding could restart right after the bytes consumed.
    pub(super) boundary: Option<Boundary>,
    /// The bytes consumed are between members or frames and have no content: a long skippable frame, trailing zeros.
    pub(super) gap: bool,
}

impl Step {
    /// Consumes padding, which is zeros; returns the place of another byte.
    pub(super) fn padding(input: &[u8]) -> Result<Self, usize> {
        match input.iter().position(|byte| *byte != 0) {
            None => Ok(Self { consumed: input.len(), gap: true, ..Self::default() }),
            Some(at) => Err(at),
        }
    }

    /// Whether any byte was consumed or produced.
    pub(super) fn moved(&self) -> bool {
        self.consumed > 0 || self.produced > 0 || self.boundary.is_some()
    }
}
