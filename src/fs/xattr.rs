//! Extended attributes of the namespace above tags; those of views are the views' own.

use super::location::Location;
use super::namespace::Namespace;
use crate::artifact::is_own_name;
use crate::error::Error;
use crate::view::{PathState, state_name};

impl Namespace {
    /// The value of an extended attribute, `None` if it does not exist.
    pub(super) async fn getxattr(&self, number: u64, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let inode = self.inode(number);
        if inode.view() != 0 {
            if self.is_only_named(inode) && !is_own_name(name) {
                return Ok(None);
            }
            return self.view(inode)?.xattr(&self.context, inode.node(), name).await;
        }
        let location = self.location(inode)?;
        match (name, location.as_ref()) {
            (b"user.ocifs.state", _) => Ok(Some(state_name(PathState::Clean).as_bytes().to_vec())),
            (b"user.oci.reference", Location::Directory(path)) => Ok(Some(self.context.authority.reference(path.as_ref()).into_bytes())),
            (b"user.oci.listing", Location::Directory(path)) => {
                let complete = self.names(path).await?.complete;
                Ok(Some(if complete { b"complete".to_vec() } else { b"partial".to_vec() }))
            }
            _ => Ok(None),
        }
    }

    /// The listed names: those of the archive, none of ocifs's own.
    pub(super) fn listxattr(&self, number: u64) -> Result<Vec<Vec<u8>>, Error> {
        let inode = self.inode(number);
        match inode.view() {
            0 => self.location(inode).map(|_| Vec::new()),
            _ if self.is_only_named(inode) => Ok(Vec::new()),
            _ => self.view(inode)?.xattr_names(inode.node()),
        }
    }
}
