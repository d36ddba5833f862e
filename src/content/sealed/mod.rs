//! Content in oci-sync envelopes: passphrases and the keys made from them (`keys`), which of them opens a blob that passes by
//! (`probe`), and opening, remembering and indexing what is inside (`envelope`).

pub(super) mod envelope;
pub(super) mod keys;
pub(super) mod probe;
