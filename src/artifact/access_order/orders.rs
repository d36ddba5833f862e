//! The access orders of all artifacts of this process, as far as they are not stored, and what bounds the lookup of published ones. Plain state.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::artifact::loaded::Artifact;
use crate::oci::Repository;

/// Artifacts for which the registry is asked for a published order at the same time: files are read meanwhile.
const ASKING: usize = 2;

/// The orders of all artifacts of this process, as far as they are not stored.
pub struct Orders {
    /// Artifacts of which files were opened since they were stored. Locked for list operations only.
    pub unstored: Mutex<Vec<Arc<Artifact>>>,
    /// Held while orders are stored, so that none replaces a newer one and the last to wait knows that all are.
    pub storing: tokio::sync::Mutex<()>,
    pub asking: Semaphore,
    /// Repositories whose registry denied a published order. Locked for set operations only.
    pub refusing: Mutex<HashSet<Repository>>,
}

impl Default for Orders {
    fn default() -> Self {
        let asking = Semaphore::new(ASKING);
        Self { unstored: Mutex::default(), storing: tokio::sync::Mutex::default(), asking, refusing: Mutex::default() }
    }
}
