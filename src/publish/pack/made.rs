//! Layers of a new artifact.

use super::store::Ready;
use crate::oci::{Descriptor, Repository};

/// A layer that a registry is known to have, with its index.
#[derive(Clone, Debug)]
pub(in crate::publish) struct RemoteLayer {
    pub layer: Descriptor,
    pub index: Option<Descriptor>,
    /// Where it was seen; `None` if the tag itself holds it.
    pub repository: Option<Repository>,
}

/// A layer of the new artifact.
#[derive(Clone, Debug)]
pub(in crate::publish) enum Made {
    /// It was there.
    Remote(RemoteLayer),
    /// It was packed here.
    Packed(Ready),
}

impl Made {
    /// Packed layers no longer count in the budget of the cache.
    pub fn give_room_back(&self) {
        if let Self::Packed(Ready { room: Some(room), .. }) = self {
            room.give_back();
        }
    }
}
