//! Shortcuts: short names for repositories, in our file and in oci-sync's. `NAME push …` stands for a command on the repository.
//!
//! Ours is `shortcuts.yaml` beside the configuration file, so that comments in the latter survive. If both have a name, ours wins.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::environment::{self, Environment};
use super::oci_sync::OciSync;
use crate::cli::exit::{Code, Failure};
use crate::cli::terminal::escape;
use crate::durable::{self, RangeLock};
use crate::oci::Source;

/// Longest wait for another command that changes the file.
const PATIENCE: Duration = Duration::from_secs(10);

/// The verbs of shortcuts, and the commands they stand for.
const VERBS: [(&str, &str); 5] = [("push", "push"), ("pull", "pull"), ("list", "list"), ("delete", "rm"), ("rm", "rm")];

/// One shortcut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortcut {
    /// The repository.
    pub repository: String,
    /// The file that defines it.
    pub file: PathBuf,
    /// Whether that file is ours.
    pub own: bool,
}

/// All shortcuts, by name.
///
/// # Errors
/// A file is invalid.
pub fn all(environment: &Environment) -> Result<BTreeMap<String, Shortcut>, Failure> {
    let theirs = OciSync::load(environment)?;
    let mut found: BTreeMap<String, Shortcut> = BTreeMap::new();
    for (name, shortcut) in theirs.shortcuts {
        found.insert(name, Shortcut { repository: shortcut.repo, file: theirs.path.clone(), own: false });
    }
    if let Ok(file) = file(environment) {
        let own = read(&file)?.into_iter();
        found.extend(own.map(|(name, repository)| (name, Shortcut { repository, file: file.clone(), own: true })));
    }
    Ok(found)
}

/// Adds or replaces one of our shortcuts.
///
/// # Errors
/// The name or repository is invalid, or the file cannot be changed.
pub fn add(name: &str, repository: &str, environment: &Environment) -> Result<(), Failure> {
    check_name(name)?;
    check_repository(repository)?;
    change(environment, |shortcuts| {
        shortcuts.insert(name.to_owned(), repository.to_owned());
        Ok(())
    })
}

/// Removes one of our shortcuts.
///
/// # Errors
/// There is no such shortcut, or the file cannot be changed.
pub fn remove(name: &str, environment: &Environment) -> Result<(), Failure> {
    let shown = escape::terminal(name).into_owned();
    if let Some(theirs) = all(environment)?.get(name).filter(|shortcut| !shortcut.own) {
        return Err(Failure::usage(format!("`{shown}` is a shortcut of oci-sync; remove it from {}", escape::path(&theirs.file))));
    }
    change(environment, |shortcuts| match shortcuts.remove(name) {
        Some(_) => Ok(()),
        None => Err(Failure::new(Code::NotFound, format!("no shortcut `{shown}`"))),
    })
}

fn file(environment: &Environment) -> Result<PathBuf, Failure> {
    let beside = environment.configuration_file();
    beside.map(|file| file.with_file_name("shortcuts.yaml")).ok_or_else(|| Failure::usage("neither XDG_CONFIG_HOME nor HOME is set"))
}

fn read(file: &std::path::Path) -> Result<BTreeMap<String, String>, Failure> {
    let shown = || escape::path(file);
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => Ok(BTreeMap::new()),
        Ok(text) => {
            serde_saphyr::from_str(&text).map_err(|_| Failure::usage(format!("{} is not a list of `NAME: REPOSITORY` lines", shown())))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(BTreeMap::new()),
        Err(error) => Err(Failure::other(format!("cannot read {}: {error}", shown()))),
    }
}

fn change(environment: &Environment, edit: impl FnOnce(&mut BTreeMap<String, String>) -> Result<(), Failure>) -> Result<(), Failure> {
    let file = file(environment)?;
    let failed = |error: io::Error| Failure::other(format!("cannot write {}: {error}", escape::path(&file)));
    let folder = file.parent().map(std::path::Path::to_owned).unwrap_or_default();
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let lock = RangeLock::file(&folder.join(".shortcuts.lock"), PATIENCE).map_err(failed)?;
    let _lock = lock.ok_or_else(|| failed(io::ErrorKind::TimedOut.into()))?;
    let mut shortcuts = read(&file)?;
    edit(&mut shortcuts)?;
    let text = serde_saphyr::to_string(&shortcuts).map_err(|error| Failure::other(error.to_string()))?;
    durable::replace(&file, &[text.as_bytes()]).map_err(failed)
}

fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.bytes().all(plain) && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(Failure::usage(format!("`{}` is not a valid shortcut name: use letters, digits, and . _ -", escape::terminal(name))))
}

/// Checks that text names a repository or layout without tag or digest.
fn check_repository(text: &str) -> Result<(), Failure> {
    match Source::parse(text) {
        Ok(Source::Registry { prefix: Some(_), .. } | Source::Layout { name: None, .. }) => Ok(()),
        Ok(_) => Err(Failure::usage(format!("a shortcut names a repository without tag or digest, not {}", escape::terminal(text)))),
        Err(error) => Err(error.into()),
    }
}

/// The position of the first argument that is not a flag: a command or a shortcut. Flags before it are global.
pub fn place_of_command(arguments: &[OsString]) -> Option<usize> {
    let mut place = 1;
    while let Some(argument) = arguments.get(place) {
        match argument.to_str() {
            Some("--config" | "--oci-sync-config") => place += 2,
            Some(flag) if flag.starts_with('-') => place += 1,
            _ => return Some(place),
        }
    }
    None
}

/// The oci-sync file named by the arguments or the environment.
pub fn named_file(arguments: &[OsString]) -> Option<PathBuf> {
    let flag = OsStr::new("--oci-sync-config");
    let with_value = |argument: &OsString| Some(argument.to_str()?.strip_prefix("--oci-sync-config=")?.into());
    let apart = arguments.iter().position(|argument| argument == flag).and_then(|place| arguments.get(place + 1)).map(PathBuf::from);
    apart.or_else(|| arguments.iter().find_map(with_value)).or_else(|| environment::variable("OCIFS_OCI_SYNC_CONFIG").map(PathBuf::from))
}

/// Whether the argument after a name is a shortcut verb.
pub fn is_verb(argument: Option<&OsString>) -> bool {
    argument.and_then(|argument| argument.to_str()).is_some_and(|argument| VERBS.iter().any(|(verb, _)| *verb == argument))
}

/// Expands the shortcut at a position: `docs push --tag v1 …` becomes `push ghcr.io/me/docs:v1 …`.
///
/// # Errors
/// The verb is unknown, or a tag is missing.
pub fn expand(arguments: &[OsString], place: usize, shortcut: &Shortcut) -> Result<Vec<OsString>, Failure> {
    check_repository(&shortcut.repository).map_err(|failure| failure.context(escape::path(&shortcut.file)))?;
    let name = arguments.get(place).map(|name| escape::terminal(&name.to_string_lossy()).into_owned()).unwrap_or_default();
    let verb = arguments.get(place + 1).and_then(|verb| verb.to_str());
    let Some((verb, command)) = VERBS.into_iter().find(|(known, _)| Some(*known) == verb) else {
        return Err(Failure::usage(format!("`{name}` is a shortcut for {}; write {name} push|pull|list|delete", shortcut.repository)));
    };
    let (tag, rest) = take_tag(arguments.get(place + 2..).unwrap_or_default());
    let wants_help = rest.iter().any(|argument| argument == "--help" || argument == "-h");
    let reference = match (tag, verb) {
        (None, "list") => shortcut.repository.clone().into(),
        (None, _) if wants_help => shortcut.repository.clone().into(),
        (Some(_), "list") => return Err(Failure::usage(format!("`{name} list` takes no --tag"))),
        (Some(tag), _) if !tag.is_empty() => [OsStr::new(&shortcut.repository), OsStr::new(":"), &tag].into_iter().collect::<OsString>(),
        _ => return Err(Failure::usage(format!("name a tag: ocifs {name} {verb} --tag TAG"))),
    };
    let before = arguments.iter().take(place).cloned();
    Ok(before.chain([command.into(), reference]).chain(rest).collect())
}

/// Removes `--tag` or `-t`: its value, and the other arguments.
fn take_tag(arguments: &[OsString]) -> (Option<OsString>, Vec<OsString>) {
    let (mut tag, mut rest) = (None, Vec::new());
    let mut arguments = arguments.iter().cloned();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--tag" | "-t") => tag = Some(arguments.next().unwrap_or_default()),
            Some("--") => {
                rest.push(argument);
                rest.extend(arguments.by_ref());
            }
            text => match text.and_then(|text| text.strip_prefix("--tag=")) {
                Some(value) => tag = Some(value.into()),
                None => rest.push(argument),
            },
        }
    }
    (tag, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written_out(line: &str) -> Result<String, String> {
        let shortcut = Shortcut { repository: "localhost:5000/docs".into(), file: "/f".into(), own: true };
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let place = place_of_command(&arguments).unwrap();
        let expanded = expand(&arguments, place, &shortcut).map_err(|failure| failure.message)?;
        Ok(expanded.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_shortcut_stands_for_a_command_on_its_repository() {
        for (typed, meant) in [
            ("ocifs docs push -l dir --tag v1", "ocifs push localhost:5000/docs:v1 -l dir"),
            ("ocifs -v docs pull -t v1 -l out", "ocifs -v pull localhost:5000/docs:v1 -l out"),
            ("ocifs --config f docs delete --tag=v1 --yes", "ocifs --config f rm localhost:5000/docs:v1 --yes"),
            ("ocifs docs list -f json --label a=b", "ocifs list localhost:5000/docs -f json --label a=b"),
            ("ocifs docs push --tag v1 -- --tag", "ocifs push localhost:5000/docs:v1 -- --tag"),
            ("ocifs docs push --help", "ocifs push localhost:5000/docs --help"),
        ] {
            assert_eq!(written_out(typed).unwrap(), meant);
        }
        for (typed, why) in [
            ("ocifs docs push -l dir", "name a tag: ocifs docs push --tag TAG"),
            ("ocifs docs pull --tag", "name a tag"),
            ("ocifs docs delete --tag=", "name a tag"),
            ("ocifs docs list --tag v1", "takes no --tag"),
            ("ocifs docs mount", "write docs push|pull|list|delete"),
            ("ocifs docs", "write docs push|pull|list|delete"),
        ] {
            assert!(written_out(typed).unwrap_err().contains(why), "{typed}");
        }
    }

    #[test]
    fn a_shortcut_names_a_repository_and_nothing_more() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment { config_home: Some(home.path().into()), ..Environment::default() };
        for good in ["localhost:5000/x", "ghcr.io/me/docs", "oci:/srv/layout"] {
            add("docs", good, &environment).unwrap();
            assert_eq!(all(&environment).unwrap()["docs"].repository, good);
        }
        for bad in
            ["localhost:5000/x:v1", "ghcr.io/x@sha256:0000000000000000000000000000000000000000000000000000000000000000", "", "ghcr.io"]
        {
            assert_eq!(add("docs", bad, &environment).unwrap_err().code, Code::Usage, "{bad}");
        }
        for bad in ["", "-x", "a b", "a/b"] {
            assert_eq!(add(bad, "ghcr.io/me/docs", &environment).unwrap_err().code, Code::Usage, "{bad}");
        }
        remove("docs", &environment).unwrap();
        assert_eq!(remove("docs", &environment).unwrap_err().code, Code::NotFound);
    }

    #[test]
    fn our_shortcuts_override_those_of_oci_sync() {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment { config_home: Some(home.path().into()), ..Environment::default() };
        std::fs::create_dir(home.path().join("oci-sync")).unwrap();
        let theirs = "shortcuts: { docs: { repo: ghcr.io/their/docs }, other: { repo: ghcr.io/their/other } }";
        std::fs::write(home.path().join("oci-sync/oci-sync.yaml"), theirs).unwrap();
        add("docs", "ghcr.io/my/docs", &environment).unwrap();
        let found = all(&environment).unwrap();
        assert_eq!((found["docs"].repository.as_str(), found["other"].repository.as_str()), ("ghcr.io/my/docs", "ghcr.io/their/other"));
        assert!(remove("other", &environment).unwrap_err().message.contains("oci-sync.yaml"));
    }
}
