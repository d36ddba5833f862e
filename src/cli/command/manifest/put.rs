//! `ocifs manifest put`.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::cli::exit::Failure;
use crate::cli::runtime::{blocking, until_interrupted};
use crate::cli::settings::flags::QueryFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{inputs, opened, reference};
use crate::cli::terminal::{escape, output};
use crate::oci::{Digest, Hasher, Manifest, Source, Tag, Version};
use crate::transfer::{self, Destination};

/// Flags.
#[derive(Args, Clone, Debug)]
pub struct Put {
    /// repository[:tag[,tag]…], repository@digest, or oci:DIRECTORY[:tag]
    #[arg(value_name = "REF")]
    reference: String,

    /// The manifest; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Media type, for a manifest without a `mediaType` field
    #[arg(long, value_name = "TYPE")]
    media_type: Option<String>,

    /// Format and registry.
    #[command(flatten)]
    query: QueryFlags,
}

/// The output of commands that put a manifest. Its keys are stable.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Every reference that now names the manifest; by digest if there is no tag.
    pub references: Vec<String>,
    /// Its digest.
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Report {
    /// One line per reference.
    pub fn text(&self) -> String {
        let line = |reference: &String| format!("{}  {}", escape::terminal(reference), self.digest);
        self.references.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Put {
    /// Runs the command.
    ///
    /// # Errors
    /// The file is not a manifest, its digest does not match, or the registry refuses it.
    pub fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let (to, others, destination) = opened::to_write(&self.reference, invocation)?;
        let report = until_interrupted(async {
            let file = self.file.clone();
            let raw = blocking(move || inputs::small(&file)).await?;
            let manifest = parsed(&self.file, raw.into(), self.media_type.as_deref(), reference::version(&to))?;
            put(&destination, &to, &manifest, &others).await
        })?;
        output::show(self.query.format, &report, Report::text)
    }
}

/// Puts a manifest under the tags of a destination, or by digest.
///
/// # Errors
/// The registry refuses it.
pub async fn put(destination: &Destination, to: &Source, manifest: &Manifest, others: &[Tag]) -> Result<Report, Failure> {
    let Destination { push, repository } = destination;
    let first = match reference::version(to) {
        Some(Version::Tag(tag)) => Some(tag),
        Some(Version::Digest(_)) | None => None,
    };
    let tags: Vec<Tag> = first.into_iter().chain(others.iter().cloned()).collect();
    if tags.is_empty() {
        push.push_manifest(repository, &Version::Digest(manifest.digest), manifest).await?;
    }
    for tag in &tags {
        transfer::put_tag(destination, manifest, tag).await?;
    }
    if let Some(subject) = manifest.subject() {
        push.link_referrer(repository, &subject.digest, &manifest.descriptor()).await?;
    }
    push.finish().await?;
    Ok(Report {
        references: reference::all(to, &tags, manifest.digest),
        digest: manifest.digest.to_string(),
        media_type: manifest.media_type.clone(),
        size: manifest.raw.len() as u64,
    })
}

/// Parses the manifest in a file and checks the media type given and the digest named in the reference.
fn parsed(file: &Path, raw: Bytes, given: Option<&str>, version: Option<Version>) -> Result<Manifest, Failure> {
    let shown = escape::path(file);
    let value: Value = serde_json::from_slice(&raw).map_err(|error| Failure::usage(format!("{shown} is not valid JSON: {error}")))?;
    let own = value.get("mediaType").and_then(Value::as_str);
    let media_type = match (own, given) {
        (Some(own), Some(given)) if own != given => {
            return Err(Failure::usage(format!("{shown} has mediaType {}, not {given}", escape::terminal(own))));
        }
        (Some(own), _) => own.to_owned(),
        (None, Some(given)) => given.to_owned(),
        (None, None) => return Err(Failure::usage(format!("{shown} has no media type; add a `mediaType` field or give --media-type"))),
    };
    let digest = match version {
        Some(Version::Digest(digest)) => {
            let mut hasher = Hasher::new(digest.algorithm());
            hasher.update(&raw);
            let found = hasher.finish();
            if found != digest {
                return Err(Failure::usage(format!("{shown} has digest {found}, not {digest}")));
            }
            digest
        }
        Some(Version::Tag(_)) | None => Digest::of(&raw),
    };
    let mut manifest = Manifest::parse(raw, digest).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    manifest.media_type = media_type;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_needs_a_media_type_and_must_match_the_given_digest() {
        let config = format!(r#"{{"mediaType":"a/b","digest":"{}","size":2}}"#, Digest::of(b"{}"));
        let text = |own: &str| Bytes::from(format!(r#"{{"schemaVersion":2,{own}"config":{config},"layers":[]}}"#));
        let oci = "application/vnd.oci.image.manifest.v1+json";
        let (with, without) = (text(&format!(r#""mediaType":"{oci}","#)), text(""));
        let file = Path::new("m.json");
        assert_eq!(parsed(file, with.clone(), None, None).unwrap().media_type, oci);
        assert_eq!(parsed(file, without.clone(), Some(oci), None).unwrap().media_type, oci);
        for (raw, given, word) in
            [(without, None, "--media-type"), (with.clone(), Some("a/b"), "not a/b"), (Bytes::from("x"), None, "not valid JSON")]
        {
            let failure = parsed(file, raw, given, None).unwrap_err();
            assert!(failure.message.contains(word), "{}", failure.message);
        }
        let right = Some(Version::Digest(Digest::of(&with)));
        assert!(parsed(file, with.clone(), None, right).is_ok());
        assert!(parsed(file, with, None, Some(Version::Digest(Digest::of(b"x")))).is_err());
    }
}
