//! Copies between in-memory registries: what arrives, what is requested, what remains after a fault.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;
use crate::error::{Error, ErrorKind};
use crate::oci::{Digest, Platform, Tag, Version, media_type};
use crate::registry::{Fault, Memory, PlainLayer, RequestKind, Trust};

const FROM: &str = "from/app";
const TO: &str = "to/app";

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

fn tag(name: &str) -> Tag {
    Tag::parse(name).unwrap()
}

struct Pair {
    from: Arc<Memory>,
    to: Arc<Memory>,
}

impl Pair {
    fn new() -> Self {
        Self {
            from: Arc::new(Memory::with_origin("https://from.example", Trust::Transport)),
            to: Arc::new(Memory::with_origin("https://to.example", Trust::Transport)),
        }
    }

    fn copier(&self, change: impl FnOnce(&mut Options)) -> Arc<Copier> {
        let mut options = Options { concurrency: NonZeroUsize::MIN.saturating_add(3), referrers: false, platform: None };
        change(&mut options);
        let source = Source { pull: Arc::<Memory>::clone(&self.from), repository: repository(FROM) };
        let destination = Destination { push: Arc::<Memory>::clone(&self.to), repository: repository(TO) };
        Copier::new(source, destination, options)
    }

    async fn copy(&self, version: &str) -> Result<Copied, Error> {
        self.copier(|_| {}).copy(&Version::Tag(tag(version)), &[tag("v1")]).await
    }

    /// An artifact of two layers.
    fn artifact(&self, name: &str) -> Digest {
        let one = format!("layer of {name}");
        let layers: [PlainLayer<'_>; 2] = [("a/b", b"shared", &[]), ("a/b", one.as_bytes(), &[])];
        self.from.add_artifact(FROM, name, (media_type::OCI_CONFIG, b"{}"), &layers, &[])
    }

    fn index(&self, name: &str, members: &[(Digest, &str)], subject: Option<Digest>) -> Digest {
        let held = self.from.held(FROM);
        let entry = |digest: &Digest| json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest.to_string(), "size": held.get(digest).unwrap().len()});
        let members: Vec<_> = members
            .iter()
            .map(|(digest, architecture)| {
                let mut entry = entry(digest);
                entry["platform"] = json!({"os": "linux", "architecture": architecture});
                entry
            })
            .collect();
        let mut index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": members});
        if let Some(subject) = subject {
            index["subject"] = entry(&subject);
        }
        let digest = self.from.add_manifest(FROM, index.to_string());
        self.from.tag(FROM, name, digest);
        digest
    }

    /// Whether the destination has everything the source has.
    fn is_whole(&self) -> bool {
        self.from.held(FROM) == self.to.held(TO)
    }
}

#[tokio::test]
async fn an_index_arrives_with_its_members_and_blobs_and_a_second_copy_sends_nothing() {
    let pair = Pair::new();
    let members = [(pair.artifact("amd"), "amd64"), (pair.artifact("arm"), "arm64")];
    let index = pair.index("multi", &members, None);
    let copied = pair.copy("multi").await.unwrap();
    assert_eq!(copied.digest, index);
    assert_eq!(pair.to.tagged(TO).get("v1"), Some(&index));
    assert!(pair.is_whole());
    pair.to.forget_requests();
    pair.copy("multi").await.unwrap();
    let written = [RequestKind::PushBlob, RequestKind::PushManifest, RequestKind::HasBlob].map(|kind| pair.to.count(kind));
    assert_eq!(written, [0, 0, 0]);
}

#[tokio::test]
async fn shared_content_of_versions_is_sent_once() {
    let pair = Pair::new();
    pair.artifact("one");
    pair.artifact("two");
    let copier = pair.copier(|_| {});
    for name in ["one", "two"] {
        copier.copy(&Version::Tag(tag(name)), &[tag(name)]).await.unwrap();
    }
    // One shared layer, one config, one layer each.
    assert_eq!(pair.to.count(RequestKind::PushBlob), 4);
    let tally = copier.tally();
    assert_eq!(tally.sent().1, 4);
    assert_eq!(tally.manifests.load(Ordering::Relaxed), 2);
    assert!(pair.is_whole());
}

#[tokio::test]
async fn children_arrive_before_their_parents_and_the_tag_last() {
    let pair = Pair::new();
    let members = [(pair.artifact("amd"), "amd64")];
    pair.index("multi", &members, None);
    pair.copy("multi").await.unwrap();
    let writes: Vec<RequestKind> = pair.to.requests().into_iter().map(|request| request.kind).collect();
    let writes: Vec<RequestKind> = writes
        .into_iter()
        .filter(|kind| matches!(kind, RequestKind::PushBlob | RequestKind::PushManifest | RequestKind::PushTag))
        .collect();
    use RequestKind::{PushBlob, PushManifest, PushTag};
    assert_eq!(writes, [PushBlob, PushBlob, PushBlob, PushManifest, PushManifest, PushTag]);
}

#[tokio::test]
async fn an_interrupted_copy_leaves_no_tag_and_the_next_sends_the_rest() {
    let pair = Pair::new();
    pair.artifact("one");
    pair.to.plan(RequestKind::PushBlob, 2, 1, Fault::Error(ErrorKind::Unreachable));
    assert_eq!(pair.copy("one").await.unwrap_err().kind, ErrorKind::Unreachable);
    assert!(pair.to.tagged(TO).is_empty());
    pair.to.forget_requests();
    pair.copy("one").await.unwrap();
    assert_eq!(pair.to.count(RequestKind::PushBlob), 1);
    assert!(pair.is_whole());
}

#[tokio::test]
async fn wrong_bytes_are_blamed_on_the_source_and_never_tagged() {
    let pair = Pair::new();
    pair.artifact("one");
    pair.from.plan(RequestKind::Blob, 0, 1, Fault::Flipped(0));
    let error = pair.copy("one").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Integrity);
    assert!(error.message.contains("https://from.example"), "{error}");
    assert!(pair.to.tagged(TO).is_empty());
    pair.copy("one").await.unwrap();
    assert!(pair.is_whole());
}

#[tokio::test]
async fn a_failing_source_is_named_rather_than_the_destination() {
    let pair = Pair::new();
    pair.artifact("one");
    pair.from.plan(RequestKind::Blob, 0, 9, Fault::Error(ErrorKind::TimedOut));
    let error = pair.copy("one").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
}

#[tokio::test]
async fn referrers_of_members_and_of_referrers_come_along_with_the_signature_tags() {
    let pair = Pair::new();
    let member = pair.artifact("amd");
    let root = pair.index("multi", &[(member, "amd64")], None);
    let of_member = pair.index("of-member", &[], Some(member));
    pair.index("of-referrer", &[], Some(of_member));
    let signature = pair.artifact(&format!("{}.sig", root.path_name()));
    let copier = pair.copier(|options| options.referrers = true);
    copier.copy(&Version::Tag(tag("multi")), &[tag("v1")]).await.unwrap();
    assert!(pair.is_whole());
    assert_eq!(pair.to.tagged(TO).get(&format!("{}.sig", root.path_name())), Some(&signature));
}

#[tokio::test]
async fn without_referrers_nothing_but_the_artifact_comes() {
    let pair = Pair::new();
    let one = pair.artifact("one");
    pair.index("referrer", &[], Some(one));
    pair.copy("one").await.unwrap();
    assert_eq!(pair.to.held(TO).len(), pair.from.held(FROM).len() - 1);
    assert_eq!(pair.from.count(RequestKind::Referrers), 0);
}

#[tokio::test]
async fn later_referrers_are_copied_even_if_the_artifact_exists() {
    let pair = Pair::new();
    let member = pair.artifact("amd");
    pair.index("multi", &[(member, "amd64")], None);
    pair.copy("multi").await.unwrap();
    pair.index("referrer", &[], Some(member));
    pair.copier(|options| options.referrers = true).copy(&Version::Tag(tag("multi")), &[tag("v1")]).await.unwrap();
    assert!(pair.is_whole());
}

#[tokio::test]
async fn an_index_that_contains_its_own_subject_terminates() {
    let pair = Pair::new();
    let member = pair.artifact("amd");
    pair.index("both", &[(member, "amd64")], Some(member));
    pair.copier(|options| options.referrers = true).copy(&Version::Tag(tag("amd")), &[tag("v1")]).await.unwrap();
    assert!(pair.is_whole());
}

#[tokio::test]
async fn indexes_nest_no_deeper_than_the_limit() {
    let pair = Pair::new();
    let mut inner = pair.artifact("one");
    for _ in 0..40 {
        inner = pair.index("deep", &[(inner, "amd64")], None);
    }
    assert_eq!(pair.copy("deep").await.unwrap_err().kind, ErrorKind::Invalid);
    assert!(pair.to.tagged(TO).is_empty());
}

#[tokio::test]
async fn a_platform_selects_its_member_or_names_the_available_ones() {
    let pair = Pair::new();
    let arm = pair.artifact("arm");
    pair.index("multi", &[(pair.artifact("amd"), "amd64"), (arm, "arm64")], None);
    let copier = pair.copier(|options| options.platform = Some("linux/arm64".parse::<Platform>().unwrap()));
    assert_eq!(copier.copy(&Version::Tag(tag("multi")), &[tag("v1")]).await.unwrap().digest, arm);
    let copier = pair.copier(|options| options.platform = Some("linux/s390x".parse::<Platform>().unwrap()));
    let error = copier.copy(&Version::Tag(tag("multi")), &[tag("v2")]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains("linux/amd64, linux/arm64"), "{error}");
}

#[tokio::test]
async fn a_repository_of_the_same_registry_is_mounted_from() {
    let registry = Arc::new(Memory::new());
    let pair = Pair { from: Arc::clone(&registry), to: registry };
    pair.artifact("one");
    pair.copy("one").await.unwrap();
    assert_eq!(pair.to.count(RequestKind::PushBlob), 0);
    assert_eq!(pair.to.count(RequestKind::MountBlob), 3);
    assert_eq!(pair.from.count(RequestKind::Blob), 0);
    assert!(pair.is_whole());
}
