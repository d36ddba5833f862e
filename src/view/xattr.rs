//! Extended attributes: those of the archive, and ocifs's own.
//!
//! The names `user.oci.*` and `user.ocifs.*` are readable everywhere and listed nowhere, so that `cp -a` copies
//! none of them. An archive's own attributes pass through untouched.

use std::sync::Arc;

use super::{Context, Key, Origin, PathState, Shown, View, ViewNode, node_id};
use crate::artifact::{Artifact, CachedBytes, Kind, is_own_name};
use crate::blocking::blocking;
use crate::content::Verified;
use crate::error::Error;
use crate::oci::{Digest, Manifest, ManifestBody};

/// Values of `user.ocifs.state`.
pub fn state_name(state: PathState) -> &'static str {
    match state {
        PathState::Clean => "clean",
        PathState::Added => "added",
        PathState::Changed => "changed",
        PathState::Removed => "removed",
    }
}

impl View {
    /// The value of an extended attribute.
    pub async fn xattr(&self, context: &Context, node: ViewNode, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if !is_own_name(name) {
            return match self.overlay() {
                Some(overlay) => overlay.xattr(node, name),
                None => Ok(self.archived_xattr(node, name)),
            };
        }
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        match name {
            "user.ocifs.state" => Ok(Some(state_name(self.state(node)?).as_bytes().to_vec())),
            "user.ocifs.cached" => Ok(self.cached(context, node).await?.map(|cached| cached.to_string().into_bytes())),
            "user.oci.reference" => Ok(self.reference(context).map(String::into_bytes)),
            "user.oci.listing" => Ok(Some(b"complete".to_vec())),
            "user.oci.digest" => Ok(self.digest_now(context).await?.map(|digest| digest.to_string().into_bytes())),
            "user.oci.media-type" | "user.oci.artifact-type" | "user.oci.size" => self.of_manifest(context, name).await,
            _ => self.of_artifact(context, node, name).await,
        }
    }

    /// The listed names: the archive's own.
    ///
    /// # Errors
    /// Gone for a node that no longer exists.
    pub fn xattr_names(&self, node: ViewNode) -> Result<Vec<Vec<u8>>, Error> {
        match self.overlay() {
            Some(overlay) => {
                let mut names = overlay.xattr_names(node)?;
                names.retain(|name| !is_own_name(name));
                Ok(names)
            }
            None => Ok(self.archived_xattr_names(node)),
        }
    }

    /// How a node differs from upstream; always clean if nothing can be edited.
    fn state(&self, node: ViewNode) -> Result<PathState, Error> {
        self.overlay().map_or(Ok(PathState::Clean), |overlay| overlay.state(node))
    }

    /// How much of a file, or of all files below a directory, is on this machine. `None` for a tag that was not entered, since nothing is known of it
    /// without a request, and for metadata.
    async fn cached(&self, context: &Context, node: ViewNode) -> Result<Option<CachedBytes>, Error> {
        if let Some(overlay) = self.overlay() {
            let overlay = Arc::clone(overlay);
            return blocking(move || overlay.cached(node).map(Some)).await;
        }
        let (Some(Shown::Tree(artifact)), Some(id)) = (self.shown(), node_id(node)) else { return Ok(None) };
        let (mut cached, artifact) = (CachedBytes::new(&context.artifacts, self.repository()), Arc::clone(artifact));
        blocking(move || {
            cached.add(&artifact, id);
            Ok(Some(cached))
        })
        .await
    }

    fn archived_xattr_names(&self, node: ViewNode) -> Vec<Vec<u8>> {
        let Some(Shown::Tree(artifact)) = self.shown() else { return Vec::new() };
        let Some(id) = node_id(node) else { return Vec::new() };
        let xattrs = artifact.tree.xattrs(id);
        xattrs.into_iter().map(|(name, _)| name).filter(|name| !is_own_name(name)).map(<[u8]>::to_vec).collect()
    }

    fn archived_xattr(&self, node: ViewNode, name: &[u8]) -> Option<Vec<u8>> {
        let Some(Shown::Tree(artifact)) = self.shown() else { return None };
        tree_xattr(artifact, node, name)
    }

    fn reference(&self, context: &Context) -> Option<String> {
        let of = |repository| context.authority.reference(Some(repository));
        match &self.origin {
            // A tag may have been renamed since its view was made.
            Origin::Tag(repository, tag) => match self.key() {
                Key::Tag(repository, tag) => Some(format!("{}:{tag}", of(&repository))),
                _ => Some(format!("{}:{tag}", of(repository))),
            },
            Origin::TagMetadata(repository, tag) => Some(format!("{}:{tag}", of(repository))),
            Origin::Digest(repository, digest)
            | Origin::Platform { repository, digest }
            | Origin::DigestMetadata { repository, digest, .. } => Some(format!("{}@{digest}", of(repository))),
            Origin::Layer { repository, manifest, .. } => Some(format!("{}@{}", of(repository), manifest.digest)),
        }
    }

    /// The digest that the view is bound to, or would be bound to now; `None` for a tag that does not exist upstream yet.
    async fn digest_now(&self, context: &Context) -> Result<Option<Digest>, Error> {
        if self.shown().is_some() {
            return Ok(self.digest());
        }
        let digest = match &self.origin {
            Origin::Tag(repository, tag) | Origin::TagMetadata(repository, tag) => context.artifacts.tag(repository, tag).await?,
            Origin::Digest(_, digest) | Origin::Platform { digest, .. } | Origin::DigestMetadata { digest, .. } => *digest,
            Origin::Layer { manifest, .. } => manifest.digest,
        };
        Ok(Some(digest))
    }

    /// Values that follow from the manifest alone, without reading layers.
    async fn of_manifest(&self, context: &Context, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(digest) = self.digest_now(context).await? else { return Ok(None) };
        let manifest = context.artifacts.manifest(self.repository(), &digest).await?;
        Ok(match name {
            "user.oci.media-type" => Some(manifest.media_type.clone().into_bytes()),
            "user.oci.artifact-type" => manifest.artifact_type().map(|text| text.as_bytes().to_vec()),
            _ => Some(claimed_size(&manifest).to_string().into_bytes()),
        })
    }

    async fn of_artifact(&self, context: &Context, node: ViewNode, name: &str) -> Result<Option<Vec<u8>>, Error> {
        const OF_ARTIFACT: [&str; 3] = ["user.oci.platform", "user.oci.view", "user.oci.warnings"];
        if !OF_ARTIFACT.contains(&name) && !matches!(name, "user.oci.verified" | "user.oci.layer" | "user.oci.title") {
            return Ok(None);
        }
        let Shown::Tree(artifact) = self.enter(context).await? else { return Ok(None) };
        if !OF_ARTIFACT.contains(&name) && self.state(node)? != PathState::Clean {
            // Staged files come from no layer.
            return Ok(None);
        }
        match name {
            "user.oci.platform" => Ok(artifact.platform.as_ref().map(|platform| platform.to_string().into_bytes())),
            "user.oci.view" => Ok(Some(artifact.dialect.name().as_bytes().to_vec())),
            "user.oci.warnings" => {
                let warnings: Vec<&str> = artifact.tree.warnings().collect();
                Ok((!warnings.is_empty()).then(|| warnings.join("\n").into_bytes()))
            }
            "user.oci.title" => Ok(tree_xattr(artifact, node, name.as_bytes())),
            "user.oci.layer" => Ok(layer_of(artifact, node).map(|digest| digest.to_string().into_bytes())),
            _ => self.verified(context, artifact, node).await,
        }
    }

    async fn verified(&self, context: &Context, artifact: &Artifact, node: ViewNode) -> Result<Option<Vec<u8>>, Error> {
        let file = node_id(node).filter(|id| artifact.tree.node(*id).is_some_and(|node| node.kind == Kind::File));
        let verified = match file.and_then(|id| artifact.tree.content(id)) {
            Some(content) if !content.extents.is_empty() => {
                let strict = self.strict(context);
                context.artifacts.stream(self.repository(), artifact, content.blob, strict).await?.verified()
            }
            _ => Verified::Whole,
        };
        let text: &[u8] = match verified {
            // Another layer may say where its files are, and which of them show.
            Verified::Whole if artifact.is_referred() => b"index",
            Verified::Whole => b"whole",
            Verified::Index => b"index",
            Verified::Partial | Verified::Unread => b"partial",
        };
        Ok(Some(text.to_vec()))
    }
}

fn tree_xattr(artifact: &Artifact, node: ViewNode, name: &[u8]) -> Option<Vec<u8>> {
    let xattrs = artifact.tree.xattrs(node_id(node)?);
    xattrs.into_iter().find(|(other, _)| *other == name).map(|(_, value)| value.to_vec())
}

fn layer_of(artifact: &Artifact, node: ViewNode) -> Option<Digest> {
    let content = artifact.tree.content(node_id(node)?)?;
    artifact.source(content.blob).map(|source| source.descriptor.digest)
}

/// Bytes listed by a manifest: config and layers, or the members of an index.
fn claimed_size(manifest: &Manifest) -> u64 {
    match &manifest.body {
        ManifestBody::Image(image) => image.layers.iter().fold(image.config.size, |sum, layer| sum.saturating_add(layer.size)),
        ManifestBody::Index(index) => index.manifests.iter().fold(0, |sum, member| sum.saturating_add(member.size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_attributes_are_recognised_by_their_prefix() {
        assert!(is_own_name(b"user.oci.digest") && is_own_name(b"user.ocifs.state"));
        assert!(!is_own_name(b"user.ocix") && !is_own_name(b"security.capability"));
    }
}
