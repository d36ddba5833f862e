//! Requirements of a test on the machine. An unmet requirement skips the test and says so loudly; under `CI=true`, where the scripts have installed
//! everything, it fails the test.

use std::ffi::OsString;
use std::path::Path;

/// Something a machine may lack.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A `/dev/fuse` that this user can open.
    Fuse,
    /// Root, for owners, devices and manual mounts.
    Root,
    /// The right to have the kernel read files in place of a FUSE daemon, and a kernel that can.
    Passthrough,
    /// A program on the path.
    Tool(&'static str),
    /// A file or directory from a package.
    File(&'static str),
}

impl Need {
    fn missing(self) -> Option<String> {
        let (met, what) = match self {
            Need::Fuse => (std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_ok(), "a usable /dev/fuse".to_owned()),
            Need::Root => (rustix::process::geteuid().is_root(), "root".to_owned()),
            Need::Passthrough => (has_passthrough(), "CAP_SYS_ADMIN and Linux 6.9".to_owned()),
            Need::Tool(name) => (on_path(name), format!("the program {name}")),
            Need::File(path) => (Path::new(path).exists(), path.to_owned()),
        };
        (!met).then_some(what)
    }
}

fn has_passthrough() -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut release = read("/proc/sys/kernel/osrelease");
    release.retain(|character| character.is_ascii_digit() || character == '.');
    let version: Vec<u32> = release.split('.').filter_map(|number| number.parse().ok()).collect();
    let status = read("/proc/self/status");
    let capabilities = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    version.as_slice() >= [6, 9].as_slice() && capabilities.is_some_and(|capabilities| capabilities >> 21 & 1 == 1)
}

/// Directories searched for programs, including where `scripts/test` builds those that no package provides.
pub fn search_path() -> OsString {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin");
    let mut path = built.into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

fn on_path(name: &str) -> bool {
    let path = search_path();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file()) || Path::new("/usr/sbin").join(name).is_file()
}

/// Whether the test must stop here because the machine lacks something. Panics under `CI=true`.
pub fn lacks(needs: &[Need]) -> bool {
    let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return false;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let message = format!("{test} needs {}: run scripts/test, which installs it", missing.join(" and "));
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{message}");
    // The test runner hides the output of passing tests; this must be visible.
    let _ = std::fs::OpenOptions::new().append(true).open("/dev/stderr").and_then(|mut stderr| {
        use std::io::Write;
        writeln!(stderr, "\n*** SKIPPED: {message} ***")
    });
    true
}
