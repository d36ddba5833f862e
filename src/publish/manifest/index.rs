//! Replaces a member of an image index: the others are kept, attestations of the old member are dropped.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{finish, members};
use crate::error::{Error, ErrorKind};
use crate::oci::{Descriptor, Digest, Manifest, Platform};

/// The annotation on an attestation that names its member.
const ABOUT: &str = "vnd.docker.reference.digest";

/// Replaces `old` by `new` in an index; also returns how many attestations were dropped. The platform distinguishes members with equal digests.
/// `None` if the index does not list `old` itself.
pub(in crate::publish) fn replaced(
    index: &Manifest,
    (old, platform): (&Digest, Option<&Platform>),
    new: &Manifest,
) -> Result<Option<(Arc<Manifest>, usize)>, Error> {
    let refused = || Error::new(ErrorKind::Integrity, format!("cannot parse index {} to edit it", index.digest));
    let mut all = members(index)?;
    let list = all.get_mut("manifests").and_then(Value::as_array_mut).ok_or_else(refused)?;
    let described: Vec<Option<Descriptor>> = list.iter().map(|member| Descriptor::parse(member.clone()).ok()).collect();
    let named = |member: &Option<Descriptor>| member.as_ref().is_some_and(|member| member.digest == *old);
    let fits = |member: &Option<Descriptor>| named(member) && member.as_ref().and_then(|member| member.platform.as_ref()) == platform;
    let Some(place) = described.iter().position(fits).or_else(|| described.iter().position(named)) else { return Ok(None) };
    if let Some(Value::Object(member)) = list.get_mut(place) {
        member.insert("mediaType".to_owned(), json!(new.media_type));
        member.insert("digest".to_owned(), json!(new.digest.to_string()));
        member.insert("size".to_owned(), json!(new.raw.len()));
        member.remove("data");
    }
    let still_named = described.iter().enumerate().any(|(number, member)| number != place && named(member));
    let before = list.len();
    if !still_named {
        let old = old.to_string();
        list.retain(|member| member.get("annotations").and_then(|all| all.get(ABOUT)).and_then(Value::as_str) != Some(&old));
    }
    let gone = before - list.len();
    Ok(Some((finish(all)?, gone)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::manifest::files;

    fn parse(text: &str) -> Manifest {
        Manifest::parse(text.to_owned().into(), Digest::of(text.as_bytes())).unwrap()
    }

    #[test]
    fn one_member_is_replaced_and_only_its_attestations_are_dropped() {
        let (one, two, new) = (Digest::of(b"1"), Digest::of(b"2"), files::manifest(Vec::new(), None, None).unwrap());
        let member = |digest: &Digest, rest: &str| {
            format!(r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":9,{rest}}}"#)
        };
        let about = |digest: &Digest| {
            let platform = r#""platform":{"architecture":"unknown","os":"unknown"}"#;
            member(&Digest::of(digest.hex().as_bytes()), &format!(r#"{platform},"annotations":{{"{ABOUT}":"{digest}"}}"#))
        };
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{},{}],"annotations":{{"k":"v"}}}}"#,
            member(&one, r#""platform":{"architecture":"amd64","os":"linux"},"annotations":{"mine":"stays"}"#),
            member(&two, r#""platform":{"architecture":"arm64","os":"linux"}"#),
            about(&one),
            about(&two),
        );
        let platform: Platform = "linux/amd64".parse().unwrap();
        let (edited, gone) = replaced(&parse(&index), (&one, Some(&platform)), &new).unwrap().unwrap();
        let members = &edited.index().unwrap().manifests;
        assert_eq!((gone, members.len()), (1, 3));
        assert_eq!((members[0].digest, members[0].size), (new.digest, new.raw.len() as u64));
        assert_eq!((members[0].platform.as_ref(), members[0].annotation("mine")), (Some(&platform), Some("stays")));
        assert_eq!(members[1].digest, two);
        assert_eq!(members[2].annotation(ABOUT), Some(two.to_string().as_str()));
        assert_eq!(edited.annotations()["k"], "v");
        assert!(replaced(&parse(&index), (&Digest::of(b"3"), None), &new).unwrap().is_none());
    }
}
