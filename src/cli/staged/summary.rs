//! Staged tags as text: for `status`, the discard prompt, mount startup and daemon shutdown.

use crate::cli::terminal::{escape, output, units};
use crate::fs::StagedTag;

/// Tags beyond this number are counted instead of named.
const NAMED: usize = 5;

/// `1 staged tag`, `3 staged tags`.
pub fn count(tags: usize) -> String {
    if tags == 1 { "1 staged tag".to_owned() } else { format!("{tags} staged tags") }
}

/// The changes of a tag.
pub fn summary(tag: &StagedTag) -> String {
    if let Some(error) = &tag.error {
        return format!("cannot be read: {}", escape::one_line(error));
    }
    if tag.deleted {
        return "deleted".to_owned();
    }
    let mut parts = changes((tag.added, tag.changed, tag.removed));
    if parts.is_empty() {
        parts.push("no changes".to_owned());
    }
    if tag.bytes > 0 {
        parts.push(units::show_size(tag.bytes));
    }
    parts.join(", ")
}

/// Counts of added, changed and removed names, without zeros.
pub fn changes((added, changed, removed): (u64, u64, u64)) -> Vec<String> {
    let words = [(added, "added"), (changed, "changed"), (removed, "removed")];
    words.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}")).collect()
}

/// A new mount's note on a tag left staged by an earlier daemon.
pub fn staged_earlier(tag: &StagedTag) -> String {
    let name = name(tag);
    let as_staged = tag.as_staged.as_ref().map(|as_staged| format!(" ({})", escape::one_line(as_staged))).unwrap_or_default();
    match &tag.error {
        Some(_) => format!("staged earlier: {name} {}; `ocifs discard` drops it", summary(tag)),
        None => {
            let doubt = possibly_incomplete(tag).map_or(String::new(), |doubt| format!(" ({doubt})"));
            format!("staged earlier: {name}{as_staged}{doubt}; `ocifs diff` shows it, `ocifs sync` publishes it, `ocifs discard` drops it")
        }
    }
}

/// A message on tags that could not be published.
pub fn still_staged(rest: &[StagedTag], why: &str) -> String {
    let mut names: Vec<String> = rest.iter().take(NAMED).map(name).collect();
    if rest.len() > NAMED {
        names.push(format!("{} more", rest.len() - NAMED));
    }
    let verb = if rest.len() == 1 { "stays" } else { "stay" };
    format!("{} {verb} staged: {}; the next mount picks it up (see `ocifs status`)", names.join(", "), escape::one_line(why))
}

/// The table of `status`.
pub fn table(tags: &[StagedTag]) -> String {
    let row = |tag: &StagedTag| {
        let figure = |number: u64| if tag.deleted || tag.error.is_some() { String::new() } else { number.to_string() };
        let size = if tag.bytes > 0 { units::show_size(tag.bytes) } else { String::new() };
        vec![name(tag), figure(tag.added), figure(tag.changed), figure(tag.removed), size, remarks(tag)]
    };
    output::table(&["staged", "added", "changed", "removed", "size", ""], tags.iter().map(row).collect())
}

/// A note on staged edits of encrypted artifacts, if there are any.
pub fn plain_text_note<'tag>(tags: impl IntoIterator<Item = &'tag StagedTag>, state_directory: &str) -> Option<String> {
    tags.into_iter().any(|tag| tag.encrypted).then(|| {
        let shown = escape::terminal(state_directory);
        format!("staged edits of encrypted artifacts are stored unencrypted below {shown} until published")
    })
}

/// Files that a power cut may have damaged.
fn possibly_incomplete(tag: &StagedTag) -> Option<String> {
    let shown: Vec<_> = tag.suspects.iter().take(NAMED).map(|path| escape::terminal(path)).collect();
    let more = if tag.suspects.len() > NAMED { format!(" and {} more", tag.suspects.len() - NAMED) } else { String::new() };
    (!shown.is_empty()).then(|| format!("possibly incomplete after a power cut: {}{more}", shown.join(", ")))
}

fn remarks(tag: &StagedTag) -> String {
    let mut remarks = Vec::new();
    if let Some(error) = &tag.error {
        remarks.push(format!("cannot be read: {}", escape::one_line(error)));
    }
    if tag.deleted {
        remarks.push("deleted".to_owned());
    }
    remarks.extend(tag.as_staged.as_deref().map(escape::one_line));
    if !tag.edited && tag.error.is_none() {
        remarks.push("no changes".to_owned());
    }
    if tag.estimated {
        remarks.push("counted without upstream".to_owned());
    }
    if let Some(conflict) = &tag.conflict {
        remarks.push(format!("conflict: {}", escape::one_line(conflict)));
    }
    remarks.extend(possibly_incomplete(tag));
    if tag.writers {
        remarks.push("open for writing".to_owned());
    }
    if tag.ignored > 0 {
        remarks.push(format!("{} ignored (see --no-ignore)", tag.ignored));
    }
    if tag.encrypted {
        remarks.push("encrypted upstream".to_owned());
    }
    remarks.join("; ")
}

fn name(tag: &StagedTag) -> String {
    escape::terminal(&tag.reference).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag() -> StagedTag {
        StagedTag { reference: "reg.io/app:v\u{1b}2".into(), edited: true, added: 3, removed: 1, bytes: 2048, ..StagedTag::default() }
    }

    #[test]
    fn a_summary_has_no_zeros() {
        assert_eq!(summary(&tag()), "3 added, 1 removed, 2.0 KiB");
        assert_eq!(summary(&StagedTag { deleted: true, ..tag() }), "deleted");
        assert_eq!(summary(&StagedTag { error: Some("a\u{1b}\nb".into()), ..tag() }), "cannot be read: a\\u{1b}; b");
    }

    #[test]
    fn many_tags_are_named_up_to_a_number() {
        let rest = vec![tag(); 7];
        let text = still_staged(&rest, "the registry is down");
        assert!(text.contains(", 2 more stay staged: the registry is down;"), "{text}");
        assert!(still_staged(&rest[..1], "x").starts_with("reg.io/app:v\\u{1b}2 stays staged: x"));
    }

    #[test]
    fn the_table_shows_remarks_about_a_tag() {
        let odd = StagedTag {
            suspects: vec!["a\u{1b}".into()],
            ignored: 2,
            writers: true,
            conflict: Some("moved".into()),
            encrypted: true,
            ..tag()
        };
        let text = table(std::slice::from_ref(&odd));
        for part in ["reg.io/app:v\\u{1b}2", "3", "2.0 KiB", "conflict: moved", "open for writing", "2 ignored", "power cut: a\\u{1b}"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(plain_text_note([&odd], "/s").unwrap().contains("/s"));
        assert_eq!(plain_text_note([&tag()], "/s"), None);
    }
}
