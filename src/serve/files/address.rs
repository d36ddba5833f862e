//! Addresses below `/files/`: parses a URL path into the object it names, and formats it back. Pure.
//!
//! A path is split before it is decoded, and every part must then match its grammar, so no encoded separator, dot segment or NUL gets
//! through. It is decoded once: `%252e` is the name `%2e`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::oci::{Repository, Tag, Version};
use crate::serve::problem::{Code, Problem};
use crate::serve::route;

/// The prefix of all paths into artifacts.
const BELOW: &str = "/files/";
/// Characters that are percent-encoded: all but the unreserved ones of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A repository, an artifact in it, or a file in that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The repository, by its name here.
    pub(super) repository: Repository,
    /// The tag or digest; `None` for the repository itself.
    pub(super) version: Option<Version>,
    /// Names from the root of the artifact down.
    pub(super) path: Vec<Vec<u8>>,
}

impl Address {
    /// A repository, or an artifact in it.
    pub(super) fn new(repository: Repository, version: Option<Version>) -> Self {
        Self { repository, version, path: Vec::new() }
    }

    /// Parses `/files/REPOSITORY`, `/files/REPOSITORY:TAG/PATH` or `/files/REPOSITORY@DIGEST/PATH`, still percent-encoded.
    ///
    /// # Errors
    /// 400 for names outside of the grammar.
    pub(super) fn parse(path: &str) -> Result<Self, Problem> {
        let below = path.strip_prefix(BELOW).ok_or_else(|| Problem::not_found(Code::NameUnknown, "no such page"))?;
        let mut parts: Vec<Vec<u8>> = below.split('/').map(|part| percent_decode_str(part).collect()).collect();
        // A directory may end with a slash.
        parts.pop_if(|last| last.is_empty());
        let versioned = parts.iter().position(|part| part.iter().any(|byte| matches!(byte, b':' | b'@')));
        let path = parts.split_off(versioned.map_or(parts.len(), |at| at + 1));
        if path.iter().any(|name| !is_name(name)) {
            let message = "a name in the path is empty, is a dot segment, or contains a slash or NUL";
            return Err(Problem::bad(Code::NameInvalid, message));
        }
        let mut name = String::new();
        for part in &parts {
            let text = std::str::from_utf8(part).ok().filter(|text| !text.contains('/'));
            let text = text.ok_or_else(|| Problem::bad(Code::NameInvalid, "invalid repository name"))?;
            name.push_str(if name.is_empty() { "" } else { "/" });
            name.push_str(text);
        }
        Ok(Self { path, ..Self::of_reference(&name)? })
    }

    /// Parses `REPOSITORY`, `REPOSITORY:TAG` or `REPOSITORY@DIGEST`.
    ///
    /// # Errors
    /// 400 for names outside of the grammar.
    pub(super) fn of_reference(text: &str) -> Result<Self, Problem> {
        let invalid = |code| move |error: crate::oci::InvalidReference| Problem::bad(code, error.to_string());
        let (name, version) = match text.find([':', '@']) {
            None => (text, None),
            Some(at) => {
                let (name, version) = text.split_at(at);
                let version = match version.strip_prefix('@') {
                    Some(digest) => Version::Digest(route::digest(digest)?),
                    None => Version::Tag(Tag::parse(version.get(1..).unwrap_or_default()).map_err(invalid(Code::ManifestInvalid))?),
                };
                (name, Some(version))
            }
        };
        Ok(Self::new(Repository::parse(name).map_err(invalid(Code::NameInvalid))?, version))
    }

    /// The root of the same repository's artifact with another version.
    pub(super) fn with_version(&self, version: Option<Version>) -> Self {
        Self::new(self.repository.clone(), version)
    }

    /// The ancestor directory at this depth below the root.
    pub(super) fn ancestor(&self, depth: usize) -> Self {
        Self { path: self.path.iter().take(depth).cloned().collect(), ..self.clone() }
    }

    /// The path of its URL; a directory ends with a slash.
    pub(super) fn url(&self, is_directory: bool) -> String {
        let mut url = format!("{BELOW}{}", self.reference());
        for name in &self.path {
            url.push('/');
            url.extend(percent_encode(name, ENCODED));
        }
        if is_directory && self.version.is_some() {
            url.push('/');
        }
        url
    }

    /// The repository with tag or digest, as commands expect it after the host.
    pub(super) fn reference(&self) -> String {
        self.version.as_ref().map_or_else(|| self.repository.to_string(), |version| format!("{}{version}", self.repository))
    }

    /// The path inside the artifact, for people.
    pub(super) fn path_text(&self) -> String {
        String::from_utf8_lossy(&self.path.join(&b'/')).into_owned()
    }

    /// Whether the version is a digest, so the content never changes.
    pub(super) fn is_pinned(&self) -> bool {
        matches!(self.version, Some(Version::Digest(_)))
    }
}

/// A value of a query, percent-encoded.
pub(super) fn encoded(value: &str) -> String {
    percent_encode(value.as_bytes(), ENCODED).to_string()
}

/// Whether a file can have this name.
fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn path(path: &str) -> Vec<Vec<u8>> {
        Address::parse(&format!("/files/a:v1/{path}")).unwrap().path
    }

    #[test]
    fn repositories_artifacts_and_files_have_addresses() {
        let digest = format!("@sha256:{HEX}");
        for (url, repository, version, depth) in [
            ("/files/team/app".to_owned(), "team/app", None, 0),
            ("/files/team/app/".to_owned(), "team/app", None, 0),
            ("/files/team/app:v1".to_owned(), "team/app", Some(":v1"), 0),
            ("/files/team/app:v1/".to_owned(), "team/app", Some(":v1"), 0),
            ("/files/team/app:v1/a/b:c@d/e".to_owned(), "team/app", Some(":v1"), 3),
            (format!("/files/app{digest}/a/"), "app", Some(digest.as_str()), 1),
            (
                format!("/files/app{}/a", digest.replace('@', "%40").replace(':', "%3A").to_uppercase().replace("%3A", "%3a")),
                "app",
                Some(&digest),
                1,
            ),
        ] {
            let address = Address::parse(&url).unwrap();
            assert_eq!((address.repository.as_str(), address.path.len()), (repository, depth), "{url}");
            let named = version.map_or_else(|| repository.to_owned(), |version| format!("{repository}{version}"));
            assert_eq!(address.reference(), named, "{url}");
            assert_eq!(Address::parse(&address.url(true)).unwrap(), address, "{url}");
            assert_eq!(Address::parse(&address.url(false)).unwrap(), address, "{url}");
        }
    }

    #[test]
    fn names_are_decoded_once_and_encoded_again() {
        assert_eq!(path("a%20b/%ff/%3Cimg%20src%3D%22x%22%3E"), [&b"a b"[..], b"\xff", b"<img src=\"x\">"]);
        assert_eq!(path("%252e%252e/%252f/%2500"), [&b"%2e%2e"[..], b"%2f", b"%00"]);
        assert_eq!(path("100%/%zz/..."), [&b"100%"[..], b"%zz", b"..."]);
        let odd = Address { path: vec![b"a b?#%\"<>&'".to_vec(), b"\n\xff".to_vec()], ..Address::of_reference("a:v1").unwrap() };
        assert_eq!(odd.url(false), "/files/a:v1/a%20b%3F%23%25%22%3C%3E%26%27/%0A%FF");
        assert_eq!(Address::parse(&odd.url(true)).unwrap(), odd);
    }

    #[test]
    fn paths_that_could_lead_elsewhere_are_refused() {
        for name in ["..", ".", "%2e%2e", ".%2E", "a/../b", "a//b", "a%2fb", "%2F", "..%2f..", "a%00", "%00", "/"] {
            let refused = Address::parse(&format!("/files/a:v1/{name}")).unwrap_err();
            assert_eq!((refused.status.as_u16(), refused.code), (400, Code::NameInvalid), "{name}");
        }
        for path in ["A", "a%2fb", "a//b", "a/..", "a:", "a:-x", "a:v1@sha256:x", "a@sha256:00", "a@v1", "..:v1", "a%00:v1", "%ff", ""] {
            assert_eq!(Address::parse(&format!("/files/{path}")).unwrap_err().status.as_u16(), 400, "{path}");
        }
        assert_eq!(Address::parse("/file/a").unwrap_err().status.as_u16(), 404);
    }
}
