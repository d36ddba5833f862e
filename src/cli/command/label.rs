//! `ocifs label`: sets and removes annotations of an artifact. Layers and unknown manifest fields are preserved.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::exit::Failure;
use crate::cli::history::{self, Done};
use crate::cli::listing::labels;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::{QueryFlags, RegistryFlags};
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{opened, pushing, reference};
use crate::cli::terminal::{escape, message, output};
use crate::oci::{Digest, InvalidManifest, Manifest, Source, Tag, Version, document, media_type};
use crate::registry::Push;
use crate::transfer::{self, Destination};

/// List, set and remove labels (annotations) of an artifact; its layers do not change
///
/// `ocifs ls REPOSITORY` shows the labels of its tags, `--label` filters by them.
#[derive(Args, Clone, Debug)]
pub struct Label {
    /// The action.
    #[command(subcommand)]
    command: Action,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// List the labels of an artifact
    #[command(visible_alias = "ls")]
    List(List),
    /// Set labels: REF KEY=VALUE…
    Set(Labels),
    /// Remove labels: REF KEY…
    Unset(Labels),
}

/// Flags of `list`.
#[derive(Args, Clone, Debug)]
struct List {
    /// repository:tag, repository@digest or oci:DIRECTORY:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// Format and registry.
    #[command(flatten)]
    query: QueryFlags,
}

/// Flags of the actions that change labels.
#[derive(Args, Clone, Debug)]
struct Labels {
    /// repository:tag or oci:DIRECTORY:tag, then KEY=VALUE to set or KEY to remove
    #[arg(value_name = "REF|LABEL", required = true)]
    words: Vec<String>,

    /// The artifact, in oci-sync's spelling; all words are labels then
    #[arg(short, long, value_name = "REF")]
    remote: Option<String>,

    /// How registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,
}

/// A key and its new value; without a value the label is removed.
type Change = (String, Option<String>);

impl Label {
    /// Runs the command.
    ///
    /// # Errors
    /// A label is reserved by a format, the tag moved meanwhile, or the registry refuses the manifest.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let (flags, sets) = match self.command {
            Action::List(flags) => return flags.run(&invocation),
            Action::Set(flags) => (flags, true),
            Action::Unset(flags) => (flags, false),
        };
        let (text, words) = match (&flags.remote, flags.words.split_first()) {
            (Some(remote), _) => (remote, flags.words.as_slice()),
            (None, Some((first, rest))) => (first, rest),
            (None, None) => return Err(Failure::usage("name an artifact and labels")),
        };
        if words.is_empty() {
            return Err(Failure::usage("name at least one label"));
        }
        let changes: Vec<Change> = words.iter().map(|word| change(word, sets)).collect::<Result<_, _>>()?;
        let (source, push) = opened::to_change(text, &invocation)?;
        let (tag, digest) = until_interrupted(relabel(&source, &push, &changes))?;
        let reference = reference::with_version(&source, &Version::Tag(tag));
        output::line(&format!("{}  {digest}", escape::terminal(&reference)))?;
        history::add(Done::now("label", reference, None, digest), &invocation.environment);
        Ok(())
    }
}

impl List {
    fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let (source, pull) = opened::to_read(&self.reference, invocation)?;
        let found = until_interrupted(async {
            let (repository, version) = reference::named(&source, pull.as_ref()).await?;
            Ok(labels::of(&pull.manifest(&repository, &version).await?))
        })?;
        let line = |(key, value): (&String, &String)| escape::terminal(&format!("{key}={value}")).into_owned();
        output::show(self.query.format, &found, |found| found.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

/// Publishes the artifact with changed labels; returns its tag and digest.
async fn relabel(source: &Source, push: &Arc<dyn Push>, changes: &[Change]) -> Result<(Tag, Digest), Failure> {
    let (repository, version) = reference::named(source, push.as_ref()).await?;
    let Version::Tag(tag) = &version else {
        return Err(Failure::usage(format!("{source} names a digest, whose labels cannot change; name a tag")));
    };
    let before = push.manifest(&repository, &version).await?;
    let Some(after) = edited(&before, changes)? else { return Ok((tag.clone(), before.digest)) };
    let destination = Destination { push: Arc::clone(push), repository };
    pushing::unmoved(&destination, source, &version, &before).await?;
    transfer::put_tag(&destination, &after, tag).await?;
    let repository = &destination.repository;
    if let Some(subject) = after.subject() {
        push.link_referrer(repository, &subject.digest, &after.descriptor()).await?;
    }
    let referrers = push.referrers(repository, &before.digest).await.map_or(0, |referrers| referrers.len());
    if referrers > 0 {
        message::report(&format!("{referrers} signatures or other referrers stay with {}", before.digest));
    }
    Ok((tag.clone(), after.digest))
}

/// The change for which a word stands: KEY=VALUE sets a label, KEY removes it.
fn change(word: &str, sets: bool) -> Result<Change, Failure> {
    let wrong = |about: &str| Err(Failure::usage(format!("`{}` {about}", escape::terminal(word))));
    let (key, value) = match word.split_once('=') {
        Some((key, value)) if sets && !key.is_empty() => (key, Some(value.to_owned())),
        None if !sets && !word.is_empty() => (word, None),
        _ if sets => return wrong("is not KEY=VALUE"),
        _ => return wrong("is not a key; give only the part before `=`"),
    };
    match labels::is_reserved(key) {
        true => Err(Failure::usage(format!("`{}` is reserved: it determines how the artifact is read", escape::terminal(key)))),
        false => Ok((key.to_owned(), value)),
    }
}

/// The manifest with the changes applied; `None` if nothing would change.
fn edited(before: &Manifest, changes: &[Change]) -> Result<Option<Manifest>, Failure> {
    if matches!(before.media_type.as_str(), media_type::DOCKER_MANIFEST | media_type::DOCKER_INDEX) {
        return Err(Failure::other("Docker manifests have no annotations; convert the image to OCI first"));
    }
    let broken = |error: InvalidManifest| Failure::other(format!("manifest {}: {error}", before.digest));
    let mut members = document::members(before).map_err(broken)?;
    let old = members.get("annotations").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut new = old.clone();
    for (key, value) in changes {
        match value {
            Some(value) => new.insert(key.clone(), json!(value)),
            None => new.remove(key),
        };
    }
    if new == old {
        return Ok(None);
    }
    match new.is_empty() {
        true => members.remove("annotations"),
        false => members.insert("annotations".to_owned(), Value::Object(new)),
    };
    let mut after = document::manifest(members).map_err(broken)?;
    after.media_type.clone_from(&before.media_type);
    Ok(Some(after))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cli::exit::Code;

    fn manifest(extra: &str) -> Manifest {
        let config = format!(r#"{{"mediaType":"a/b","digest":"{}","size":2,"future":[1]}}"#, Digest::of(b"{}"));
        let raw = Bytes::from(format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"unknown":{{"z":1,"a":null}}{extra}}}"#));
        let digest = Digest::of(&raw);
        Manifest::parse(raw, digest).unwrap()
    }

    fn set(key: &str, value: &str) -> Change {
        (key.into(), Some(value.into()))
    }

    fn unset(key: &str) -> Change {
        (key.into(), None)
    }

    #[test]
    fn labels_change_and_nothing_else_of_the_manifest_does() {
        let before = manifest(r#","annotations":{"env":"test","io.oci-sync.version":"1"}"#);
        let after = edited(&before, &[set("env", "prod"), set("new", "<&>"), unset("none")]).unwrap().unwrap();
        let mut value: Value = serde_json::from_slice(&after.raw).unwrap();
        assert_eq!(value["annotations"], json!({"env": "prod", "new": "<&>", "io.oci-sync.version": "1"}));
        value["annotations"] = json!({"env": "test", "io.oci-sync.version": "1"});
        assert_eq!(value, serde_json::from_slice::<Value>(&before.raw).unwrap());
        assert!(edited(&before, &[set("env", "test")]).unwrap().is_none());
    }

    #[test]
    fn removing_the_last_label_removes_the_annotations() {
        let before = manifest(r#","annotations":{"env":"test"}"#);
        let after = edited(&before, &[unset("env")]).unwrap().unwrap();
        let value = |manifest: &Manifest| serde_json::from_slice::<Value>(&manifest.raw).unwrap();
        assert_eq!(value(&after), value(&manifest("")));
    }

    #[test]
    fn reserved_keys_are_refused() {
        for key in ["io.oci-sync.encrypted", "dev.ocifs.seal"] {
            assert_eq!(change(&format!("{key}=false"), true).unwrap_err().code, Code::Usage);
            assert_eq!(change(key, false).unwrap_err().code, Code::Usage);
        }
        assert_eq!(change("app=a=b", true).unwrap(), set("app", "a=b"));
        assert!([("=x", true), ("x", true), ("a=b", false), ("", false)].iter().all(|(word, sets)| change(word, *sets).is_err()));
    }
}
