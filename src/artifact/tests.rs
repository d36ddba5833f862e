//! Every fixture against the tree that the tool which wrote it unpacks itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt;

use super::compose::compose;
use super::dialect::{self, Plan, Shape};
use super::listing::differences;
use super::*;
use crate::layer::{self, LayerIndex, Limits, Scan, SpanSink};
use crate::oci::Version;
use crate::registry::Layout;
use crate::seal::{EnvelopeHeader, EnvelopeKey, EnvelopeReader, Passphrase};

struct Nowhere;

impl SpanSink for Nowhere {
    fn member(&mut self, _: std::ops::Range<u64>) -> Result<(), layer::Error> {
        Ok(())
    }
    fn span(&mut self, _: u32, _: std::ops::Range<u64>, _: &[u8]) -> Result<(), layer::Error> {
        Ok(())
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

async fn bytes_of(layout: &Layout, repository: &Repository, descriptor: &Descriptor) -> Vec<u8> {
    let pieces: Vec<bytes::Bytes> = layout.blob(repository, descriptor, 0..descriptor.size).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

fn unsealed(mut blob: Vec<u8>) -> Vec<u8> {
    let header = EnvelopeHeader::parse(&blob).unwrap();
    let key = EnvelopeKey::derive(&Passphrase::new(b"correct horse battery staple".to_vec()), &header.salt).unwrap();
    let mut plain = blob.split_off(crate::seal::ENVELOPE_HEADER);
    plain.truncate(plain.len() - crate::seal::ENVELOPE_TAG);
    EnvelopeReader::new(&key, &header).decrypt(0, &mut plain).unwrap();
    plain
}

fn index(blob: &[u8], digest: Digest) -> LayerIndex {
    let mut scan = Scan::new(Form::Archive, Limits::default());
    scan.push(blob, &mut Nowhere).unwrap();
    scan.finish(digest, &mut Nowhere).unwrap()
}

/// The tree of a manifest by the pure parts alone.
async fn tree_of(layout: &Layout, repository: &Repository, mut manifest: Manifest) -> (Tree, Plan) {
    let platform: Platform = "linux/amd64".parse().unwrap();
    while let Some(index) = manifest.index() {
        let mut inner = dialect::candidates(index, &platform).into_iter().map(|candidate| candidate.descriptor.digest);
        let Some(digest) = inner.next() else { break };
        manifest = layout.manifest(repository, &Version::Digest(digest)).await.unwrap();
    }
    let plan = match manifest.image() {
        Some(image) => {
            let config = bytes_of(layout, repository, &image.config).await;
            dialect::plan(&manifest, Some(&config), ViewMode::Merged, b"").unwrap()
        }
        None => Plan { dialect: Dialect::Members, steps: Vec::new() },
    };
    let mut indexes = Vec::new();
    for step in &plan.steps {
        indexes.push(match step.shape {
            Shape::File(_) => None,
            Shape::Archive { .. } => {
                let blob = bytes_of(layout, repository, &step.descriptor).await;
                let blob = if step.sealing == Sealing::OciSync { unsealed(blob) } else { blob };
                Some(index(&blob, step.descriptor.digest))
            }
        });
    }
    let composed = compose(&plan.steps, &indexes, &[]).unwrap();
    (Tree::open(Arc::new(composed.bytes)).unwrap(), plan)
}

async fn shown(fixture: &str, tag: &str) -> (Tree, Plan) {
    let layout = Layout::open(&fixtures().join(fixture).join("layout")).unwrap();
    let repository = Layout::repository().unwrap();
    let version = Version::Tag(Tag::parse(tag).unwrap());
    let manifest = layout.manifest(&repository, &version).await.unwrap();
    tree_of(&layout, &repository, manifest).await
}

#[tokio::test]
async fn every_fixture_is_the_tree_that_its_own_tool_unpacks() {
    let mut failures = Vec::new();
    let mut compared = 0;
    for fixture in std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.join("expected").is_dir()) {
        let name = fixture.file_name().unwrap().to_str().unwrap().to_owned();
        for list in std::fs::read_dir(fixture.join("expected")).unwrap().map(|entry| entry.unwrap().path()) {
            let file = list.file_name().unwrap().to_str().unwrap();
            // The plain list of eStargz is what an unpacker that does not know it would show.
            let Some(tag) = file.strip_suffix(".tsv").filter(|tag| !tag.ends_with(".plain")) else { continue };
            let (tree, _) = shown(&name, tag).await;
            let found = differences(&std::fs::read_to_string(&list).unwrap(), &tree);
            if !found.is_empty() {
                failures.push(format!("{name}:{tag}\n{}", found.join("\n")));
            }
            compared += 1;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(compared > 50, "only {compared} lists were found");
}
