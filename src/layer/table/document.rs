//! The JSON of a table, one entry at a time: eStargz and zstd:chunked agree on its keys.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::limits::unusable;
use crate::error::Error;

/// The version of tables of both formats.
const VERSION: u64 = 1;

/// An entry as written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written<'a> {
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub link_name: Cow<'a, str>,
    #[serde(default)]
    pub mode: u64,
    #[serde(default)]
    pub size: u64,
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
    pub modtime: Option<Cow<'a, str>>,
    #[serde(default)]
    pub dev_major: u32,
    #[serde(default)]
    pub dev_minor: u32,
    #[serde(default)]
    pub xattrs: Option<Attributes>,
    pub digest: Option<Cow<'a, str>>,
    #[serde(default)]
    pub offset: u64,
    /// Where a chunk begins in a member that holds several.
    #[serde(default)]
    pub inner_offset: u64,
    #[serde(default)]
    pub chunk_offset: u64,
    /// 0 for the rest of the file.
    #[serde(default)]
    pub chunk_size: u64,
    pub chunk_digest: Option<Cow<'a, str>>,
    /// `zeros` for a hole.
    pub chunk_type: Option<Cow<'a, str>>,
}

impl Written<'_> {
    /// Whether it is a further chunk of the file before it.
    pub fn is_chunk(&self) -> bool {
        self.kind == "chunk"
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == "reg"
    }
}

/// Extended attributes, values in base64.
pub(super) struct Attributes(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Attributes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("extended attributes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
                let mut pairs = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Option<String>>()? {
                    pairs.push((name, value.unwrap_or_default()));
                }
                Ok(Attributes(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Calls `each` with every entry, in order.
///
/// # Errors
/// Unsupported for broken JSON, another version, or what `each` refuses.
pub(super) fn read(text: &[u8], each: impl FnMut(&Written<'_>) -> Result<(), Error>) -> Result<(), Error> {
    let mut refused = None;
    let mut json = serde_json::Deserializer::from_slice(text);
    let parsed = Document { each, refused: &mut refused }.deserialize(&mut json).and_then(|()| json.end());
    match (refused, parsed) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(unusable(&error.to_string())),
        (None, Ok(())) => Ok(()),
    }
}

/// The table.
struct Document<'e, F> {
    each: F,
    refused: &'e mut Option<Error>,
}

impl<'de, F: FnMut(&Written<'_>) -> Result<(), Error>> DeserializeSeed<'de> for Document<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(&Written<'_>) -> Result<(), Error>> Visitor<'de> for Document<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let (mut version, mut has_entries) = (None, false);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "version" => version = Some(map.next_value::<u64>()?),
                "entries" if has_entries => return Err(A::Error::custom("it has two lists of entries")),
                "entries" => {
                    has_entries = true;
                    map.next_value_seed(Entries { each: &mut self.each, refused: self.refused })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if version == Some(VERSION) && has_entries { Ok(()) } else { Err(A::Error::custom("its version is unknown")) }
    }
}

/// The list of entries.
struct Entries<'e, F> {
    each: &'e mut F,
    refused: &'e mut Option<Error>,
}

impl<'de, F: FnMut(&Written<'_>) -> Result<(), Error>> DeserializeSeed<'de> for Entries<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(&Written<'_>) -> Result<(), Error>> Visitor<'de> for Entries<'_, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element::<Written<'de>>()? {
            if let Err(error) = (self.each)(&entry) {
                *self.refused = Some(error);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}
