//! `ocifs doctor`: each step reports its finding, with advice if it fails.

use serde_json::Value;

use crate::support::mounting::{Home, text};
use crate::support::registry::{Registry, Variant};
use crate::support::skip::{Need, lacks};

fn findings(home: &Home, arguments: &[&str], code: i32) -> Vec<(String, String, String)> {
    let output = home.run(&[&["doctor", "--format", "json"], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let all = report["findings"].as_array().unwrap().iter();
    all.map(|finding| (word(finding, "step"), word(finding, "verdict"), word(finding, "found") + &word(finding, "advice"))).collect()
}

fn verdict<'a>(findings: &'a [(String, String, String)], step: &str) -> (&'a str, &'a str) {
    let found = findings.iter().find(|(name, ..)| name == step).unwrap_or_else(|| panic!("{step} of {findings:?}"));
    (&found.1, &found.2)
}

#[test]
fn a_working_registry_passes_every_step() {
    if lacks(&[Need::Tool("docker-registry"), Need::Fuse]) {
        return;
    }
    let (home, registry) = (Home::new(), Registry::plain());
    let reference = format!("{}/team/app:v1", registry.host());
    home.write("file", "content");
    let pushed = home.run(&["push", &reference, home.path("file").to_str().unwrap()]);
    assert!(pushed.status.success(), "{}", text(&pushed));
    let tags = home.run(&["repo", "tags", &format!("{}/team/app", registry.host())]).stdout;
    let found = findings(&home, &[&reference], 0);
    for step in ["fuse", "cache", "state", "name", "connection", "credential", "api", "catalog", "tags", "uploads", "artifact", "ranges"] {
        assert_eq!(verdict(&found, step).0, "ok", "{step}: {found:?}");
    }
    assert_eq!(home.run(&["repo", "tags", &format!("{}/team/app", registry.host())]).stdout, tags);
}

#[test]
fn a_failing_step_gives_advice_and_an_exit_code() {
    if lacks(&[Need::Tool("docker-registry")]) {
        return;
    }
    let home = Home::new();
    let found = findings(&home, &["no-such-host.invalid/app"], 1);
    assert_eq!(verdict(&found, "name").0, "failed");
    assert!(verdict(&found, "name").1.contains("check the spelling"), "{found:?}");
    let registry = Registry::start(Variant { htpasswd: true, ..Variant::default() });
    let found = findings(&home, &[&registry.host()], 1);
    assert!(verdict(&found, "credential").1.contains("anonymous"), "{found:?}");
    assert!(verdict(&found, "api").0 == "failed" && verdict(&found, "api").1.contains("log in"), "{found:?}");
    let gone = {
        let registry = Registry::plain();
        registry.host()
    };
    let found = findings(&home, &[&gone], 1);
    assert_eq!((verdict(&found, "connection").0, verdict(&found, "api").0), ("warning", "failed"), "{found:?}");
}
