//! Results on standard output: text tables, or JSON and YAML. A closed pipe is not an error.

use std::io::{self, BufWriter, Write};

use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use crate::cli::exit::Failure;
use crate::cli::settings::flags::{Format, Output};
use crate::cli::terminal::{escape, units};
use crate::control::CacheStatus;

/// Prints a value with stable keys, as YAML if `format` says so, else as JSON.
///
/// # Errors
/// Standard output cannot be written.
pub fn data(format: Format, value: &(impl Serialize + ?Sized)) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(|error| Failure::other(error.to_string()))?;
    if format == Format::Yaml {
        let yaml = serde_saphyr::to_string(&value).map_err(|error| Failure::other(error.to_string()))?;
        // JSON is valid YAML, and can hold every character as an escape.
        if yaml.lines().all(|line| matches!(escape::terminal(line), std::borrow::Cow::Borrowed(_))) {
            return line(yaml.trim_end());
        }
    }
    line(&escape::json(&json))
}

/// Prints a value as data, or as `text` for the text format; an empty text prints nothing.
///
/// # Errors
/// Standard output cannot be written.
pub fn show<T: Serialize + ?Sized>(format: Format, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
    match format {
        Format::Text => Some(text(value)).filter(|text| !text.is_empty()).map_or(Ok(()), |text| line(&text)),
        Format::Json | Format::Yaml => data(format, value),
    }
}

impl Output {
    /// Whether the result is not printed: data always is.
    pub fn is_silent(&self) -> bool {
        self.quiet && self.format == Format::Text
    }

    /// Prints a value as [`show`] does, unless the output is silent.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn show<T: Serialize + ?Sized>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        if self.is_silent() { Ok(()) } else { show(self.format, value, text) }
    }
}

/// Prints one or more lines.
///
/// # Errors
/// Standard output cannot be written.
pub fn line(text: &str) -> Result<(), Failure> {
    lines([text])
}

/// Prints many lines.
///
/// # Errors
/// Standard output cannot be written.
pub fn lines(lines: impl IntoIterator<Item = impl AsRef<str>>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut written = lines.into_iter().try_for_each(|line| writeln!(out, "{}", line.as_ref()));
    written = written.and_then(|()| out.flush());
    unless_closed(written)
}

/// Writes raw bytes.
///
/// # Errors
/// Standard output cannot be written.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    unless_closed(out.write_all(bytes).and_then(|()| out.flush()))
}

fn unless_closed(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::other(format!("cannot write to standard output: {error}"))),
        _ => Ok(()),
    }
}

/// A table without borders. Cells must be escaped.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// Lines of `name  value` with aligned values.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines: Vec<String> = pairs.iter().map(|(name, value)| format!("{name:width$}  {value}").trim_end().to_owned()).collect();
    lines.join("\n")
}

/// The usage of a cache, as pairs.
pub fn cache_pairs(cache: &CacheStatus) -> Vec<(&'static str, String)> {
    vec![
        ("cache", escape::path(&cache.directory)),
        ("content", format!("{} of {}", units::show_size(cache.data), units::show_size(cache.size))),
        ("pinned", units::show_size(cache.pinned)),
        ("indexes", units::show_size(cache.indexes)),
        ("blobs", cache.streams.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let text = table(&["a", "size"], vec![vec!["long name".into(), "1".into()], vec!["x".into(), "22".into()]]);
        assert_eq!(text, "A          SIZE\nlong name  1\nx          22");
        assert_eq!(pairs(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2");
    }
}
