//! Content in oci-sync envelopes: passphrases and the keys derived from them (`keys`), finding the key for a streamed blob (`probe`), and opening,
//! recording and indexing the content (`envelope`).

pub(super) mod envelope;
pub(super) mod keys;
pub(super) mod probe;
