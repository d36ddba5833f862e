//! Kinds of artifacts: an edit keeps its artifact's kind, a new tag gets the requested one.

mod files;
mod image;
mod index;
mod layered;
mod new;
pub(super) mod new_artifact;
mod oci_sync;
mod remote;
pub(super) mod work;

use std::collections::HashSet;

use super::ArtifactKind;
use super::plan::identity::{Identity, LayerIdentities};
use super::plan::survey::Remember;
use crate::artifact::{Artifact, Artifacts, Dialect};
use crate::error::{Error, ErrorKind};
pub use new_artifact::NewKind;
use work::{Built, Work};

/// Which paths the survey must collect for building the artifact.
pub(super) fn remembers(base: Option<&Artifact>) -> Remember {
    match base.map(|base| (base.dialect, files::is_ours(base))) {
        None | Some((Dialect::OciSync | Dialect::Sealed | Dialect::Members, _)) => Remember::Nothing,
        Some((Dialect::Image, _)) => Remember::Changes,
        // Layers written by ocifs are found by their content.
        Some((Dialect::Files | Dialect::Archive | Dialect::Blobs, true)) => Remember::Nothing,
        Some((Dialect::Files | Dialect::Archive | Dialect::Blobs, false)) => Remember::Same,
    }
}

/// The layers of an artifact whose edit is planned like a new one, if all of them are known without reading an index: then the survey can plan as well.
pub(super) fn settled_layers(artifacts: &Artifacts, base: &Artifact, identities: &LayerIdentities) -> Option<HashSet<Identity>> {
    let is_grouped = matches!(base.dialect, Dialect::Files | Dialect::Archive | Dialect::Blobs) && files::is_ours(base);
    if is_grouped { remote::settled_layers(artifacts, base, identities) } else { None }
}

/// Refuses artifacts that cannot be edited, before anything is packed.
pub(super) fn check(base: &Artifact) -> Result<(), Error> {
    match base.dialect {
        Dialect::Sealed => {
            Err(Error::new(ErrorKind::KeyMissing, "it is sealed, and this version cannot seal it again: nothing was published"))
        }
        Dialect::Members => {
            Err(Error::new(ErrorKind::ReadOnly, "it is an index without an image for this platform: mount it with another --platform"))
        }
        _ => Ok(()),
    }
}

impl Work {
    /// Builds the artifact.
    pub async fn build(&self) -> Result<Built, Error> {
        let Some(base) = &self.base else {
            return match self.new.kind {
                NewKind::Editable(ArtifactKind::Files) => self.new_files().await,
                NewKind::Editable(ArtifactKind::Image) => self.new_image().await,
                NewKind::Editable(ArtifactKind::OciSync) => self.oci_sync(None).await,
                NewKind::Oras => self.new_oras().await,
            };
        };
        let built = match base.dialect {
            Dialect::Image => self.edit_image(base).await?,
            Dialect::OciSync => self.oci_sync(Some(base)).await?,
            Dialect::Files | Dialect::Archive | Dialect::Blobs => self.edit_layered(base).await?,
            Dialect::Sealed | Dialect::Members => return Err(Error::other("this artifact cannot be edited")),
        };
        if base.manifest.digest == base.shown.digest { Ok(built) } else { self.in_index(base, built).await }
    }
}
