//! Programs driven by tests as a user would, with their real command lines, each in its own directory.

use super::mounting::text;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A directory and a shell in it. Everything the scripts leave there is removed when dropped.
pub struct Shell {
    folder: TempDir,
}

impl Shell {
    /// A shell in an empty directory that every user may enter.
    pub fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = TempDir::with_prefix("ocifs-shell-").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a script to completion, whatever the result. A hung script is killed after five minutes.
    pub fn attempt<V: AsRef<OsStr>>(&self, script: &str, variables: &[(&str, V)]) -> Output {
        self.attempt_within(300, script, variables)
    }

    /// The same with another time limit, in seconds.
    pub fn attempt_within<V: AsRef<OsStr>>(&self, seconds: u32, script: &str, variables: &[(&str, V)]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["--signal", "KILL", &seconds.to_string(), "bash", "-euo", "pipefail", "-c", script]).current_dir(self.folder.path());
        command
            .env("PATH", super::skip::search_path())
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        for (name, value) in variables {
            command.env(name, value);
        }
        command.output().unwrap()
    }

    /// Runs a script that must succeed, and returns its standard output.
    pub fn run<V: AsRef<OsStr>>(&self, script: &str, variables: &[(&str, V)]) -> String {
        let output = self.attempt(script, variables);
        assert!(output.status.success(), "{script}\n{}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A script about one directory, named `$M` in it.
    pub fn at(&self, directory: &Path, script: &str) -> String {
        self.run(script, &[("M", directory)])
    }

    /// The `treelist` list of a directory, in a file, for comparing a mount with.
    pub fn list(&self, directory: &Path, name: &str) -> PathBuf {
        let list = self.path(name);
        let treelist = super::layouts::fixtures().join("treelist");
        self.run(r#"python3 "$TREELIST" "$DIR" >"$LIST""#, &[("TREELIST", treelist.as_path()), ("DIR", directory), ("LIST", &list)]);
        list
    }
}
