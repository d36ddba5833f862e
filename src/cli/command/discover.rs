//! `ocifs discover`: the referrers of an artifact, recursively.

use std::collections::{BTreeMap, HashSet};

use clap::{Args, ValueEnum};
use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::cli::exit::Failure;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::{Format, RegistryFlags};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{opened, reference};
use crate::cli::terminal::{escape, output, units};
use crate::oci::{Descriptor, Digest, Platform, Source, Version};
use crate::transfer;

/// Levels followed unless the user gives a number.
const DEPTH: usize = 16;
/// Most referrers in total.
const LIMIT: usize = 10_000;

/// `--format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// A tree, by artifact type
    #[default]
    #[value(alias = "text")]
    Tree,
    /// One line per referrer
    Table,
    /// JSON; the keys are those of descriptors
    Json,
    /// The same as YAML
    Yaml,
}

/// Show the referrers of an artifact: signatures, SBOMs, attestations
#[derive(Args, Clone, Debug)]
pub struct Discover {
    /// repository:tag, repository@digest, oci:DIRECTORY:tag or oci-archive:FILE:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// Only referrers of this type, at every level
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,

    /// Levels to follow; 1 shows direct referrers only [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    depth: Option<u8>,

    /// The member of a multi-platform image, os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Shape,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

/// A manifest and its referrers; the keys are those of descriptors.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    reference: String,
    media_type: String,
    digest: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    referrers: Vec<Node>,
}

impl Discover {
    /// Runs the command.
    ///
    /// # Errors
    /// The artifact does not exist, or its referrers cannot be listed.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let (source, pull) = opened::to_read(&self.reference, &invocation)?;
        let root = until_interrupted(async {
            let (repository, version) = reference::named(&source, pull.as_ref()).await?;
            let place = transfer::Source { pull, repository };
            let manifest = place.manifest(&version, self.platform.as_ref()).await?;
            let mut search = Search {
                place: &place,
                source: &source,
                artifact_type: self.artifact_type.as_deref(),
                remaining: LIMIT,
                above: HashSet::new(),
            };
            search.node(manifest.descriptor(), self.depth.map_or(DEPTH, usize::from)).await
        })?;
        match self.format {
            Shape::Tree => output::line(&tree(&root)),
            Shape::Table => output::show(Format::Text, &root, table),
            Shape::Json => output::data(Format::Json, &root),
            Shape::Yaml => output::data(Format::Yaml, &root),
        }
    }
}

/// A walk over the referrers of an artifact.
struct Search<'a> {
    place: &'a transfer::Source,
    source: &'a Source,
    artifact_type: Option<&'a str>,
    /// How many more referrers may be added.
    remaining: usize,
    /// The ancestors of the current manifest: a registry may claim a cycle.
    above: HashSet<Digest>,
}

impl Search<'_> {
    fn node(&mut self, descriptor: Descriptor, depth: usize) -> BoxFuture<'_, Result<Node, Failure>> {
        Box::pin(async move {
            let mut node = Node {
                reference: reference::with_version(self.source, &Version::Digest(descriptor.digest)),
                media_type: descriptor.media_type,
                digest: descriptor.digest.to_string(),
                size: descriptor.size,
                artifact_type: descriptor.artifact_type,
                annotations: descriptor.annotations,
                referrers: Vec::new(),
            };
            if depth == 0 || !self.above.insert(descriptor.digest) {
                return Ok(node);
            }
            for referrer in self.place.pull.referrers(&self.place.repository, &descriptor.digest).await? {
                if self.artifact_type.is_some_and(|wanted| referrer.artifact_type.as_deref() != Some(wanted)) {
                    continue;
                }
                self.remaining = self.remaining.checked_sub(1).ok_or_else(|| Failure::other(format!("more than {LIMIT} referrers")))?;
                node.referrers.push(self.node(referrer, depth - 1).await?);
            }
            self.above.remove(&descriptor.digest);
            Ok(node)
        })
    }
}

const UNTYPED: &str = "<no type>";

/// The tree as text: artifact types, the digests below each, and their referrers below those.
fn tree(root: &Node) -> String {
    let mut lines = vec![escape::terminal(&root.reference).into_owned()];
    branch(root, "", &mut lines);
    lines.join("\n")
}

fn branch(node: &Node, indent: &str, lines: &mut Vec<String>) {
    let types: Vec<&str> = node.referrers.iter().map(|referrer| referrer.artifact_type.as_deref().unwrap_or(UNTYPED)).collect();
    let mut seen = HashSet::new();
    let groups: Vec<&str> = types.iter().copied().filter(|kind| seen.insert(*kind)).collect();
    for (at, kind) in groups.iter().enumerate() {
        let (corner, below) = limbs(indent, at + 1 == groups.len());
        lines.push(format!("{corner}{}", escape::terminal(kind)));
        let members: Vec<&Node> = node.referrers.iter().zip(&types).filter(|(_, found)| found == &kind).map(|(member, _)| member).collect();
        for (at, member) in members.iter().enumerate() {
            let (corner, below) = limbs(&below, at + 1 == members.len());
            lines.push(format!("{corner}{}", member.digest));
            branch(member, &below, lines);
        }
    }
}

/// The prefixes of a line and of the lines below it.
fn limbs(indent: &str, is_last: bool) -> (String, String) {
    match is_last {
        true => (format!("{indent}└── "), format!("{indent}    ")),
        false => (format!("{indent}├── "), format!("{indent}│   ")),
    }
}

fn table(root: &Node) -> String {
    let (mut rows, mut open) = (Vec::new(), vec![root]);
    while let Some(node) = open.pop() {
        rows.extend(node.referrers.iter().map(|referrer| {
            let kind = escape::terminal(referrer.artifact_type.as_deref().unwrap_or(UNTYPED)).into_owned();
            vec![kind, referrer.digest.clone(), units::show_size(referrer.size), node.digest.clone()]
        }));
        open.extend(node.referrers.iter().rev());
    }
    if rows.is_empty() { String::new() } else { output::table(&["artifact type", "digest", "size", "refers to"], rows) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::oci::{Repository, media_type};
    use crate::registry::Memory;

    fn put(memory: &Memory, name: &str, kind: &str, subject: Option<Digest>) -> Digest {
        let mut index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "artifactType": kind, "manifests": [],
            "annotations": {"name": name}});
        if let Some(subject) = subject {
            index["subject"] = json!({"mediaType": media_type::OCI_INDEX, "digest": subject.to_string(), "size": 1});
        }
        memory.add_manifest("app", index.to_string())
    }

    async fn search(memory: &Arc<Memory>, root: Digest, artifact_type: Option<&str>, depth: usize) -> Node {
        let source = Source::parse("reg.io/app:v1").unwrap();
        let place = transfer::Source { pull: memory.clone(), repository: Repository::parse("app").unwrap() };
        let manifest = place.manifest(&Version::Digest(root), None).await.unwrap();
        let mut search = Search { place: &place, source: &source, artifact_type, remaining: LIMIT, above: HashSet::new() };
        search.node(manifest.descriptor(), depth).await.unwrap()
    }

    #[tokio::test]
    async fn referrers_of_referrers_are_found_by_type_and_depth() {
        let memory = Arc::new(Memory::new());
        let root = put(&memory, "root", "a/app", None);
        let sbom = put(&memory, "sbom", "a/sbom", Some(root));
        let one = put(&memory, "one", "a/sig", Some(root));
        let two = put(&memory, "two", "a/sig", Some(sbom));
        let shown = tree(&search(&memory, root, None, DEPTH).await);
        assert!(shown.starts_with(&format!("reg.io/app@{root}\n")), "{shown}");
        assert!(shown.contains("── a/sbom\n") && shown.contains(&format!("{two}")) && shown.contains(&format!("{one}")), "{shown}");
        assert_eq!(shown.lines().count(), 7, "{shown}");
        assert!(!tree(&search(&memory, root, None, 1).await).contains(&two.to_string()));
        let signatures = search(&memory, root, Some("a/sig"), DEPTH).await;
        assert_eq!(signatures.referrers.iter().map(|node| node.digest.clone()).collect::<Vec<_>>(), [one.to_string()]);
        assert!(table(&signatures).ends_with(&root.to_string()));
    }

    #[test]
    fn artifact_types_cannot_control_the_terminal() {
        let leaf = |kind: &str| Node {
            reference: "reg.io/a".into(),
            media_type: String::new(),
            digest: "sha256:1".into(),
            size: 0,
            artifact_type: Some(kind.into()),
            annotations: BTreeMap::new(),
            referrers: Vec::new(),
        };
        let mut root = leaf("x");
        root.referrers = vec![leaf("a\u{1b}[2J"), leaf("b"), leaf("a\u{1b}[2J")];
        let expected = "reg.io/a\n├── a\\u{1b}[2J\n│   ├── sha256:1\n│   └── sha256:1\n└── b\n    └── sha256:1";
        assert_eq!(tree(&root), expected);
    }
}
