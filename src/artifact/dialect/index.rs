//! Image indexes: which member runs here, and what the members are called.

use crate::oci::{Descriptor, Index, Platform, media_type};
use crate::path::is_component;

use super::steps::TITLE;

/// Marks the attestations that BuildKit adds for other members.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// A member that content for `platform` may come from.
#[derive(Clone, Debug)]
pub(in crate::artifact) struct Candidate<'a> {
    /// The member.
    pub descriptor: &'a Descriptor,
    /// Its rank for the platform, smaller is better; `None` for an index inside, which has to be looked into.
    pub rank: Option<u32>,
}

/// Whether a member is an index itself.
fn is_index(descriptor: &Descriptor) -> bool {
    matches!(descriptor.media_type.as_str(), media_type::OCI_INDEX | media_type::DOCKER_INDEX)
}

/// The members that may hold content for a platform: those that say so, best first, then indexes that do not say.
pub(in crate::artifact) fn candidates<'a>(index: &'a Index, platform: &Platform) -> Vec<Candidate<'a>> {
    let mut found: Vec<Candidate<'a>> = members(index)
        .filter_map(|descriptor| match &descriptor.platform {
            Some(theirs) => platform.rank(theirs).map(|rank| Candidate { descriptor, rank: Some(rank) }),
            None => is_index(descriptor).then_some(Candidate { descriptor, rank: None }),
        })
        .collect();
    found.sort_by_key(|candidate| candidate.rank.unwrap_or(u32::MAX));
    found
}

/// The only image manifest of which the index says no platform, if there is just one.
pub(in crate::artifact) fn only_without_platform(index: &Index) -> Option<&Descriptor> {
    let attested = |descriptor: &Descriptor| descriptor.annotation(REFERENCE_TYPE).is_some();
    let mut found = members(index).filter(|member| member.platform.is_none() && !is_index(member) && !attested(member));
    found.next().filter(|_| found.next().is_none())
}

/// The members that are content: attestations carry `unknown/unknown` and are none.
pub(in crate::artifact) fn members(index: &Index) -> impl Iterator<Item = &Descriptor> {
    index.manifests.iter().filter(|descriptor| !descriptor.platform.as_ref().is_some_and(Platform::is_unknown))
}

/// The directory of a member: by platform, else by title, else by digest; with the digest if the name is taken.
pub(in crate::artifact) fn member_name(descriptor: &Descriptor, taken: impl Fn(&str) -> bool) -> String {
    let by_platform = descriptor.platform.as_ref().map(Platform::path_name);
    let wish = by_platform.or_else(|| descriptor.annotation(TITLE).map(str::to_owned));
    let short = descriptor.digest.short();
    match wish.filter(|name| is_component(name.as_bytes())) {
        Some(name) if !taken(&name) => name,
        Some(name) if is_component(format!("{name}~{short}").as_bytes()) => format!("{name}~{short}"),
        _ => short,
    }
}
