//! Local files that a command packs: their paths, types and annotations as typed.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use chrono::{DateTime, SecondsFormat};

use crate::cli::exit::{Code, Failure};
use crate::cli::settings::environment;
use crate::cli::terminal::escape;
use crate::publish::{ArtifactKind, Config, Input, Metadata, NewKind};

/// Largest config or annotation file, in bytes.
const SMALL_FILE: u64 = 4 << 20;
/// The annotation for an artifact's creation time.
const CREATED: &str = "org.opencontainers.image.created";
/// Standard input.
pub const STDIN: &str = "-";

/// How paths are named in the artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// As given. Absolute paths and paths with leading `..` keep only their last component.
    AsGiven,
    /// By their last component, as in oci-sync.
    LastName,
}

impl Naming {
    /// The naming used by a kind of artifact.
    pub fn of(kind: NewKind) -> Self {
        if kind == NewKind::Editable(ArtifactKind::OciSync) { Self::LastName } else { Self::AsGiven }
    }
}

/// Paths as typed.
#[derive(Clone, Debug)]
pub struct Given {
    /// PATH, PATH:TYPE or `-`.
    pub paths: Vec<PathBuf>,
    /// The base of relative paths, if not the working directory.
    pub directory: Option<PathBuf>,
    /// Name of standard input.
    pub title: Option<String>,
    /// Directory to spool standard input in.
    pub scratch: PathBuf,
}

/// Locates the typed paths on disk. Reads standard input to its end if requested. Blocks.
///
/// # Errors
/// A path does not exist, or standard input has no title.
pub fn find(given: Given, naming: Naming) -> Result<Vec<Input>, Failure> {
    let base = given.directory.clone().unwrap_or_default();
    let mut inputs = Vec::new();
    for typed in &given.paths {
        if typed.as_os_str() == STDIN {
            inputs.push(standard_input(&given)?);
            continue;
        }
        let (path, media_type) = with_type(&base, typed)?;
        let disk = base.join(&path);
        inputs.push(Input { path: name(&path, &disk, naming)?, disk, media_type, bytes_only: false });
    }
    Ok(inputs)
}

fn standard_input(given: &Given) -> Result<Input, Failure> {
    let title = given.title.as_ref().ok_or_else(|| Failure::usage("standard input has no name; give one with --title"))?;
    let path = named(Path::new(title)).filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| Failure::usage(format!("`{}` is not a valid path in an artifact", escape::terminal(title))))?;
    let disk = given.scratch.join("stdin");
    let copied = std::fs::create_dir_all(&given.scratch).and_then(|()| {
        let mut file = std::fs::File::create(&disk)?;
        io::copy(&mut io::stdin().lock(), &mut file)
    });
    copied.map_err(|error| Failure::other(format!("cannot spool standard input to {}: {error}", escape::path(&disk))))?;
    Ok(Input { disk, path, media_type: None, bytes_only: true })
}

/// Splits PATH:TYPE, unless a file has that whole name.
fn with_type(base: &Path, typed: &Path) -> Result<(PathBuf, Option<String>), Failure> {
    let exists = |path: &Path| std::fs::symlink_metadata(base.join(path));
    let error = match exists(typed) {
        Ok(_) => return Ok((typed.to_path_buf(), None)),
        Err(error) => error,
    };
    if let Some((path, media_type)) = typed.to_str().and_then(|text| text.rsplit_once(':'))
        && !media_type.is_empty()
        && exists(Path::new(path)).is_ok()
    {
        return Ok((PathBuf::from(path), Some(media_type.to_owned())));
    }
    Err(unreadable(&base.join(typed), &error))
}

/// The failure for an unreadable file.
pub fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::NotFound { Code::NotFound } else { Code::Other };
    Failure::new(code, format!("cannot read {}: {error}", escape::path(path)))
}

/// The path in the artifact.
fn name(path: &Path, disk: &Path, naming: Naming) -> Result<Vec<u8>, Failure> {
    if let Some(whole) = named(path) {
        return Ok(if naming == Naming::LastName { crate::path::name(&whole).to_vec() } else { whole });
    }
    let unnamed = || Failure::usage(format!("{} has no name of its own; use -C {} .", escape::path(disk), escape::path(disk)));
    let real = disk.canonicalize().map_err(|error| Failure::other(format!("cannot read {}: {error}", escape::path(disk))))?;
    // The name as typed, if there is one; only `..` needs a lookup.
    let last = path.file_name().or_else(|| real.file_name()).ok_or_else(unnamed)?;
    Ok(last.as_bytes().to_vec())
}

/// A relative path without `.` and doubled slashes; `None` if it is absolute or leaves its base.
fn named(path: &Path) -> Option<Vec<u8>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.as_bytes()),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(names.join(&b'/'))
}

/// Parses NAME=VALUE.
///
/// # Errors
/// There is no `=`, or the name is empty.
pub fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Parses UID or UID:GID.
///
/// # Errors
/// Any other form.
pub fn owner(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is not a numeric id"));
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Ok((number(uid)?, number(gid)?))
}

/// `SOURCE_DATE_EPOCH` of reproducible-builds.org, in seconds since 1970: later times are clamped to it.
///
/// # Errors
/// It is not a number.
pub fn source_date() -> Result<Option<i64>, Failure> {
    let Some(text) = environment::variable("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = text.to_str().and_then(|text| text.parse().ok()).filter(|seconds| DateTime::from_timestamp(*seconds, 0).is_some());
    let invalid = || Failure::usage(format!("SOURCE_DATE_EPOCH is not a number of seconds: {}", text.to_string_lossy()));
    seconds.ok_or_else(invalid).map(Some)
}

/// The creation-time annotation.
pub fn created(seconds: i64) -> Option<(String, String)> {
    let time = DateTime::from_timestamp(seconds, 0)?;
    Some((CREATED.to_owned(), time.to_rfc3339_opts(SecondsFormat::Secs, true)))
}

/// Reads FILE or FILE:TYPE.
///
/// # Errors
/// It cannot be read.
pub fn config(typed: &Path) -> Result<Config, Failure> {
    let (path, media_type) = with_type(Path::new(""), typed)?;
    Ok(Config { media_type, bytes: small(&path)?.into() })
}

/// Reads a file of annotations: objects by title, `$manifest` and `$config`.
///
/// # Errors
/// It cannot be read, or holds something else.
pub fn annotation_file(path: &Path) -> Result<Metadata, Failure> {
    let invalid = |why: &dyn std::fmt::Display| Failure::usage(format!("{} is not a valid annotation file: {why}", escape::path(path)));
    let mut all: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_slice(&small(path)?).map_err(|error| invalid(&error))?;
    let annotations = all.remove("$manifest").unwrap_or_default();
    let config_annotations = all.remove("$config").unwrap_or_default();
    Ok(Metadata { annotations, config_annotations, layer_annotations: all, ..Metadata::default() })
}

/// Reads a file of at most 4 MiB, or standard input for `-`. Blocks.
///
/// # Errors
/// It cannot be read, or is larger.
pub fn small(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == STDIN {
        true => io::stdin().lock().take(SMALL_FILE + 1).read_to_end(&mut bytes),
        false => std::fs::File::open(path).and_then(|file| file.take(SMALL_FILE + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| unreadable(path, &error))?;
    match bytes.len() as u64 > SMALL_FILE {
        true => Err(Failure::usage(format!("{} is larger than 4 MiB", escape::path(path)))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_their_names_but_escaping_ones_only_the_last_component() {
        let name = |path: &str, naming| String::from_utf8(super::name(Path::new(path), Path::new("/tmp"), naming).unwrap()).unwrap();
        for (path, given, last) in [
            ("a/b", "a/b", "b"),
            ("./a//b/", "a/b", "b"),
            (".", "", ""),
            ("/x/y.bin", "y.bin", "y.bin"),
            ("../up", "up", "up"),
            ("..", "tmp", "tmp"),
        ] {
            assert_eq!((name(path, Naming::AsGiven).as_str(), name(path, Naming::LastName).as_str()), (given, last), "{path}");
        }
    }

    #[test]
    fn a_type_is_split_off_only_if_no_such_path_exists() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b:c", "b"] {
            std::fs::write(directory.path().join(name), b"").unwrap();
        }
        let split = |text: &str| with_type(directory.path(), Path::new(text)).map(|(path, kind)| (path.display().to_string(), kind));
        assert_eq!(split("a:text/plain").unwrap(), ("a".to_owned(), Some("text/plain".to_owned())));
        assert_eq!(split("b:c").unwrap(), ("b:c".to_owned(), None));
        assert_eq!(split("missing:x").unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn annotations_and_owners_are_parsed() {
        assert_eq!(annotation("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert!(annotation("a").is_err() && annotation("=b").is_err());
        assert_eq!((owner("5").unwrap(), owner("5:6").unwrap()), ((5, 5), (5, 6)));
        assert!(owner("root").is_err());
        assert_eq!(created(1_709_202_615).unwrap().1, "2024-02-29T10:30:15Z");
    }
}
