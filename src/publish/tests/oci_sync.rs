//! oci-sync.
