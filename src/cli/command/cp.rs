//! `ocifs cp`: copies artifacts between registries, layouts and archives, byte for byte.

use clap::Args;

use crate::cli::copies::{self, Ends, Reports, ToCopy};
use crate::cli::exit::Failure;
use crate::cli::runtime::resumable;
use crate::cli::settings::flags::{RegistryFlags, Transferring};
use crate::cli::settings::invocation::Invocation;
use crate::cli::settings::sides::{Side, Sides};
use crate::cli::source::{reference, wiring};
use crate::oci::{Platform, Repository, Source, Tag, Version};
use crate::transfer::Options;

/// Copy artifacts between registries, layouts and OCI archives; digests do not change
#[derive(Args, Clone, Debug)]
#[command(visible_alias = "copy", args_override_self = true)]
#[command(mut_arg("concurrency", copies::of_blobs))]
pub struct Cp {
    /// repository:tag, repository@digest, oci:DIRECTORY:tag or oci-archive:FILE:tag; without a tag if --all-tags is given
    #[arg(value_name = "SRC")]
    source: String,

    /// repository[:tag[,tag]…], oci:DIRECTORY[:tag…] or oci-archive:FILE[:tag…] [default tag: that of SRC]
    #[arg(value_name = "DST")]
    destination: String,

    /// Copy every tag
    #[arg(long)]
    all_tags: bool,

    /// Also copy referrers: signatures, attestations, SBOMs
    #[arg(short, long, visible_alias = "include-referrers")]
    recursive: bool,

    /// Copy only this platform of a multi-platform image, os/arch[/variant]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,

    /// Concurrency and output.
    #[command(flatten)]
    how: Transferring,

    /// How both registries are reached.
    #[command(flatten)]
    registry: RegistryFlags,

    /// Overrides for one side.
    #[command(flatten)]
    sides: Sides,
}

impl Cp {
    /// Runs the command.
    ///
    /// # Errors
    /// One side cannot be read or written. No tag is set on an incomplete artifact.
    pub fn run(self, invocation: Invocation) -> Result<(), Failure> {
        let environment = &invocation.environment;
        let (text, tags) = reference::split_tags(&self.destination)?;
        let (from, to) = (reference::parse(&self.source, environment)?, reference::parse(text, environment)?);
        invocation.check_one_login(reference::registry(&from), reference::registry(&to))?;
        let flags = invocation.registry_of_side(Side::From, reference::registry(&from))?;
        let pull = wiring::readable(&from, &flags, environment)?;
        let flags = invocation.registry_of_side(Side::To, reference::registry(&to))?;
        let push = wiring::destination(&to, &flags, environment)?;
        let options = Options { concurrency: self.how.concurrency.get(), referrers: self.recursive, platform: self.platform.clone() };
        let ends = Ends { from, to, pull, push };
        let reports = resumable(
            async {
                let (repository, wanted) = self.wanted(&ends, &tags).await?;
                copies::copy(&ends, repository, wanted, options, self.how.output.quiet).await
            },
            "no incomplete artifact was tagged; run the same copy again to resume",
        )?;
        reports.remember("cp", environment);
        self.how.output.show(&reports, Reports::text)
    }

    async fn wanted(&self, Ends { from, to, pull, .. }: &Ends, tags: &[Tag]) -> Result<(Repository, Vec<ToCopy>), Failure> {
        if !self.all_tags {
            let (repository, version) = reference::named(from, pull.as_ref()).await?;
            let tags = tags_for(to, tags, &version)?;
            return Ok((repository, vec![ToCopy { version, tags }]));
        }
        if let Some(version) = reference::version(from) {
            return Err(Failure::usage(format!("--all-tags copies a whole repository, but {from} names {version}")));
        }
        let repository = reference::repository(from)?;
        let tags = copies::all_tags(from, pull.as_ref(), &repository).await?;
        Ok((repository, tags.iter().map(ToCopy::tag).collect()))
    }
}

/// The tags to set: those in DST, else the tag of SRC; empty if neither has one.
fn tags_for(to: &Source, others: &[Tag], version: &Version) -> Result<Vec<Tag>, Failure> {
    let mut tags = reference::tags_to_set(to, others, "copy")?;
    if let (None, Version::Tag(tag)) = (reference::version(to), version) {
        tags.insert(0, tag.clone());
    }
    Ok(tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Code;

    fn source(text: &str) -> Source {
        Source::parse(text).unwrap()
    }

    fn names(to: &str, others: &[&str], version: &str) -> Result<Vec<String>, Failure> {
        let others: Vec<Tag> = others.iter().map(|tag| Tag::parse(tag).unwrap()).collect();
        let tags = tags_for(&source(to), &others, &Version::Tag(Tag::parse(version).unwrap()))?;
        Ok(tags.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_copy_takes_its_tags_from_the_destination_else_from_the_source() {
        assert_eq!(names("reg.io/app:v2", &["v3"], "v1").unwrap(), ["v2", "v3"]);
        assert_eq!(names("reg.io/app", &[], "v1").unwrap(), ["v1"]);
        assert_eq!(names("oci:/layout:v2", &[], "v1").unwrap(), ["v2"]);
        let by_digest = format!("reg.io/app@{}", crate::oci::Digest::of(b"x"));
        assert_eq!(names(&by_digest, &[], "v1").unwrap_err().code, Code::Usage);
    }
}
