//! Finds and reads the files that concern a registry.

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::rules::{Own, Rule, Rules};
use super::{hosts_toml, registries_conf};
use crate::error::{Error, ErrorKind};
use crate::oci::Registry;

/// Largest file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// Locations of the files. Each may be missing, unless stated otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorFiles {
    /// Directories like `/etc/containerd/certs.d`, in order: the first with a `hosts.toml` for a registry wins.
    pub hosts: Vec<PathBuf>,
    /// The `registries.conf`.
    pub registries: Option<PathBuf>,
    /// The user named [`MirrorFiles::registries`], so it must exist.
    pub is_named: bool,
    /// Directories like `/etc/containers/registries.conf.d`, in order: later files replace entries of earlier ones.
    pub drop_ins: Vec<PathBuf>,
    /// Refuse files that belong to another user than root.
    pub only_of_root: bool,
}

impl MirrorFiles {
    /// The rules in the files for a registry.
    ///
    /// # Errors
    /// Invalid if a file that concerns it has a mistake, cannot be read, or belongs to another user; with path and line.
    pub fn rules(&self, registry: &Registry) -> Result<Rules, Error> {
        let rules = Rules { entries: self.entries(registry)?, ..Rules::default() };
        if let Some((path, text)) = self.hosts_file(&names(registry))? {
            let (rule, own) = parsed_hosts(&path, &text, registry)?;
            Ok(Rules { of_host: Some(rule), own, ..rules })
        } else if let Some((path, text)) = self.hosts_file(&["_default".to_owned()])? {
            let (rule, own) = parsed_hosts(&path, &text, registry)?;
            Ok(Rules { of_all: Some(rule), own, ..rules })
        } else {
            Ok(rules)
        }
    }

    /// The first `hosts.toml` in a directory with one of the names.
    fn hosts_file(&self, names: &[String]) -> Result<Option<(PathBuf, String)>, Error> {
        for path in self.hosts.iter().flat_map(|directory| names.iter().map(|name| directory.join(name).join("hosts.toml"))) {
            match self.read(&path) {
                Ok(Some(text)) => return Ok(Some((path, text))),
                Ok(None) => {}
                // A directory closed to this user belongs to the container engine.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::warn!("not reading {}: {error}", path.display().to_string().escape_debug());
                }
                Err(error) => return Err(unusable(&path, &error)),
            }
        }
        Ok(None)
    }

    /// The entries of all `registries.conf` files for a registry.
    fn entries(&self, registry: &Registry) -> Result<Vec<Rule>, Error> {
        let mut entries = Vec::new();
        for path in self.registry_files()? {
            let text = match self.read(&path).map_err(|error| unusable(&path, &error))? {
                Some(text) => text,
                None if self.is_named && Some(&path) == self.registries.as_ref() => return Err(unusable(&path, &"it does not exist")),
                None => continue,
            };
            let found = registries_conf::parse(&text, &path).map_err(|mistake| unusable(&path, &mistake))?;
            entries = registries_conf::merge(entries, found);
        }
        let rules = entries.iter().map(|entry| entry.rule(registry).map_err(|mistake| unusable(entry.file(), &mistake)));
        rules.filter_map(Result::transpose).collect()
    }

    fn registry_files(&self) -> Result<Vec<PathBuf>, Error> {
        let mut files: Vec<PathBuf> = self.registries.iter().cloned().collect();
        for directory in &self.drop_ins {
            let found = match fs::read_dir(directory) {
                Ok(found) => found,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
                Err(error) => return Err(unusable(directory, &error)),
            };
            let mut found: Vec<PathBuf> = found.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
            found.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
            found.sort();
            files.extend(found);
        }
        Ok(files)
    }

    /// The text of a file; `None` if it does not exist.
    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if self.only_of_root && metadata.uid() != 0 {
            let owner = metadata.uid();
            return Err(io::Error::other(format!(
                "it belongs to user {owner}; root trusts only its own files (chown it, or use --no-mirrors)"
            )));
        }
        if !metadata.is_file() || metadata.len() > LIMIT {
            return Err(io::Error::other("it is not a file of at most 1 MiB"));
        }
        io::read_to_string(file).map(Some)
    }
}

fn parsed_hosts(path: &Path, text: &str, registry: &Registry) -> Result<(Rule, Own), Error> {
    hosts_toml::parse(text, path, registry).map_err(|mistake| unusable(path, &mistake))
}

/// Names of a registry's directory, in containerd's search order.
fn names(registry: &Registry) -> Vec<String> {
    let name = registry.as_str();
    let with_port = name.rsplit_once(':').filter(|_| !name.ends_with(']'));
    let mut names: Vec<String> = with_port.map(|(host, port)| format!("{host}_{port}_")).into_iter().collect();
    names.push(name.to_owned());
    names
}

fn unusable(path: &Path, why: &dyn Display) -> Error {
    let path = path.display().to_string();
    Error::new(ErrorKind::Invalid, format!("{}: {why}", path.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Repository;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        fn files(&self) -> MirrorFiles {
            let at = |name: &str| self.0.path().join(name);
            MirrorFiles {
                hosts: vec![at("user/certs.d"), at("etc/certs.d")],
                registries: Some(at("registries.conf")),
                drop_ins: vec![at("etc/conf.d"), at("user/conf.d")],
                ..MirrorFiles::default()
            }
        }

        /// The hosts of the mirrors for a repository.
        fn mirrors(&self, registry: &str, repository: &str) -> Vec<String> {
            let rules = self.files().rules(&Registry::parse(registry).unwrap()).unwrap();
            let rule = rules.rule(Some(&Repository::parse(repository).unwrap()));
            rule.into_iter().flat_map(|rule| &rule.mirrors).map(|place| place.endpoint.host.as_str().to_owned()).collect()
        }
    }

    fn folder() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    #[test]
    fn hosts_toml_overrides_registries_conf_which_overrides_the_default() {
        let folder = folder();
        assert_eq!(folder.mirrors("reg.io", "a"), [""; 0]);
        folder.write("etc/certs.d/_default/hosts.toml", "[host.\"http://default\"]");
        assert_eq!(folder.mirrors("reg.io", "a"), ["default"]);
        folder.write("registries.conf", "[[registry]]\nprefix=\"reg.io/b\"\nmirror=[{location=\"conf\"}]\n");
        assert_eq!((folder.mirrors("reg.io", "a"), folder.mirrors("reg.io", "b/c")), (vec!["default".into()], vec!["conf".into()]));
        folder.write("etc/certs.d/reg.io/hosts.toml", "[host.\"http://system\"]");
        folder.write("user/certs.d/reg.io/hosts.toml", "[host.\"http://user\"]");
        assert_eq!((folder.mirrors("reg.io", "a"), folder.mirrors("reg.io", "b")), (vec!["user".to_owned()], vec!["user".into()]));
    }

    #[test]
    fn a_port_can_be_written_in_either_form() {
        let folder = folder();
        folder.write("etc/certs.d/reg.io:5000/hosts.toml", "[host.\"http://plain\"]");
        assert_eq!(folder.mirrors("reg.io:5000", "a"), ["plain"]);
        folder.write("etc/certs.d/reg.io_5000_/hosts.toml", "[host.\"http://underscores\"]");
        assert_eq!(folder.mirrors("reg.io:5000", "a"), ["underscores"]);
        assert_eq!(names(&Registry::parse("[::1]").unwrap()), ["[::1]"]);
    }

    #[test]
    fn drop_ins_replace_entries_of_the_file_in_order() {
        let folder = folder();
        let entry = |mirror: &str| format!("[[registry]]\nlocation=\"reg.io\"\nmirror=[{{location=\"{mirror}\"}}]\n");
        folder.write("registries.conf", &entry("first"));
        folder.write("etc/conf.d/20.conf", &entry("third"));
        folder.write("etc/conf.d/10.conf", &entry("second"));
        folder.write("etc/conf.d/30.txt", "garbage");
        assert_eq!(folder.mirrors("reg.io", "a"), ["third"]);
        folder.write("user/conf.d/00.conf", &entry("last"));
        assert_eq!(folder.mirrors("reg.io", "a"), ["last"]);
    }

    #[test]
    fn a_broken_file_is_an_error_only_for_its_registries() {
        let folder = folder();
        let path = folder.write("etc/certs.d/reg.io/hosts.toml", "[host.\"http://m\"]\nmirror = 1\n");
        let rules = |registry: &str| folder.files().rules(&Registry::parse(registry).unwrap());
        let error = rules("reg.io").unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_ref()),
            (ErrorKind::Invalid, &*format!("{}: line 2: `mirror`: unknown key", path.display()))
        );
        assert!(rules("other.io").is_ok());
        folder.write("registries.conf", "[[registry");
        assert!(rules("other.io").unwrap_err().message.contains("registries.conf: line 1"));
        let named = MirrorFiles { registries: Some("/no/such.conf".into()), is_named: true, ..MirrorFiles::default() };
        assert!(named.rules(&Registry::docker_hub()).unwrap_err().message.contains("/no/such.conf: it does not exist"));
    }

    #[test]
    fn root_refuses_a_file_of_another_user() {
        let folder = folder();
        let path = folder.write("registries.conf", "[[registry]]\nlocation=\"reg.io\"\nblocked=true\n");
        let files = MirrorFiles { only_of_root: true, ..folder.files() };
        // If this fails, the test does not run as root, and the file already belongs to another user.
        let _ = std::os::unix::fs::chown(&path, Some(1234), None);
        let error = files.rules(&Registry::docker_hub()).unwrap_err();
        assert!(error.message.contains("root trusts only its own files"), "{error}");
    }
}
