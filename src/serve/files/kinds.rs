//! Media types by file name, and whether a browser may display a file or must save it. Pure.
//!
//! Files of artifacts are untrusted: formats that can carry script, markup or styles are saved, never displayed.

use axum::http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The characters that RFC 8187 leaves unencoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";

/// Media types of passive text and images, with their extensions.
const HARMLESS: [(&str, &[&str]); 9] = [
    (
        TEXT,
        &[
            "txt",
            "text",
            "log",
            "md",
            "markdown",
            "rst",
            "adoc",
            "yaml",
            "yml",
            "toml",
            "ini",
            "cfg",
            "conf",
            "env",
            "properties",
            "lock",
            "sum",
            "sha256",
            "asc",
            "sig",
            "diff",
            "patch",
            "rs",
            "go",
            "py",
            "c",
            "h",
            "cc",
            "cpp",
            "hpp",
            "java",
            "kt",
            "rb",
            "pl",
            "lua",
            "sh",
            "bash",
            "zsh",
            "fish",
            "sql",
            "proto",
            "tf",
            "hcl",
            "rego",
            "cue",
            "gradle",
            "cmake",
            "mk",
            "service",
            "spec",
        ],
    ),
    ("application/json", &["json"]),
    ("text/csv; charset=utf-8", &["csv"]),
    ("image/png", &["png"]),
    ("image/jpeg", &["jpg", "jpeg"]),
    ("image/gif", &["gif"]),
    ("image/webp", &["webp"]),
    ("image/avif", &["avif"]),
    ("image/bmp", &["bmp"]),
];

/// Other known media types.
const OTHERS: [(&str, &[&str]); 31] = [
    ("text/html; charset=utf-8", &["html", "htm"]),
    ("application/xhtml+xml", &["xhtml", "xht"]),
    ("image/svg+xml", &["svg"]),
    ("application/xml", &["xml", "xsl", "xsd", "rss", "atom"]),
    ("text/css; charset=utf-8", &["css"]),
    ("text/javascript; charset=utf-8", &["js", "mjs", "cjs"]),
    ("application/pdf", &["pdf"]),
    ("application/wasm", &["wasm"]),
    ("application/ld+json", &["jsonld"]),
    ("application/x-ndjson", &["ndjson", "jsonl"]),
    ("application/gzip", &["gz", "tgz"]),
    ("application/zstd", &["zst"]),
    ("application/x-xz", &["xz", "txz"]),
    ("application/x-bzip2", &["bz2", "tbz2"]),
    ("application/x-tar", &["tar"]),
    ("application/zip", &["zip"]),
    ("application/x-7z-compressed", &["7z"]),
    ("application/java-archive", &["jar", "war"]),
    ("application/vnd.debian.binary-package", &["deb"]),
    ("application/x-rpm", &["rpm"]),
    ("application/vnd.apache.parquet", &["parquet"]),
    ("application/vnd.sqlite3", &["sqlite", "sqlite3", "db"]),
    ("image/x-icon", &["ico"]),
    ("image/tiff", &["tif", "tiff"]),
    ("font/woff2", &["woff2"]),
    ("font/woff", &["woff"]),
    ("font/ttf", &["ttf"]),
    ("audio/mpeg", &["mp3"]),
    ("audio/ogg", &["ogg", "opus"]),
    ("video/mp4", &["mp4"]),
    ("video/webm", &["webm"]),
];

/// Names of text files without an extension.
const TEXTS: [&str; 13] = [
    "license",
    "licence",
    "copying",
    "notice",
    "readme",
    "changelog",
    "authors",
    "version",
    "makefile",
    "dockerfile",
    "containerfile",
    ".gitignore",
    ".dockerignore",
];

/// How a browser should treat a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// The media type.
    pub(super) media_type: &'static str,
    /// Whether it may be displayed.
    pub(super) is_harmless: bool,
}

/// The kind implied by a file name.
pub(super) fn kind(name: &[u8]) -> Kind {
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    if TEXTS.contains(&name.as_str()) {
        return Kind { media_type: TEXT, is_harmless: true };
    }
    let ending = name.rsplit_once('.').map(|(_, ending)| ending).unwrap_or_default();
    let find = |table: &[(&'static str, &[&str])]| table.iter().find(|(_, endings)| endings.contains(&ending)).map(|(found, _)| *found);
    match find(&HARMLESS) {
        Some(media_type) => Kind { media_type, is_harmless: true },
        None => Kind { media_type: find(&OTHERS).unwrap_or(BYTES), is_harmless: false },
    }
}

/// `Content-Disposition` of a file (RFC 6266): its name in ASCII, and in full where that differs.
pub(super) fn disposition(name: &[u8], is_harmless: bool) -> HeaderValue {
    let how = if is_harmless { "inline" } else { "attachment" };
    let name = String::from_utf8_lossy(name);
    let plain: String = name.chars().map(|character| if is_plain(character) { character } else { '_' }).collect();
    let full = if plain == name { String::new() } else { format!("; filename*=UTF-8''{}", utf8_percent_encode(&name, ENCODED)) };
    let value = if name.is_empty() { how.to_owned() } else { format!("{how}; filename=\"{plain}\"{full}") };
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("attachment"))
}

fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || " !#$&+-.^_`{}~()[],=@".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_follows_from_the_name() {
        for (name, media_type) in [
            ("notes.TXT", TEXT),
            ("LICENSE", TEXT),
            ("Dockerfile", TEXT),
            ("a.tar.gz", "application/gzip"),
            ("model.gguf", BYTES),
            ("noending", BYTES),
            ("", BYTES),
            ("txt", BYTES),
            (".png", "image/png"),
            ("x.json", "application/json"),
        ] {
            assert_eq!(kind(name.as_bytes()).media_type, media_type, "{name}");
        }
        assert_eq!(kind(b"\xff.png").media_type, "image/png");
    }

    #[test]
    fn files_that_can_carry_script_are_never_displayed() {
        for name in
            ["a.html", "a.HTM", "a.xhtml", "a.svg", "a.xml", "a.js", "a.css", "a.pdf", "a.txt.html", "a", "a.unknown", "a.wasm", "a.exe"]
        {
            assert!(!kind(name.as_bytes()).is_harmless, "{name}");
        }
        for name in ["a.txt", "a.html.txt", "a.png", "a.json", "README"] {
            assert!(kind(name.as_bytes()).is_harmless, "{name}");
        }
    }

    #[test]
    fn a_file_name_cannot_break_out_of_its_header() {
        let shown = |name: &str| disposition(name.as_bytes(), false).to_str().unwrap().to_owned();
        assert_eq!(shown("a b.txt"), "attachment; filename=\"a b.txt\"");
        assert_eq!(shown("a\"; x=\".html"), "attachment; filename=\"a__ x=_.html\"; filename*=UTF-8''a%22%3B%20x%3D%22.html");
        assert_eq!(shown("a\r\nSet-Cookie: x"), "attachment; filename=\"a__Set-Cookie_ x\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x");
        assert_eq!(shown("Grüße\\"), "attachment; filename=\"Gr__e_\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%5C");
        assert_eq!(disposition(b"\xff", true).to_str().unwrap(), "inline; filename=\"_\"; filename*=UTF-8''%EF%BF%BD");
        assert_eq!(shown(""), "attachment");
    }
}
