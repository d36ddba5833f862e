//! Access checks for the directory of an artifact that was not entered yet.
//!
//! If other users are admitted, the kernel checks owners and modes. For a directory not yet entered it only knows provisional ones,
//! since the real ones cost a manifest request, and `ls -l` lists many. What these forbid, the kernel asks about, and then judges by the real
//! ones. What they permit is checked here until the kernel has the real ones; until then it caches no name, so that every walk passes here.

use super::Others;
use super::namespace::Namespace;
use crate::error::{Error, ErrorKind};
use crate::view::Attributes;

/// The caller of an operation.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Thread ID; 0 in another PID namespace.
    pub pid: u32,
    /// Reads the thread's further credentials; `None` if they are not visible.
    pub look: fn(u32) -> Option<Credentials>,
}

/// Rights of a thread beyond its user and group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// Its effective capabilities as a bit set; none of those held in another user namespace.
    pub capabilities: u64,
}

/// The access that a caller needs to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Find a name in it.
    Search,
    /// List it.
    Read,
    /// Change it.
    Write,
    /// Be its owner.
    Own,
}

const CAP_DAC_OVERRIDE: u64 = 1 << 1;
const CAP_DAC_READ_SEARCH: u64 = 1 << 2;
const CAP_FOWNER: u64 = 1 << 3;

impl Need {
    fn bits(self) -> u32 {
        match self {
            Self::Search => 1,
            Self::Read => 4,
            Self::Write => 2,
            Self::Own => 0,
        }
    }

    /// Capabilities, any one of which suffices.
    fn overridden_by(self) -> u64 {
        match self {
            Self::Search | Self::Read => CAP_DAC_OVERRIDE | CAP_DAC_READ_SEARCH,
            Self::Write => CAP_DAC_OVERRIDE,
            Self::Own => CAP_FOWNER,
        }
    }
}

impl Namespace {
    /// Whether the kernel lets other users in, and checks owners and modes.
    pub(super) fn admits_others(&self) -> bool {
        self.config.others != Others::None
    }

    /// Checks a caller's access to an inode, as far as the kernel could not.
    pub(super) async fn admit(&self, asker: &Asker, number: u64, need: Need) -> Result<(), Error> {
        let inode = self.inode(number);
        if !self.admits_others() || inode.view() == 0 || inode.node() != 0 {
            return Ok(());
        }
        let view = self.view(inode)?;
        if view.has_sent_attributes() {
            return Ok(());
        }
        self.enter(&view).await?;
        if may(asker, &view.attributes(&self.context, 0)?, need) {
            return Ok(());
        }
        Err(match need {
            Need::Own => Error::new(ErrorKind::NotPermitted, "only the owner of the tag's directory may do that"),
            _ => Error::new(ErrorKind::Denied, "the mode of the tag's directory does not allow that"),
        })
    }
}

/// Whether owner and mode, or a capability, permit an access.
fn may(asker: &Asker, of: &Attributes, need: Need) -> bool {
    let allows = |class: u32| (of.mode >> class) & need.bits() == need.bits();
    let (owner, group, other) = (allows(6), allows(3), allows(0));
    let is_owner = asker.uid == of.uid;
    let by_mode = match need {
        Need::Own => is_owner,
        _ if is_owner => owner,
        _ if asker.gid == of.gid => group,
        _ => other,
    };
    let is_sure = by_mode && (is_owner || asker.gid == of.gid || group == other);
    if is_sure {
        return true;
    }
    match (asker.look)(asker.pid) {
        Some(more) if more.capabilities & need.overridden_by() != 0 => true,
        Some(more) if need != Need::Own && !is_owner && more.groups.contains(&of.gid) => group,
        Some(_) => by_mode,
        None => by_mode || asker.uid == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tests::test_mount::DEFAULTS;

    fn directory(mode: u32) -> Attributes {
        Attributes { mode, uid: 7, gid: 70, ..DEFAULTS.directory() }
    }

    fn asker(uid: u32, gid: u32, look: fn(u32) -> Option<Credentials>) -> Asker {
        Asker { uid, gid, pid: 1, look }
    }

    fn nothing(_: u32) -> Option<Credentials> {
        Some(Credentials::default())
    }

    fn member(_: u32) -> Option<Credentials> {
        Some(Credentials { groups: vec![5, 70], capabilities: 0 })
    }

    fn searcher(_: u32) -> Option<Credentials> {
        Some(Credentials { groups: Vec::new(), capabilities: CAP_DAC_READ_SEARCH })
    }

    fn unseen(_: u32) -> Option<Credentials> {
        None
    }

    #[test]
    fn the_first_class_that_fits_decides_as_in_the_kernel() {
        for (mode, who, need, allowed) in [
            (0o700, asker(7, 1, nothing), Need::Search, true),
            (0o700, asker(8, 1, nothing), Need::Search, false),
            (0o777, asker(8, 1, nothing), Need::Write, true),
            (0o077, asker(7, 70, nothing), Need::Read, false),
            (0o070, asker(8, 70, nothing), Need::Read, true),
            (0o707, asker(8, 70, nothing), Need::Read, false),
            (0o750, asker(8, 1, member), Need::Search, true),
            (0o705, asker(8, 1, member), Need::Search, false),
            (0o750, asker(8, 1, member), Need::Write, false),
            (0o711, asker(8, 1, nothing), Need::Read, false),
        ] {
            assert_eq!(may(&who, &directory(mode), need), allowed, "{mode:o} {who:?} {need:?}");
        }
    }

    #[test]
    fn capabilities_override_modes_but_unknown_ones_do_not() {
        let closed = directory(0o700);
        assert!(may(&asker(8, 1, searcher), &closed, Need::Search));
        assert!(!may(&asker(8, 1, searcher), &closed, Need::Write));
        assert!(may(&asker(0, 0, unseen), &closed, Need::Write), "root");
        assert!(!may(&asker(0, 0, nothing), &closed, Need::Write), "root without its capabilities");
        assert!(!may(&asker(8, 1, unseen), &directory(0o770), Need::Search));
        assert!(may(&asker(8, 1, unseen), &directory(0o775), Need::Search));
    }

    #[test]
    fn only_the_owner_counts_as_owner() {
        assert!(may(&asker(7, 1, nothing), &directory(0), Need::Own));
        assert!(!may(&asker(8, 70, member), &directory(0o777), Need::Own));
    }
}
