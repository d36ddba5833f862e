//! The user and group of a change.

/// The caller of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Caller {
    /// Whether set user id and set group id stay when this user writes; of capabilities nothing is known but that root has them.
    pub(super) fn may_keep_set_id(self) -> bool {
        self.uid == 0
    }
}
