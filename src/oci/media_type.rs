//! Media types that ocifs knows by name. A media type alone never decides how an artifact is read.

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The content `{}`.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Docker schema 2 manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker schema 1: recognised but not supported.
pub const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// The signed form.
pub const DOCKER_SCHEMA_1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// The artifact manifest withdrawn by OCI: recognised but not supported.
pub const OCI_ARTIFACT_MANIFEST: &str = "application/vnd.oci.artifact.manifest.v1+json";
/// Bytes of unknown type.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// The `Accept` header of manifest requests.
pub const MANIFESTS: [&str; 4] = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

/// Whether this is the media type of an image configuration.
pub fn is_image_config(media_type: &str) -> bool {
    matches!(media_type, OCI_CONFIG | DOCKER_CONFIG)
}

/// Whether this is the media type of a root file system layer, in any compression.
pub fn is_rootfs_layer(media_type: &str) -> bool {
    let kind = media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.")
        .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1."))
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.diff."))
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff."));
    matches!(kind, Some("tar" | "tar+gzip" | "tar+zstd" | "tar.gzip" | "tar.zstd"))
}

/// Whether a layer may be stored elsewhere, so that a registry need not have it: a non-distributable or foreign layer.
pub fn is_elsewhere(media_type: &str) -> bool {
    media_type.contains("nondistributable") || media_type.contains("foreign")
}

/// Whether the media type names a tar, compressed or not; single archives are recognised by it.
pub fn is_tar_like(media_type: &str) -> bool {
    let plain = media_type.split(';').next().unwrap_or_default().trim_end();
    is_rootfs_layer(plain)
        || [
            ".tar",
            "+tar",
            ".tar+gzip",
            ".tar.gzip",
            "+tar+gzip",
            ".tar+zstd",
            "+tar+zstd",
            ".tar.zstd",
            "/x-tar",
            "/gzip",
            "/x-gzip",
            "/zstd",
        ]
        .iter()
        .any(|ending| plain.ends_with(ending))
}
