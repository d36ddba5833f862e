//! OCI layouts on disk: the fixtures, and a small uploader that sends their blobs and manifests to a registry byte for byte. (skopeo refuses
//! artifacts and rewrites what it copies.)

use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// An OCI layout directory.
#[derive(Clone, Debug)]
pub struct Layout(PathBuf);

impl Layout {
    /// The layout in a directory.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// The layout of a fixture.
    pub fn fixture(name: &str) -> Self {
        Self(fixtures().join(name).join("layout"))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The entries of `index.json`.
    pub fn entries(&self) -> Vec<Value> {
        let index: Value = serde_json::from_slice(&std::fs::read(self.0.join("index.json")).unwrap()).unwrap();
        index["manifests"].as_array().unwrap().clone()
    }

    /// The names of its tagged entries.
    pub fn tags(&self) -> Vec<String> {
        self.entries().iter().filter_map(tag).map(str::to_owned).collect()
    }

    /// The bytes of a blob.
    pub fn blob(&self, digest: &str) -> Vec<u8> {
        std::fs::read(self.0.join("blobs").join(digest.replace(':', "/"))).unwrap_or_else(|error| panic!("{digest}: {error}"))
    }

    /// The manifest of a tag.
    pub fn manifest(&self, name: &str) -> Value {
        let entry = self.entries().into_iter().find(|entry| tag(entry) == Some(name)).unwrap_or_else(|| panic!("no tag {name}"));
        serde_json::from_slice(&self.blob(digest(&entry))).unwrap()
    }

    /// Sends every entry to `url/v2/repository`: tagged ones by tag, others (referrers) by digest.
    pub fn push(&self, url: &str, repository: &str) {
        super::runtime().block_on(async {
            let mut target = UploadTarget {
                base: format!("{url}/v2/{repository}"),
                client: reqwest::Client::builder().no_proxy().build().unwrap(),
                layout: self,
                sent: HashSet::new(),
            };
            for entry in self.entries() {
                let name = tag(&entry).unwrap_or_else(|| digest(&entry)).to_owned();
                target.manifest(&entry, &name).await;
            }
        });
    }
}

/// The directory of all fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn tag(entry: &Value) -> Option<&str> {
    entry["annotations"]["org.opencontainers.image.ref.name"].as_str()
}

fn digest(descriptor: &Value) -> &str {
    descriptor["digest"].as_str().unwrap()
}

struct UploadTarget<'layout> {
    base: String,
    client: reqwest::Client,
    layout: &'layout Layout,
    /// Blobs that the registry has.
    sent: HashSet<String>,
}

impl UploadTarget<'_> {
    /// Sends what a manifest refers to, then the manifest.
    async fn manifest(&mut self, descriptor: &Value, name: &str) {
        let bytes = self.layout.blob(digest(descriptor));
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        for child in manifest["manifests"].as_array().into_iter().flatten() {
            Box::pin(self.manifest(child, digest(child))).await;
        }
        let layers = manifest["layers"].as_array().into_iter().flatten();
        for blob in layers.chain(manifest.get("config").filter(|config| config.is_object())) {
            self.blob(digest(blob)).await;
        }
        let media_type = descriptor["mediaType"].as_str().unwrap();
        let sent = self.client.put(format!("{}/manifests/{name}", self.base)).header("content-type", media_type).body(bytes);
        accepted(sent.send().await.unwrap(), &format!("manifest {name}")).await;
    }

    async fn blob(&mut self, digest: &str) {
        if !self.sent.insert(digest.to_owned()) {
            return;
        }
        let begun = self.client.post(format!("{}/blobs/uploads/", self.base)).send().await.unwrap();
        let begun = accepted(begun, "upload").await;
        let place = begun.headers()["location"].to_str().unwrap();
        let mut place = reqwest::Url::parse(&self.base).unwrap().join(place).unwrap();
        place.query_pairs_mut().append_pair("digest", digest);
        accepted(self.client.put(place).body(self.layout.blob(digest)).send().await.unwrap(), digest).await;
    }
}

async fn accepted(answer: reqwest::Response, what: &str) -> reqwest::Response {
    let status = answer.status();
    if !status.is_success() {
        panic!("the registry refuses {what}: {status} {}", answer.text().await.unwrap_or_default());
    }
    answer
}
