//! The user and group of a change.

/// The caller of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
}

impl Caller {
    /// Whether set-user-ID and set-group-ID bits survive writes by this user; all that is known of capabilities is that root has them.
    pub(super) fn may_keep_set_id(self) -> bool {
        self.uid == 0
    }
}
