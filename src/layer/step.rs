//! One step of a decompressor, in the same terms for every codec. Plain data.

/// A place at which decoding could begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boundary {
    /// Between members or frames: nothing but the bytes that follow is needed.
    Clean,
    /// Between deflate blocks: this many bits of the last byte taken are still to be used.
    Block {
        /// Bits not used yet (0–7).
        unused_bits: u8,
    },
}

/// The outcome of one step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    /// Bytes taken from the input.
    pub(super) consumed: usize,
    /// Bytes written to the output.
    pub(super) produced: usize,
    /// Set if decoding could begin again right behind the bytes taken.
    pub(super) boundary: Option<Boundary>,
    /// The bytes taken lie between members or frames and carry no content: a long skippable frame, final zeros.
    pub(super) gap: bool,
}

impl Step {
    /// Whether anything happened.
    pub(super) fn moved(&self) -> bool {
        self.consumed > 0 || self.produced > 0 || self.boundary.is_some()
    }
}
