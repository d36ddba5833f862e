//! Just enough of Rust's lexical rules to judge a file: blanks comments and literals, finds paths and where the
//! tests begin. Owns no rule of the project. Lines keep their numbers.

/// The text with the inside of comments, strings and characters replaced by spaces.
pub fn blank(raw: &str) -> String {
    let text: Vec<char> = raw.chars().collect();
    let mut out = String::with_capacity(raw.len());
    let mut at = 0;
    while at < text.len() {
        let end = end_of_opaque(&text, at);
        if end == at {
            out.push(text[at]);
            at += 1;
        } else {
            out.extend(text[at..end].iter().map(|symbol| if *symbol == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment or literal that starts here; `at` itself if none does.
fn end_of_opaque(text: &[char], at: usize) -> usize {
    let symbol = |offset: usize| text.get(at + offset).copied().unwrap_or('\0');
    let in_word = at > 0 && is_word(text[at - 1]);
    match symbol(0) {
        '/' if symbol(1) == '/' => find(text, at, |rest| rest[0] == '\n').unwrap_or(text.len()),
        '/' if symbol(1) == '*' => end_of_block(text, at),
        '"' => end_of_quoted(text, at + 1),
        'r' | 'b' | 'c' if !in_word => end_of_prefixed(text, at),
        // A quote is a character if it closes at once or holds an escape, else a lifetime.
        '\'' if symbol(1) == '\\' => find(text, at + 3, |rest| rest[0] == '\'').map_or(text.len(), |end| end + 1),
        '\'' if symbol(2) == '\'' => at + 3,
        _ => at,
    }
}

fn find(text: &[char], from: usize, wanted: impl Fn(&[char]) -> bool) -> Option<usize> {
    (from..text.len()).find(|at| wanted(&text[*at..]))
}

fn end_of_block(text: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (0, start);
    while at < text.len() {
        match text[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

fn end_of_quoted(text: &[char], inside: usize) -> usize {
    let mut at = inside;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// `b"…"`, `c"…"`, `r"…"`, `br#"…"#`; a word that merely starts with such a letter ends where it starts.
fn end_of_prefixed(text: &[char], start: usize) -> usize {
    let raw = text[start..].iter().take(2).position(|symbol| *symbol == 'r');
    let mut at = start + text[start..].iter().take(2).take_while(|symbol| matches!(symbol, 'r' | 'b' | 'c')).count();
    let hashes = if raw.is_some() { text[at..].iter().take_while(|symbol| **symbol == '#').count() } else { 0 };
    at += hashes;
    if text.get(at) != Some(&'"') {
        return start;
    }
    if raw.is_none() {
        return end_of_quoted(text, at + 1);
    }
    let closing = |rest: &[char]| rest[0] == '"' && rest[1..].iter().take_while(|symbol| **symbol == '#').count() >= hashes;
    find(text, at + 1, closing).map_or(text.len(), |end| end + 1 + hashes)
}

fn is_word(symbol: char) -> bool {
    symbol.is_alphanumeric() || symbol == '_'
}

/// The words of blanked text with their byte positions.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest + code[rest..].find(is_word)?;
        let length = code[start..].find(|symbol| !is_word(symbol)).unwrap_or(code.len() - start);
        rest = start + length;
        Some((start, &code[start..rest]))
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count()
}

/// Line and name of everything directly below `root::`, in single paths and in groups.
pub fn paths_below(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, word) in words(code).filter(|(at, word)| *word == root && !code[..*at].ends_with("::")) {
        let Some(rest) = code[at + word.len()..].trim_start().strip_prefix("::") else { continue };
        let rest = rest.trim_start();
        let start = code.len() - rest.len();
        if let Some(group) = rest.strip_prefix('{') {
            for (offset, name) in first_names(group) {
                found.push((line_of(code, start + 1 + offset), name));
            }
        } else if let Some((0, name)) = words(rest).next() {
            found.push((line_of(code, start), name.to_owned()));
        }
    }
    found
}

/// The first name of each member of a group whose opening brace is already gone.
fn first_names(group: &str) -> Vec<(usize, String)> {
    let (mut depth, mut expected, mut found) = (0, true, Vec::new());
    for (at, symbol) in group.char_indices() {
        match symbol {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expected = true,
            _ if depth == 0 && expected && is_word(symbol) => {
                expected = false;
                found.push((at, words(&group[at..]).next().map(|(_, name)| name.to_owned()).unwrap_or_default()));
            }
            _ => {}
        }
    }
    found
}

/// A path in code, with all its components.
pub struct Import {
    /// `["crate", "cache", "Store"]`; at least two parts.
    pub path: Vec<String>,
    /// What it is called here.
    pub name: String,
    /// Whether it is a re-export.
    pub is_public: bool,
}

/// All paths of some blanked code, each member of a group by itself.
pub fn imports(code: &str) -> Vec<Import> {
    let mut found = Vec::new();
    let mut end = 0;
    for (at, word) in words(code) {
        if at < end || code[..at].ends_with("::") {
            continue;
        }
        let before = code[..at].trim_end();
        // The path of a visibility imports nothing.
        if before.ends_with("pub(in") {
            continue;
        }
        let is_public =
            before.strip_suffix("use").map(str::trim_end).is_some_and(|before| before.ends_with("pub") || before.ends_with(')'));
        let mut paths = Vec::new();
        end = code.len() - members(&code[at..], &mut Vec::new(), &mut paths).len();
        debug_assert!(end >= at + word.len());
        let imports = paths.into_iter().filter(|(path, _)| path.len() > 1);
        found.extend(imports.map(|(path, name)| Import { path, name, is_public }));
    }
    found
}

/// Reads a path, or a group of them, and returns the remaining text.
fn members<'code>(code: &'code str, above: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) -> &'code str {
    let depth = above.len();
    let mut rest = code;
    while let Some((0, word)) = words(rest).next() {
        if word != "self" || above.is_empty() {
            above.push(word.to_owned());
        }
        rest = &rest[word.len()..];
        match rest.strip_prefix("::") {
            Some(behind) => rest = behind,
            None => break,
        }
    }
    if let Some(mut group) = rest.strip_prefix('{').filter(|_| above.len() > depth) {
        loop {
            group = group.trim_start_matches(|symbol: char| symbol.is_whitespace() || symbol == ',');
            let behind = members(group, above, found);
            if behind.len() == group.len() {
                rest = group.strip_prefix('}').unwrap_or(group);
                break;
            }
            group = behind;
        }
    } else if above.len() > depth || code.starts_with("self") {
        let alias = rest.trim_start().strip_prefix("as ").and_then(|alias| words(alias).next());
        let name = alias.map_or_else(|| above.last().cloned().unwrap_or_default(), |(_, name)| name.to_owned());
        if let Some((offset, alias)) = alias {
            let behind = rest.trim_start().strip_prefix("as ").unwrap_or_default();
            rest = &behind[offset + alias.len()..];
        }
        found.push((above.clone(), name));
    }
    above.truncate(depth);
    rest
}

/// The first names of the paths in a line (`tar` of `tar::Archive`), and of bare `use tar;`.
pub fn roots_of_paths(line: &str) -> impl Iterator<Item = &str> {
    words(line).filter_map(|(at, word)| {
        let before = line[..at].trim_end();
        let after = line[at + word.len()..].trim_start();
        let starts =
            !before.ends_with("::") || before.strip_suffix("::").is_some_and(|rest| rest.is_empty() || rest.ends_with([' ', '(', '<']));
        let imported =
            (before.ends_with("use") || before.ends_with("extern crate")) && (after.starts_with(';') || after.starts_with("as "));
        (starts && (after.starts_with("::") || imported)).then_some(word)
    })
}

/// Line (from 0) of the first `#[cfg(test)]` that guards a module, or beyond the last line.
pub fn first_test_line(code: &str) -> usize {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let guards_module = |from: usize| {
        let item = lines[from + 1..].iter().find(|line| !line.is_empty() && !line.starts_with("#["));
        item.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    };
    (0..lines.len()).find(|at| lines[*at] == "#[cfg(test)]" && guards_module(*at)).unwrap_or(usize::MAX)
}

/// Line, number of enclosing modules opened inside the file, and length of each chain of `super::`.
pub fn climbs(code: &str) -> Vec<(usize, usize, usize)> {
    let mut open: Vec<usize> = Vec::new();
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let indent = line.len() - line.trim_start().len();
        open.retain(|module| *module < indent);
        for (at, _) in words(line).filter(|(at, word)| *word == "super" && !line[..*at].ends_with("::")) {
            let chain = line[at..].split("::").take_while(|part| part.trim() == "super").count();
            found.push((number, open.len(), chain));
        }
        let item = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        if item.starts_with("mod ") && line.trim_end().ends_with('{') {
            open.push(indent);
        }
    }
    found
}
