//! Home and XDG directories, and the default directories for cache, state and sockets.
//!
//! Apart from clap, the only reader of environment variables. Paths are made absolute, since the daemon runs in `/`.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cli::exit::Failure;
use crate::cli::terminal::escape;
use crate::sys::process;

/// The relevant variables, held here so that tests need not change the process environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Whether the process runs as root.
    pub root: bool,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`.
    pub cache_home: Option<PathBuf>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_directory: Option<PathBuf>,
    /// The oci-sync configuration file named by the user.
    pub oci_sync_file: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process. Relative XDG paths are ignored, as the specification demands.
    pub fn of_process() -> Self {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            root: process::effective_uid() == 0,
            home: absolute("HOME"),
            cache_home: absolute("XDG_CACHE_HOME"),
            state_home: absolute("XDG_STATE_HOME"),
            config_home: absolute("XDG_CONFIG_HOME"),
            runtime_directory: absolute("XDG_RUNTIME_DIR"),
            oci_sync_file: None,
        }
    }

    /// The default cache directory.
    ///
    /// # Errors
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set.
    pub fn cache_directory(&self) -> Result<PathBuf, Failure> {
        self.place(&self.cache_home, ".cache", "/var/cache", ("XDG_CACHE_HOME", "--cache-dir"))
    }

    /// The default state directory.
    ///
    /// # Errors
    /// Neither `XDG_STATE_HOME` nor `HOME` is set.
    pub fn state_directory(&self) -> Result<PathBuf, Failure> {
        self.place(&self.state_home, ".local/state", "/var/lib", ("XDG_STATE_HOME", "--state-dir"))
    }

    fn place(&self, xdg: &Option<PathBuf>, in_home: &str, as_root: &str, names: (&str, &str)) -> Result<PathBuf, Failure> {
        let parent = match (self.own(xdg), self.root, &self.home) {
            (Some(directory), _, _) => directory.clone(),
            (None, true, _) => PathBuf::from(as_root),
            (None, false, Some(home)) => home.join(in_home),
            (None, false, None) => {
                return Err(Failure::usage(format!("neither {} nor HOME is set in the environment; use {}", names.0, names.1)));
            }
        };
        Ok(parent.join("ocifs"))
    }

    /// The default configuration file.
    pub fn configuration_file(&self) -> Option<PathBuf> {
        self.configuration_home().map(|parent| parent.join("ocifs/config.yaml"))
    }

    /// oci-sync's file in the home directory.
    pub fn home_of_oci_sync(&self) -> Option<PathBuf> {
        self.configuration_home().map(|parent| parent.join("oci-sync/oci-sync.yaml"))
    }

    /// The directory of configuration files.
    pub fn configuration_home(&self) -> Option<PathBuf> {
        self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")))
    }

    /// The same, unless this process is root and it belongs to another user.
    pub fn own_configuration_home(&self) -> Option<PathBuf> {
        self.own(&self.configuration_home()).cloned()
    }

    /// The directory of a daemon's socket.
    pub fn socket_directory(&self, state_directory: &Path) -> PathBuf {
        match self.own(&self.runtime_directory) {
            Some(directory) if directory.is_dir() => directory.join("ocifs"),
            _ => state_directory.join("run"),
        }
    }

    /// The directory if this process may create files in it. Root ignores directories of other users (`sudo -E` keeps their variables), since
    /// they would lose access to root's files.
    fn own<'environment>(&self, directory: &'environment Option<PathBuf>) -> Option<&'environment PathBuf> {
        let is_foreign = |path: &Path| path.ancestors().find_map(|path| path.metadata().ok()).is_some_and(|found| found.uid() != 0);
        directory.as_ref().filter(|directory| !self.root || !is_foreign(directory))
    }

    /// Directories that may hold daemon sockets: a daemon's environment may differ from ours (sudo, a service, fstab). Root also searches
    /// those of the mount's owner.
    pub fn socket_directories(&self, state_directory: Option<&Path>, owner: Option<u32>) -> Vec<PathBuf> {
        let mut found = Vec::new();
        found.extend(self.runtime_directory.as_ref().map(|directory| directory.join("ocifs")));
        found.extend(state_directory.map(|directory| directory.join("run")));
        found.extend(self.state_directory().ok().map(|directory| directory.join("run")));
        found.push(PathBuf::from(format!("/run/user/{}/ocifs", owner.unwrap_or_else(process::effective_uid))));
        if self.root {
            found.push(PathBuf::from("/var/lib/ocifs/run"));
        }
        let mut seen = std::collections::HashSet::new();
        found.retain(|directory| seen.insert(directory.clone()));
        found
    }

    /// Makes a user's path absolute; expands `~/`, for paths that no shell has seen.
    ///
    /// # Errors
    /// There is no working directory, or `HOME` is not set.
    pub fn absolute(&self, path: &Path, base: Option<&Path>) -> Result<PathBuf, Failure> {
        if let Ok(rest) = path.strip_prefix("~") {
            let home = self.home.as_ref().ok_or_else(|| Failure::usage("HOME is not set in the environment; give paths without ~"))?;
            return Ok(home.join(rest));
        }
        let path = base.map_or_else(|| path.to_owned(), |base| base.join(path));
        std::path::absolute(&path).map_err(|error| Failure::usage(format!("cannot make {} absolute: {error}", escape::path(&path))))
    }
}

/// An environment variable; `None` if empty.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The variables with this prefix whose values are UTF-8.
pub fn with_prefix(prefix: &str) -> Vec<(String, String)> {
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    variables.filter(|(name, value)| name.starts_with(prefix) && !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_directories_follow_the_xdg_specification() {
        let mut user = Environment { home: Some("/home/a".into()), ..Environment::default() };
        assert_eq!(user.cache_directory().unwrap(), Path::new("/home/a/.cache/ocifs"));
        assert_eq!(user.state_directory().unwrap(), Path::new("/home/a/.local/state/ocifs"));
        assert_eq!(user.configuration_file().unwrap(), Path::new("/home/a/.config/ocifs/config.yaml"));
        user.cache_home = Some("/c".into());
        assert_eq!(user.cache_directory().unwrap(), Path::new("/c/ocifs"));
    }

    #[test]
    fn root_uses_system_directories_and_needs_no_home() {
        let root = Environment { root: true, ..Environment::default() };
        assert_eq!(root.cache_directory().unwrap(), Path::new("/var/cache/ocifs"));
        assert_eq!(root.state_directory().unwrap(), Path::new("/var/lib/ocifs"));
        assert_eq!(root.configuration_file(), None);
    }

    #[test]
    fn root_does_not_use_directories_of_another_user() {
        let place = tempfile::tempdir().unwrap();
        let set = || Some(place.path().join("not/yet/there"));
        let runtime_directory = Some(place.path().to_owned());
        let root = Environment { root: true, cache_home: set(), state_home: set(), runtime_directory, ..Environment::default() };
        let owned_by_root = place.path().metadata().unwrap().uid() == 0;
        let uses_it = |path: &Path| path.starts_with(place.path());
        assert_eq!(uses_it(&root.cache_directory().unwrap()), owned_by_root);
        if owned_by_root {
            std::os::unix::fs::chown(place.path(), Some(1), None).unwrap();
        }
        assert!(!uses_it(&root.cache_directory().unwrap()) && !uses_it(&root.state_directory().unwrap()));
        assert_eq!(root.socket_directory(Path::new("/s")), Path::new("/s/run"));
        assert!(uses_it(&Environment { root: false, ..root }.cache_directory().unwrap()));
    }

    #[test]
    fn a_missing_home_is_named() {
        let failure = Environment::default().cache_directory().unwrap_err();
        assert!(failure.message.contains("HOME") && failure.message.contains("--cache-dir"));
    }

    #[test]
    fn a_client_searches_every_directory_that_a_daemon_may_use() {
        let runtime = tempfile::tempdir().unwrap();
        let user = Environment { home: Some("/h".into()), runtime_directory: Some(runtime.path().into()), ..Environment::default() };
        let places = user.socket_directories(Some(Path::new("/s")), Some(7));
        assert_eq!(places[0], user.socket_directory(Path::new("/s")));
        assert!(places.contains(&"/s/run".into()) && places.contains(&"/h/.local/state/ocifs/run".into()));
        assert!(places.contains(&"/run/user/7/ocifs".into()));
    }
}
