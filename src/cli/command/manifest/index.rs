//! `ocifs manifest index`: creates and updates indexes of manifests in one repository.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand};
use serde_json::{Map, Value, json};

use super::put::{Report, put};
use crate::cli::exit::{Code, Failure};
use crate::cli::output_file;
use crate::cli::runtime::until_interrupted;
use crate::cli::settings::flags::QueryFlags;
use crate::cli::settings::invocation::Invocation;
use crate::cli::source::{inputs, opened, pushing, reference};
use crate::cli::terminal::output;
use crate::oci::{Digest, InvalidManifest, Manifest, Platform, Tag, Version, document, media_type};
use crate::transfer::{self, Destination};

/// Flags.
#[derive(Args, Clone, Debug)]
pub struct Index {
    /// The action.
    #[command(subcommand)]
    command: Action,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Create an index of manifests in the same repository
    #[command(visible_alias = "pack")]
    Create(Create),
    /// Add members to an index and remove others; everything else is preserved
    Update(Update),
}

/// Where the index is written.
#[derive(Args, Clone, Debug)]
struct Goal {
    /// Write the index to this file instead of pushing it; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Format and registry.
    #[command(flatten)]
    query: QueryFlags,
}

/// Flags of `create`.
#[derive(Args, Clone, Debug)]
struct Create {
    /// repository[:tag[,tag]…] or oci:DIRECTORY[:tag]
    #[arg(value_name = "REF")]
    reference: String,

    /// Tags or digests of the members
    #[arg(value_name = "TAG|DIGEST")]
    members: Vec<String>,

    /// Artifact type of the index
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,

    /// Annotation of the index; repeatable
    #[arg(short, long = "annotation", value_name = "NAME=VALUE", value_parser = inputs::annotation)]
    annotations: Vec<(String, String)>,

    /// Where the index is written.
    #[command(flatten)]
    goal: Goal,
}

/// Flags of `update`.
#[derive(Args, Clone, Debug)]
struct Update {
    /// The index: repository:tag, repository@digest, or oci:DIRECTORY:tag
    #[arg(value_name = "REF")]
    reference: String,

    /// Add this member; replaces one with the same digest; repeatable
    #[arg(long, value_name = "TAG|DIGEST", action = ArgAction::Append)]
    add: Vec<String>,

    /// Add all members of this index; repeatable
    #[arg(long, value_name = "TAG|DIGEST", action = ArgAction::Append)]
    merge: Vec<String>,

    /// Remove this member; repeatable
    #[arg(long, value_name = "TAG|DIGEST", action = ArgAction::Append)]
    remove: Vec<String>,

    /// Also set this tag; repeatable
    #[arg(long, value_name = "TAG", action = ArgAction::Append)]
    tag: Vec<String>,

    /// Where the index is written.
    #[command(flatten)]
    goal: Goal,
}

impl Index {
    /// Runs the command.
    ///
    /// # Errors
    /// A member does not exist, the tag moved meanwhile, or the registry refuses.
    pub fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        match self.command {
            Action::Create(flags) => flags.run(invocation),
            Action::Update(flags) => flags.run(invocation),
        }
    }
}

impl Create {
    fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let (to, others, place) = opened::to_write(&self.reference, invocation)?;
        let report = until_interrupted(async {
            let mut members = Vec::new();
            for name in &self.members {
                members.push(entry(&place, &member(&place, name).await?).await?);
            }
            let mut index = Map::new();
            index.insert("schemaVersion".to_owned(), json!(2));
            index.insert("mediaType".to_owned(), json!(media_type::OCI_INDEX));
            index.extend(self.artifact_type.iter().map(|kind| ("artifactType".to_owned(), json!(kind))));
            index.insert("manifests".to_owned(), Value::Array(members));
            if !self.annotations.is_empty() {
                let annotations: BTreeMap<_, _> = self.annotations.iter().cloned().collect();
                index.insert("annotations".to_owned(), json!(annotations));
            }
            let index = document::manifest(index).map_err(|error| broken(&error))?;
            match self.goal.wrote(&index)? {
                true => Ok(None),
                false => put(&place, &to, &index, &others).await.map(Some),
            }
        })?;
        self.goal.show(report)
    }
}

impl Update {
    fn run(self, invocation: &Invocation) -> Result<(), Failure> {
        let (source, push) = opened::to_change(&self.reference, invocation)?;
        let tags: Vec<Tag> = self.tag.iter().map(|tag| Tag::parse(tag)).collect::<Result<_, _>>()?;
        if [&self.add, &self.merge, &self.remove].iter().all(|names| names.is_empty()) {
            return Err(Failure::usage("nothing to change: give --add, --merge or --remove"));
        }
        let report = until_interrupted(async {
            let (repository, version) = reference::named(&source, push.as_ref()).await?;
            let place = Destination { push, repository };
            let before = place.push.manifest(&place.repository, &version).await?;
            let after = self.changed(&place, &before).await?;
            if self.goal.wrote(&after)? {
                return Ok(None);
            }
            pushing::unmoved(&place, &source, &version, &before).await?;
            put(&place, &source, &after, &tags).await.map(Some)
        })?;
        self.goal.show(report)
    }

    async fn changed(&self, place: &Destination, before: &Manifest) -> Result<Manifest, Failure> {
        let index = before.index().ok_or_else(|| Failure::usage(format!("{} is not an index", self.reference)))?;
        let mut members = document::members(before).map_err(|error| broken(&error))?;
        let mut list = match members.remove("manifests") {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        for name in &self.remove {
            let removed = digest(place, name).await?;
            if !index.manifests.iter().any(|member| member.digest == removed) {
                return Err(Failure::new(Code::NotFound, format!("{} has no member {name}", self.reference)));
            }
            list.retain(|entry| digest_of(entry) != Some(removed));
        }
        for name in &self.add {
            let entry = entry(place, &member(place, name).await?).await?;
            insert(&mut list, entry);
        }
        for name in &self.merge {
            let other = member(place, name).await?;
            if other.index().is_none() {
                return Err(Failure::usage(format!("{name} is not an index; add it with --add")));
            }
            let mut other = document::members(&other).map_err(|error| broken(&error))?;
            if let Some(Value::Array(entries)) = other.remove("manifests") {
                entries.into_iter().for_each(|entry| insert(&mut list, entry));
            }
        }
        members.insert("manifests".to_owned(), Value::Array(list));
        let mut after = document::manifest(members).map_err(|error| broken(&error))?;
        after.media_type.clone_from(&before.media_type);
        Ok(after)
    }
}

/// Adds an entry, replacing one with the same digest.
fn insert(list: &mut Vec<Value>, entry: Value) {
    match list.iter_mut().find(|known| digest_of(known) == digest_of(&entry)) {
        Some(known) => *known = entry,
        None => list.push(entry),
    }
}

fn digest_of(entry: &Value) -> Option<Digest> {
    Digest::parse(entry.get("digest")?.as_str()?).ok()
}

fn broken(error: &InvalidManifest) -> Failure {
    Failure::other(format!("cannot encode the index: {error}"))
}

async fn member(place: &Destination, name: &str) -> Result<Manifest, Failure> {
    Ok(place.push.manifest(&place.repository, &Version::parse(name)?).await?)
}

async fn digest(place: &Destination, name: &str) -> Result<Digest, Failure> {
    match Version::parse(name)? {
        Version::Digest(digest) => Ok(digest),
        tag => Ok(place.push.resolve(&place.repository, &tag).await?.digest),
    }
}

/// The index entry of a member; an image's entry carries the platform from its config.
async fn entry(place: &Destination, member: &Manifest) -> Result<Value, Failure> {
    let mut entry = member.descriptor();
    entry.annotations.clear();
    if let Some(image) = member.image().filter(|image| media_type::is_image_config(&image.config.media_type)) {
        let source = transfer::Source { pull: place.push.clone(), repository: place.repository.clone() };
        entry.platform = Platform::of_config(&transfer::read_small(&source, &image.config).await?);
    }
    Ok(document::descriptor(&entry))
}

impl Goal {
    /// Writes the index to the `--output` file. False if there is no `--output`.
    fn wrote(&self, index: &Manifest) -> Result<bool, Failure> {
        let Some(path) = &self.output else { return Ok(false) };
        let mut destination = output_file::Destination::new(Some(path))?;
        destination.write(&index.raw)?;
        destination.finish()?;
        Ok(true)
    }

    fn show(&self, report: Option<Report>) -> Result<(), Failure> {
        report.map_or(Ok(()), |report| output::show(self.query.format, &report, Report::text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_replaces_one_with_the_same_digest() {
        let entry = |content: &str, note: u32| json!({"digest": Digest::of(content.as_bytes()).to_string(), "note": note});
        let mut list = vec![entry("a", 1), json!({"odd": true}), entry("b", 1)];
        insert(&mut list, entry("b", 2));
        insert(&mut list, entry("c", 1));
        assert_eq!(list, [entry("a", 1), json!({"odd": true}), entry("b", 2), entry("c", 1)]);
    }
}
