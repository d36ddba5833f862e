//! Mounts by the built binary, each test with its own home, cache and state. A mount and its daemon are gone when the value is dropped, whatever the
//! test or the daemon did.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Time limit for any single command. Only hung commands reach it.
const PATIENCE: &str = "120";

/// A user's isolated environment: home, configuration, runtime directory, cache and state.
pub struct Home {
    folder: TempDir,
    /// Additional environment variables of every command.
    variables: Vec<(String, OsString)>,
}

impl Home {
    /// An empty home.
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("ocifs-home-").unwrap();
        for name in ["config", "run", "cache", "state", "mounts"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder, variables: Vec::new() }
    }

    /// A path inside it, for files the test provides.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sets an environment variable of all later commands.
    pub fn set(&mut self, variable: &str, value: impl Into<OsString>) {
        self.variables.push((variable.to_owned(), value.into()));
    }

    /// Writes a file below it, creating directories.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The same, private to its owner.
    pub fn write_private(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(name, content);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// `ocifs ARGS…` with a clean environment except the path, killed if it hangs.
    pub fn ocifs(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--signal", "KILL", PATIENCE, env!("CARGO_BIN_EXE_ocifs")]).args(args).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder.path());
        for (variable, name) in
            [("XDG_CONFIG_HOME", "config"), ("XDG_RUNTIME_DIR", "run"), ("XDG_CACHE_HOME", "cache"), ("XDG_STATE_HOME", "state")]
        {
            command.env(variable, self.path(name));
        }
        command.envs(self.variables.iter().map(|(variable, value)| (variable, value)));
        command
    }

    /// Runs `ocifs ARGS…` to completion.
    pub fn run(&self, args: &[&str]) -> Output {
        self.ocifs(args).output().unwrap()
    }

    /// Mounts; must succeed.
    pub fn mount(&self, source: &str, flags: &[&str]) -> Mount<'_> {
        self.try_mount(source, flags).unwrap_or_else(|output| panic!("mount {source} failed:\n{}", text(&output)))
    }

    /// Mounts, or returns the command's output.
    pub fn try_mount(&self, source: &str, flags: &[&str]) -> Result<Mount<'_>, Output> {
        let point = TempDir::with_prefix_in("m-", self.path("mounts")).unwrap();
        let (cache, state, target) = (self.path("cache"), self.path("state"), point.path().to_owned());
        let mut args =
            vec!["mount", source, target.to_str().unwrap(), "--cache-dir", cache.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
        args.extend(flags);
        // Created first, so that a mount that fails half-way is cleaned up too.
        let mount = Mount { home: self, point: Some(point) };
        let output = self.run(&args);
        if output.status.success() { Ok(mount) } else { Err(output) }
    }
}

/// The output and exit status of a command, for messages.
pub fn text(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A live mount.
pub struct Mount<'home> {
    home: &'home Home,
    point: Option<TempDir>,
}

impl Mount<'_> {
    /// The mount point.
    pub fn root(&self) -> &Path {
        self.point.as_ref().unwrap().path()
    }

    /// A path below the mount point.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// The bytes of a file.
    pub fn cat(&self, name: &str) -> std::io::Result<Vec<u8>> {
        std::fs::read(self.path(name))
    }

    /// The sorted names in a directory.
    pub fn ls(&self, name: &str) -> std::io::Result<Vec<String>> {
        let names: std::io::Result<Vec<String>> =
            std::fs::read_dir(self.path(name))?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
        let mut names = names?;
        names.sort();
        Ok(names)
    }

    /// Compares a directory with a `treelist` list; returns the differences as the error.
    pub fn compare(&self, expected: &Path, name: &str) -> Result<(), String> {
        let treelist = super::layouts::fixtures().join("treelist");
        let output = Command::new("timeout")
            .args(["--signal", "KILL", PATIENCE, "python3"])
            .arg(treelist)
            .args(["--links", "--xattrs", "--compare"])
            .args([expected, &self.path(name)])
            .output()
            .unwrap();
        if output.status.success() { Ok(()) } else { Err(text(&output)) }
    }

    /// A program that reads this file to its end, killed if it hangs.
    pub fn reader(&self, name: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--signal", "KILL", PATIENCE, "cat"]).arg(self.path(name)).stdin(Stdio::null());
        command
    }

    /// The process that serves this mount.
    pub fn daemon(&self) -> rustix::process::Pid {
        let serves = |pid: &i32| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut arguments = arguments.split(|byte| *byte == 0);
            arguments.next().is_some_and(|program| program.ends_with(b"ocifs"))
                && arguments.next() == Some(b"mount")
                && arguments.any(|argument| argument == self.root().as_os_str().as_encoded_bytes())
        };
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let found: Vec<i32> = processes.filter(serves).collect();
        assert_eq!(found.len(), 1, "processes of {}", self.root().display());
        rustix::process::Pid::from_raw(found[0]).unwrap()
    }

    /// The daemon's log so far.
    pub fn log(&self) -> String {
        let folder = self.home.path("state/log");
        let name = self.root().file_name().unwrap().to_str().unwrap();
        let mine = |path: &PathBuf| path.to_string_lossy().contains(name);
        let paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(mine).collect();
        let text: String = paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        // Nobody can write lines into it that look like its own, or break one.
        assert!(text.lines().all(|line| line.starts_with("20")), "an event of the log is more than a line:\n{text}");
        text
    }

    /// Anonymous memory of the daemon, in bytes.
    pub fn anonymous_memory(&self) -> u64 {
        anonymous_memory(self.daemon())
    }

    /// Runs `work` and returns the daemon's peak anonymous memory.
    pub fn peak_of<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        let (daemon, over) = (self.daemon(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut peak = 0;
                while !over.load(Ordering::Relaxed) {
                    peak = peak.max(anonymous_memory(daemon));
                    std::thread::sleep(Duration::from_millis(2));
                }
                peak.max(anonymous_memory(daemon))
            });
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            over.store(true, Ordering::Relaxed);
            let peak = watcher.join().unwrap();
            (done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), peak)
        })
    }

    /// The command line of `ocifs COMMAND ROOT FLAGS…`.
    pub fn ocifs(&self, command: &str, flags: &[&str]) -> Command {
        self.home.ocifs(&[&[command, self.root().to_str().unwrap()], flags].concat())
    }

    /// Runs `ocifs COMMAND ROOT FLAGS…` to completion.
    pub fn run(&self, command: &str, flags: &[&str]) -> Output {
        self.ocifs(command, flags).output().unwrap()
    }

    /// Publishes; must succeed. Returns the output.
    #[track_caller]
    pub fn sync(&self, flags: &[&str]) -> String {
        let output = self.run("sync", flags);
        assert!(output.status.success(), "sync failed:\n{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes a file, creating directories.
    #[track_caller]
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Unmounts without publishing; edits stay staged.
    pub fn leave(self) {
        let output = self.run("umount", &["--no-sync"]);
        assert!(output.status.success(), "umount failed:\n{}", text(&output));
    }

    /// Unmounts with the command; must succeed.
    pub fn unmount(self) {
        let output = self.home.run(&["umount", self.root().to_str().unwrap()]);
        assert!(output.status.success(), "umount failed:\n{}", text(&output));
        assert!(!is_mounted(self.root()), "umount returned before the mount was gone");
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let Some(point) = self.point.take() else { return };
        if is_mounted(point.path()) {
            // Edits staged by a failed test are useless.
            let _ = self.home.ocifs(&["umount", "--no-sync"]).arg(point.path()).output();
        }
        if is_mounted(point.path()) {
            let _ = Command::new("umount").arg("-l").arg(point.path()).output();
        }
        if is_mounted(point.path()) {
            let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(point.path()).output();
        }
    }
}

fn anonymous_memory(daemon: rustix::process::Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Whether the kernel's table has a mount there; cannot hang.
pub fn is_mounted(point: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == point.to_str())
}

/// Whether the kernel's table has a mount anywhere below.
pub fn any_mounted_below(folder: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter_map(|line| line.split(' ').nth(4)).any(|point| Path::new(point).starts_with(folder))
}
