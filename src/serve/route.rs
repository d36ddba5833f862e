//! Parses paths of the distribution API below `/v2/`. Pure.
//!
//! A path is split before it is decoded, and every part must then match its grammar, so that no encoded separator, dot segment or control
//! character gets through.

use percent_encoding::percent_decode_str;

use super::metrics::Kind;
use super::problem::{Code, Problem};
use crate::oci::{Digest, Repository, Tag, Version};

/// The target of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/v2/`.
    Base,
    /// `/v2/_catalog`.
    Catalog,
    /// `/v2/NAME/tags/list`.
    Tags(Repository),
    /// `/v2/NAME/manifests/REFERENCE`.
    Manifest(Repository, Version),
    /// `/v2/NAME/blobs/DIGEST`.
    Blob(Repository, Digest),
    /// `/v2/NAME/blobs/uploads/`.
    Uploads(Repository),
    /// `/v2/NAME/blobs/uploads/SESSION`.
    Upload(Repository, String),
    /// `/v2/NAME/referrers/DIGEST`.
    Referrers(Repository, Digest),
}

impl Route {
    /// Parses a path, still percent-encoded.
    ///
    /// # Errors
    /// 404 for a path outside the API, 400 for malformed names and digests.
    pub(super) fn parse(path: &str) -> Result<Self, Problem> {
        let nowhere = || Problem::not_found(Code::NameUnknown, "no such path in the distribution API");
        let below = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Base),
            Some(below) => below.strip_prefix('/').ok_or_else(nowhere)?,
            None => return Err(nowhere()),
        };
        let parts: Vec<String> = below.split('/').map(decoded).collect::<Result<_, _>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["_catalog"] => Ok(Self::Catalog),
            [name @ .., "tags", "list"] => Ok(Self::Tags(repository(name)?)),
            [name @ .., "blobs", "uploads", ""] | [name @ .., "blobs", "uploads"] => Ok(Self::Uploads(repository(name)?)),
            [name @ .., "blobs", "uploads", session] => Ok(Self::Upload(repository(name)?, (*session).to_owned())),
            [name @ .., "manifests", reference] => Ok(Self::Manifest(repository(name)?, version(reference)?)),
            [name @ .., "blobs", text] => Ok(Self::Blob(repository(name)?, digest(text)?)),
            [name @ .., "referrers", text] => Ok(Self::Referrers(repository(name)?, digest(text)?)),
            _ => Err(nowhere()),
        }
    }

    /// The kind it is counted as.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Base => Kind::Base,
            Self::Catalog => Kind::Catalog,
            Self::Tags(_) => Kind::Tags,
            Self::Manifest(..) => Kind::Manifest,
            Self::Blob(..) => Kind::Blob,
            Self::Uploads(_) | Self::Upload(..) => Kind::Upload,
            Self::Referrers(..) => Kind::Referrers,
        }
    }

    /// The repository, if the route has one.
    pub(super) fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Base | Self::Catalog => None,
            Self::Tags(name)
            | Self::Manifest(name, _)
            | Self::Blob(name, _)
            | Self::Uploads(name)
            | Self::Upload(name, _)
            | Self::Referrers(name, _) => Some(name),
        }
    }
}

fn decoded(part: &str) -> Result<String, Problem> {
    let text = percent_decode_str(part).decode_utf8();
    let text = text.map_err(|_| Problem::bad(Code::NameInvalid, "the path is not UTF-8"))?;
    if text.chars().any(|character| character == '/' || character.is_control()) {
        return Err(Problem::bad(Code::NameInvalid, "the path contains an encoded separator or control character"));
    }
    Ok(text.into_owned())
}

fn repository(parts: &[&str]) -> Result<Repository, Problem> {
    Repository::parse(&parts.join("/")).map_err(|error| Problem::bad(Code::NameInvalid, error.to_string()))
}

/// A digest; upper-case digits are accepted as lower case.
///
/// # Errors
/// Other algorithms, lengths or characters.
pub(super) fn digest(text: &str) -> Result<Digest, Problem> {
    Digest::parse(&text.to_ascii_lowercase()).map_err(|error| Problem::bad(Code::DigestInvalid, error.to_string()))
}

fn version(text: &str) -> Result<Version, Problem> {
    if text.contains(':') {
        return digest(text).map(Version::Digest);
    }
    let tag = Tag::parse(text).map(Version::Tag);
    tag.map_err(|error| Problem::bad(Code::ManifestInvalid, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn repository(text: &str) -> Repository {
        Repository::parse(text).unwrap()
    }

    #[test]
    fn every_path_of_the_api_is_parsed() {
        let digest = Digest::parse(&format!("sha256:{HEX}")).unwrap();
        for (path, expected) in [
            ("/v2/".to_owned(), Route::Base),
            ("/v2".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/a/b/c/tags/list".to_owned(), Route::Tags(repository("a/b/c"))),
            ("/v2/a/manifests/v1".to_owned(), Route::Manifest(repository("a"), Version::Tag(Tag::parse("v1").unwrap()))),
            (format!("/v2/a/manifests/sha256%3A{HEX}"), Route::Manifest(repository("a"), Version::Digest(digest))),
            (format!("/v2/a/blobs/sha256:{}", HEX.to_uppercase()), Route::Blob(repository("a"), digest)),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(repository("a"))),
            ("/v2/a/blobs/uploads".to_owned(), Route::Uploads(repository("a"))),
            ("/v2/a/blobs/uploads/x1".to_owned(), Route::Upload(repository("a"), "x1".to_owned())),
            (format!("/v2/blobs/referrers/sha256:{HEX}"), Route::Referrers(repository("blobs"), digest)),
            ("/v2/manifests/tags/manifests/list".to_owned(), {
                Route::Manifest(repository("manifests/tags"), Version::Tag(Tag::parse("list").unwrap()))
            }),
        ] {
            assert_eq!(Route::parse(&path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn malformed_names_and_digests_are_refused() {
        for (path, code) in [
            ("/v2/a/../b/tags/list".to_owned(), Code::NameInvalid),
            ("/v2/a%2fb/tags/list".to_owned(), Code::NameInvalid),
            ("/v2/a%00/tags/list".to_owned(), Code::NameInvalid),
            ("/v2/%ff/tags/list".to_owned(), Code::NameInvalid),
            ("/v2//tags/list".to_owned(), Code::NameInvalid),
            ("/v2/A/tags/list".to_owned(), Code::NameInvalid),
            ("/v2/a/blobs/md5:00".to_owned(), Code::DigestInvalid),
            ("/v2/a/blobs/sha256:00".to_owned(), Code::DigestInvalid),
            (format!("/v2/a/blobs/sha256:{}", HEX.replace('e', "g")), Code::DigestInvalid),
            ("/v2/a/manifests/sha256:xyz".to_owned(), Code::DigestInvalid),
            ("/v2/a/manifests/-bad".to_owned(), Code::ManifestInvalid),
            ("/v2/a/manifests/%2e%2e".to_owned(), Code::ManifestInvalid),
            ("/v2/a".to_owned(), Code::NameUnknown),
            ("/v2x".to_owned(), Code::NameUnknown),
        ] {
            assert_eq!(Route::parse(&path).unwrap_err().code, code, "{path}");
        }
    }
}
