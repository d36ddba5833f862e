//! Makes a small OCI layout to try ocifs with: `cargo run --example make_layout -- DIRECTORY`.
//!
//! `hello` is an image of two layers (the second hides a file of the first), `notes` are plain files as ORAS
//! pushes them. Needs no registry and no network, and writes into the named directory only.

use ocifs::oci::Digest;
use serde_json::{Value, json};
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn main() -> Result<(), Box<dyn Error>> {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err("usage: make_layout DIRECTORY".into());
    };
    std::fs::create_dir_all(directory.join("blobs/sha256"))?;
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let entries = [image(&directory)?, notes(&directory)?];
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries });
    std::fs::write(directory.join("index.json"), index.to_string())?;
    println!("wrote {}", directory.display());
    Ok(())
}

fn image(directory: &Path) -> Result<Value, Box<dyn Error>> {
    let layers = [
        tar(&[
            ("etc/motd", "Welcome to a registry.\n", 0o644),
            ("bin/hello", "#!/bin/sh\necho hello from a layer\n", 0o755),
            ("etc/old", "hidden\n", 0o644),
        ])?,
        tar(&[("etc/.wh.old", "", 0o644), ("srv/data.csv", "city,people\nOslo,717710\nTurin,841600\n", 0o644)])?,
    ];
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = store(directory, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let mut stored = Vec::new();
    for layer in &layers {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(layer)?;
        stored.push(store(directory, "application/vnd.oci.image.layer.v1.tar+gzip", &encoder.finish()?)?);
    }
    manifest(directory, "hello", json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": stored }))
}

fn notes(directory: &Path) -> Result<Value, Box<dyn Error>> {
    let mut layers = Vec::new();
    for (title, text) in [("todo.md", "- mount a registry\n- read this file\n"), ("ideas/first.txt", "Everything is a file.\n")] {
        let mut layer = store(directory, "text/plain", text.as_bytes())?;
        layer["annotations"] = json!({ "org.opencontainers.image.title": title });
        layers.push(layer);
    }
    let config = store(directory, "application/vnd.oci.empty.v1+json", b"{}")?;
    let artifact_type = "application/vnd.example.notes";
    manifest(
        directory,
        "notes",
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": artifact_type, "config": config, "layers": layers }),
    )
}

/// A tar of files: (path, text, mode).
fn tar(files: &[(&str, &str, u32)]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(1_700_000_000);
        archive.append_data(&mut header, path, text.as_bytes())?;
    }
    Ok(archive.into_inner()?)
}

/// Stores a blob and answers its descriptor.
fn store(directory: &Path, media_type: &str, bytes: &[u8]) -> Result<Value, Box<dyn Error>> {
    let digest = Digest::of(bytes);
    std::fs::write(directory.join("blobs/sha256").join(digest.hex()), bytes)?;
    Ok(json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() }))
}

/// Stores a manifest and answers the entry that names it.
fn manifest(directory: &Path, tag: &str, manifest: Value) -> Result<Value, Box<dyn Error>> {
    let mut entry = store(directory, MANIFEST, manifest.to_string().as_bytes())?;
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    Ok(entry)
}
