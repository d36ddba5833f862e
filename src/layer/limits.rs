//! How much one layer may cost. Plain data.

/// Bounds of a scan, all with generous defaults.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most entries of one layer.
    pub entries: u32,
    /// Longest PAX record, long name or link in bytes.
    pub header_bytes: u32,
    /// Most bytes of index (paths, xattrs, windows).
    pub index_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 20_000_000, header_bytes: 1 << 20, index_bytes: 4 << 30 }
    }
}
