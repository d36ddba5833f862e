//! The meaning of edits beyond the tree below them: the flags of the mount that began them.
//!
//! Recorded in the upper, so that every other mount or command shows and publishes the edits with the same meaning.

use serde::{Deserialize, Serialize};

use super::Context;
use crate::artifact::ViewMode;
use crate::error::{Error, ErrorKind};
use crate::oci::Platform;
use crate::staging::{Binding, TagKey, Upper, Uppers};

/// The kind of artifact to make of a new tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactKind {
    /// Titled layers, as ORAS reads them.
    #[default]
    Files,
    /// A container image.
    Image,
    /// One archive in the format of oci-sync, sealed if a passphrase is given.
    OciSync,
}

impl ArtifactKind {
    /// Its name, as in `--as-kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Image => "image",
            Self::OciSync => "oci-sync",
        }
    }
}

/// The meaning of edits. Keys are stable: they are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Meaning {
    /// The platform shown of an index, and that of a new image.
    #[serde(with = "text")]
    pub platform: Platform,
    /// Form of the tag's directory.
    pub view: ViewMode,
    /// Trust digests only.
    pub strict: bool,
    /// The kind of a new tag.
    pub kind: ArtifactKind,
    /// Deleting a tag here deletes it upstream too.
    pub allow_delete: bool,
    /// A passphrase was given: a new tag is encrypted if its kind supports it.
    pub encrypted: bool,
}

impl Meaning {
    /// The meaning of an upper's edits; `None` if written by an ocifs that did not record it.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn of(upper: &Upper) -> Result<Option<Self>, Error> {
        let Some(text) = upper.meaning()? else { return Ok(None) };
        let unreadable = |error| Error::new(ErrorKind::Integrity, format!("the recorded meaning of the edits cannot be read: {error}"));
        serde_json::from_str(&text).map(Some).map_err(unreadable)
    }

    /// Records it, durably.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn record(&self, upper: &Upper) -> Result<(), Error> {
        upper.set_meaning(&self.text()?)
    }

    fn text(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|error| Error::new(ErrorKind::Other, format!("cannot record flags: {error}")))
    }

    /// Creates the upper of a tag that has none, for edits with this meaning. Atomic: the upper exists with its meaning or not at all.
    ///
    /// # Errors
    /// As [`Uppers::create`].
    pub fn begin(&self, uppers: &Uppers, tag_key: &TagKey, binding: Binding) -> Result<Upper, Error> {
        uppers.create(tag_key, binding, Some(&self.text()?))
    }

    /// A note on edits begun under flags other than this mount's.
    pub fn beside(&self, own: &Self, binding: Binding) -> Option<String> {
        let mut words = Vec::new();
        if self.platform != own.platform {
            words.push(format!("platform {}", self.platform));
        }
        if self.view != own.view {
            words.push(format!("view {:?}", self.view).to_lowercase());
        }
        if self.strict && !own.strict {
            words.push("verify strict".to_owned());
        }
        if binding.expected.is_none() && self.kind != own.kind {
            words.push(format!("kind {}", self.kind.name()));
        }
        if binding.expected.is_none() && self.is_sealed() && !own.encrypted {
            words.push("encrypted".to_owned());
        }
        if binding.deleted && self.allow_delete != own.allow_delete {
            words.push(if self.allow_delete { "deleting allowed" } else { "deleting not allowed" }.to_owned());
        }
        (!words.is_empty()).then(|| format!("{}, as staged", words.join(", ")))
    }

    /// Whether a new tag is encrypted.
    pub fn is_sealed(&self) -> bool {
        self.encrypted && self.kind == ArtifactKind::OciSync
    }
}

impl Context {
    /// The context for the edits of an upper, which keep their original meaning. Of two verification modes the stricter wins.
    ///
    /// # Errors
    /// As [`Meaning::of`].
    pub fn of_upper(&self, upper: &Upper) -> Result<Self, Error> {
        let Some(meaning) = Meaning::of(upper)? else { return Ok(self.clone()) };
        let (artifacts, strict) = (self.artifacts.for_platform(&meaning.platform), self.meaning.strict || meaning.strict);
        Ok(Self { artifacts, meaning: Meaning { strict, ..meaning }, ..self.clone() })
    }
}

/// A platform in its textual form.
mod text {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::oci::Platform;

    pub fn serialize<S: Serializer>(platform: &Platform, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(platform)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Platform, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning() -> Meaning {
        let (kind, platform) = (ArtifactKind::OciSync, "linux/arm/v7".parse().unwrap());
        Meaning { platform, view: ViewMode::Merged, strict: true, kind, allow_delete: false, encrypted: true }
    }

    #[test]
    fn the_stored_form_is_stable() {
        let text = r#"{"platform":"linux/arm/v7","view":"merged","strict":true,"kind":"oci-sync","allow-delete":false,"encrypted":true}"#;
        assert_eq!(serde_json::to_string(&meaning()).unwrap(), text);
        assert_eq!(serde_json::from_str::<Meaning>(text).unwrap(), meaning());
    }

    #[test]
    fn an_upper_records_the_meaning_of_its_edits_and_reports_a_broken_record() {
        let directory = tempfile::tempdir().unwrap();
        let uppers = Uppers::open(directory.path(), None).unwrap();
        let tag_key = |tag: &str| TagKey { origin: "o".into(), authority: "reg.io".into(), repository: "app".into(), tag: tag.into() };
        drop(meaning().begin(&uppers, &tag_key("v1"), Binding::default()).unwrap());
        assert_eq!(Meaning::of(&uppers.find(&tag_key("v1")).unwrap().unwrap()).unwrap(), Some(meaning()));
        let older = uppers.create(&tag_key("v2"), Binding::default(), None).unwrap();
        assert_eq!(Meaning::of(&older).unwrap(), None);
        older.set_meaning("{}").unwrap();
        assert_eq!(Meaning::of(&older).unwrap_err().kind, ErrorKind::Integrity);
    }

    #[test]
    fn only_flags_that_affect_the_edits_are_reported() {
        let own = Meaning { platform: "linux/amd64".parse().unwrap(), strict: false, kind: ArtifactKind::Files, ..meaning() };
        let own = Meaning { encrypted: false, allow_delete: true, ..own };
        let digest = crate::oci::Digest::of(b"x");
        let there = Binding { under: Some(digest), expected: Some(digest), deleted: false };
        assert_eq!(meaning().beside(&own, there).as_deref(), Some("platform linux/arm/v7, verify strict, as staged"));
        let new = meaning().beside(&own, Binding::default()).unwrap();
        assert!(new.ends_with("verify strict, kind oci-sync, encrypted, as staged"), "{new}");
        assert!(meaning().beside(&own, Binding { deleted: true, ..there }).unwrap().contains("deleting not allowed"));
        assert_eq!(meaning().beside(&meaning(), Binding::default()), None);
    }
}
