//! Edits of an image in an index: replaces the member, also inside nested indexes.

use std::sync::Arc;

use super::work::{Built, Work};
use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Manifest};
use crate::publish::manifest;

impl Work {
    /// Replaces the shown member by the edited one, also in nested indexes.
    pub(super) async fn in_index(&self, base: &Artifact, mut built: Built) -> Result<Built, Error> {
        let mut stack: Vec<(Arc<Manifest>, usize)> = vec![(Arc::clone(&base.manifest), 0)];
        // The path from the top index to the one that lists the shown member.
        while let Some((index, next)) = stack.last_mut() {
            let index = Arc::clone(index);
            if let Some((edited, gone)) = manifest::index::replaced(&index, (&base.shown.digest, base.platform.as_ref()), &built.top)? {
                stack.pop();
                return self.replace_upwards(stack, index, edited, gone, built).await;
            }
            let inner = index.index().and_then(|index| {
                let is_index = |member: &&Descriptor| member.media_type.contains("index") || member.media_type.contains("manifest.list");
                index.manifests.iter().filter(is_index).nth(*next)
            });
            *next += 1;
            match inner {
                Some(inner) if stack.len() < 4 => {
                    let inner = self.artifacts.manifest(&self.repository, &inner.digest).await?;
                    stack.push((inner, 0));
                }
                _ => {
                    stack.pop();
                }
            }
        }
        built.before.clear();
        Err(Error::new(ErrorKind::Integrity, format!("index {} does not name the image that it shows", base.manifest.digest)))
    }

    async fn replace_upwards(
        &self,
        mut above: Vec<(Arc<Manifest>, usize)>,
        index: Arc<Manifest>,
        edited: Arc<Manifest>,
        mut gone: usize,
        mut built: Built,
    ) -> Result<Built, Error> {
        let (mut old, mut new) = (index.digest, edited);
        built.before.push(Arc::clone(&built.top));
        while let Some((outer, _)) = above.pop() {
            let Some((edited, more)) = manifest::index::replaced(&outer, (&old, None), &new)? else {
                return Err(Error::new(ErrorKind::Integrity, format!("index {} changed while it was read", outer.digest)));
            };
            built.before.push(new);
            gone += more;
            (old, new) = (outer.digest, edited);
        }
        if gone > 0 {
            self.progress.note(format!("dropped {gone} attestation(s) of the edited image from the index"));
        }
        built.top = new;
        Ok(built)
    }
}
