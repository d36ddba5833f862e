//! The independent registry client: fetches a manifest and all its blobs, and hashes them itself.

use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::manifest::OciManifest;
use oci_client::secrets::RegistryAuth;
use sha2::{Digest, Sha256};

/// The result of a read.
#[derive(Debug)]
pub struct Read {
    /// Digest of the manifest.
    pub digest: String,
    /// Number of blobs, config included.
    pub blobs: usize,
}

/// Reads a tag completely.
pub fn read(host: &str, repository: &str, tag: &str) -> Read {
    crate::support::runtime().block_on(async {
        let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
        let reference = format!("{host}/{repository}:{tag}").parse().unwrap();
        let (manifest, digest) = client.pull_manifest(&reference, &RegistryAuth::Anonymous).await.unwrap();
        let OciManifest::Image(manifest) = manifest else { panic!("an image manifest was pushed") };
        let blobs: Vec<_> = manifest.layers.iter().chain([&manifest.config]).collect();
        for blob in &blobs {
            let mut bytes = Vec::new();
            client.pull_blob(&reference, *blob, &mut bytes).await.unwrap();
            assert_eq!(bytes.len() as i64, blob.size, "{}", blob.digest);
            let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(format!("sha256:{hex}"), blob.digest);
        }
        Read { digest, blobs: blobs.len() }
    })
}
