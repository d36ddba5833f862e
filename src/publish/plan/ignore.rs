//! Ignored files: leftovers of editors, systems and container runtimes, and `.ocifsignore` matches. They are not published unless the tag already
//! holds them upstream.
//!
//! `.ocifsignore`, at the root of the tag, supports a subset of `.gitignore`: one pattern per line; empty lines and lines starting with `#` are
//! skipped; `*` and `?` match within a name, `**` across names; `[...]` is not special; a pattern with a `/` before its end is anchored at the
//! root, any other matches a name at any depth; a trailing `/` matches only directories; `!` reverts an earlier match; `\` escapes the next
//! character. The content of an ignored directory is ignored too.

use crate::artifact::Kind;
use crate::path::{is_within, name};
use crate::view::glob;

/// The file with the patterns.
pub const IGNORE_FILE: &[u8] = b".ocifsignore";
/// Most bytes read of it.
pub const IGNORE_LIMIT: u32 = 256 << 10;

/// Always ignored: Finder's notes, NFS and FUSE files removed while open, vi's swap files, files that Docker and podman put into every container.
/// Names ending in `~` are not ignored: they may be intended backups.
const ALWAYS: &str = ".DS_Store\n.nfs*\n.fuse_hidden*\n*.swp\n/.dockerenv\n/run/.containerenv\n";
/// Empty files and a link that container runtimes create in a root file system as mount points or for `mount`.
const MOUNTED_OVER: [&[u8]; 4] = [b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"dev/console"];
const MOUNTS: &[u8] = b"etc/mtab";

/// Decides which names of a tag a publish leaves out; query them in path order.
pub struct LeftOut {
    rules: IgnoreRules,
    /// The ignored directory that covers the current path.
    directory: Option<Vec<u8>>,
}

impl LeftOut {
    /// Uses the built-in rules and an ignore file. `has_base`: the tag exists upstream.
    pub fn new(ignore_file: &[u8], has_base: bool) -> Self {
        let rules = IgnoreRules::new(ignore_file);
        Self { rules: if has_base { rules.and_of_runtimes() } else { rules }, directory: None }
    }

    /// Whether to leave out a name. `is_upstream`: the tag holds it upstream.
    pub fn has(&mut self, path: &[u8], kind: Kind, size: u64, is_upstream: bool) -> bool {
        if self.directory.as_ref().is_some_and(|above| is_within(path, above)) {
            return true;
        }
        let is_left_out = kind == Kind::Socket || !is_upstream && self.rules.matches(path, kind, size);
        if is_left_out && kind == Kind::Directory {
            self.directory = Some(path.to_vec());
        }
        is_left_out
    }
}

/// Whether a container runtime created this in a root file system that lacked it. In an entirely new tag it was copied deliberately.
fn is_left_by_a_runtime(path: &[u8], kind: Kind, size: u64) -> bool {
    match kind {
        Kind::File => size == 0 && MOUNTED_OVER.contains(&path),
        Kind::Symlink => path == MOUNTS,
        _ => false,
    }
}

struct Pattern {
    glob: Vec<u8>,
    rooted: bool,
    directory: bool,
    negated: bool,
}

/// Rules for paths to ignore.
pub(in crate::publish) struct IgnoreRules {
    patterns: Vec<Pattern>,
    /// Whether leftovers of container runtimes are ignored too.
    of_runtimes: bool,
}

impl IgnoreRules {
    /// The built-in rules and those of an ignore file.
    pub fn new(ignore_file: &[u8]) -> Self {
        let lines = ALWAYS.as_bytes().split(|byte| *byte == b'\n').chain(ignore_file.split(|byte| *byte == b'\n'));
        Self { patterns: lines.filter_map(Pattern::parse).collect(), of_runtimes: false }
    }

    /// No rules (`--no-ignore`).
    pub fn none() -> Self {
        Self { patterns: Vec::new(), of_runtimes: false }
    }

    /// Also ignores leftovers of container runtimes in a root file system.
    pub fn and_of_runtimes(self) -> Self {
        Self { of_runtimes: true, ..self }
    }

    /// Whether this very path matches; its parents were checked before.
    pub fn matches(&self, path: &[u8], kind: Kind, size: u64) -> bool {
        let last = self.patterns.iter().rev().find(|pattern| pattern.matches(path, kind));
        !path.is_empty() && last.map_or(self.of_runtimes && is_left_by_a_runtime(path, kind, size), |pattern| !pattern.negated)
    }
}

impl Pattern {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = trim_end(line);
        if line.is_empty() || line.starts_with(b"#") {
            return None;
        }
        let (negated, line) = line.strip_prefix(b"!").map_or((false, line), |rest| (true, rest));
        let (directory, line) = line.strip_suffix(b"/").map_or((false, line), |rest| (true, rest));
        let rooted = line.contains(&b'/');
        let glob = line.strip_prefix(b"/").unwrap_or(line).to_vec();
        (!glob.is_empty()).then_some(Self { glob, rooted, directory, negated })
    }

    fn matches(&self, path: &[u8], kind: Kind) -> bool {
        if self.directory && kind != Kind::Directory {
            return false;
        }
        if self.rooted {
            return glob(&self.glob, path);
        }
        glob(&self.glob, name(path))
    }
}

/// Trims trailing spaces unless the last one is escaped.
fn trim_end(mut line: &[u8]) -> &[u8] {
    while let Some(rest) = line.strip_suffix(b" ") {
        if rest.ends_with(b"\\") {
            break;
        }
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a path that is not upstream is ignored without an ignore file.
    fn is_ignored(path: &[u8], kind: Kind, size: u64, has_base: bool) -> bool {
        LeftOut::new(b"", has_base).has(path, kind, size, false)
    }

    fn is_left_out(ignore: &str, path: &str) -> bool {
        let kind = if path.ends_with('/') { Kind::Directory } else { Kind::File };
        IgnoreRules::new(ignore.as_bytes()).matches(path.trim_end_matches('/').as_bytes(), kind, 1)
    }

    #[test]
    fn leftovers_of_systems_and_editors_are_ignored_at_any_depth() {
        for path in [".DS_Store", "a/b/.DS_Store", "a/.nfs000123", ".fuse_hidden0001", "a/.x.txt.swp", "x.swp"] {
            assert!(is_left_out("", path), "{path}");
            assert!(!IgnoreRules::none().matches(path.as_bytes(), Kind::File, 1), "{path}");
        }
        for path in ["DS_Store", "swp", "notes~", "a/.gitignore", ".ocifsignore"] {
            assert!(!is_left_out("", path), "{path}");
        }
    }

    #[test]
    fn leftovers_of_container_runtimes_are_ignored_in_a_tag_that_lacked_them() {
        for path in [".dockerenv", "run/.containerenv"] {
            assert!(is_left_out("", path) && is_ignored(path.as_bytes(), Kind::File, 7, false), "{path}");
            assert!(!is_left_out("", &format!("a/{path}")), "{path}");
        }
        for path in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
            let path = path.as_bytes();
            assert!(is_ignored(path, Kind::File, 0, true));
            assert!(!is_ignored(path, Kind::File, 1, true), "it was written on purpose");
            assert!(!is_ignored(path, Kind::File, 0, false), "it was copied with the whole tree");
            assert!(!is_ignored(path, Kind::Directory, 0, true));
        }
        assert!(is_ignored(b"etc/mtab", Kind::Symlink, 12, true) && !is_ignored(b"etc/mtab", Kind::File, 12, true));
        let wanted = |ignore: &[u8]| !IgnoreRules::new(ignore).and_of_runtimes().matches(b"etc/hosts", Kind::File, 0);
        assert!(wanted(b"!/etc/hosts") && !wanted(b""));
    }

    #[test]
    fn patterns_follow_the_documented_part_of_gitignore() {
        for (ignore, path, expected) in [
            ("*.o", "a/b.o", true),
            ("*.o\n!keep.o", "keep.o", false),
            ("# *.o", "a.o", false),
            ("/build", "build/", true),
            ("/build", "a/build/", false),
            ("build/", "build", false),
            ("build/", "a/build/", true),
            ("a/*.txt", "a/x.txt", true),
            ("a/*.txt", "a/b/x.txt", false),
            ("a/**/x", "a/x", true),
            ("a/**/x", "a/b/c/x", true),
            ("a/**/x", "ab/x", false),
            ("**/x", "x", true),
            ("**/x", "a/b/x", true),
            ("**/x", "a/bx", false),
            ("/a**c", "a/b/c", true),
            ("a/**", "a/b/c", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("\\#x", "#x", true),
            ("x \r\n", "x", true),
            ("[ab]", "a", false),
            ("!*.swp", "x.swp", false),
            ("a/**/b*d", "a/x/bcd", true),
        ] {
            assert_eq!(is_left_out(ignore, path), expected, "{ignore:?} {path}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = "*a".repeat(200) + "**b" + &"*a".repeat(200);
        assert!(!is_left_out(&format!("/{pattern}"), &"a".repeat(4000)));
    }

    #[test]
    fn the_content_of_an_ignored_directory_is_left_out_and_sockets_always() {
        let mut left_out = LeftOut::new(b"built/\n", true);
        let mut has = |path: &str, kind, is_upstream| left_out.has(path.as_bytes(), kind, 1, is_upstream);
        assert!(
            has("built", Kind::Directory, false) && has("built/deep", Kind::Directory, false) && has("built/deep/a", Kind::File, false)
        );
        assert!(!has("builtin", Kind::File, false) && !has("kept.swp", Kind::File, true));
        assert!(has("new.swp", Kind::File, false) && has("socket", Kind::Socket, true));
    }
}
