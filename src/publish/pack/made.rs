//! Layers of a new artifact.

use super::store::Ready;
use crate::oci::{Descriptor, Repository};

/// A layer known to be in a registry, with its index.
#[derive(Clone, Debug)]
pub(in crate::publish) struct RemoteLayer {
    pub layer: Descriptor,
    pub index: Option<Descriptor>,
    /// Where it was seen; `None` if the tag itself has it.
    pub repository: Option<Repository>,
}

/// A layer of the new artifact.
#[derive(Clone, Debug)]
pub(in crate::publish) enum Made {
    /// The registry already has it.
    Remote(RemoteLayer),
    /// It was packed here.
    Packed(Ready),
}

impl Made {
    /// Stops counting packed layers in the cache budget.
    pub fn give_room_back(&self) {
        if let Self::Packed(Ready { room: Some(room), .. }) = self {
            room.give_back();
        }
    }
}
