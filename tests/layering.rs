//! The rules of the source tree, checked on every file: allowed imports between modules, crates reserved for a module, where unsafe
//! code may appear, file headers and length, and import cycles between files.
//!
//! The checker works on text with comments and literals blanked, so that it can check code that does not compile on this machine.
//! It reports file, line and rule of each violation, and reads only `.rs` files.

#[path = "layering/circles.rs"]
mod circles;
#[path = "layering/text.rs"]
mod text;

use std::fmt;
use std::path::{Path, PathBuf};

/// Every module and its layer. A module may import from lower layers only.
const LAYERS: [(&str, u8); 25] = [
    ("error", 0),
    ("oci", 0),
    ("sys", 0),
    ("durable", 0),
    ("flight", 0),
    ("blocking", 0),
    ("bounded", 0),
    ("path", 0),
    ("layer", 1),
    ("seal", 1),
    ("registry", 2),
    ("cache", 2),
    ("staging", 2),
    ("content", 3),
    ("artifact", 4),
    ("view", 5),
    ("publish", 6),
    ("transfer", 6),
    ("extract", 6),
    ("recipe", 7),
    ("fs", 7),
    ("fuse", 8),
    ("control", 8),
    ("serve", 8),
    ("cli", 9),
];

/// Imports within a layer that are allowed nevertheless: (importer, imported). They form no cycle.
const WITHIN_LAYER: [(&str, &str); 9] = [
    ("oci", "error"),
    ("sys", "error"),
    ("durable", "error"),
    ("flight", "error"),
    ("blocking", "error"),
    ("sys", "oci"),
    ("durable", "oci"),
    ("flight", "oci"),
    ("durable", "sys"),
];

/// Crates reserved for one module: (crate as written in code, modules). Tests may use them anywhere.
const OWNERS: [(&str, &[&str]); 27] = [
    ("rustix", &["sys"]),
    ("memmap2", &["sys"]),
    ("tar", &["layer"]),
    ("flate2", &["layer"]),
    ("libdeflater", &["layer"]),
    ("zstd", &["layer"]),
    ("zerocopy", &["sys", "layer", "artifact"]),
    ("libz_rs_sys", &["layer"]),
    ("aes_gcm", &["seal"]),
    ("aes", &["seal"]),
    ("ctr", &["seal"]),
    ("ghash", &["seal"]),
    ("scrypt", &["seal"]),
    ("age", &["seal"]),
    ("reqwest", &["registry"]),
    ("toml_edit", &["registry"]),
    ("object_store", &["registry"]),
    ("lru", &["cache", "bounded"]),
    ("rusqlite", &["staging"]),
    ("fuser", &["fuse"]),
    ("axum", &["serve"]),
    ("http_body", &["serve"]),
    ("prometheus_client", &["serve"]),
    ("hyper_util", &["serve"]),
    ("tokio_rustls", &["serve"]),
    ("bcrypt", &["serve"]),
    ("maud", &["serve"]),
];

/// `clap` has two users, the command line and the binary that starts it.
const CLAP: (&str, &[&str]) = ("clap", &["cli", "main"]);

/// Modules whose files still form cycles. The list only shrinks.
const WITH_CIRCLES: [&str; 1] = ["serve"];

const LONGEST_FILE: usize = 600;

struct Violation {
    file: PathBuf,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file.display(), self.line, self.rule)
    }
}

/// One file: its path relative to the package (`src/layer/tar.rs`), its text, and the text with literals blanked.
struct SourceFile<'text> {
    path: &'text Path,
    raw: &'text str,
    code: String,
    /// Number of the first line (from 0) of the tests at the end.
    tests_from: usize,
}

impl<'text> SourceFile<'text> {
    fn new(path: &'text Path, raw: &'text str) -> Self {
        let code = text::blank(raw);
        let tests_from = if is_test_file(path) { 0 } else { text::first_test_line(&code) };
        Self { path, raw, code, tests_from }
    }

    /// The top module of a file below `src`, `main` for the binary; none for the library's root and for tests.
    fn module(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src").ok()?.iter().next()?.to_str()?;
        Some(first.strip_suffix(".rs").unwrap_or(first)).filter(|module| *module != "lib")
    }

    /// The number of `super::` from the top of this file to the crate root.
    fn depth(&self) -> usize {
        let Ok(inside) = self.path.strip_prefix("src") else { return usize::MAX };
        let stem = inside.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let folders = inside.iter().count() - 1;
        // `x_tests.rs` is the module `tests` inside `x`.
        folders + usize::from(stem != "mod") + usize::from(stem.ends_with("_tests"))
    }

    fn report(&self, line: usize, rule: String) -> Violation {
        Violation { file: self.path.to_path_buf(), line: line + 1, rule }
    }
}

fn is_test_file(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    !path.starts_with("src") || stem == "tests" || stem.ends_with("_tests") || path.iter().any(|part| part == "tests")
}

fn check(path: &Path, raw: &str) -> Vec<Violation> {
    let source = SourceFile::new(path, raw);
    let mut found = Vec::new();
    check_shape(&source, &mut found);
    check_unsafe(&source, &mut found);
    if let Some(module) = source.module() {
        check_imports(&source, module, &mut found);
        check_crates(&source, module, &mut found);
    }
    check_climbing(&source, &mut found);
    found
}

fn check_shape(source: &SourceFile, found: &mut Vec<Violation>) {
    if !source.raw.starts_with("//!") {
        found.push(source.report(0, "a file starts with `//!`: what it owns, promises and never does".into()));
    }
    for (line, code) in source.code.lines().enumerate().filter(|(_, code)| code.contains("#[ignore")) {
        found.push(source.report(line, format!("no test is ignored: `{}`", code.trim())));
    }
    let lines = source.raw.lines().count().min(source.tests_from);
    if source.module().is_some() && lines > LONGEST_FILE {
        found.push(source.report(lines - 1, format!("{lines} lines of production code: {LONGEST_FILE} at most, make two ideas two files")));
    }
}

fn check_unsafe(source: &SourceFile, found: &mut Vec<Violation>) {
    if source.path.starts_with("src/sys") || source.path == Path::new("src/layer/inflate.rs") {
        return;
    }
    for (line, code) in source.code.lines().enumerate() {
        let allowed = code.contains("unsafe_code") && (code.contains("allow") || code.contains("expect"));
        if allowed || text::words(code).any(|(_, word)| word == "unsafe") {
            found.push(source.report(line, "unsafe code only in `sys` and `layer/inflate.rs`".into()));
        }
    }
}

fn check_imports(source: &SourceFile, module: &str, found: &mut Vec<Violation>) {
    let layer_of = |name: &str| LAYERS.iter().find(|(module, _)| *module == name).map(|(_, layer)| *layer);
    let own = if module == "main" { Some(u8::MAX) } else { layer_of(module) };
    let Some(own) = own else {
        found.push(source.report(0, format!("module `{module}` is not in the layer table")));
        return;
    };
    // The binary sees the library as an external crate.
    let root = if module == "main" { "ocifs" } else { "crate" };
    for (line, target) in text::paths_below(&source.code, root) {
        let Some(layer) = layer_of(&target) else {
            found.push(source.report(line, format!("`{root}::{target}` is not a module of the layer table")));
            continue;
        };
        if target != module && layer >= own && !WITHIN_LAYER.contains(&(module, target.as_str())) {
            found.push(source.report(line, format!("`{module}` (layer {own}) imports `{target}` (layer {layer}): only lower layers")));
        }
    }
}

fn check_crates(source: &SourceFile, module: &str, found: &mut Vec<Violation>) {
    for (line, code) in source.code.lines().enumerate().take(source.tests_from) {
        for name in text::roots_of_paths(code) {
            let owners = OWNERS.iter().chain([&CLAP]).find(|(owned, _)| *owned == name).map(|(_, owners)| *owners);
            if owners.is_some_and(|owners| !owners.contains(&module)) {
                found.push(source.report(line, format!("crate `{name}` belongs to `{}`", owners.unwrap_or_default().join("` and `"))));
            }
        }
    }
}

/// `super::super::oci` would be an import that [`check_imports`] cannot see.
fn check_climbing(source: &SourceFile, found: &mut Vec<Violation>) {
    let depth = source.depth();
    for (line, inner, climbs) in text::climbs(&source.code) {
        if climbs >= depth.saturating_add(inner) {
            found.push(source.report(line, "`super::` climbs to the root of the crate: write `crate::`".into()));
        }
    }
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            rust_files(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

#[test]
fn every_source_file_keeps_the_rules() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        rust_files(&package.join(folder), &mut files);
    }
    assert!(files.contains(&package.join("src/lib.rs")), "no sources below {}", package.display());
    let mut messages = Vec::new();
    for file in &files {
        let raw = std::fs::read_to_string(file).unwrap();
        messages.extend(check(file.strip_prefix(package).unwrap(), &raw).iter().map(ToString::to_string));
    }
    messages.sort();
    assert!(messages.is_empty(), "\n{}\n", messages.join("\n"));
}

/// The files of a module, by paths below `src` and texts.
fn files_of<'text>(module: &str, sources: impl Iterator<Item = (&'text Path, &'text str)>) -> Vec<circles::File> {
    let sources = sources.map(|(path, raw)| SourceFile::new(path, raw)).filter(|source| source.module() == Some(module));
    sources
        .filter(|source| source.tests_from > 0)
        .map(|source| circles::File::new(&below_src(source.path), &source.code, source.tests_from))
        .collect()
}

fn below_src(path: &Path) -> String {
    path.strip_prefix("src").unwrap_or(path).display().to_string()
}

#[test]
fn files_of_a_module_form_no_cycle() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    rust_files(&package.join("src"), &mut paths);
    let sources: Vec<(&Path, String)> =
        paths.iter().map(|path| (path.strip_prefix(package).unwrap(), std::fs::read_to_string(path).unwrap())).collect();
    for (module, _) in LAYERS.into_iter().filter(|(module, _)| !WITH_CIRCLES.contains(module)) {
        let (folder, file) = (format!("src/{module}"), format!("src/{module}.rs"));
        let own = sources.iter().filter(|(path, _)| path.starts_with(&folder) || *path == Path::new(&file));
        let files = files_of(module, own.map(|(path, raw)| (*path, raw.as_str())));
        assert!(!files.is_empty(), "`{module}` has no files");
        let found = circles::circles(&files);
        assert!(found.is_empty(), "files of `{module}` form circles; move what two files need to a leaf:\n{found:#?}");
    }
}

#[test]
fn cycles_of_files_are_found_through_groups_and_re_exports() {
    let circles = |sources: &[(&str, &str)]| {
        let sources: Vec<_> = sources.iter().map(|(path, raw)| (Path::new(path), *raw)).collect();
        circles::circles(&files_of("cache", sources.iter().copied()))
    };
    let exports = ("src/cache/mod.rs", "mod a;\nmod b;\nmod c;\npub use a::A;\npub use b::{self, B as Renamed};\n");
    let leaf = ("src/cache/c.rs", "pub struct C;\n");
    for (a, b) in [
        ("use super::b;\n", "use super::a::A;\n"),
        ("use crate::{cache::{b::B, c::C}, oci};\n", "fn f() -> crate::cache::a::A {}\n"),
        ("use crate::cache::{\n    Renamed,\n};\n", "use super::super::cache::A;\n"),
        ("use super::{C as D, b::{self, B}};\n", "use super::A;\n"),
    ] {
        let found = circles(&[exports, leaf, ("src/cache/a.rs", a), ("src/cache/b.rs", b)]);
        assert_eq!(found, [["cache/a → cache/b", "cache/b → cache/a"]], "{a}{b}");
    }
    let child = circles(&[("src/cache/mod.rs", "mod a;\nstruct S;\nfn f() { a::g() }\n"), ("src/cache/a.rs", "use super::S;\n")]);
    assert_eq!(child, [["cache → cache/a", "cache/a → cache"]]);
    let visible = circles(&[("src/cache/mod.rs", "mod a;\nfn f() { a::g() }\n"), ("src/cache/a.rs", "pub(in crate::cache) fn g() {}\n")]);
    assert_eq!(visible, Vec::<Vec<String>>::new(), "a visibility is no import");
    let test = "use super::b::B;\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n";
    let tests_of_b = "#[cfg(test)]\nmod tests {\n    use super::super::a::A;\n}\n";
    let harmless = circles(&[
        exports,
        leaf,
        ("src/cache/a.rs", test),
        ("src/cache/b.rs", tests_of_b),
        ("src/cache/a/tests.rs", "use super::super::b;\n"),
    ]);
    assert_eq!(harmless, Vec::<Vec<String>>::new());
}

/// Names in backticks with a slash or an extension, which denote files.
fn files_named_in(markdown: &str) -> impl Iterator<Item = &str> {
    let quoted = markdown.split('`').skip(1).step_by(2);
    quoted.filter(|name| !name.contains(char::is_whitespace) && (name.contains('/') || name.ends_with(".rs") || name.ends_with(".md")))
}

#[test]
fn the_map_of_the_code_names_files_that_exist() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = std::fs::read_to_string(package.join("src/README.md")).unwrap();
    let missing: Vec<_> =
        files_named_in(&map).filter(|name| !package.join("src").join(name).exists() && !package.join(name).exists()).collect();
    assert_eq!(missing, [] as [&str; 0]);
    assert!(files_named_in(&map).count() > 40, "the map is read");
}

/// The messages about a made-up text, without the file name.
fn verdict(path: &str, raw: &str) -> Vec<String> {
    check(Path::new(path), raw).iter().map(|violation| format!("{}: {}", violation.line, violation.rule)).collect()
}

#[test]
fn an_import_of_a_higher_or_equal_layer_is_found_in_every_spelling() {
    let head = "//! x\n";
    for spelling in [
        "use crate::fs::Handle;",
        "use crate::{error::ErrorKind, fs::{Handle, Node}};",
        "fn f() -> crate::fs::Handle {}",
        "use crate::{\n    error,\n    fs,\n};",
    ] {
        let found = verdict("src/cache/mod.rs", &format!("{head}{spelling}\n"));
        assert!(
            found.len() == 1 && found[0].ends_with("`cache` (layer 2) imports `fs` (layer 7): only lower layers"),
            "{spelling}: {found:?}"
        );
    }
    assert_eq!(
        verdict("src/cache/store.rs", "//! x\n\nuse crate::registry::Pull;\n"),
        ["3: `cache` (layer 2) imports `registry` (layer 2): only lower layers"]
    );
    assert_eq!(
        verdict("src/sys/mod.rs", "//! x\nuse crate::durable::Lock;\n"),
        ["2: `sys` (layer 0) imports `durable` (layer 0): only lower layers"]
    );
    assert_eq!(verdict("src/helpers.rs", "//! x\n"), ["1: module `helpers` is not in the layer table"]);
    assert_eq!(verdict("src/view/mod.rs", "//! x\nuse crate::helpers;\n"), ["2: `crate::helpers` is not a module of the layer table"]);
}

#[test]
fn imports_of_lower_layers_comments_and_strings_are_accepted() {
    for (path, line) in [
        ("src/content/mod.rs", "use crate::{cache, layer::LayerIndex, registry::{Pull, Error}, content::Span};"),
        ("src/durable/mod.rs", "use crate::sys::lock; use crate::oci::Digest;"),
        ("src/cache/mod.rs", "// crate::fs::Handle and tar::Archive and unsafe"),
        ("src/cache/mod.rs", "/* crate::fs /* unsafe */ rustix::fs */"),
        (
            "src/cache/mod.rs",
            "const A: &str = \"crate::fs \\\" unsafe\"; const B: char = '\"'; const C: &str = r#\"unsafe \" crate::fs\"#;",
        ),
        ("src/cache/mod.rs", "fn f<'a>(x: &'a str) -> &'a str { x } // crate::fs"),
        ("src/registry/mod.rs", "use super::registry::tar::Name; use self::tar::Name; use crate::layer::tar::Name;"),
        ("src/main.rs", "use ocifs::cli; use clap::Parser;"),
    ] {
        let found = verdict(path, &format!("//! x\n{line}\n"));
        let found: Vec<_> = found.iter().filter(|message| !message.contains("`super::`")).collect();
        assert!(found.is_empty(), "{line}: {found:?}");
    }
}

#[test]
fn a_crate_used_outside_its_module_is_found_except_in_tests() {
    assert_eq!(verdict("src/cache/mod.rs", "//! x\nuse rustix::fs::open;\n"), ["2: crate `rustix` belongs to `sys`"]);
    assert_eq!(verdict("src/layer/mod.rs", "//! x\nfn f(x: aes_gcm::Nonce) {}\n"), ["2: crate `aes_gcm` belongs to `seal`"]);
    assert_eq!(verdict("src/fs/mod.rs", "//! x\nuse {fuser::Request, std::io};\n"), ["2: crate `fuser` belongs to `fuse`"]);
    assert_eq!(verdict("src/control/mod.rs", "//! x\nuse clap;\n"), ["2: crate `clap` belongs to `cli` and `main`"]);
    assert!(verdict("src/seal/mod.rs", "//! x\nuse aes_gcm::Aes256Gcm;\n#[cfg(test)]\nmod tests {\n    use tar::Archive;\n}\n").is_empty());
    assert!(verdict("src/cache/tests.rs", "//! x\nuse tar::Archive;\n").is_empty());
    assert!(verdict("src/cache/store_tests.rs", "//! x\nuse flate2::read::GzDecoder;\n").is_empty());
}

#[test]
fn unsafe_code_headers_ignored_tests_and_length_are_found() {
    assert_eq!(verdict("src/cache/mod.rs", "//! x\nfn f() { unsafe { g() } }\n"), ["2: unsafe code only in `sys` and `layer/inflate.rs`"]);
    assert_eq!(verdict("src/cache/mod.rs", "//! x\n#![allow(unsafe_code)]\n"), ["2: unsafe code only in `sys` and `layer/inflate.rs`"]);
    assert!(verdict("src/sys/mod.rs", "//! x\nfn f() { unsafe { g() } }\n").is_empty());
    assert!(verdict("src/layer/inflate.rs", "//! x\nfn f() { unsafe { g() } }\n").is_empty());
    assert!(verdict("src/lib.rs", "//! x\n#![deny(unsafe_code)]\n").is_empty());
    assert_eq!(verdict("src/cache/mod.rs", "use std::io;\n"), ["1: a file starts with `//!`: what it owns, promises and never does"]);
    assert_eq!(verdict("tests/x.rs", "//! x\n#[test]\n#[ignore]\nfn f() {}\n"), ["3: no test is ignored: `#[ignore]`"]);
    let long = format!("//! x\n{}", "const A: u8 = 0;\n".repeat(600));
    assert_eq!(verdict("src/cache/mod.rs", &long), ["601: 601 lines of production code: 600 at most, make two ideas two files"]);
    let tested = format!("//! x\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    const A: u8 = 0;\n".repeat(700));
    assert!(verdict("src/cache/mod.rs", &tested).is_empty());
}

#[test]
fn climbing_out_of_a_module_is_found() {
    let rule = "2: `super::` climbs to the root of the crate: write `crate::`";
    assert_eq!(verdict("src/cache/mod.rs", "//! x\nuse super::fs;\n"), [rule]);
    assert_eq!(verdict("src/cache/store.rs", "//! x\nuse super::super::fs;\n"), [rule]);
    assert!(verdict("src/cache/store.rs", "//! x\nuse super::Entry;\n").is_empty());
    assert!(verdict("src/cache/mod.rs", "//! x\n#[cfg(test)]\nmod tests {\n    use super::Entry;\n}\n").is_empty());
    assert_eq!(verdict("src/cache/mod.rs", "//! x\n#[cfg(test)]\nmod tests {\n    use super::super::fs;\n}\n").len(), 1);
}
