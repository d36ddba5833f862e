//! The identity of an upper: `about.json`, readable without its database, and the name of its directory.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::{shown, system};
use super::{Binding, TagKey};
use crate::durable;
use crate::error::{Error, ErrorKind};

const VERSION: u32 = 1;
const NAME: &str = "about.json";
/// Longest valid document, in bytes.
const LONGEST: u64 = 64 << 10;

/// The document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    /// Incremented with every change that an older program would misread.
    pub version: u32,
    /// The tag.
    #[serde(rename = "subject")]
    pub tag_key: TagKey,
    /// The digest that the edits are based on, for humans.
    pub under: Option<String>,
}

impl About {
    pub fn new(tag_key: &TagKey, binding: &Binding) -> Self {
        Self { version: VERSION, tag_key: tag_key.clone(), under: binding.under.map(|digest| digest.to_string()) }
    }

    /// Replaces the document durably.
    pub fn write(&self, directory: &Path) -> Result<(), Error> {
        let path = directory.join(NAME);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::new(ErrorKind::Other, format!("cannot write {}: {error}", shown(&path))))?;
        durable::replace(&path, &[&text, b"\n"]).map_err(|error| system("cannot write", &path, &error))
    }

    /// Reads the document of an upper.
    pub fn read(directory: &Path) -> Result<Self, Error> {
        use std::io::Read;
        let path = directory.join(NAME);
        let damaged = |what: &str| {
            let text = format!("cannot read {}: {what}; nothing was deleted, the edits are in {}", shown(&path), shown(directory));
            Error::new(ErrorKind::Integrity, text)
        };
        let mut text = Vec::new();
        let file = match std::fs::File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && directory.is_dir() => return Err(damaged("it is missing")),
            other => other.map_err(|error| system("cannot read", &path, &error))?,
        };
        file.take(LONGEST + 1).read_to_end(&mut text).map_err(|error| system("cannot read", &path, &error))?;
        if text.len() as u64 > LONGEST {
            return Err(damaged("it is too long"));
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let version: Version = serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string().escape_debug().to_string()))?;
        if version.version > VERSION {
            let text = format!(
                "{} has format {}, but this ocifs supports formats up to {VERSION}; use the newer ocifs that wrote it",
                shown(&path),
                version.version
            );
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        serde_json::from_slice(&text).map_err(|error| damaged(&error.to_string().escape_debug().to_string()))
    }
}

impl TagKey {
    /// The tag as shown in messages, escaped.
    pub(super) fn shown(&self) -> String {
        let text = if self.authority.starts_with("oci:") {
            format!("{}:{}", self.authority, self.tag)
        } else {
            format!("{}/{}:{}", self.authority, self.repository, self.tag)
        };
        text.escape_debug().to_string()
    }

    /// The name of its directory: a hash of the tag key. Length prefixes keep the parts apart.
    pub(super) fn directory_name(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.origin, &self.repository, &self.tag] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Whether a name can be an upper's directory.
pub(super) fn is_directory_name(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
