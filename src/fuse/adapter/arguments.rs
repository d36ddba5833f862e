//! Converts request arguments to types of the file system.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use fuser::{INodeNo, RenameFlags, Request, TimeOrNow};

use crate::artifact::Kind;
use crate::fs::{Caller, NewName};
use crate::layer::Metadata;
use crate::view::{NewNode, Replace};

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

/// A name for a node of a kind, without device numbers or a target.
pub(super) fn new_name(parent: INodeNo, name: &OsStr, kind: Kind, mode: u32) -> NewName {
    let metadata = Metadata { mode: Some(mode & 0o7777), ..Metadata::default() };
    NewName { directory: parent.0, name: name.as_bytes().to_vec(), node: NewNode { kind, metadata, target: Vec::new() } }
}

/// The kind requested by `mknod`.
pub(super) fn kind_of_mode(mode: u32) -> Option<Kind> {
    match mode & KIND_MASK {
        0 | 0o100_000 => Some(Kind::File),
        0o020_000 => Some(Kind::CharDevice),
        0o060_000 => Some(Kind::BlockDevice),
        0o010_000 => Some(Kind::Fifo),
        0o140_000 => Some(Kind::Socket),
        _ => None,
    }
}

/// Major and minor of a device number as the kernel packs it into 32 bits.
pub(super) fn of_device(packed: u32) -> (u32, u32) {
    (packed >> 8 & 0xfff, packed & 0xff | packed >> 12 & 0xf_ff00)
}

/// How `rename` treats an existing new name.
pub(super) fn replace_of(flags: RenameFlags) -> Option<Replace> {
    match flags {
        flags if flags.is_empty() => Some(Replace::Yes),
        RenameFlags::RENAME_NOREPLACE => Some(Replace::No),
        RenameFlags::RENAME_EXCHANGE => Some(Replace::Exchange),
        _ => None,
    }
}

/// Seconds since the epoch (may be negative), and nanoseconds counted forward from there.
pub(super) fn of_time(time: TimeOrNow) -> (i64, u32) {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    };
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        // fuser 0.18 takes the fraction away where it has to be added (its `system_time_from_time`), so whole seconds and fraction
        // of its distance to the epoch are just what the kernel sent.
        Err(before) => {
            let distance = before.duration();
            (i64::try_from(distance.as_secs()).map_or(i64::MIN, |seconds| -seconds), distance.subsec_nanos())
        }
    }
}

/// Bits of a mode that say the kind, and their values.
const KIND_MASK: u32 = 0o170_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn device_numbers_are_read_as_the_kernel_packs_them() {
        assert_eq!(of_device(0x103), (1, 3));
        assert_eq!(of_device(0x10_0801), (8, 0x101));
    }

    #[test]
    fn kinds_are_read_from_the_mode_of_mknod() {
        assert_eq!(kind_of_mode(0o644), Some(Kind::File));
        assert_eq!(kind_of_mode(0o010_600), Some(Kind::Fifo));
        assert_eq!(kind_of_mode(0o140_777), Some(Kind::Socket));
        assert_eq!(kind_of_mode(0o040_755), None, "directories have a call of their own");
    }

    #[test]
    fn times_before_the_epoch_are_read_as_the_kernel_sent_them() {
        // Half a second before the epoch is -1 s and 500,000,000 ns.
        let as_fuser_hands_it_on = UNIX_EPOCH - Duration::new(1, 500_000_000);
        assert_eq!(of_time(TimeOrNow::SpecificTime(as_fuser_hands_it_on)), (-1, 500_000_000));
        assert_eq!(of_time(TimeOrNow::SpecificTime(UNIX_EPOCH + Duration::new(7, 5))), (7, 5));
    }

    #[test]
    fn rename_with_a_whiteout_is_refused() {
        assert_eq!(replace_of(RenameFlags::empty()), Some(Replace::Yes));
        assert_eq!(replace_of(RenameFlags::RENAME_EXCHANGE), Some(Replace::Exchange));
        assert_eq!(replace_of(RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(replace_of(RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE), None);
    }
}
