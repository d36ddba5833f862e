//! Image indexes: selects the member for a platform, and names the members.

use crate::oci::{Descriptor, Index, Platform, media_type};
use crate::path::is_component;

use super::steps::TITLE;

/// Marks the attestations that BuildKit adds for other members.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// A member that may hold content for `platform`.
#[derive(Clone, Debug)]
pub(in crate::artifact) struct Candidate<'a> {
    /// The member.
    pub descriptor: &'a Descriptor,
    /// Its rank for the platform, smaller is better; `None` for a nested index, which must be searched.
    pub rank: Option<u32>,
}

/// Whether a member is itself an index.
fn is_index(descriptor: &Descriptor) -> bool {
    matches!(descriptor.media_type.as_str(), media_type::OCI_INDEX | media_type::DOCKER_INDEX)
}

/// The members that may hold content for a platform: matching ones, best first, then nested indexes without a platform.
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

/// The only image manifest without a platform in the index, if there is exactly one.
pub(in crate::artifact) fn only_without_platform(index: &Index) -> Option<&Descriptor> {
    let attested = |descriptor: &Descriptor| descriptor.annotation(REFERENCE_TYPE).is_some();
    let mut found = members(index).filter(|member| member.platform.is_none() && !is_index(member) && !attested(member));
    found.next().filter(|_| found.next().is_none())
}

/// The content members, without attestations, which carry `unknown/unknown`.
pub(in crate::artifact) fn members(index: &Index) -> impl Iterator<Item = &Descriptor> {
    index.manifests.iter().filter(|descriptor| !descriptor.platform.as_ref().is_some_and(Platform::is_unknown))
}

/// The directory name of a member: by platform, else by title, else by digest; with the digest appended if the name is taken.
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
