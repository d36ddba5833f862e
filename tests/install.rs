//! Where `scripts/install` puts files, installing into a test directory as a packager would.

use std::path::Path;
use std::process::{Command, Output};

fn install(destination: &Path, prefix: &str, home: &Path) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/install");
    let mut command = Command::new(script);
    command.arg(env!("CARGO_BIN_EXE_ocifs")).env("DESTDIR", destination).env("PREFIX", prefix).env("HOME", home);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs a shell script that must succeed; returns its output.
fn shell(script: &str, argument: &Path) -> String {
    let output = Command::new("bash").args(["-euc", script, "test"]).arg(argument).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn everything_is_installed_below_the_prefix_and_works_there() {
    let place = tempfile::tempdir().unwrap();
    let output = install(place.path(), "/usr", place.path());
    let below = |path: &str| place.path().join(path);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        assert!(below(line.trim_start_matches('/')).symlink_metadata().is_ok(), "{line}");
    }
    assert!(shell("\"$1\" --version", &below("usr/bin/ocifs")).starts_with("ocifs "));
    let helper = ["usr/sbin/mount.ocifs", "sbin/mount.ocifs"].map(below).into_iter().find(|path| path.is_symlink()).unwrap();
    assert_eq!(helper.read_link().unwrap(), Path::new("/usr/bin/ocifs"));
    let completions = shell(
        "source \"$1\"; complete -p ocifs; COMP_WORDS=(ocifs mou); COMP_CWORD=1; _ocifs ocifs mou ocifs; echo ${COMPREPLY[*]}",
        &below("usr/share/bash-completion/completions/ocifs"),
    );
    assert!(completions.contains("-F _ocifs") && completions.lines().last() == Some("mount"), "{completions}");
    for page in ["ocifs", "ocifs-mount", "ocifs-push", "ocifs-manifest-get"] {
        let text = std::fs::read_to_string(below(&format!("usr/share/man/man1/{page}.1"))).unwrap();
        assert!(text.contains(".TH") && text.contains(".SH SYNOPSIS"), "{page}");
    }
    let unit = std::fs::read_to_string(below("usr/lib/systemd/system/ocifs@.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/ocifs mount --foreground") && !unit.contains("@PROGRAM@"), "{unit}");
    let unit = std::fs::read_to_string(below("usr/lib/systemd/system/ocifs-serve.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/bin/ocifs serve --config") && !unit.contains("@PROGRAM@"), "{unit}");
}

#[test]
fn an_installation_in_a_home_directory_writes_nothing_outside() {
    let place = tempfile::tempdir().unwrap();
    let home = place.path().join("home");
    install(Path::new(""), home.join(".local").to_str().unwrap(), &home);
    assert!(home.join(".local/bin/ocifs").is_file());
    assert!(home.join(".local/share/systemd/user/ocifs@.service").is_file());
    let outside: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside, ["home"]);
}
