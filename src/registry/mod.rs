//! Sources and destinations of artifacts: the traits `Pull` and `Push`, an HTTP registry and its mirrors, an OCI layout, and an offline
//! stand-in. Also single files on web servers and in S3.

mod credentials;
mod http;
mod layout;
mod mirrors;
mod names;
mod objects;
mod offline;
mod placing;
mod push;

use std::ops::Range;
use std::pin::Pin;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, InvalidManifest, Manifest, Repository, Version};

pub use credentials::{Credential, CredentialScope, CredentialStore, Credentials, Found, Kept, Secret};
pub use http::{ClientCertificate, HttpConfig, HttpRegistry, Timing, Tls, UploadSizes, WebFiles};
pub use layout::{Collected, Layout, layout_directory};
pub use mirrors::{MirrorFiles, Mirrored, Probed, Reaching, Rules, probe};
pub use names::{Names, all_names};
pub use objects::Objects;
pub use offline::Offline;
pub use placing::{BlobPlacer, Placed};
pub use push::{FileSource, Push, TagDeletion, UploadSource, Uploaded};

/// Largest manifest that is read, in bytes; registries have the same limit.
pub const MANIFEST_LIMIT: u64 = 4 << 20;

/// Bytes of a blob as they arrive: exactly the requested range, or an error. Not checked against the digest (only the reader of the whole
/// blob can do that).
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// The error for bytes that are not a manifest; `what` names it.
fn of_manifest(what: &str, error: InvalidManifest) -> Error {
    let kind = match error {
        InvalidManifest::Unsupported(_) => ErrorKind::Unsupported,
        _ => ErrorKind::Integrity,
    };
    Error::new(kind, format!("{what}: {error}")).caused_by(error)
}

/// How far the transport guarantees that bytes come from the registry the user named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// TLS or loopback to the authoritative host, and to all its redirect targets.
    Transport,
    /// Plain HTTP to another host (also by redirect), a mirror, or a layout: only a digest proves anything.
    Digest,
}

/// The answer to HEAD of a manifest. The digest is a claim until the body is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The digest the version has now.
    pub digest: Digest,
    /// Media type, if the registry reports it.
    pub media_type: Option<String>,
    /// Size in bytes, if the registry reports it.
    pub size: Option<u64>,
}

/// One page of names and the cursor of the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Names as the registry sent them; the caller checks their grammar.
    pub names: Vec<String>,
    /// Opaque; passed back as `after`. `None` at the end.
    pub next: Option<String>,
}

/// Reading from one registry or layout. Every method may be retried; none blocks the thread.
#[async_trait]
pub trait Pull: Send + Sync {
    /// A stable name of the source, e.g. `https://reg.io` or `oci:/srv/layout`; the key of everything cached from it.
    fn origin(&self) -> &str;

    /// The guarantee of the transport. Drops to [`Trust::Digest`] before a blob with a lesser guarantee is returned.
    fn trust(&self) -> Trust;

    /// Whether its blobs are files on this machine: readers verify them in place, and do not cache a copy of a raw one.
    fn is_local(&self) -> bool {
        false
    }

    /// Pings the source (`/v2/`): is it reachable, and are the credentials stored for this repository or prefix right?
    async fn ping(&self, about: Option<&Repository>) -> Result<(), Error>;

    /// The current digest of a version (HEAD). A requested digest is returned only if it exists.
    async fn resolve(&self, repository: &Repository, version: &Version) -> Result<Resolved, Error>;

    /// The manifest, at most 4 MiB. Its body is hashed, and checked if a digest was requested.
    async fn manifest(&self, repository: &Repository, version: &Version) -> Result<Manifest, Error>;

    /// A range of a blob (`0..descriptor.size` for all of it). Interrupted transfers are resumed internally.
    async fn blob(&self, repository: &Repository, descriptor: &Descriptor, range: Range<u64>) -> Result<BlobStream, Error>;

    /// The size of a blob in bytes; NotFound if it does not exist.
    async fn blob_size(&self, _repository: &Repository, digest: &Digest) -> Result<u64, Error> {
        Err(Error::new(ErrorKind::Unsupported, format!("the size of blob {digest} is not known in {}", self.origin())))
    }

    /// One page of the tags of a repository.
    async fn tags(&self, repository: &Repository, after: Option<&str>) -> Result<Page, Error>;

    /// One page of the repositories (`_catalog`); [`ErrorKind::Unsupported`] if there is no catalog.
    async fn repositories(&self, after: Option<&str>) -> Result<Page, Error>;

    /// The manifests that refer to `subject`, from the API or the tag schema.
    async fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error>;

    /// When an operation gave up without an answer, if none has come since.
    fn away_since(&self) -> Option<Instant> {
        None
    }

    /// Why the last attempt got no answer, if none has come since; an operation that is being retried has not failed yet.
    fn unanswered(&self) -> Option<Error> {
        None
    }

    /// How long the source still asks for no requests, if it did (429).
    fn throttled(&self) -> Option<Duration> {
        None
    }

    /// Whether ranges are answered with all of a blob, as far as is known: what comes before a range is transferred too, and dropped.
    fn ignores_ranges(&self) -> bool {
        false
    }

    /// Reports that the bytes of a blob did not match its digest. True if another place is asked for it from now on, so that one more try
    /// is worthwhile.
    fn report_wrong_bytes(&self, _repository: &Repository, _digest: &Digest) -> bool {
        false
    }

    /// Reports that this process changed a tag of a repository: from now on only the registry itself resolves its tags.
    fn report_written(&self, _repository: &Repository) {}

    /// Names in a repository that are full references rather than tags (a layout by `podman save`): name and manifest.
    async fn odd_names(&self, _repository: &Repository) -> Result<Vec<(String, Descriptor)>, Error> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::memory::{Fault, Memory, PlainLayer, RequestKind};
