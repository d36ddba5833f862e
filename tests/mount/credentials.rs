//! Where credentials come from, which one wins, and that none is ever exposed.

use crate::support::artifacts::Draft;
use crate::support::mounting::{Home, text};
use crate::support::proxy::Proxy;
use crate::support::registry::{PASSWORD, Registry, USER, Variant};
use crate::support::skip::{Need, lacks};
use crate::support::stored_login;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const NEEDS: [Need; 2] = [Need::Fuse, Need::Tool("docker-registry")];

/// A registry with a password, with `team/app:v1`.
fn guarded() -> Registry {
    let registry = Registry::start(Variant { htpasswd: true, ..Variant::default() });
    let mut draft = Draft::new();
    draft.files("v1", &[("one", b"1"), ("two", b"2")]);
    registry.writing(|url| draft.layout().push(url, "team/app"));
    registry
}

fn lets_in(home: &Home, source: &str, flags: &[&str]) -> bool {
    match home.try_mount(source, flags) {
        Ok(mount) => {
            assert_eq!(mount.cat("one").unwrap(), b"1");
            mount.unmount();
            true
        }
        Err(output) => {
            assert_eq!(output.status.code(), Some(11), "{}", text(&output));
            false
        }
    }
}

#[test]
fn the_first_file_with_the_registry_wins() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = guarded();
    let (mut home, source) = (Home::new(), format!("{}/team/app:v1", registry.host()));
    let right = stored_login(&registry.host(), USER, PASSWORD);
    let wrong = stored_login(&registry.host(), USER, "wrong");
    // From last to first: each right credential wins over the wrong one after it, and vice versa.
    let files = ["config/containers/auth.json", "run/containers/auth.json", ".docker/config.json"];
    for (number, file) in files.iter().enumerate() {
        home.write(file, &wrong);
        assert!(!lets_in(&home, &source, &[]), "{file} is asked before those after it");
        home.write(file, &right);
        assert!(lets_in(&home, &source, &[]), "{file} is read");
        assert!(number == 0 || home.path(files[number - 1]).exists());
    }
    let (docker, podman) = (home.path("docker"), home.path("podman.json"));
    home.set("DOCKER_CONFIG", docker);
    home.set("REGISTRY_AUTH_FILE", podman);
    for file in ["docker/config.json", "podman.json"] {
        home.write(file, &wrong);
        assert!(!lets_in(&home, &source, &[]), "{file} is asked before those after it");
        home.write(file, &right);
        assert!(lets_in(&home, &source, &[]), "{file} is read");
    }
    let named = home.write("named.json", &wrong);
    assert!(!lets_in(&home, &source, &["--registry-config", named.to_str().unwrap()]), "a file that is named is the only one");
    home.write("podman.json", &wrong);
    home.write("named.json", &right);
    assert!(lets_in(&home, &source, &["--registry-config", named.to_str().unwrap()]));
}

/// A helper program that answers what the files say: `server` is compared with what it is asked for.
fn helper(home: &Home, name: &str, server: &str, password: &str) {
    let script = format!(
        "#!/bin/sh\nread asked\necho \"$1 $asked\" >> {log}\n[ \"$asked\" = '{server}' ] || {{ echo 'credentials not found in native keychain'; exit 1; }}\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"{USER}\",\"Secret\":\"{password}\"}}'\n",
        log = home.path("helper.log").display(),
    );
    let file = home.write(&format!("bin/docker-credential-{name}"), script);
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn with_helpers() -> Home {
    let mut home = Home::new();
    let mut path = home.path("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    home.set("PATH", path);
    home
}

#[test]
fn helpers_are_programs_on_the_path() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = guarded();
    let (home, host) = (with_helpers(), registry.host());
    let source = format!("{host}/team/app:v1");
    helper(&home, "good", &host, PASSWORD);
    let config = |value: serde_json::Value| home.write(".docker/config.json", value.to_string());
    config(serde_json::json!({ "credHelpers": { host.clone(): "good" } }));
    assert!(lets_in(&home, &source, &[]));
    assert!(std::fs::read_to_string(home.path("helper.log")).unwrap().contains(&format!("get {host}\n")));
    config(serde_json::json!({ "credsStore": "good", "auths": { host.clone(): {} } }));
    assert!(lets_in(&home, &source, &[]));
    config(serde_json::json!({ "credsStore": "good", "credHelpers": { "other.example": "missing" } }));
    assert!(lets_in(&home, &source, &[]));
    config(serde_json::json!({ "credHelpers": { host.clone(): "missing" } }));
    let output = home.try_mount(&source, &[]).err().unwrap();
    assert_eq!(output.status.code(), Some(11));
    assert!(text(&output).contains("docker-credential-missing"), "{}", text(&output));
    config(serde_json::json!({ "credHelpers": { host.clone(): "../../bin/sh" } }));
    assert!(!lets_in(&home, &source, &[]));
}

#[test]
fn a_helper_inherits_nothing_meant_for_ocifs() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = guarded();
    let (mut home, host) = (with_helpers(), registry.host());
    for (name, value) in [
        ("OCIFS_LOG", "info"),
        ("OCIFS_PASSPHRASE", "hunter2"),
        ("LISTEN_FDS", "0"),
        ("LISTEN_FDNAMES", "x"),
        ("NOTIFY_SOCKET", "/none"),
        ("KEPT", "1"),
    ] {
        home.set(name, value);
    }
    let seen = home.path("seen");
    helper(&home, "nosy", &host, PASSWORD);
    let program = home.path("bin/docker-credential-nosy");
    let script = std::fs::read_to_string(&program).unwrap();
    let look = format!(
        "#!/bin/sh\n{{ env; echo \"parent $PPID\"; for fd in /proc/$$/fd/*; do echo \"fd $(readlink $fd)\"; done; }} >> {}\n",
        seen.display()
    );
    std::fs::write(&program, script.replace("#!/bin/sh\n", &look)).unwrap();
    home.write(".docker/config.json", serde_json::json!({ "credHelpers": { host.clone(): "nosy" } }).to_string());
    // A descriptor that the command inherits and the daemon must not pass on.
    let secret = home.write("secret", "x");
    let point = home.path("mounts");
    let (cache, state) = (home.path("cache"), home.path("state"));
    let source = format!("{host}/team/app:v1");
    let flags = ["--cache-dir", cache.to_str().unwrap(), "--state-dir", state.to_str().unwrap()];
    let command = home.ocifs(&[&["mount", &source, point.to_str().unwrap()], flags.as_slice()].concat());
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", r#"exec 9<"$0"; exec "$@""#]).arg(&secret).arg(command.get_program()).args(command.get_args());
    shell.env_clear().stdin(std::process::Stdio::null()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(std::fs::read(point.join("one")).unwrap(), b"1");
    let status: serde_json::Value = serde_json::from_slice(&home.run(&["status", "--format=json"]).stdout).unwrap();
    let daemon = status.to_string();
    home.run(&["umount", point.to_str().unwrap()]);
    let seen = std::fs::read_to_string(seen).unwrap();
    assert!(seen.contains("KEPT=1") && seen.contains("PATH="), "{seen}");
    let parents: Vec<&str> = seen.lines().filter_map(|line| line.strip_prefix("parent ")).collect();
    assert!(parents.iter().any(|pid| daemon.contains(&format!("\"pid\":{pid}"))), "asked by the daemon: {parents:?} {daemon}");
    for name in ["OCIFS_", "NOTIFY_SOCKET", "LISTEN_", "hunter2"] {
        assert!(!seen.contains(name), "{name}: {seen}");
    }
    // Its own script, pipes, `/dev/null`, and its output file.
    let own = |target: &&str| {
        ["pipe:", "/dev/null", "/proc/"].iter().any(|own| target.starts_with(own))
            || target.contains("/bin/docker-")
            || target.ends_with("/seen")
    };
    let strange: Vec<&str> = seen.lines().filter_map(|line| line.strip_prefix("fd ")).filter(|target| !own(target)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn the_longest_matching_path_wins() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = guarded();
    let (home, host) = (Home::new(), registry.host());
    let source = format!("{host}/team/app:v1");
    let login = |key: &str, password: &str| {
        let whole: serde_json::Value = serde_json::from_str(&stored_login(key, USER, password)).unwrap();
        whole["auths"].as_object().unwrap().clone()
    };
    for (keys, works) in [
        ([("", "wrong"), ("/team", PASSWORD)], true),
        ([("", PASSWORD), ("/team/app", "wrong")], false),
        ([("", PASSWORD), ("/team/ap", "wrong")], true),
        ([("/team", "wrong"), ("/team/app", PASSWORD)], true),
    ] {
        let auths: serde_json::Map<String, serde_json::Value> =
            keys.iter().flat_map(|(path, password)| login(&format!("{host}{path}"), password)).collect();
        home.write(".docker/config.json", serde_json::json!({ "auths": auths }).to_string());
        assert_eq!(lets_in(&home, &source, &[]), works, "{keys:?}");
    }
}

#[test]
fn a_login_that_changes_while_mounted_is_read_again() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = guarded();
    let proxy = Proxy::start(registry.url());
    let home = Home::new();
    home.write(".docker/config.json", stored_login(&proxy.host(), USER, PASSWORD));
    let mount = home.mount(&format!("{}/team/app:v1", proxy.host()), &[]);
    assert_eq!(mount.cat("one").unwrap(), b"1");
    home.write(".docker/config.json", stored_login(&proxy.host(), USER, "expired"));
    assert_eq!(mount.cat("two").unwrap_err().raw_os_error(), Some(rustix::io::Errno::ACCESS.raw_os_error()));
    assert_eq!(mount.cat("one").unwrap(), b"1");
    home.write(".docker/config.json", stored_login(&proxy.host(), USER, PASSWORD));
    assert_eq!(mount.cat("two").unwrap(), b"2");
    mount.unmount();
}

#[test]
fn an_expiring_token_is_replaced() {
    if lacks(&NEEDS) {
        return;
    }
    let registry = Registry::start(Variant { tokens: true, ..Variant::default() });
    let mut draft = Draft::new();
    draft.files("v1", &[("one", b"1"), ("two", b"2")]);
    registry.writing(|url| draft.layout().push(url, "team/app"));
    let (tokens, home) = (registry.tokens(), Home::new());
    tokens.set_pushes(true);
    home.write(".docker/config.json", stored_login(&registry.host(), USER, PASSWORD));
    let realm = tokens.realm().replace("/token", "");
    // One that the client knows has expired, and one that the registry refuses although it should be valid.
    for (number, (life, told)) in [(300, 1), (-58, 300)].into_iter().enumerate() {
        tokens.set_life(life, told);
        let mount = home.mount(&format!("{}/team", registry.host()), &["--trusted-realm", &realm]);
        assert_eq!(mount.cat("app/v1/one").unwrap(), b"1");
        let pulls = || tokens.requests().iter().filter(|request| request.scopes == ["repository:team/app:pull"]).count();
        let before = pulls();
        let mut asked = 0;
        while pulls() < before + 2 {
            // A name not requested yet costs a request; any answer but absence is an access failure.
            let error = std::fs::metadata(mount.path(format!("app/none-{asked}"))).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "after {asked} requests with tokens of {life} s: {error}");
            asked += 1;
            assert!(asked < 100_000, "no token was asked for anew");
        }
        for round in ["first", "second"] {
            mount.write("app/v1/new", format!("{round} {number}"));
            mount.sync(&[]);
        }
        assert_eq!(mount.cat("app/v1/two").unwrap(), b"2");
        mount.unmount();
        tokens.set_life(300, 300);
        let again = home.mount(&format!("{}/team/app:v1", registry.host()), &["--trusted-realm", &realm]);
        assert_eq!(again.cat("new").unwrap(), format!("second {number}").into_bytes());
        again.unmount();
    }
    assert!(tokens.requests().iter().all(|request| request.authenticated));
}

/// Every file below a directory that contains these bytes.
fn holding(folder: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(holding(&entry.path(), needle));
        } else if kind.is_file() && std::fs::read(entry.path()).unwrap().windows(needle.len()).any(|window| window == needle) {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

#[test]
fn a_password_appears_in_no_log_process_list_or_message() {
    if lacks(&NEEDS) {
        return;
    }
    for tokens in [false, true] {
        let registry = Registry::start(Variant { htpasswd: !tokens, tokens, ..Variant::default() });
        let mut draft = Draft::new();
        draft.files("v1", &[("one", b"1"), ("two", b"2")]);
        registry.writing(|url| draft.layout().push(url, "team/app"));
        let home = Home::new();
        let login = stored_login(&registry.host(), USER, PASSWORD);
        let file = home.write(".docker/config.json", &login);
        let encoded =
            serde_json::from_str::<serde_json::Value>(&login).unwrap()["auths"][registry.host()]["auth"].as_str().unwrap().to_owned();
        let realm = if tokens { registry.tokens().realm().replace("/token", "") } else { "https://unused.example".to_owned() };
        let mount = home.mount(&registry.host(), &["-vv", "--trusted-realm", &realm]);
        assert_eq!(mount.cat("team/app/v1/one").unwrap(), b"1");
        home.write(".docker/config.json", stored_login(&registry.host(), USER, "n0t-the-passw0rd"));
        let daemon = mount.daemon().as_raw_nonzero();
        let mut seen = std::fs::read(format!("/proc/{daemon}/cmdline")).unwrap();
        seen.extend(std::fs::read(mount.path(".oci/status.json")).unwrap());
        seen.extend(home.run(&["status", "--format=json"]).stdout);
        mount.unmount();
        let refused = home.try_mount(&registry.host(), &["-vv", "--trusted-realm", &realm]).err().unwrap();
        seen.extend(text(&refused).into_bytes());
        std::fs::remove_file(file).unwrap();
        let logs = holding(&home.path("state"), b"team/app");
        assert!(!logs.is_empty(), "the log tells of the requests");
        // Tokens here are JSON Web Tokens: they begin with the encoding of `{"`.
        for secret in [PASSWORD, encoded.as_str(), "n0t-the-passw0rd", "eyJ", "Basic ", "Bearer ey"] {
            assert_eq!(holding(&home.path(""), secret.as_bytes()), Vec::<String>::new(), "{secret}");
            assert!(!seen.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}: {}", String::from_utf8_lossy(&seen));
        }
    }
}
