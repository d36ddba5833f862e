//! Titles: manifest text that requests a path. Text that would leave the tree or is not a valid name never becomes a path.

use crate::oci::Digest;
use crate::path::{components, is_component, join, name, typed};

/// Longest path that a title may request: Linux's path limit, in bytes.
const PATH_LIMIT: usize = 4095;

/// The path requested by a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::artifact) struct Title {
    /// A cleaned relative path; empty for the directory itself (`.`); `None` if the text escapes or is not a path.
    pub path: Option<Vec<u8>>,
    /// The last component, if it is a valid name.
    pub name: Option<Vec<u8>>,
}

impl Title {
    /// Parses a title.
    pub fn parse(text: &str) -> Self {
        let path = typed(text);
        let last = Some(name(&path)).filter(|name| is_component(name)).map(<[u8]>::to_vec);
        let inside = !text.is_empty() && !text.starts_with('/') && components(&path).all(is_component);
        Self { name: last, path: Some(path).filter(|path| inside && path.len() <= PATH_LIMIT) }
    }

    /// A plain generated name.
    pub fn name(name: &str) -> Self {
        Self { path: Some(name.as_bytes().to_vec()), name: Some(name.as_bytes().to_vec()) }
    }

    /// No request: only the digest names the blob.
    pub fn none() -> Self {
        Self::default()
    }

    /// The same without the requested path, so that the digest becomes part of the name.
    pub fn refused(mut self) -> Self {
        self.path = None;
        self
    }

    /// The paths below `base` to try, best first: as requested, `name~<12 hex>` beside it and at the base, `sha256-<hex>`, and then that with a number, one
    /// of which is always free.
    pub fn places(&self, base: &[u8], digest: &Digest) -> impl Iterator<Item = Vec<u8>> + use<> {
        let full = digest.path_name().into_bytes();
        let mut places = Vec::new();
        if let Some(path) = self.path.as_ref().filter(|path| !path.is_empty()) {
            places.push(path.clone());
        }
        if let Some(name) = &self.name {
            let marked = [name.as_slice(), b"~", digest.short().as_bytes()].concat();
            if is_component(&marked) {
                if let Some(above) =
                    self.path.as_ref().and_then(|path| path.strip_suffix(name.as_slice())).filter(|above| !above.is_empty())
                {
                    places.push([above, marked.as_slice()].concat());
                }
                places.push(marked);
            }
        }
        places.push(full.clone());
        let numbered = (2u64..).map(move |number| [full.as_slice(), format!("~{number}").as_bytes()].concat());
        let base = base.to_vec();
        places.into_iter().chain(numbered).map(move |place| join(&base, &place))
    }
}

/// A title as the prefix of its archive's entries: cleaned like the paths in archives.
pub(super) fn as_prefix(text: &str) -> Vec<u8> {
    let mut components: Vec<&str> = Vec::new();
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    components.join("/").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_places(text: &str) -> Vec<String> {
        let digest = Digest::of(b"x");
        let places = Title::parse(text).places(b"", &digest).take(4);
        places.map(|place| String::from_utf8(place).unwrap().replace(&digest.hex(), "HEX").replace(&digest.short(), "12")).collect()
    }

    #[test]
    fn a_good_title_is_tried_first_then_with_the_digest() {
        assert_eq!(first_places("a"), ["a", "a~12", "sha256-HEX", "sha256-HEX~2"]);
        assert_eq!(first_places("./d//a/"), ["d/a", "d/a~12", "a~12", "sha256-HEX"]);
    }

    #[test]
    fn an_escaping_or_invalid_title_never_becomes_a_path() {
        assert_eq!(first_places("../up")[0], "up~12");
        assert_eq!(first_places("/etc/passwd")[0], "passwd~12");
        assert_eq!(first_places("a/../b")[0], "b~12");
        for text in ["", ".", "./", "..", "a\0b", "/"] {
            assert_eq!(first_places(text)[0], "sha256-HEX", "{text:?}");
        }
        assert_eq!(first_places(&"n".repeat(256))[0], "sha256-HEX");
        assert_eq!(first_places(&format!("{}/x", "n".repeat(256)))[0], "x~12");
        assert_eq!(first_places(&"n".repeat(250))[1], "sha256-HEX");
    }

    #[test]
    fn the_prefix_of_an_archive_is_cleaned_as_its_entries_are() {
        assert_eq!(as_prefix("./a//b/"), b"a/b");
        assert_eq!(as_prefix("../../x"), b"x");
        assert_eq!(as_prefix("."), b"");
    }
}
