//! Typed access to a TOML document. Mistakes are reported with their line, never with values, which may be secrets.

use std::fmt;
use std::ops::Range;

use toml_edit::{Document, Item, TableLike, TomlError};

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    line: Option<usize>,
    what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(formatter, "line {line}: {}", self.what),
            None => formatter.write_str(&self.what),
        }
    }
}

/// Parses a document.
pub(super) fn parse(text: &str) -> Result<Document<&str>, Mistake> {
    Document::parse(text).map_err(|error: TomlError| Mistake {
        line: error.span().map(|span| line_of(text, &span)),
        what: format!("not valid TOML: {}", error.message().lines().next().unwrap_or_default()),
    })
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1
}

/// A file and optionally another one that belongs to it.
type Pair<'a> = (&'a str, Option<&'a str>);

/// A table of a document.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    text: &'a str,
    table: &'a dyn TableLike,
    /// Where it begins, for mistakes not tied to a key.
    span: Option<usize>,
}

impl<'a> Table<'a> {
    /// The whole document.
    pub(super) fn root(text: &'a str, document: &'a Document<&str>) -> Self {
        Self { text, table: document.as_table(), span: None }
    }

    /// A mistake in the value of a key, or in the table itself if it lacks the key.
    pub(super) fn mistake(&self, key: &str, what: impl fmt::Display) -> Mistake {
        self.mistake_at(key, format_args!("`{}`: {what}", key.escape_debug()))
    }

    /// The same for a key that may contain a secret.
    pub(super) fn mistake_at(&self, key: &str, what: impl fmt::Display) -> Mistake {
        let of_key = self.table.key(key).and_then(|key| key.span());
        let of_value = || self.table.get(key).and_then(Item::span);
        let line = of_key.or_else(of_value).map(|span| line_of(self.text, &span));
        let line = line.or_else(|| self.span.map(|start| line_of(self.text, &(start..start))));
        Mistake { line, what: what.to_string() }
    }

    /// Refuses keys other than these.
    pub(super) fn check_keys(&self, known: &[&str]) -> Result<(), Mistake> {
        match self.keys().find(|key| !known.contains(key)) {
            Some(unknown) => Err(self.mistake(unknown, "unknown key")),
            None => Ok(()),
        }
    }

    /// Its keys, in the order of the file.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.table.iter().map(|(key, _)| key)
    }

    fn typed<T>(&self, key: &str, expected: &str, read: impl FnOnce(&'a Item) -> Option<T>) -> Result<Option<T>, Mistake> {
        match self.table.get(key) {
            None => Ok(None),
            Some(item) => read(item).map(Some).ok_or_else(|| self.mistake(key, format_args!("must be {expected}"))),
        }
    }

    /// A string.
    pub(super) fn string(&self, key: &str) -> Result<Option<&'a str>, Mistake> {
        self.typed(key, "a string", Item::as_str)
    }

    /// A boolean.
    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, Mistake> {
        self.typed(key, "true or false", Item::as_bool)
    }

    /// A string or an array of strings.
    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<&'a str>>, Mistake> {
        self.typed(key, "a string or an array of strings", |item| match item.as_str() {
            Some(one) => Some(vec![one]),
            None => item.as_array()?.iter().map(toml_edit::Value::as_str).collect(),
        })
    }

    /// A string, an array of strings, or an array of pairs of strings.
    pub(super) fn pairs(&self, key: &str) -> Result<Option<Vec<Pair<'a>>>, Mistake> {
        self.typed(key, "a file, an array of files, or an array of [certificate, key]", |item| match item.as_str() {
            Some(one) => Some(vec![(one, None)]),
            None => item.as_array()?.iter().map(pair).collect(),
        })
    }

    /// A table.
    pub(super) fn table(&self, key: &str) -> Result<Option<Self>, Mistake> {
        let inner = self.typed(key, "a table", Item::as_table_like)?;
        Ok(inner.map(|table| Self { text: self.text, table, span: self.start(key) }))
    }

    /// An array of tables.
    pub(super) fn tables(&self, key: &str) -> Result<Vec<Self>, Mistake> {
        let of = |table: &'a dyn TableLike, span: Option<Range<usize>>| Self { text: self.text, table, span: span.map(|span| span.start) };
        let found = self.typed(key, "an array of tables ([[…]])", |item| match item.as_array_of_tables() {
            Some(tables) => Some(tables.iter().map(|table| of(table, table.span())).collect()),
            None => item.as_array()?.iter().map(|value| value.as_inline_table().map(|table| of(table, table.span()))).collect(),
        })?;
        Ok(found.unwrap_or_default())
    }

    fn start(&self, key: &str) -> Option<usize> {
        let of_value = || self.table.get(key).and_then(Item::span);
        self.table.key(key).and_then(|key| key.span()).or_else(of_value).map(|span| span.start)
    }
}

fn pair(value: &toml_edit::Value) -> Option<Pair<'_>> {
    if let Some(one) = value.as_str() {
        return Some((one, None));
    }
    let both: Vec<&str> = value.as_array()?.iter().map(toml_edit::Value::as_str).collect::<Option<_>>()?;
    match both.as_slice() {
        [certificate, key] => Some((certificate, Some(key))),
        _ => None,
    }
}
