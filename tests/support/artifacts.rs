//! Small hand-made artifacts: tars, their compressed forms, manifests and the layout that holds them. Manifests are plain JSON values, so a test can
//! also write what no tool would.

use super::layouts::Layout;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer; `+gzip` or `+zstd` may follow.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layout under construction; the directory lives as long as the value.
pub struct Draft {
    folder: TempDir,
    entries: Vec<Value>,
}

impl Draft {
    /// An empty layout.
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("ocifs-layout-").unwrap();
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        std::fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let draft = Self { folder, entries: Vec::new() };
        draft.write_index();
        draft
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The finished layout, for pushing.
    pub fn layout(&self) -> Layout {
        Layout::at(self.path())
    }

    /// Stores bytes and returns their descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        std::fs::write(self.path().join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Stores a manifest and tags it.
    pub fn tag(&mut self, name: &str, manifest: &Value) {
        let mut descriptor = self.blob(manifest["mediaType"].as_str().unwrap_or(MANIFEST), manifest.to_string().as_bytes());
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        self.entries.push(descriptor);
        self.write_index();
    }

    /// Stores and tags an image of these layers.
    pub fn image(&mut self, name: &str, layers: &[Value]) {
        let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } });
        let config = self.blob(CONFIG, config.to_string().as_bytes());
        self.tag(name, &json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }));
    }

    /// Stores and tags files as ORAS does: one raw layer per file, titled with its path.
    pub fn files(&mut self, name: &str, files: &[(&str, &[u8])]) {
        let empty = self.blob("application/vnd.oci.empty.v1+json", b"{}");
        let titled = |(title, bytes): &(&str, &[u8])| {
            let mut layer = self.blob("application/octet-stream", bytes);
            layer["annotations"] = json!({ "org.opencontainers.image.title": title });
            layer
        };
        let layers: Vec<Value> = files.iter().map(titled).collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.example.files", "config": empty, "layers": layers });
        self.tag(name, &manifest);
    }

    fn write_index(&self) {
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": self.entries });
        std::fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }
}

/// A tar of regular files, mode 0644, with one fixed time.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        archive.append_data(&mut header, path, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

/// One gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One zstd frame.
pub fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// The digest of bytes, as descriptors spell it.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Incompressible bytes, the same for each seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64 ^ (seed << 32);
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(step).collect()
}
