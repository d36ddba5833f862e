//! Entry attributes shared by archives, indexes and packers. Plain data.

/// Attributes of an entry, except the extended ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits including setuid, setgid and sticky.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Modification time: seconds since the epoch, may be negative, and nanoseconds, 0–999,999,999.
    pub mtime: (i64, u32),
    /// Major and minor number of a device.
    pub device: (u32, u32),
}
